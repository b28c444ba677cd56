//! `OSSL_PARAM`: the named values that libcrypto and a provider exchange. Lists end with a null name; what is in them is checked for
//! its kind and size before it is touched.

use std::ffi::{CStr, c_char, c_uint, c_void};

const INTEGER: c_uint = 1;
const UNSIGNED: c_uint = 2;
const UTF8: c_uint = 4;
const OCTETS: c_uint = 5;
const UTF8_POINTER: c_uint = 6;
const OCTETS_POINTER: c_uint = 7;

/// Longer values are nobody's: no string or number that is exchanged here comes near.
const LONGEST: usize = 1 << 16;

/// `OSSL_PARAM`.
#[repr(C)]
pub(super) struct Param {
    key: *const c_char,
    kind: c_uint,
    data: *mut c_void,
    size: usize,
    returned: usize,
}

// SAFETY: static lists of what can be got or set hold no data, only names.
unsafe impl Sync for Param {}

/// `OSSL_PARAM_UNMODIFIED`.
const UNMODIFIED: usize = usize::MAX;

impl Param {
    pub(super) const END: Param = Param::new(std::ptr::null(), 0, std::ptr::null_mut(), 0);

    const fn new(key: *const c_char, kind: c_uint, data: *mut c_void, size: usize) -> Param {
        Param { key, kind, data, size, returned: UNMODIFIED }
    }

    /// For a list of what can be got or set.
    pub(super) const fn number(key: &'static CStr) -> Param {
        Param::new(key.as_ptr(), UNSIGNED, std::ptr::null_mut(), 0)
    }

    pub(super) const fn signed(key: &'static CStr) -> Param {
        Param::new(key.as_ptr(), INTEGER, std::ptr::null_mut(), 0)
    }

    pub(super) const fn text(key: &'static CStr) -> Param {
        Param::new(key.as_ptr(), UTF8, std::ptr::null_mut(), 0)
    }

    pub(super) const fn octets(key: &'static CStr) -> Param {
        Param::new(key.as_ptr(), OCTETS, std::ptr::null_mut(), 0)
    }

    pub(super) const fn octets_pointer(key: &'static CStr) -> Param {
        Param::new(key.as_ptr(), OCTETS_POINTER, std::ptr::null_mut(), 0)
    }

    /// Values to pass on, which must outlive the list.
    pub(super) fn with_octets(key: &'static CStr, value: &[u8]) -> Param {
        Param::new(key.as_ptr(), OCTETS, value.as_ptr().cast_mut().cast(), value.len())
    }

    pub(super) fn with_text(key: &'static CStr, value: &'static CStr) -> Param {
        Param::new(key.as_ptr(), UTF8, value.as_ptr().cast_mut().cast(), value.count_bytes())
    }

    /// A number in the order of this machine's bytes.
    pub(super) fn with_number(key: &'static CStr, value: &[u8]) -> Param {
        Param::new(key.as_ptr(), UNSIGNED, value.as_ptr().cast_mut().cast(), value.len())
    }

    /// A pointer's place, by which whoever gets the list can take what the pointer points to.
    pub(super) fn with_reference(key: &'static CStr, place: &mut *mut c_void) -> Param {
        Param::new(key.as_ptr(), OCTETS, std::ptr::from_mut(place).cast(), size_of::<*mut c_void>())
    }

    /// A place for the answer to a question for a pointer, which must outlive the list.
    pub(super) fn for_pointer(key: &'static CStr, place: &mut *const c_void) -> Param {
        Param::new(key.as_ptr(), OCTETS_POINTER, std::ptr::from_mut(place).cast(), 0)
    }

    /// Whether it has this name.
    pub(super) fn is(&self, key: &CStr) -> bool {
        // SAFETY: the names of a list in hand are strings that end with a zero byte.
        !self.key.is_null() && unsafe { CStr::from_ptr(self.key) } == key
    }

    /// The bytes of an octet string or a pointer to one.
    pub(super) fn as_octets(&self) -> Option<&[u8]> {
        if self.size > LONGEST {
            return None;
        }
        match self.kind {
            // SAFETY: an octet string has `size` readable bytes at `data`, or null.
            OCTETS => Some(unsafe { super::ffi::bytes(self.data.cast(), self.size) }),
            OCTETS_POINTER if !self.data.is_null() => {
                // SAFETY: `data` points to the pointer to the bytes.
                let data = unsafe { *self.data.cast::<*const u8>() };
                // SAFETY: which has `size` readable bytes, or is null.
                Some(unsafe { super::ffi::bytes(data, self.size) })
            }
            _ => None,
        }
    }

    /// What an octet pointer points to, whatever it is.
    pub(super) fn as_pointer(&self) -> Option<*mut c_void> {
        // SAFETY: `data` of this kind points to a pointer.
        (self.kind == OCTETS_POINTER && !self.data.is_null()).then(|| unsafe { *self.data.cast::<*mut c_void>() })
    }

    /// The bytes of a string without its zero byte.
    pub(super) fn as_text(&self) -> Option<&[u8]> {
        let (data, size) = match self.kind {
            UTF8 => (self.data.cast::<u8>().cast_const(), self.size),
            // SAFETY: `data` of this kind points to a pointer.
            UTF8_POINTER if !self.data.is_null() => (unsafe { *self.data.cast::<*const u8>() }, self.size),
            _ => return None,
        };
        if size > LONGEST {
            return None;
        }
        // SAFETY: the string has `size` readable bytes, or is null.
        let text = unsafe { super::ffi::bytes(data, size) };
        text.split(|byte| *byte == 0).next()
    }

    /// A number that is not negative, whatever its width.
    pub(super) fn as_number(&self) -> Option<u64> {
        let bytes = self.number_bytes()?;
        let (low, high) = bytes.split_at_checked(8).unwrap_or((bytes, &[]));
        if high.iter().any(|byte| *byte != 0)
            || (self.kind == INTEGER && bytes.last().is_some_and(|byte| *byte >= 0x80))
        {
            return None;
        }
        let mut value = [0; 8];
        value.get_mut(..low.len())?.copy_from_slice(low);
        Some(u64::from_le_bytes(value))
    }

    pub(super) fn as_size(&self) -> Option<usize> {
        usize::try_from(self.as_number()?).ok()
    }

    /// The bytes of a number, the least first.
    pub(super) fn number_bytes(&self) -> Option<&[u8]> {
        if !matches!(self.kind, INTEGER | UNSIGNED) || self.data.is_null() || self.size > LONGEST {
            return None;
        }
        // SAFETY: a number has `size` readable bytes.
        Some(unsafe { super::ffi::bytes(self.data.cast(), self.size) })
    }

    /// Answers with a number in the width that is asked for.
    pub(super) fn set_number(&mut self, value: u64) -> Option<()> {
        self.set_number_bytes(&value.to_le_bytes())
    }

    /// Answers with a number of which the least byte is first.
    pub(super) fn set_number_bytes(&mut self, value: &[u8]) -> Option<()> {
        if !matches!(self.kind, INTEGER | UNSIGNED) {
            return None;
        }
        let needed = value.len() - value.iter().rev().take_while(|byte| **byte == 0).count();
        // A number's sign needs a bit more.
        let top = needed.checked_sub(1).and_then(|last| value.get(last)).is_some_and(|byte| *byte >= 0x80);
        let needed = needed + usize::from(self.kind == INTEGER && top);
        self.returned = needed.max(1);
        if self.data.is_null() {
            return Some(());
        }
        if self.size < needed || self.size > LONGEST {
            return None;
        }
        // SAFETY: a number that is asked for has `size` writable bytes.
        let room = unsafe { super::ffi::bytes_mut(self.data.cast(), self.size) }?;
        room.fill(0);
        let count = value.len().min(room.len());
        room.get_mut(..count)?.copy_from_slice(value.get(..count)?);
        self.returned = self.size;
        Some(())
    }

    /// Answers with bytes, or says how many there are.
    pub(super) fn set_octets(&mut self, value: &[u8]) -> Option<()> {
        if self.kind == OCTETS_POINTER {
            return self.set_pointer(value.as_ptr(), value.len());
        }
        if self.kind != OCTETS {
            return None;
        }
        self.returned = value.len();
        if self.data.is_null() {
            return Some(());
        }
        // SAFETY: an octet string that is asked for has `size` writable bytes.
        let room = unsafe { super::ffi::bytes_mut(self.data.cast(), self.size) }?;
        room.get_mut(..value.len())?.copy_from_slice(value);
        Some(())
    }

    /// Answers with where `length` bytes are, which stay there as long as the caller may use them.
    pub(super) fn set_pointer(&mut self, value: *const u8, length: usize) -> Option<()> {
        if self.kind != OCTETS_POINTER {
            return None;
        }
        self.returned = length;
        if !self.data.is_null() {
            // SAFETY: a pointer that is asked for has room for it at `data`.
            unsafe { *self.data.cast::<*const u8>() = value };
        }
        Some(())
    }

    /// Answers with a string, and a zero byte if there is room.
    pub(super) fn set_text(&mut self, value: &'static CStr) -> Option<()> {
        if self.kind == UTF8_POINTER {
            self.returned = value.count_bytes();
            if !self.data.is_null() {
                // SAFETY: a pointer that is asked for has room for it at `data`.
                unsafe { *self.data.cast::<*const c_char>() = value.as_ptr() };
            }
            return Some(());
        }
        if self.kind != UTF8 {
            return None;
        }
        let text = value.to_bytes();
        self.returned = text.len();
        if self.data.is_null() {
            return Some(());
        }
        // SAFETY: a string that is asked for has `size` writable bytes.
        let room = unsafe { super::ffi::bytes_mut(self.data.cast(), self.size) }?;
        room.get_mut(..text.len())?.copy_from_slice(text);
        if let Some(end) = room.get_mut(text.len()) {
            *end = 0;
        }
        Some(())
    }

    /// Writable room of an octet string, whole.
    pub(super) fn room(&mut self) -> Option<&mut [u8]> {
        if self.kind != OCTETS || self.size > LONGEST {
            return None;
        }
        self.returned = self.size;
        // SAFETY: an octet string that is asked for has `size` writable bytes.
        unsafe { super::ffi::bytes_mut(self.data.cast(), self.size) }
    }

    /// What is in the room of an octet string, before it is answered.
    pub(super) fn size(&self) -> usize {
        self.size
    }
}

/// The values of a list; none for null.
///
/// # Safety
/// `params` is null or a list that ends with a null name and lives as long as the slice.
pub(super) unsafe fn list<'a>(params: *const Param) -> &'a [Param] {
    if params.is_null() {
        return &[];
    }
    // SAFETY: the caller's promise.
    let count = unsafe { length(params) };
    // SAFETY: `count` elements were seen; the list lives as long as the slice.
    unsafe { std::slice::from_raw_parts(params, count) }
}

/// The values of a list that are to be answered; none for null.
///
/// # Safety
/// `params` is null or a list that ends with a null name, lives as long as the slice and is used by nothing else meanwhile.
pub(super) unsafe fn list_mut<'a>(params: *mut Param) -> &'a mut [Param] {
    if params.is_null() {
        return &mut [];
    }
    // SAFETY: the caller's promise.
    let count = unsafe { length(params) };
    // SAFETY: `count` elements were seen, and nothing else uses them.
    unsafe { std::slice::from_raw_parts_mut(params, count) }
}

/// # Safety
/// `params` is a list that ends with a null name.
unsafe fn length(params: *const Param) -> usize {
    let mut count = 0;
    // SAFETY: every element up to the one with a null name belongs to the list.
    while !unsafe { (*params.add(count)).key }.is_null() {
        count += 1;
    }
    count
}

/// The first value with a name.
pub(super) fn find<'a>(params: &'a [Param], key: &CStr) -> Option<&'a Param> {
    params.iter().find(|param| param.is(key))
}
