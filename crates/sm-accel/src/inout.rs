//! Bytes that are read and their place for the result: the same buffer, or two of the same length.

use std::fmt;
use std::marker::PhantomData;

/// Input and output of equal length, either one buffer or two that have no byte in common.
pub struct InOut<'a> {
    input: *const u8,
    output: *mut u8,
    length: usize,
    life: PhantomData<&'a mut [u8]>,
}

impl<'a> InOut<'a> {
    /// `None` if the lengths differ.
    pub fn new(input: &'a [u8], output: &'a mut [u8]) -> Option<InOut<'a>> {
        let (length, same) = (output.len(), input.len() == output.len());
        same.then_some(InOut { input: input.as_ptr(), output: output.as_mut_ptr(), length, life: PhantomData })
    }

    /// For callers that have pointers, such as a C interface.
    ///
    /// # Safety
    ///
    /// `input` can be read and `output` written for `length` bytes during `'a`, nothing else uses them meanwhile, and either they are
    /// equal or the two ranges have no byte in common. The output need not be initialised.
    pub unsafe fn from_raw(input: *const u8, output: *mut u8, length: usize) -> InOut<'a> {
        InOut { input, output, length, life: PhantomData }
    }

    pub fn len(&self) -> usize {
        self.length
    }

    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// What is to be read; after a part was written over its input, the result there.
    pub fn input(&self) -> &[u8] {
        // SAFETY: `length` bytes can be read, and nothing writes to them while `self` is borrowed.
        unsafe { std::slice::from_raw_parts(self.input, self.length) }
    }

    /// The first bytes, as many as there are up to `at`, and the rest.
    pub fn split_at(self, at: usize) -> (InOut<'a>, InOut<'a>) {
        let at = at.min(self.length);
        // SAFETY: `at` is within both ranges; the parts have no byte in common.
        let (input, output) = unsafe { (self.input.add(at), self.output.add(at)) };
        (InOut { length: at, ..self }, InOut { input, output, length: self.length - at, life: PhantomData })
    }

    /// The same bytes for a shorter time.
    pub fn reborrow(&mut self) -> InOut<'_> {
        InOut { input: self.input, output: self.output, length: self.length, life: PhantomData }
    }

    /// Replaces every whole block by what `f` makes of it, in order, and gives back the bytes that are left over.
    pub(crate) fn map<const N: usize>(self, mut f: impl FnMut(&[u8; N]) -> [u8; N]) -> InOut<'a> {
        let mut rest = self;
        while rest.length >= N {
            let (block, later) = rest.split_at(N);
            // SAFETY: N bytes are there, in both ranges; an array of bytes has no alignment. The input is copied before the output is written.
            unsafe {
                let result = f(&block.input.cast::<[u8; N]>().read());
                block.output.cast::<[u8; N]>().write(result);
            }
            rest = later;
        }
        rest
    }

    /// Adds a key stream, as much of it as there are bytes.
    pub(crate) fn xor(self, stream: &[u8]) {
        let (data, _) = self.split_at(stream.len());
        let (stream, _) = stream.split_at(data.len());
        let (blocks, last) = stream.as_chunks::<16>();
        let mut keys = blocks.iter();
        let rest = data.map::<16>(|block| {
            let key = keys.next().map_or(0, |key| u128::from_ne_bytes(*key));
            (u128::from_ne_bytes(*block) ^ key).to_ne_bytes()
        });
        let mut keys = last.iter();
        rest.map::<1>(|[byte]| [byte ^ keys.next().map_or(0, |key| *key)]);
    }

    /// Copies into the output.
    pub(crate) fn put(self, bytes: &[u8]) {
        let length = self.length.min(bytes.len());
        // SAFETY: `length` is within both, and `bytes` is not this output, which is borrowed for writing.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.output, length) };
    }

    /// The output.
    ///
    /// # Safety
    ///
    /// Every byte of it was written.
    pub(crate) unsafe fn written(&self) -> &[u8] {
        // SAFETY: `length` bytes are there, written, and nothing writes to them while `self` is borrowed.
        unsafe { std::slice::from_raw_parts(self.output, self.length) }
    }

    /// Makes the output zeros.
    pub(crate) fn erase(&mut self) {
        // SAFETY: `length` bytes can be written.
        unsafe { std::ptr::write_bytes(self.output, 0, self.length) };
    }

    pub(crate) fn pointers(&self) -> (*const u8, *mut u8) {
        (self.input, self.output)
    }
}

impl<'a> From<&'a mut [u8]> for InOut<'a> {
    fn from(buffer: &'a mut [u8]) -> InOut<'a> {
        let output = buffer.as_mut_ptr();
        InOut { input: output, output, length: buffer.len(), life: PhantomData }
    }
}

impl fmt::Debug for InOut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InOut").field("length", &self.length).finish_non_exhaustive()
    }
}
