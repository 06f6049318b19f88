//! Makes arrays of a plugin's answer, after checking everything in it.
//!
//! Whatever a plugin answers, an array made here is valid for its type, which
//! is why Arrow's own, slower checks can be left out. The store's hostcall fuel
//! limits what is copied out of the plugin's memory; the budget in [`Parents`]
//! limits what `input` columns add.

use std::collections::HashSet;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, BinaryType, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type,
    Int32Type, Int64Type, TimestampMillisecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
    Utf8Type,
};
use arrow_array::{
    Array, ArrayRef, BooleanArray, GenericByteArray, ListArray, PrimitiveArray, StringArray,
    StructArray,
};
use arrow_buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer};

use super::Broken;
use super::gather::{Picks, TooLarge};
use crate::decimal;
use crate::logic::{
    self, Columns, GroupTimers, OperatorInfo, Processed, RejectedTimer, TIMERS_MAX, TimedRows,
};
use crate::plugin::contract as wire;
use crate::schema::{DataType, Field, Schema};

/// How many bytes of a rejected row's reason are kept.
const REASON_BYTES_MAX: usize = 4 << 10;

/// The input rows that the rows of an answer come from.
pub struct Parents<'a> {
    picks: Picks<'a>,
    schema: &'a Schema,
    input: Columns<'a>,
    /// How many bytes the columns that are passed on may still take.
    bytes_left: usize,
}

/// Makes rows of an answer whose parents are rows of `input`; columns of
/// `input` may be passed on.
pub fn rows(
    answer: wire::Rows,
    output: &Schema,
    input_schema: &Schema,
    input: Columns<'_>,
    output_bytes_max: usize,
) -> Result<logic::Rows, Broken> {
    let wire::Rows { parents, columns } = answer;
    check_parents(&parents, input.rows)?;
    if columns.rows as usize != parents.len() {
        return Err(Broken::new(format!(
            "{} rows with {} parents",
            columns.rows,
            parents.len()
        )));
    }
    let columns = columns_of(
        columns,
        output,
        Some(&mut Parents {
            picks: Picks::new(&parents),
            schema: input_schema,
            input,
            bytes_left: output_bytes_max,
        }),
    )?;
    // A bit in the answer is a byte or more wherever it goes from here.
    if columns
        .iter()
        .map(|column| booleans_in(column))
        .sum::<usize>()
        > output_bytes_max
    {
        return Err(Broken::too_large());
    }
    Ok(logic::Rows { parents, columns })
}

fn booleans_in(array: &dyn Array) -> usize {
    if let Some(list) = array.as_list_opt::<i32>() {
        return booleans_in(list.values());
    }
    match array.as_struct_opt() {
        Some(record) => record
            .columns()
            .iter()
            .map(|member| booleans_in(member))
            .sum(),
        None => array.as_boolean_opt().map_or(0, BooleanArray::len),
    }
}

/// Makes the states of `groups` groups.
pub fn states(
    answer: wire::Batch,
    schema: &Schema,
    groups: usize,
) -> Result<Vec<ArrayRef>, Broken> {
    if answer.rows as usize != groups {
        return Err(Broken::new(format!(
            "{} states for {groups} groups",
            answer.rows
        )));
    }
    columns_of(answer, schema, None)
}

/// Makes the answer of a process to a call with these steps and this many groups.
pub fn processed(
    answer: wire::Processed,
    operator: &OperatorInfo,
    inputs: &[u8],
    groups: usize,
    output_bytes_max: usize,
) -> Result<Processed, Broken> {
    let wire::Processed {
        groups: stateful,
        states,
        event_timers,
        processing_timers,
        outputs,
        rejects,
        rejected_timers,
    } = answer;
    let is_below = |last: Option<&u32>| last.is_none_or(|&last| (last as usize) < groups);
    if !stateful.is_sorted_by(|a, b| a < b) || !is_below(stateful.last()) {
        return Err(Broken::new(format!(
            "the groups with a state are not ascending numbers below {groups}"
        )));
    }
    if outputs.len() != operator.outputs.len() {
        return Err(Broken::new(format!(
            "{} outputs of {}",
            outputs.len(),
            operator.outputs.len()
        )));
    }
    let steps = inputs.len();
    let rejects = self::rejects(rejects, steps, &[])?;
    let has_row =
        |reject: &logic::Reject| usize::from(inputs[reject.row as usize]) < operator.inputs.len();
    if !rejects.iter().all(has_row) {
        return Err(Broken::new("it rejects the row of a step without one"));
    }
    // Nothing of the input can be passed on: it comes from several inputs.
    let (nothing, from) = (
        Schema::default(),
        Columns {
            rows: steps,
            columns: &[],
        },
    );
    let mut lifted = Vec::with_capacity(outputs.len());
    for (port, output) in operator.outputs.iter().zip(outputs) {
        let rows = rows(output.rows, &port.schema, &nothing, from, output_bytes_max);
        let rows = rows.map_err(|broken| broken.inside(&port.name))?;
        if output.times.len() != rows.parents.len() {
            return Err(Broken::new(format!(
                "{} times of {} rows",
                output.times.len(),
                rows.parents.len()
            )));
        }
        lifted.push(TimedRows {
            rows,
            times: output.times,
        });
    }
    Ok(Processed {
        states: self::states(states, &operator.state, stateful.len())?,
        groups: stateful,
        event_timers: timers(event_timers, groups)?,
        processing_timers: timers(processing_timers, groups)?,
        outputs: lifted,
        rejects,
        rejected_timers: self::rejected_timers(rejected_timers, steps)?,
    })
}

/// How long a timer's name may be.
const TIMER_NAME_BYTES_MAX: usize = 1 << 10;

/// Checks the timers that an answer sets.
fn timers(answer: wire::Timers, groups: usize) -> Result<GroupTimers, Broken> {
    let wire::Timers {
        groups: of,
        times,
        names: wire::Packed { ends, data },
    } = answer;
    if times.len() != of.len() || ends.len() != of.len() {
        return Err(Broken::new("timers without a time or a name"));
    }
    let texts = std::str::from_utf8(&data);
    let Ok(texts) = texts else {
        return Err(Broken::new("the name of a timer is not UTF-8"));
    };
    let mut start = 0;
    let mut names: HashSet<&str> = HashSet::new();
    let mut last: Option<(u32, i64, &str)> = None;
    for ((&group, &time_ms), &end) in of.iter().zip(&times).zip(&ends) {
        let name = texts.get(start..end as usize);
        let Some(name) = name.filter(|name| name.len() <= TIMER_NAME_BYTES_MAX) else {
            return Err(Broken::new(format!(
                "the name of a timer is not a text of at most {TIMER_NAME_BYTES_MAX} bytes"
            )));
        };
        start = end as usize;
        let timer = (group, time_ms, name);
        if group as usize >= groups || last.is_some_and(|last| last >= timer) {
            return Err(Broken::new(
                "timers are not in order of groups, times and names",
            ));
        }
        if last.is_none_or(|(other, ..)| other != group) {
            names.clear();
        }
        last = Some(timer);
        if !names.insert(name) || names.len() > TIMERS_MAX {
            return Err(Broken::new(format!(
                "a key has two timers of a name, or more than {TIMERS_MAX}"
            )));
        }
    }
    if start != data.len() {
        return Err(Broken::new("the names of timers are longer than they say"));
    }
    Ok(GroupTimers {
        groups: of,
        times,
        ends,
        names: data,
    })
}

fn rejected_timers(
    answer: Vec<wire::RejectedTimer>,
    steps: usize,
) -> Result<Vec<RejectedTimer>, Broken> {
    let last = answer.last();
    if !answer.is_sorted_by(|a, b| a.step <= b.step)
        || last.is_some_and(|last| last.step as usize >= steps)
    {
        return Err(Broken::new(
            "the timers that it rejects are not in order of steps",
        ));
    }
    let timer = |mut timer: wire::RejectedTimer| {
        shorten(&mut timer.reason);
        shorten(&mut timer.name);
        RejectedTimer {
            step: timer.step,
            name: timer.name,
            time_ms: timer.time,
            reason: timer.reason,
        }
    };
    Ok(answer.into_iter().map(timer).collect())
}

fn shorten(text: &mut String) {
    text.truncate(text.floor_char_boundary(REASON_BYTES_MAX));
}

/// Checks the rows that a filter keeps.
pub fn selection(kept: Vec<u32>, rows: usize) -> Result<Vec<u32>, Broken> {
    if !all_pairs(&kept, |row, next| row < next) {
        return Err(Broken::new(
            "the rows that it keeps are not in ascending order",
        ));
    }
    match kept.last() {
        Some(&last) if last as usize >= rows => {
            Err(Broken::new(format!("it keeps row {last} of {rows} rows")))
        }
        _ => Ok(kept),
    }
}

/// Checks the rejects of a batch of `rows`; none may also be in `answered`.
pub fn rejects(
    answer: Vec<wire::Reject>,
    rows: usize,
    answered: &[u32],
) -> Result<Vec<logic::Reject>, Broken> {
    if !answer.is_sorted_by(|a, b| a.row < b.row) {
        return Err(Broken::new(
            "the rows that it rejects are not in ascending order",
        ));
    }
    let mut rejects = Vec::with_capacity(answer.len());
    for wire::Reject { row, mut reason } in answer {
        if row as usize >= rows {
            return Err(Broken::new(format!("it rejects row {row} of {rows} rows")));
        }
        if answered.binary_search(&row).is_ok() {
            return Err(Broken::new(format!(
                "it rejects row {row} and answers it as well"
            )));
        }
        shorten(&mut reason);
        rejects.push(logic::Reject { row, reason });
    }
    Ok(rejects)
}

fn check_parents(parents: &[u32], rows: usize) -> Result<(), Broken> {
    if !all_pairs(parents, |row, next| row <= next) {
        return Err(Broken::new("parents are not in ascending order"));
    }
    match parents.last() {
        Some(&last) if last as usize >= rows => Err(Broken::new(format!(
            "a parent is row {last} of {rows} rows"
        ))),
        _ => Ok(()),
    }
}

/// Whether every pair of neighbours fulfils a condition. Unlike `is_sorted` it
/// never stops early, so that it can be vectorized.
fn all_pairs(values: &[u32], as_should: impl Fn(u32, u32) -> bool) -> bool {
    let next = values.iter().skip(1);
    values
        .iter()
        .zip(next)
        .fold(true, |all, (&value, &next)| all & as_should(value, next))
}

fn columns_of(
    answer: wire::Batch,
    schema: &Schema,
    mut parents: Option<&mut Parents<'_>>,
) -> Result<Vec<ArrayRef>, Broken> {
    let rows = answer.rows as usize;
    let mut given = answer.columns.into_iter();
    let mut columns = Vec::with_capacity(schema.fields.len());
    for field in &schema.fields {
        columns.push(column(
            field,
            rows,
            None,
            &mut given,
            parents.as_deref_mut(),
        )?);
    }
    match given.len() {
        0 => Ok(columns),
        more => Err(Broken::new(format!(
            "{more} columns more than its schema has"
        ))),
    }
}

/// Makes a column of `rows` values and its nested columns, depth first. Below a
/// missing record (`hidden`) values are not checked. `parents` is `None` where
/// a column has no input row for each of its own.
fn column(
    field: &Field,
    rows: usize,
    hidden: Option<&NullBuffer>,
    given: &mut std::vec::IntoIter<wire::Column>,
    parents: Option<&mut Parents<'_>>,
) -> Result<ArrayRef, Broken> {
    let wrong = |what: Broken| what.inside(&field.name);
    let Some(next) = given.next() else {
        return Err(wrong(Broken::new("missing")));
    };
    let nulls = match next.validity {
        None => None,
        Some(_) if matches!(next.values, Values::Input(_)) => {
            return Err(wrong(Broken::new(
                "validity for an input that is passed on",
            )));
        }
        Some(bits) => validity(bits, rows, field.nullable, hidden).map_err(wrong)?,
    };
    use wire::Values;
    let array: Result<ArrayRef, Broken> = match (&field.data_type, next.values) {
        (_, Values::Input(index)) => match parents {
            Some(parents) => passed_on(field, index, parents),
            None => Err(Broken::new("no input can be passed on here")),
        },
        (DataType::Bool, Values::Bits(bits)) => booleans(bits, rows, nulls),
        (DataType::Int8, Values::Int8(values)) => primitive::<Int8Type>(values, rows, nulls),
        (DataType::Int16, Values::Int16(values)) => primitive::<Int16Type>(values, rows, nulls),
        (DataType::Int32, Values::Int32(values)) => primitive::<Int32Type>(values, rows, nulls),
        (DataType::Int64, Values::Int64(values)) => primitive::<Int64Type>(values, rows, nulls),
        (DataType::UInt8, Values::UInt8(values)) => primitive::<UInt8Type>(values, rows, nulls),
        (DataType::UInt16, Values::UInt16(values)) => primitive::<UInt16Type>(values, rows, nulls),
        (DataType::UInt32, Values::UInt32(values)) => primitive::<UInt32Type>(values, rows, nulls),
        (DataType::UInt64, Values::UInt64(values)) => primitive::<UInt64Type>(values, rows, nulls),
        (DataType::Float32, Values::Float32(values)) => {
            primitive::<Float32Type>(values, rows, nulls)
        }
        (DataType::Float64, Values::Float64(values)) => {
            primitive::<Float64Type>(values, rows, nulls)
        }
        (&DataType::Decimal { precision, .. }, Values::Decimals(bytes)) => {
            decimals(&bytes, rows, nulls, hidden, precision)
                .map(|array| Arc::new(array.with_data_type(field.data_type.to_arrow())) as ArrayRef)
        }
        (DataType::Timestamp, Values::Int64(values)) => same_length(values.len(), rows).map(|()| {
            let array = PrimitiveArray::<TimestampMillisecondType>::new(values.into(), nulls);
            Arc::new(array.with_timezone("UTC")) as ArrayRef
        }),
        (DataType::Utf8, Values::Packed(packed)) => {
            texts(packed, rows, nulls).map(|array| Arc::new(array) as ArrayRef)
        }
        (DataType::Symbol(symbols), Values::Packed(packed)) => {
            texts(packed, rows, nulls).and_then(|array| {
                check_symbols(&array, symbols, hidden)?;
                Ok(Arc::new(array) as ArrayRef)
            })
        }
        (DataType::Bytes, Values::Packed(packed)) => bytes(packed, rows, nulls),
        (DataType::List(element), Values::Ends(ends)) => lists(element, ends, rows, nulls, given),
        (DataType::Record(members), Values::None) => {
            records(members, rows, nulls, hidden, given, parents)
        }
        (wanted, values) => Err(Broken::new(format!(
            "expected {wanted}, found {}",
            name(&values)
        ))),
    };
    array.map_err(wrong)
}

fn passed_on(field: &Field, index: u32, parents: &mut Parents<'_>) -> Result<ArrayRef, Broken> {
    let index = index as usize;
    let (Some(given), Some(array)) = (
        parents.schema.fields.get(index),
        parents.input.columns.get(index),
    ) else {
        let columns = parents.schema.fields.len();
        return Err(Broken::new(format!("input {index} of {columns} inputs")));
    };
    if !field.reads(given) {
        return Err(Broken::new(format!(
            "expected `{field}`, found input `{given}`"
        )));
    }
    let array = parents
        .picks
        .of(array, &mut parents.bytes_left)
        .map_err(|TooLarge| Broken::too_large())?;
    check_symbols_within(&array, &field.data_type, None)?;
    Ok(as_declared(array, &field.data_type))
}

fn primitive<T: ArrowPrimitiveType>(
    values: Vec<T::Native>,
    rows: usize,
    nulls: Option<NullBuffer>,
) -> Result<ArrayRef, Broken> {
    same_length(values.len(), rows)?;
    Ok(Arc::new(PrimitiveArray::<T>::new(values.into(), nulls)))
}

/// Reads decimals, all of which have to fit into the digits of their type.
fn decimals(
    bytes: &[u8],
    rows: usize,
    nulls: Option<NullBuffer>,
    hidden: Option<&NullBuffer>,
    precision: u8,
) -> Result<PrimitiveArray<Decimal128Type>, Broken> {
    let (values, rest) = bytes.as_chunks::<16>();
    same_length(values.len(), rows)?;
    if !rest.is_empty() {
        return Err(Broken::new("decimals that are not 16 bytes each"));
    }
    let units: Vec<i128> = values
        .iter()
        .map(|&bytes| i128::from_le_bytes(bytes))
        .collect();
    let array = PrimitiveArray::new(units.into(), nulls);
    let is_too_large = |row: &usize| {
        !decimal::fits(array.value(*row), precision)
            && array.is_valid(*row)
            && hidden.is_none_or(|hidden| hidden.is_valid(*row))
    };
    match (0..rows).find(is_too_large) {
        Some(row) => Err(Broken::new(format!(
            "a decimal of more than {precision} digits: {} units",
            array.value(row)
        ))),
        None => Ok(array),
    }
}

fn booleans(bits: Vec<u8>, rows: usize, nulls: Option<NullBuffer>) -> Result<ArrayRef, Broken> {
    let bits = bitmap(bits, rows)?;
    Ok(Arc::new(BooleanArray::new(bits, nulls)))
}

fn texts(
    packed: wire::Packed,
    rows: usize,
    nulls: Option<NullBuffer>,
) -> Result<StringArray, Broken> {
    let (offsets, data) = packed_parts(packed, rows)?;
    check_utf8(&data, &offsets)?;
    // SAFETY: the offsets ascend, end within the data, and have one entry a
    // row; the data is valid UTF-8, and each offset is a character's start.
    Ok(unsafe {
        GenericByteArray::<Utf8Type>::new_unchecked(offsets, Buffer::from_vec(data), nulls)
    })
}

fn bytes(packed: wire::Packed, rows: usize, nulls: Option<NullBuffer>) -> Result<ArrayRef, Broken> {
    let (offsets, data) = packed_parts(packed, rows)?;
    // SAFETY: the offsets ascend and end within the data; all have one entry a row.
    Ok(Arc::new(unsafe {
        GenericByteArray::<BinaryType>::new_unchecked(offsets, Buffer::from_vec(data), nulls)
    }))
}

fn packed_parts(packed: wire::Packed, rows: usize) -> Result<(OffsetBuffer<i32>, Vec<u8>), Broken> {
    let wire::Packed { ends, mut data } = packed;
    let (offsets, used) = offsets(&ends, rows)?;
    if used > data.len() {
        return Err(Broken::new(format!(
            "values end at byte {used} of {}",
            data.len()
        )));
    }
    data.truncate(used);
    Ok((offsets, data))
}

fn lists(
    element: &Arc<Field>,
    ends: Vec<u32>,
    rows: usize,
    nulls: Option<NullBuffer>,
    given: &mut std::vec::IntoIter<wire::Column>,
) -> Result<ArrayRef, Broken> {
    let (offsets, elements) = offsets(&ends, rows)?;
    let elements = column(element, elements, None, given, None)?;
    Ok(Arc::new(ListArray::new(
        Arc::new(element.to_arrow()),
        offsets,
        elements,
        nulls,
    )))
}

fn records(
    members: &[Field],
    rows: usize,
    nulls: Option<NullBuffer>,
    hidden: Option<&NullBuffer>,
    given: &mut std::vec::IntoIter<wire::Column>,
    mut parents: Option<&mut Parents<'_>>,
) -> Result<ArrayRef, Broken> {
    let hidden = NullBuffer::union(hidden, nulls.as_ref());
    let mut columns = Vec::with_capacity(members.len());
    for member in members {
        let parents = parents.as_deref_mut();
        columns.push(column(member, rows, hidden.as_ref(), given, parents)?);
    }
    let fields = members.iter().map(Field::to_arrow).collect();
    // SAFETY: each column has its member's type and this length.
    Ok(Arc::new(unsafe {
        StructArray::new_unchecked_with_length(fields, columns, nulls, rows)
    }))
}

/// The offsets for these ends, which must be `rows` and ascend, and the last
/// one.
fn offsets(ends: &[u32], rows: usize) -> Result<(OffsetBuffer<i32>, usize), Broken> {
    same_length(ends.len(), rows)?;
    if !all_pairs(ends, |end, next| end <= next) {
        return Err(Broken::new("a value ends before it starts"));
    }
    let last = ends.last().copied().unwrap_or(0);
    if i32::try_from(last).is_err() {
        return Err(Broken::new(format!(
            "a value ends at {last}, past what a column can hold"
        )));
    }
    let mut offsets = Vec::with_capacity(rows + 1);
    offsets.push(0);
    offsets.extend(ends.iter().map(|&end| end as i32));
    // SAFETY: they start at 0 and ascend, and the last one is not negative.
    Ok((
        unsafe { OffsetBuffer::new_unchecked(offsets.into()) },
        last as usize,
    ))
}

fn check_utf8(data: &[u8], offsets: &[i32]) -> Result<(), Broken> {
    if data.is_ascii() {
        return Ok(());
    }
    let Ok(text) = simdutf8::basic::from_utf8(data) else {
        return Err(Broken::new("text that is not UTF-8"));
    };
    if offsets
        .iter()
        .all(|&offset| text.is_char_boundary(offset as usize))
    {
        Ok(())
    } else {
        Err(Broken::new("a text that ends within a character"))
    }
}

fn validity(
    bits: Vec<u8>,
    rows: usize,
    nullable: bool,
    hidden: Option<&NullBuffer>,
) -> Result<Option<NullBuffer>, Broken> {
    let nulls = NullBuffer::new(bitmap(bits, rows)?);
    match nulls.null_count() {
        0 => Ok(None),
        _ if nullable => Ok(Some(nulls)),
        _ if hidden.is_some_and(|hidden| hidden.contains(&nulls)) => Ok(None),
        missing => Err(Broken::new(format!(
            "{missing} missing values in a column without nulls"
        ))),
    }
}

fn bitmap(bits: Vec<u8>, rows: usize) -> Result<BooleanBuffer, Broken> {
    if bits.len() != rows.div_ceil(8) {
        return Err(Broken::new(format!(
            "{} bytes of bits for {rows} rows",
            bits.len()
        )));
    }
    Ok(BooleanBuffer::new(Buffer::from_vec(bits), 0, rows))
}

fn same_length(values: usize, rows: usize) -> Result<(), Broken> {
    if values == rows {
        Ok(())
    } else {
        Err(Broken::new(format!("{values} values for {rows} rows")))
    }
}

/// Checks that each text is a symbol, or missing, or hidden.
fn check_symbols(
    array: &StringArray,
    symbols: &[String],
    hidden: Option<&NullBuffer>,
) -> Result<(), Broken> {
    let words: Vec<(u64, usize)> = symbols
        .iter()
        .filter(|symbol| symbol.len() <= 8)
        .map(|symbol| (word(symbol.as_bytes(), 0, symbol.len()), symbol.len()))
        .collect();
    let offsets = array.value_offsets();
    let data = array.value_data();
    for row in 0..array.len() {
        let start = offsets[row] as usize;
        let length = offsets[row + 1] as usize - start;
        let known = if length <= 8 {
            words.contains(&(word(data, start, length), length))
        } else {
            let text = &data[start..start + length];
            symbols.iter().any(|symbol| symbol.as_bytes() == text)
        };
        if !known && array.is_valid(row) && hidden.is_none_or(|hidden| hidden.is_valid(row)) {
            let text = String::from_utf8_lossy(&data[start..start + length.min(100)]);
            let symbols = symbols.join("|");
            return Err(Broken::new(format!("`{text}` is not one of {symbols}")));
        }
    }
    Ok(())
}

/// Reads up to 8 bytes as one number, which compares faster than slices.
fn word(data: &[u8], start: usize, length: usize) -> u64 {
    match data.get(start..).and_then(|data| data.first_chunk()) {
        Some(bytes) if length > 0 => u64::from_le_bytes(*bytes) & (u64::MAX >> (64 - 8 * length)),
        _ => {
            let mut bytes = [0; 8];
            bytes[..length].copy_from_slice(&data[start..start + length]);
            u64::from_le_bytes(bytes)
        }
    }
}

/// The same for symbols nested anywhere: the host reads texts as symbols
/// unchecked, so an input that is passed on may hold any text.
fn check_symbols_within(
    array: &dyn Array,
    data_type: &DataType,
    hidden: Option<&NullBuffer>,
) -> Result<(), Broken> {
    match data_type {
        DataType::Symbol(symbols) => check_symbols(array.as_string(), symbols, hidden),
        DataType::List(element) => {
            let lists = array.as_list::<i32>();
            let offsets = lists.value_offsets();
            let start = offsets[0] as usize;
            let end = offsets[lists.len()] as usize;
            let elements = lists.values().slice(start, end - start);
            check_symbols_within(&elements, &element.data_type, None)
        }
        DataType::Record(members) => {
            let hidden = NullBuffer::union(hidden, array.nulls());
            members
                .iter()
                .zip(array.as_struct().columns())
                .try_for_each(|(member, column)| {
                    check_symbols_within(column, &member.data_type, hidden.as_ref())
                })
        }
        _ => Ok(()),
    }
}

/// The array with the type that the schema declares: in a column that was
/// passed on, nested fields may have other names or be nullable in fewer
/// places.
fn as_declared(array: ArrayRef, declared: &DataType) -> ArrayRef {
    match declared {
        DataType::List(element) => {
            let lists = array.as_list::<i32>();
            Arc::new(ListArray::new(
                Arc::new(element.to_arrow()),
                lists.offsets().clone(),
                as_declared(Arc::clone(lists.values()), &element.data_type),
                lists.nulls().cloned(),
            ))
        }
        DataType::Record(members) => {
            let records = array.as_struct();
            let columns = members
                .iter()
                .zip(records.columns())
                .map(|(member, column)| as_declared(Arc::clone(column), &member.data_type))
                .collect();
            let fields = members.iter().map(Field::to_arrow).collect();
            // SAFETY: the schemas are compatible, so the members have the same
            // layout.
            Arc::new(unsafe {
                StructArray::new_unchecked_with_length(
                    fields,
                    columns,
                    records.nulls().cloned(),
                    records.len(),
                )
            })
        }
        DataType::Decimal { .. } => {
            let units = array.as_primitive::<Decimal128Type>().clone();
            Arc::new(units.with_data_type(declared.to_arrow()))
        }
        _ => array,
    }
}

fn name(values: &wire::Values) -> &'static str {
    match values {
        wire::Values::None => "a record",
        wire::Values::Bits(_) => "bool",
        wire::Values::Int8(_) => "int8",
        wire::Values::Int16(_) => "int16",
        wire::Values::Int32(_) => "int32",
        wire::Values::Int64(_) => "int64",
        wire::Values::UInt8(_) => "uint8",
        wire::Values::UInt16(_) => "uint16",
        wire::Values::UInt32(_) => "uint32",
        wire::Values::UInt64(_) => "uint64",
        wire::Values::Float32(_) => "float32",
        wire::Values::Float64(_) => "float64",
        wire::Values::Decimals(_) => "decimals",
        wire::Values::Packed(_) => "text or bytes",
        wire::Values::Ends(_) => "a list",
        wire::Values::Input(_) => "an input",
    }
}
