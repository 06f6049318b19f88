//! Reads texts and bytes as slices of their column.

use std::marker::PhantomData;

/// The texts or byte strings of a column.
#[doc(hidden)]
#[derive(Clone, Copy)]
pub struct TextReader<'a> {
    data: *const u8,
    offsets: *const u32,
    column: PhantomData<&'a [u8]>,
}

impl<'a> TextReader<'a> {
    #[inline(always)]
    pub fn new((data, offsets): (&'a [u8], &'a [u32])) -> Self {
        TextReader {
            data: data.as_ptr(),
            offsets: offsets.as_ptr(),
            column: PhantomData,
        }
    }

    /// # Safety
    /// The column has this row.
    #[inline(always)]
    pub unsafe fn slice(&self, row: usize) -> &'a [u8] {
        // SAFETY: there is one more offset than rows; they ascend and lie
        // within the data.
        unsafe {
            let start = *self.offsets.add(row) as usize;
            let end = *self.offsets.add(row + 1) as usize;
            std::slice::from_raw_parts(self.data.add(start), end - start)
        }
    }
}
