//! Functions that keep a few numbers of each group: counts, sums, means, variances.

use std::borrow::Cow;
use std::marker::PhantomData;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, Decimal128Array, Float64Array, Int64Array, UInt64Array};
use arrow_buffer::{BooleanBuffer, NullBuffer};

use super::fold::{Fold, Input, Output, Problem, Sums, count_of};
use crate::builtin::values::{floats, integers, naturals, units};
use crate::decimal::{self, PRECISION_MAX};

/// What is kept of a group, and how a value changes it.
pub(super) trait Tally: Send + Sync + 'static {
    type Value: Copy;
    type Cell: Copy;
    /// Of a group without values.
    const START: Self::Cell;

    /// The values of a column, also where one is missing.
    fn values(input: Input<'_>) -> Cow<'_, [Self::Value]>;
    /// `None` if it is too large for its type.
    fn add(cell: Self::Cell, value: Self::Value) -> Option<Self::Cell>;
    /// Takes a value back.
    fn take_back(cell: Self::Cell, value: Self::Value) -> Option<Self::Cell>;
    fn merge(cell: Self::Cell, later: Self::Cell) -> Option<Self::Cell>;
    fn load(states: &[ArrayRef]) -> Vec<Self::Cell>;
    fn store(cells: &[Self::Cell]) -> Vec<ArrayRef>;
    fn results(cells: &[Self::Cell]) -> ArrayRef;
    fn sums(_: Input<'_>) -> Option<Sums> {
        None
    }
}

pub(super) struct Tallied<T>(PhantomData<T>);

impl<T: Tally> Tallied<T> {
    pub fn boxed() -> Box<dyn Fold> {
        Box::new(Tallied::<T>(PhantomData))
    }
}

impl<T: Tally> Fold for Tallied<T> {
    fn fold(&self, input: Input<'_>) -> Result<Output, Problem> {
        let mut cells = T::load(input.existing);
        cells.resize(input.group_count, T::START);
        let values = T::values(input);
        let rows = input.groups.iter().zip(values.iter());
        if input.each || !input.taken_back.is_empty() {
            let nulls = input.nulls();
            let mut taken_back = input.taken_back.iter().peekable();
            let mut after = Vec::with_capacity(if input.each { input.groups.len() } else { 0 });
            for (row, (&group, &value)) in rows.enumerate() {
                let change = match taken_back.next_if(|&&back| back as usize == row) {
                    None => T::add,
                    Some(_) => T::take_back,
                };
                let cell = &mut cells[group as usize];
                if nulls.is_none_or(|nulls| nulls.is_valid(row)) {
                    *cell = change(*cell, value).ok_or(Problem::Overflow)?;
                }
                if input.each {
                    after.push(*cell);
                }
            }
            return Ok(Output {
                states: T::store(&cells),
                after: input.each.then(|| T::results(&after)),
            });
        }
        let mut add = |group: u32, value| {
            let cell = &mut cells[group as usize];
            let added = T::add(*cell, value);
            *cell = added.unwrap_or(*cell);
            added.is_some()
        };
        let mut fits = true;
        match input.nulls() {
            None => {
                for (&group, &value) in rows {
                    fits &= add(group, value);
                }
            }
            Some(nulls) => {
                for (row, (&group, &value)) in rows.enumerate() {
                    if nulls.is_valid(row) {
                        fits &= add(group, value);
                    }
                }
            }
        }
        if !fits {
            return Err(Problem::Overflow);
        }
        Ok(Output {
            states: T::store(&cells),
            after: None,
        })
    }

    fn merge(&self, states: &[ArrayRef], groups: &[u32]) -> Result<Vec<ArrayRef>, Problem> {
        let mut merged = vec![T::START; count_of(groups)];
        for (cell, &group) in T::load(states).into_iter().zip(groups) {
            let into = &mut merged[group as usize];
            *into = T::merge(*into, cell).ok_or(Problem::Overflow)?;
        }
        Ok(T::store(&merged))
    }

    fn results(&self, states: &[ArrayRef]) -> Result<ArrayRef, Problem> {
        Ok(T::results(&T::load(states)))
    }

    fn sums(&self, input: Input<'_>) -> Option<Sums> {
        T::sums(input)
    }
}

/// `count()` and `count(field)`: where values are missing, the caller skips them.
pub(super) struct Count;

impl Tally for Count {
    type Value = ();
    type Cell = i64;
    const START: i64 = 0;

    fn values(input: Input<'_>) -> Cow<'_, [()]> {
        vec![(); input.groups.len()].into()
    }

    fn add(count: i64, (): ()) -> Option<i64> {
        Some(count + 1)
    }

    fn take_back(count: i64, (): ()) -> Option<i64> {
        Some(count - 1)
    }

    fn merge(count: i64, later: i64) -> Option<i64> {
        Some(count + later)
    }

    fn load(states: &[ArrayRef]) -> Vec<i64> {
        integers(&states[0]).into_owned()
    }

    fn store(counts: &[i64]) -> Vec<ArrayRef> {
        vec![Self::results(counts)]
    }

    fn results(counts: &[i64]) -> ArrayRef {
        Arc::new(Int64Array::from(counts.to_vec()))
    }
}

/// `sum(field)`.
pub(super) struct Sum<N>(PhantomData<N>);

/// A number that sums can have.
pub(super) trait Number: Copy + Send + Sync + 'static {
    const ZERO: Self;

    /// A column of a type that is added in this one.
    fn read(column: &ArrayRef) -> Cow<'_, [Self]>;
    fn plus(self, other: Self) -> Option<Self>;
    fn minus(self, other: Self) -> Option<Self>;
    /// Missing where not `known`.
    fn write(values: impl Iterator<Item = Self>, known: Option<NullBuffer>) -> ArrayRef;
    /// As an exact integer with its bounds, unless it is a float.
    fn exact(self) -> Option<(i128, i128, i128)>;
}

/// A sum, and whether there was a value.
#[derive(Clone, Copy)]
pub(super) struct SumCell<N> {
    sum: N,
    known: bool,
}

impl<N: Number> Tally for Sum<N> {
    type Value = N;
    type Cell = SumCell<N>;
    const START: SumCell<N> = SumCell {
        sum: N::ZERO,
        known: false,
    };

    fn values(input: Input<'_>) -> Cow<'_, [N]> {
        read(input)
    }

    #[inline]
    fn add(cell: SumCell<N>, value: N) -> Option<SumCell<N>> {
        Some(SumCell {
            sum: cell.sum.plus(value)?,
            known: true,
        })
    }

    /// Whether there is another value, [`CountedSum`] knows.
    fn take_back(_: SumCell<N>, _: N) -> Option<SumCell<N>> {
        None
    }

    fn merge(cell: SumCell<N>, later: SumCell<N>) -> Option<SumCell<N>> {
        Some(SumCell {
            sum: cell.sum.plus(later.sum)?,
            known: cell.known || later.known,
        })
    }

    fn load(states: &[ArrayRef]) -> Vec<SumCell<N>> {
        let sums = N::read(&states[0]);
        let nulls = states[0].nulls();
        let cell = |(row, &sum): (usize, &N)| match nulls.is_none_or(|it| it.is_valid(row)) {
            true => SumCell { sum, known: true },
            false => Self::START,
        };
        sums.iter().enumerate().map(cell).collect()
    }

    fn store(cells: &[SumCell<N>]) -> Vec<ArrayRef> {
        vec![Self::results(cells)]
    }

    fn results(cells: &[SumCell<N>]) -> ArrayRef {
        let known = known(cells.iter().map(|cell| cell.known));
        N::write(cells.iter().map(|cell| cell.sum), known)
    }

    fn sums(input: Input<'_>) -> Option<Sums> {
        sums_of(input, N::read(&input.existing[0]))
    }
}

/// By how much rows change sums, unless these are of floats.
fn sums_of<N: Number>(input: Input<'_>, existing: Cow<'_, [N]>) -> Option<Sums> {
    let (_, least, most) = N::ZERO.exact()?;
    let exact = |number: N| number.exact().map_or(0, |(number, _, _)| number);
    let nulls = input.nulls();
    let values = read(input);
    let values = values.iter().enumerate().map(|(row, &value)| {
        let known = nulls.is_none_or(|nulls| nulls.is_valid(row));
        if known { exact(value) } else { 0 }
    });
    let mut values: Vec<i128> = values.collect();
    for &row in input.taken_back {
        values[row as usize] *= -1;
    }
    let mut sums: Vec<i128> = existing.iter().map(|&sum| exact(sum)).collect();
    sums.resize(input.group_count, 0);
    Some(Sums {
        values,
        sums,
        least,
        most,
    })
}

/// `sum(field)` where rows are taken back.
pub(super) struct CountedSum<N>(PhantomData<N>);

/// A sum, and of how many values.
#[derive(Clone, Copy)]
pub(super) struct CountedSumCell<N> {
    count: i64,
    sum: N,
}

impl<N: Number> Tally for CountedSum<N> {
    type Value = N;
    type Cell = CountedSumCell<N>;
    const START: CountedSumCell<N> = CountedSumCell {
        count: 0,
        sum: N::ZERO,
    };

    fn values(input: Input<'_>) -> Cow<'_, [N]> {
        read(input)
    }

    #[inline]
    fn add(cell: CountedSumCell<N>, value: N) -> Option<CountedSumCell<N>> {
        Some(CountedSumCell {
            count: cell.count + 1,
            sum: cell.sum.plus(value)?,
        })
    }

    fn take_back(cell: CountedSumCell<N>, value: N) -> Option<CountedSumCell<N>> {
        Some(CountedSumCell {
            count: cell.count - 1,
            sum: cell.sum.minus(value)?,
        })
    }

    fn merge(cell: CountedSumCell<N>, later: CountedSumCell<N>) -> Option<CountedSumCell<N>> {
        Some(CountedSumCell {
            count: cell.count + later.count,
            sum: cell.sum.plus(later.sum)?,
        })
    }

    fn load(states: &[ArrayRef]) -> Vec<CountedSumCell<N>> {
        let (counts, sums) = (integers(&states[0]), N::read(&states[1]));
        let cells = counts.iter().zip(sums.iter());
        cells
            .map(|(&count, &sum)| CountedSumCell { count, sum })
            .collect()
    }

    fn store(cells: &[CountedSumCell<N>]) -> Vec<ArrayRef> {
        let counts = cells.iter().map(|cell| cell.count);
        vec![
            Arc::new(Int64Array::from_iter_values(counts)),
            N::write(cells.iter().map(|cell| cell.sum), None),
        ]
    }

    fn results(cells: &[CountedSumCell<N>]) -> ArrayRef {
        let known = known(cells.iter().map(|cell| cell.count != 0));
        N::write(cells.iter().map(|cell| cell.sum), known)
    }

    fn sums(input: Input<'_>) -> Option<Sums> {
        sums_of(input, N::read(&input.existing[1]))
    }
}

macro_rules! integer_number {
    ($native:ty, $read:ident, $array:ty) => {
        impl Number for $native {
            const ZERO: Self = 0;

            fn read(column: &ArrayRef) -> Cow<'_, [Self]> {
                $read(column)
            }

            #[inline]
            fn plus(self, other: Self) -> Option<Self> {
                self.checked_add(other)
            }

            #[inline]
            fn minus(self, other: Self) -> Option<Self> {
                self.checked_sub(other)
            }

            fn write(values: impl Iterator<Item = Self>, known: Option<NullBuffer>) -> ArrayRef {
                Arc::new(<$array>::new(values.collect(), known))
            }

            fn exact(self) -> Option<(i128, i128, i128)> {
                Some((self.into(), Self::MIN.into(), Self::MAX.into()))
            }
        }
    };
}

integer_number!(i64, integers, Int64Array);
integer_number!(u64, naturals, UInt64Array);

/// Units of decimals.
impl Number for i128 {
    const ZERO: Self = 0;

    fn read(column: &ArrayRef) -> Cow<'_, [Self]> {
        units(column).into()
    }

    #[inline]
    fn plus(self, other: Self) -> Option<Self> {
        let sum = self.checked_add(other);
        sum.filter(|&sum| decimal::fits(sum, PRECISION_MAX))
    }

    #[inline]
    fn minus(self, other: Self) -> Option<Self> {
        self.plus(-other)
    }

    fn write(values: impl Iterator<Item = Self>, known: Option<NullBuffer>) -> ArrayRef {
        Arc::new(Decimal128Array::new(values.collect(), known))
    }

    fn exact(self) -> Option<(i128, i128, i128)> {
        let most = decimal::limit(PRECISION_MAX) - 1;
        Some((self, -most, most))
    }
}

impl Number for f64 {
    const ZERO: Self = 0.0;

    fn read(column: &ArrayRef) -> Cow<'_, [Self]> {
        floats(column)
    }

    #[inline]
    fn plus(self, other: Self) -> Option<Self> {
        Some(self + other)
    }

    #[inline]
    fn minus(self, other: Self) -> Option<Self> {
        Some(self - other)
    }

    fn write(values: impl Iterator<Item = Self>, known: Option<NullBuffer>) -> ArrayRef {
        Arc::new(Float64Array::new(values.collect(), known))
    }

    fn exact(self) -> Option<(i128, i128, i128)> {
        None
    }
}

/// `mean(field)` of integers: the sum is exact, so that the order of rows plays no part.
pub(super) struct ExactMean<N>(PhantomData<N>);

#[derive(Clone, Copy)]
pub(super) struct ExactMeanCell {
    count: i64,
    sum: i128,
}

impl<N: Number + Into<i128>> Tally for ExactMean<N> {
    type Value = N;
    type Cell = ExactMeanCell;
    const START: ExactMeanCell = ExactMeanCell { count: 0, sum: 0 };

    fn values(input: Input<'_>) -> Cow<'_, [N]> {
        read(input)
    }

    #[inline]
    fn add(cell: ExactMeanCell, value: N) -> Option<ExactMeanCell> {
        Some(ExactMeanCell {
            count: cell.count + 1,
            sum: cell.sum + value.into(),
        })
    }

    fn take_back(cell: ExactMeanCell, value: N) -> Option<ExactMeanCell> {
        Some(ExactMeanCell {
            count: cell.count - 1,
            sum: cell.sum - value.into(),
        })
    }

    fn merge(cell: ExactMeanCell, later: ExactMeanCell) -> Option<ExactMeanCell> {
        Some(ExactMeanCell {
            count: cell.count + later.count,
            sum: cell.sum + later.sum,
        })
    }

    fn load(states: &[ArrayRef]) -> Vec<ExactMeanCell> {
        let counts = integers(&states[0]);
        let (high, low) = (integers(&states[1]), naturals(&states[2]));
        let sums = high.iter().zip(low.iter());
        let sums = sums.map(|(&high, &low)| (i128::from(high) << 64) | i128::from(low));
        let cells = counts.iter().zip(sums);
        cells
            .map(|(&count, sum)| ExactMeanCell { count, sum })
            .collect()
    }

    fn store(cells: &[ExactMeanCell]) -> Vec<ArrayRef> {
        let counts = cells.iter().map(|cell| cell.count);
        let high = cells.iter().map(|cell| (cell.sum >> 64) as i64);
        let low = cells.iter().map(|cell| cell.sum as u64);
        vec![
            Arc::new(Int64Array::from_iter_values(counts)),
            Arc::new(Int64Array::from_iter_values(high)),
            Arc::new(UInt64Array::from_iter_values(low)),
        ]
    }

    fn results(cells: &[ExactMeanCell]) -> ArrayRef {
        let known = known(cells.iter().map(|cell| cell.count > 0));
        let means = cells
            .iter()
            .map(|cell| cell.sum as f64 / cell.count.max(1) as f64);
        f64::write(means, known)
    }
}

/// `mean(field)` of decimals, in units. Their sum is exact, too.
pub(super) struct DecimalMean;

impl Tally for DecimalMean {
    type Value = i128;
    type Cell = CountedSumCell<i128>;
    const START: CountedSumCell<i128> = CountedSum::START;

    fn values(input: Input<'_>) -> Cow<'_, [i128]> {
        read(input)
    }

    fn add(cell: CountedSumCell<i128>, value: i128) -> Option<CountedSumCell<i128>> {
        CountedSum::add(cell, value)
    }

    fn take_back(cell: CountedSumCell<i128>, value: i128) -> Option<CountedSumCell<i128>> {
        CountedSum::take_back(cell, value)
    }

    fn merge(
        cell: CountedSumCell<i128>,
        later: CountedSumCell<i128>,
    ) -> Option<CountedSumCell<i128>> {
        CountedSum::merge(cell, later)
    }

    fn load(states: &[ArrayRef]) -> Vec<CountedSumCell<i128>> {
        CountedSum::load(states)
    }

    fn store(cells: &[CountedSumCell<i128>]) -> Vec<ArrayRef> {
        CountedSum::store(cells)
    }

    fn results(cells: &[CountedSumCell<i128>]) -> ArrayRef {
        let known = known(cells.iter().map(|cell| cell.count > 0));
        let means = cells
            .iter()
            .map(|cell| cell.sum as f64 / cell.count.max(1) as f64);
        f64::write(means, known)
    }

    fn sums(input: Input<'_>) -> Option<Sums> {
        CountedSum::<i128>::sums(input)
    }
}

/// `mean(field)` of floats.
pub(super) struct Mean;

#[derive(Clone, Copy)]
pub(super) struct MeanCell {
    count: i64,
    sum: f64,
}

impl Tally for Mean {
    type Value = f64;
    type Cell = MeanCell;
    const START: MeanCell = MeanCell { count: 0, sum: 0.0 };

    fn values(input: Input<'_>) -> Cow<'_, [f64]> {
        read(input)
    }

    #[inline]
    fn add(cell: MeanCell, value: f64) -> Option<MeanCell> {
        Some(MeanCell {
            count: cell.count + 1,
            sum: cell.sum + value,
        })
    }

    fn take_back(cell: MeanCell, value: f64) -> Option<MeanCell> {
        Some(MeanCell {
            count: cell.count - 1,
            sum: cell.sum - value,
        })
    }

    fn merge(cell: MeanCell, later: MeanCell) -> Option<MeanCell> {
        Some(MeanCell {
            count: cell.count + later.count,
            sum: cell.sum + later.sum,
        })
    }

    fn load(states: &[ArrayRef]) -> Vec<MeanCell> {
        let (counts, sums) = (integers(&states[0]), floats(&states[1]));
        let cells = counts.iter().zip(sums.iter());
        cells
            .map(|(&count, &sum)| MeanCell { count, sum })
            .collect()
    }

    fn store(cells: &[MeanCell]) -> Vec<ArrayRef> {
        let counts = cells.iter().map(|cell| cell.count);
        let sums = cells.iter().map(|cell| cell.sum);
        vec![
            Arc::new(Int64Array::from_iter_values(counts)),
            Arc::new(Float64Array::from_iter_values(sums)),
        ]
    }

    fn results(cells: &[MeanCell]) -> ArrayRef {
        let known = known(cells.iter().map(|cell| cell.count > 0));
        let means = cells.iter().map(|cell| cell.sum / cell.count.max(1) as f64);
        f64::write(means, known)
    }
}

/// `variance(field)` of a sample, by Welford's recurrence, merged as by Chan, Golub and
/// LeVeque; and its root, `stddev(field)`.
pub(super) struct Variance<R>(PhantomData<R>);

/// What the result is made of the variance.
pub(super) trait Shown: Send + Sync + 'static {
    fn shown(variance: f64) -> f64;
}

pub(super) struct Itself;
pub(super) struct Root;

impl Shown for Itself {
    fn shown(variance: f64) -> f64 {
        variance
    }
}

impl Shown for Root {
    fn shown(variance: f64) -> f64 {
        variance.sqrt()
    }
}

#[derive(Clone, Copy)]
pub(super) struct VarianceCell {
    count: i64,
    mean: f64,
    /// The sum of squared distances from the mean.
    squares: f64,
}

impl<R: Shown> Tally for Variance<R> {
    type Value = f64;
    type Cell = VarianceCell;
    const START: VarianceCell = VarianceCell {
        count: 0,
        mean: 0.0,
        squares: 0.0,
    };

    fn values(input: Input<'_>) -> Cow<'_, [f64]> {
        read(input)
    }

    #[inline]
    fn add(cell: VarianceCell, value: f64) -> Option<VarianceCell> {
        let count = cell.count + 1;
        let distance = value - cell.mean;
        let mean = cell.mean + distance / count as f64;
        Some(VarianceCell {
            count,
            mean,
            squares: cell.squares + distance * (value - mean),
        })
    }

    fn take_back(cell: VarianceCell, value: f64) -> Option<VarianceCell> {
        let count = cell.count - 1;
        if count == 0 {
            return Some(Self::START);
        }
        let distance = value - cell.mean;
        let mean = cell.mean - distance / count as f64;
        Some(VarianceCell {
            count,
            mean,
            squares: (cell.squares - distance * (value - mean)).max(0.0),
        })
    }

    fn merge(cell: VarianceCell, later: VarianceCell) -> Option<VarianceCell> {
        if cell.count == 0 || later.count == 0 {
            return Some(if cell.count == 0 { later } else { cell });
        }
        let count = cell.count + later.count;
        let distance = later.mean - cell.mean;
        let share = later.count as f64 / count as f64;
        Some(VarianceCell {
            count,
            mean: cell.mean + distance * share,
            squares: cell.squares + later.squares + distance * distance * cell.count as f64 * share,
        })
    }

    fn load(states: &[ArrayRef]) -> Vec<VarianceCell> {
        let counts = integers(&states[0]);
        let (means, squares) = (floats(&states[1]), floats(&states[2]));
        let cells = counts.iter().zip(means.iter()).zip(squares.iter());
        cells
            .map(|((&count, &mean), &squares)| VarianceCell {
                count,
                mean,
                squares,
            })
            .collect()
    }

    fn store(cells: &[VarianceCell]) -> Vec<ArrayRef> {
        let counts = cells.iter().map(|cell| cell.count);
        let means = cells.iter().map(|cell| cell.mean);
        let squares = cells.iter().map(|cell| cell.squares);
        vec![
            Arc::new(Int64Array::from_iter_values(counts)),
            Arc::new(Float64Array::from_iter_values(means)),
            Arc::new(Float64Array::from_iter_values(squares)),
        ]
    }

    fn results(cells: &[VarianceCell]) -> ArrayRef {
        let known = known(cells.iter().map(|cell| cell.count > 1));
        let variances = cells
            .iter()
            .map(|cell| R::shown(cell.squares / (cell.count - 1).max(1) as f64));
        f64::write(variances, known)
    }
}

/// Where values are known; `None` where all are.
fn known(known: impl Iterator<Item = bool>) -> Option<NullBuffer> {
    let nulls = NullBuffer::new(known.collect::<BooleanBuffer>());
    (nulls.null_count() > 0).then_some(nulls)
}

fn read<N: Number>(input: Input<'_>) -> Cow<'_, [N]> {
    input.column.map_or(Cow::Borrowed(&[]), N::read)
}
