//! SM4-CTR.

use std::ffi::c_void;

use sm_accel::sm4::{Ctr, Key};

use super::{BLOCK, Context, Data, Facts, cipher};
use crate::provider::{
    count::{self, Operation},
    ffi::Dispatch,
    param::Param,
};

pub(in crate::provider) static CTR: [Dispatch; 15] = cipher!(SmCtr, gettable_params, settable_params);

#[derive(Clone)]
pub(super) struct SmCtr {
    key: Option<Key>,
    /// As it was given; `None` before.
    first: Option<[u8; BLOCK]>,
    stream: Option<Ctr>,
    taken: u128,
}

impl SmCtr {
    /// The counter block of the next whole block.
    fn counter(&self) -> Option<[u8; BLOCK]> {
        let blocks = self.taken.div_ceil(BLOCK as u128);
        self.first.map(|first| u128::from_be_bytes(first).wrapping_add(blocks).to_be_bytes())
    }
}

impl Context for SmCtr {
    const FACTS: Facts = Facts { mode: 5, block_size: 1, iv_length: BLOCK as u64, aead: false };

    fn new() -> SmCtr {
        SmCtr { key: None, first: None, stream: None, taken: 0 }
    }

    fn init(&mut self, _encrypt: bool, key: Option<Key>, iv: Option<&[u8]>) -> Option<()> {
        if let Some(iv) = iv {
            self.first = Some(iv.try_into().ok()?);
            self.taken = 0;
        }
        if let Some(key) = key {
            count::one(Operation::OtherMode);
            self.key = Some(key);
        }
        if let (Some(key), Some(counter)) = (&self.key, self.counter()) {
            self.stream = Some(Ctr::new(key.clone(), &counter));
        }
        Some(())
    }

    fn update(&mut self, data: Data) -> Option<usize> {
        self.key.as_ref()?;
        let data_in_place = data.in_out()?;
        self.stream.as_mut()?.apply(data_in_place);
        self.taken = self.taken.wrapping_add(data.length as u128);
        Some(data.length)
    }

    fn finish(&mut self, _out: *mut u8, _size: usize) -> Option<usize> {
        self.key.as_ref().map(|_| 0)
    }

    fn answer(&mut self, params: &mut [Param]) -> Option<()> {
        for param in params {
            if param.is(c"ivlen") {
                param.set_number(BLOCK as u64)?;
            } else if param.is(c"keylen") {
                param.set_number(super::KEY_LENGTH as u64)?;
            } else if param.is(c"padding") {
                param.set_number(1)?;
            } else if param.is(c"num") {
                param.set_number((self.taken % BLOCK as u128) as u64)?;
            } else if param.is(c"iv") {
                param.set_octets(&self.first?)?;
            } else if param.is(c"updated-iv") {
                param.set_octets(&self.counter()?)?;
            }
        }
        Some(())
    }

    fn set(&mut self, _params: &[Param]) -> Option<()> {
        Some(())
    }
}

extern "C" fn gettable_params(_context: *mut c_void, _provider: *mut c_void) -> *const Param {
    static LIST: [Param; 7] = [
        Param::number(c"keylen"),
        Param::number(c"ivlen"),
        Param::number(c"padding"),
        Param::number(c"num"),
        Param::octets(c"iv"),
        Param::octets(c"updated-iv"),
        Param::END,
    ];
    LIST.as_ptr()
}

extern "C" fn settable_params(_context: *mut c_void, _provider: *mut c_void) -> *const Param {
    static LIST: [Param; 2] = [Param::number(c"padding"), Param::END];
    LIST.as_ptr()
}
