//! Unchecked buffers: values are stored by row, and counted by the caller.

use std::mem::{ManuallyDrop, MaybeUninit};

/// A buffer whose caller counts the values, with one count for all columns.
///
/// All methods keep the vector's parts in registers if the caller has them
/// there: functions that are not inlined take and return them by value.
#[doc(hidden)]
pub struct Slots<T>(Vec<MaybeUninit<T>>);

impl<T> Default for Slots<T> {
    #[inline(always)]
    fn default() -> Self {
        Slots(Vec::new())
    }
}

impl<T: Copy> Slots<T> {
    /// Reserves space for `total` values, keeping the first `used`.
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
    /// There is space for more than `at` values.
    #[inline(always)]
    pub unsafe fn put(&mut self, at: usize, value: T) {
        debug_assert!(at < self.0.capacity());
        // SAFETY: as the caller says.
        unsafe { self.as_mut_ptr().add(at).write(value) }
    }

    /// # Safety
    /// The first `count` values were stored.
    #[inline(always)]
    pub unsafe fn stored(&self, count: usize) -> &[T] {
        // SAFETY: as the caller says.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), count) }
    }

    /// # Safety
    /// The first `count` values were stored.
    #[inline(always)]
    pub unsafe fn into_vec(self, count: usize) -> Vec<T> {
        let mut values = ManuallyDrop::new(self.0);
        // SAFETY: these are the parts of a vector of the same layout, and the
        // caller promises that `count` values are initialised.
        unsafe { Vec::from_raw_parts(values.as_mut_ptr().cast(), count, values.capacity()) }
    }
}

/// Appends to a vector without growing it.
///
/// # Safety
/// The vector's length is less than its capacity.
#[doc(hidden)]
#[inline(always)]
pub unsafe fn push_reserved<T>(values: &mut Vec<T>, value: T) {
    debug_assert!(values.len() < values.capacity());
    // SAFETY: there is space for one more, and the value is written before it
    // counts.
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
    // SAFETY: there is capacity for `used` values, and they need not be
    // initialised.
    unsafe { values.set_len(used) };
    values.reserve_exact(total - used);
    values
}
