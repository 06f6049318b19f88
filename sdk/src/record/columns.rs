//! Checks the columns of a batch once, so that readers need not.

use crate::bindings::sluicebox::plugin::columns::{Column, Values};

/// A column that was checked.
pub struct Checked<'a> {
    validity: Option<&'a [u8]>,
    values: &'a Values,
    /// Where each text or list starts and ends: one entry more than there are
    /// values, ascending from 0, and for texts at most the length of the data.
    offsets: Vec<u32>,
}

impl<'a> Checked<'a> {
    pub fn new(column: &'a Column) -> Self {
        let offsets = match &column.values {
            Values::Packed(packed) => offsets(&packed.ends, packed.data.len()),
            Values::Ends(ends) => offsets(ends, u32::MAX as usize),
            _ => Vec::new(),
        };
        Checked {
            validity: column.validity.as_deref(),
            values: &column.values,
            offsets,
        }
    }
}

/// The ends with a zero before them, so that the first row is no special case.
fn offsets(ends: &[u32], total: usize) -> Vec<u32> {
    let mut offsets = Vec::with_capacity(ends.len() + 1);
    offsets.push(0);
    offsets.extend_from_slice(ends);
    let within = ends.last().is_none_or(|&last| last as usize <= total);
    assert!(
        within && ascend(&offsets),
        "the host sent ends that are not in order"
    );
    offsets
}

/// Whether no number is less than the one before.
fn ascend(numbers: &[u32]) -> bool {
    #[cfg(target_family = "wasm")]
    let (checked, ascend) = ascend_by_steps(numbers);
    #[cfg(not(target_family = "wasm"))]
    let (checked, ascend) = (0, true);
    let mut rest = numbers[checked..].windows(2);
    ascend && rest.all(|pair| pair[0] <= pair[1])
}

/// How many of the first numbers were checked, and whether they ascend.
#[cfg(target_family = "wasm")]
#[target_feature(enable = "simd128")]
fn ascend_by_steps(numbers: &[u32]) -> (usize, bool) {
    use core::arch::wasm32::{u32x4_lt, u32x4_splat, v128, v128_any_true, v128_load, v128_or};
    const STEP: usize = 32;
    let steps = numbers.len().saturating_sub(1) / STEP;
    let mut falls = u32x4_splat(0);
    for step in 0..steps {
        for at in (step * STEP..).step_by(4).take(STEP / 4) {
            // SAFETY: `steps` leaves a number after the last step; `v128_load`
            // needs no alignment.
            unsafe {
                let starts = v128_load(numbers.as_ptr().add(at).cast::<v128>());
                let ends = v128_load(numbers.as_ptr().add(at + 1).cast::<v128>());
                falls = v128_or(falls, u32x4_lt(ends, starts));
            }
        }
    }
    (STEP * steps, !v128_any_true(falls))
}

/// The columns that no reader has taken yet.
#[doc(hidden)]
pub struct Columns<'t> {
    left: std::slice::Iter<'t, Checked<'t>>,
    /// Below a record that may be missing, members may have no value either.
    pub gaps: bool,
}

impl<'t> Columns<'t> {
    /// The columns of rows, which have a value in each required field.
    #[inline(always)]
    pub fn new(columns: &'t [Checked<'t>]) -> Self {
        Columns {
            left: columns.iter(),
            gaps: false,
        }
    }

    /// Takes the next column, which has a value in each of `rows` rows.
    pub fn values(&mut self, rows: usize) -> &'t Values {
        self.required(rows).values
    }

    /// Takes the next column, a record that exists in each of `rows` rows.
    pub fn record(&mut self, rows: usize) {
        match self.values(rows) {
            Values::None => {}
            other => wrong("a record", other),
        }
    }

    /// Takes the next column: its bytes, and where each of `rows` values is in
    /// them.
    pub fn packed(&mut self, rows: usize) -> (&'t [u8], &'t [u32]) {
        let column = self.required(rows);
        match column.values {
            Values::Packed(packed) => (&packed.data, column.offsets(rows)),
            other => wrong("text or bytes", other),
        }
    }

    /// Takes the next column: where each of `rows` lists is in its elements,
    /// the column after it.
    pub fn lists(&mut self, rows: usize) -> &'t [u32] {
        let column = self.required(rows);
        match column.values {
            Values::Ends(_) => column.offsets(rows),
            other => wrong("a list", other),
        }
    }

    /// The next column's validity, without taking the column.
    pub fn validity(&self, rows: usize) -> Option<&'t [u8]> {
        let column = self.left.as_slice().first()?;
        let validity = column.validity?;
        assert_length(validity.len(), rows.div_ceil(8));
        Some(validity)
    }

    fn required(&mut self, rows: usize) -> &'t Checked<'t> {
        let column = self.left.next();
        let column = column.expect("the host sent fewer columns than agreed");
        if let (Some(validity), false) = (column.validity, self.gaps) {
            assert_length(validity.len(), rows.div_ceil(8));
            // SAFETY: there is a bit for every row.
            let complete = (0..rows).all(|row| unsafe { bit(validity, row) });
            assert!(complete, "the host sent no value for a required field");
        }
        column
    }
}

impl Checked<'_> {
    fn offsets(&self, rows: usize) -> &[u32] {
        assert_length(self.offsets.len(), rows + 1);
        &self.offsets
    }
}

/// # Safety
/// `at` is less than the number of bits.
#[inline(always)]
pub unsafe fn bit(bits: &[u8], at: usize) -> bool {
    // SAFETY: as the caller promises.
    let byte = unsafe { *bits.get_unchecked(at >> 3) };
    byte >> (at & 7) & 1 == 1
}

pub fn assert_length(found: usize, expected: usize) {
    assert!(
        found >= expected,
        "the host sent a column of {found} entries for {expected}"
    );
}

#[cold]
pub fn wrong(expected: &str, found: &Values) -> ! {
    let found = match found {
        Values::None => "a record",
        Values::Bits(_) => "bits",
        Values::Packed(_) => "texts or bytes",
        Values::Ends(_) => "a list",
        Values::Input(_) => "a reference to an input",
        _ => "other numbers",
    };
    panic!("the host sent {found} where {expected} was agreed");
}
