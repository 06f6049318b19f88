//! Values stored by row, whose number is told in the end.

use std::mem::{ManuallyDrop, MaybeUninit};

/// Room for values. Whoever stores them counts them, one count for all columns.
///
/// Every method leaves the vector's parts in registers where the caller has
/// them there: what is not worth inlining takes and returns them by value.
#[doc(hidden)]
pub struct Slots<T>(Vec<MaybeUninit<T>>);

impl<T> Default for Slots<T> {
    #[inline(always)]
    fn default() -> Self {
        Slots(Vec::new())
    }
}

impl<T: Copy> Slots<T> {
    /// Makes room for `total` values, keeping the first `used`.
    #[inline(always)]
    pub fn reserve(&mut self, used: usize, total: usize) {
        self.0 = grown(std::mem::take(&mut self.0), used, total);
    }

    pub fn capacity(&self) -> usize {
        self.0.capacity()
    }

    #[inline(always)]
    pub fn as_mut_ptr(&mut self) -> *mut T {
        self.0.as_mut_ptr().cast()
    }

    /// # Safety
    /// There is room for more than `at` values.
    #[inline(always)]
    pub unsafe fn put(&mut self, at: usize, value: T) {
        debug_assert!(at < self.0.capacity());
        // SAFETY: as the caller says.
        unsafe { self.as_mut_ptr().add(at).write(value) }
    }

    /// # Safety
    /// So many values were stored, from the first on.
    #[inline(always)]
    pub unsafe fn stored(&self, count: usize) -> &[T] {
        // SAFETY: as the caller says.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), count) }
    }

    /// # Safety
    /// So many values were stored, from the first on.
    #[inline(always)]
    pub unsafe fn into_vec(self, count: usize) -> Vec<T> {
        let mut values = ManuallyDrop::new(self.0);
        // SAFETY: these are the parts of a vector of the same layout, and as
        // the caller says, so many of its values are initialised.
        unsafe { Vec::from_raw_parts(values.as_mut_ptr().cast(), count, values.capacity()) }
    }
}

/// Appends to a vector that has room.
///
/// # Safety
/// The vector's length is less than its capacity.
#[doc(hidden)]
#[inline(always)]
pub unsafe fn push_reserved<T>(values: &mut Vec<T>, value: T) {
    debug_assert!(values.len() < values.capacity());
    // SAFETY: there is room for one more, and it is written before it counts.
    unsafe {
        values.as_mut_ptr().add(values.len()).write(value);
        values.set_len(values.len() + 1);
    }
}

#[inline(never)]
fn grown<T: Copy>(
    mut values: Vec<MaybeUninit<T>>,
    used: usize,
    total: usize,
) -> Vec<MaybeUninit<T>> {
    assert!(
        used <= values.capacity(),
        "more values than there was room for"
    );
    // SAFETY: there are so many, and any bits are a value that need not be
    // initialised.
    unsafe { values.set_len(used) };
    values.reserve_exact(total - used);
    values
}
