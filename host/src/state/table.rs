//! States by slot, as columns in memory.
//!
//! Values of fixed width lie in one vector for each column, so that the states of a
//! batch's groups are gathered and scattered without checks of types. All fields of
//! variable size (texts, lists, and records of them) lie together as one packed
//! [`row`](super::row) for each slot.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, BooleanArray, StructArray};
use arrow_buffer::{BooleanBuffer, Buffer, NullBuffer};

use super::row::{Codec, RowError, fixed_array, fixed_bytes, fixed_width};
use crate::logic::Failure;
use crate::schema::{DataType, Field, Schema};

/// The states of an operator. Slots are allocated and released; the contents of a
/// slot before the first [`StateTable::scatter`] to it are undefined.
#[derive(Debug)]
pub struct StateTable {
    /// In the schema's order; absent for fields of variable size.
    columns: Vec<Option<FixedColumn>>,
    /// The fields of variable size.
    variable: Option<Variable>,
    slots: usize,
    free: Vec<u32>,
    /// How many states the rows of the last batches have touched, for each row.
    touched_a_row: f64,
    /// By slot, with how large the state was. Rows of these keys are not taken in one call
    /// with those of others.
    outgrown: HashMap<u32, (usize, Outgrown)>,
    /// Writes and reads states for checkpoints.
    codec: Codec,
}

/// What is known of a state that was too large for its operator's memory: with which row, as
/// long as it does not change.
#[derive(Clone, Debug)]
pub struct Outgrown(pub Option<OutgrownRow>);

/// The smallest row that a state was too large with, in a call with that row alone.
#[derive(Clone, Debug)]
pub struct OutgrownRow {
    /// The input that it came by.
    pub port: usize,
    pub bytes: usize,
    pub failure: Failure,
}

impl Outgrown {
    /// Why a row has no room beside the state, if that is known: it is as large as one that
    /// had none.
    pub fn refusal(&self, port: usize, row_bytes: usize) -> Option<&Failure> {
        let row = self.0.as_ref();
        let row = row.filter(|row| row.port == port && row_bytes >= row.bytes);
        row.map(|row| &row.failure)
    }
}

/// States as rows.
#[derive(Debug)]
pub struct EncodedStates {
    ends: Vec<usize>,
    bytes: Vec<u8>,
}

/// A column whose values all have the same size.
#[derive(Debug)]
struct FixedColumn {
    field: Field,
    /// By slot; empty for a field that is not nullable.
    valid: Vec<bool>,
    values: FixedValues,
}

#[derive(Debug)]
enum FixedValues {
    Bool(Vec<bool>),
    Fixed1(Vec<u8>),
    Fixed2(Vec<u16>),
    Fixed4(Vec<u32>),
    Fixed8(Vec<u64>),
    Fixed16(Vec<u128>),
    Record(Vec<FixedColumn>),
}

#[derive(Debug)]
struct Variable {
    codec: Codec,
    rows: ByteRows,
    /// Reused between calls.
    scratch: Vec<u8>,
}

/// Byte strings by slot: small ones in one allocation, large ones in one each.
#[derive(Debug, Default)]
struct ByteRows {
    places: Vec<RowPlace>,
    bytes: Vec<u8>,
    /// Bytes that no slot uses.
    garbage: usize,
    large: HashMap<usize, Box<[u8]>>,
    large_bytes: usize,
}

/// Where the row of a slot is, unless it is a large one.
#[derive(Clone, Copy, Debug, Default)]
struct RowPlace {
    start: usize,
    length: usize,
    room: usize,
}

/// A row of at least this is large: it is not moved when others are swept, and leaves
/// no garbage.
const LARGE_BYTES: usize = 32 << 10;

/// Garbage is swept when there is at least this much, and more than bytes in use.
const GARBAGE_BYTES_MIN: usize = 1 << 16;

impl StateTable {
    pub fn new(schema: &Schema) -> Self {
        let columns: Vec<Option<FixedColumn>> =
            schema.fields.iter().map(FixedColumn::new).collect();
        let variable: Vec<Field> = schema
            .fields
            .iter()
            .zip(&columns)
            .filter(|(_, column)| column.is_none())
            .map(|(field, _)| field.clone())
            .collect();
        StateTable {
            columns,
            variable: (!variable.is_empty()).then(|| Variable {
                codec: Codec::new(variable),
                rows: ByteRows::default(),
                scratch: Vec::new(),
            }),
            slots: 0,
            free: Vec::new(),
            touched_a_row: 1.0,
            outgrown: HashMap::new(),
            codec: Codec::new(schema.fields.clone()),
        }
    }

    /// Writes the states of these slots as rows, in this order.
    pub fn encode(&self, slots: &[u32]) -> Result<EncodedStates, RowError> {
        let encoder = self.codec.encoder(&self.gather(slots)?)?;
        let mut encoded = EncodedStates {
            ends: Vec::with_capacity(slots.len()),
            bytes: Vec::new(),
        };
        for row in 0..slots.len() {
            encoder.encode(row, &mut encoded.bytes);
            encoded.ends.push(encoded.bytes.len());
        }
        Ok(encoded)
    }

    /// Reads states from rows into new slots.
    pub fn decode<'a>(
        &mut self,
        rows: impl ExactSizeIterator<Item = &'a [u8]>,
    ) -> Result<Vec<u32>, RowError> {
        let slots: Vec<u32> = (0..rows.len()).map(|_| self.allocate()).collect();
        let columns = self.codec.decode(rows)?;
        self.scatter(&slots, &columns)?;
        Ok(slots)
    }

    /// Bytes that the states in use take.
    pub fn bytes(&self) -> usize {
        let fixed = self.fixed_bytes();
        let variable = self.variable.as_ref().map_or((0, 0), |variable| {
            (variable.rows.used(), size_of::<RowPlace>())
        });
        variable.0 + (self.slots - self.free.len()) * (fixed + variable.1)
    }

    /// How many of these states, from the first on, have at most `bytes_max` together;
    /// at least one.
    pub fn fit(&self, slots: &[u32], bytes_max: usize) -> usize {
        let fixed = self.fixed_bytes().max(1);
        let fit = match &self.variable {
            None => slots.len().min(bytes_max / fixed),
            Some(variable) => {
                let mut bytes = 0;
                let fit = slots.iter().take_while(|&&slot| {
                    bytes += fixed + variable.rows.get(slot).len();
                    bytes <= bytes_max
                });
                fit.count()
            }
        };
        fit.max(1)
    }

    /// Bytes of a state on average.
    pub fn bytes_on_average(&self) -> usize {
        self.bytes() / self.slots_in_use().max(1)
    }

    /// How many states have room in this many bytes, at least one, if those are as large
    /// as all are on average.
    pub fn room(&self, bytes_max: usize) -> usize {
        (bytes_max / self.bytes_on_average().max(1)).max(1)
    }

    /// Notes how many states the rows of a batch have touched.
    pub fn note_batch(&mut self, rows: usize, touched: usize) {
        // Follows more at once, and fewer over some batches.
        let touched_a_row = touched as f64 / rows.max(1) as f64;
        self.touched_a_row = touched_a_row.max(self.touched_a_row / 2.0);
    }

    /// Bytes of states that a batch has for each of its rows, if it touches as many as the
    /// last ones: rows of few keys share their states, however large these are.
    pub fn bytes_a_row(&self) -> usize {
        (self.bytes_on_average() as f64 * self.touched_a_row) as usize
    }

    /// How many rows, at least one, touch states of at most `bytes_max` together, if they
    /// touch as many as those of the last batches.
    pub fn room_for_rows(&self, bytes_max: usize) -> usize {
        (bytes_max / self.bytes_a_row().max(1)).max(1)
    }

    fn fixed_bytes(&self) -> usize {
        self.columns.iter().flatten().map(FixedColumn::width).sum()
    }

    /// How many slots were ever allocated; every slot is smaller.
    pub fn slots(&self) -> usize {
        self.slots
    }

    pub fn slots_in_use(&self) -> usize {
        self.slots - self.free.len()
    }

    pub fn allocate(&mut self) -> u32 {
        if let Some(slot) = self.free.pop() {
            return slot;
        }
        let slot = self.slots;
        self.slots += 1;
        slot as u32
    }

    /// Bytes of one state.
    pub fn bytes_of(&self, slot: u32) -> usize {
        let variable = self.variable.as_ref();
        self.fixed_bytes() + variable.map_or(0, |variable| variable.rows.get(slot).len())
    }

    /// Notes what is known of a state as it is now.
    pub fn note_outgrown(&mut self, slot: u32, outgrown: &Outgrown) {
        if outgrown.0.is_some() {
            let bytes = self.bytes_of(slot);
            self.outgrown.insert(slot, (bytes, outgrown.clone()));
        }
    }

    pub fn outgrown(&self, slot: u32) -> Option<&Outgrown> {
        match self.has_outgrown() {
            true => self.outgrown.get(&slot).map(|(_, outgrown)| outgrown),
            false => None,
        }
    }

    pub fn has_outgrown(&self) -> bool {
        !self.outgrown.is_empty()
    }

    /// Of changed states, forgets which rows they had no room for; of those that are much
    /// smaller now, that there were any.
    fn check_outgrown(&mut self, slots: &[u32]) {
        for slot in slots {
            let bytes = self.bytes_of(*slot);
            if let Some((before, outgrown)) = self.outgrown.get_mut(slot) {
                outgrown.0 = None;
                if bytes < *before / 2 {
                    self.outgrown.remove(slot);
                }
            }
        }
    }

    /// Another plugin may need less.
    pub fn forget_outgrown(&mut self) {
        self.outgrown.clear();
    }

    pub fn release(&mut self, slot: u32) {
        if self.has_outgrown() {
            self.outgrown.remove(&slot);
        }
        if let Some(variable) = &mut self.variable {
            variable.rows.clear(slot);
        }
        self.free.push(slot);
    }

    /// How many columns states have.
    pub fn width(&self) -> usize {
        self.columns.len()
    }

    /// The states of these slots, in this order.
    pub fn gather(&self, slots: &[u32]) -> Result<Vec<ArrayRef>, RowError> {
        let mut variable = match &self.variable {
            Some(variable) => variable
                .codec
                .unpack(slots.iter().map(|&slot| variable.rows.get(slot)))?,
            None => Vec::new(),
        }
        .into_iter();
        self.columns
            .iter()
            .map(|column| match column {
                Some(column) => column.gather(slots),
                None => variable
                    .next()
                    .ok_or_else(|| RowError::new("a state lacks a column")),
            })
            .collect()
    }

    /// One column of the states of these slots, in this order.
    pub fn gather_column(&self, slots: &[u32], column: usize) -> Result<ArrayRef, RowError> {
        match (&self.columns[column], &self.variable) {
            (Some(column), _) => column.gather(slots),
            (None, Some(variable)) => {
                let before = self.columns[..column].iter();
                let at = before.filter(|column| column.is_none()).count();
                let rows = slots.iter().map(|&slot| variable.rows.get(slot));
                variable.codec.unpack_column(at, rows)
            }
            (None, None) => Err(RowError::new("a state lacks a column")),
        }
    }

    /// Writes one state to each slot.
    pub fn scatter(&mut self, slots: &[u32], states: &[ArrayRef]) -> Result<(), RowError> {
        if states.len() != self.columns.len()
            || states.iter().any(|state| state.len() != slots.len())
        {
            return Err(RowError::new(format!(
                "states of {} columns where {} columns of {} rows are expected",
                states.len(),
                self.columns.len(),
                slots.len(),
            )));
        }
        let mut rest = Vec::new();
        for (column, states) in self.columns.iter_mut().zip(states) {
            match column {
                Some(column) => column.scatter(slots, states, self.slots)?,
                None => rest.push(states.clone()),
            }
        }
        if let Some(variable) = &mut self.variable {
            let encoder = variable.codec.encoder(&rest)?;
            for (row, &slot) in slots.iter().enumerate() {
                variable.scratch.clear();
                encoder.pack(row, &mut variable.scratch);
                variable.rows.set(slot, &variable.scratch);
            }
        }
        if self.has_outgrown() {
            self.check_outgrown(slots);
        }
        Ok(())
    }
}

impl EncodedStates {
    pub fn row(&self, row: usize) -> &[u8] {
        let start = if row == 0 { 0 } else { self.ends[row - 1] };
        &self.bytes[start..self.ends[row]]
    }
}

impl FixedColumn {
    /// `None` for a field of variable size.
    fn new(field: &Field) -> Option<FixedColumn> {
        let values = match &field.data_type {
            DataType::Bool => FixedValues::Bool(Vec::new()),
            DataType::Record(fields) => {
                FixedValues::Record(fields.iter().map(FixedColumn::new).collect::<Option<_>>()?)
            }
            other => match fixed_width(other)? {
                1 => FixedValues::Fixed1(Vec::new()),
                2 => FixedValues::Fixed2(Vec::new()),
                4 => FixedValues::Fixed4(Vec::new()),
                16 => FixedValues::Fixed16(Vec::new()),
                _ => FixedValues::Fixed8(Vec::new()),
            },
        };
        Some(FixedColumn {
            field: field.clone(),
            valid: Vec::new(),
            values,
        })
    }

    /// Bytes of a value.
    fn width(&self) -> usize {
        let values = match &self.values {
            FixedValues::Bool(_) | FixedValues::Fixed1(_) => 1,
            FixedValues::Fixed2(_) => 2,
            FixedValues::Fixed4(_) => 4,
            FixedValues::Fixed8(_) => 8,
            FixedValues::Fixed16(_) => 16,
            FixedValues::Record(members) => members.iter().map(FixedColumn::width).sum(),
        };
        values + usize::from(self.field.nullable)
    }

    fn gather(&self, slots: &[u32]) -> Result<ArrayRef, RowError> {
        let nulls = self.field.nullable.then(|| {
            let valid = |&slot: &u32| self.valid[slot as usize];
            NullBuffer::new(slots.iter().map(valid).collect::<BooleanBuffer>())
        });
        let nulls = nulls.filter(|nulls| nulls.null_count() > 0);
        let values = match &self.values {
            FixedValues::Bool(values) => {
                let bits = slots.iter().map(|&slot| values[slot as usize]).collect();
                return Ok(Arc::new(BooleanArray::new(bits, nulls)));
            }
            FixedValues::Record(members) => {
                let fields = members.iter().map(|member| member.field.to_arrow());
                let fields = fields.collect();
                let members = members.iter().map(|member| member.gather(slots));
                let members = members.collect::<Result<_, _>>()?;
                return StructArray::try_new_with_length(fields, members, nulls, slots.len())
                    .map(|record| Arc::new(record) as ArrayRef)
                    .map_err(|error| RowError::new(error.to_string()));
            }
            FixedValues::Fixed1(values) => pick(values, slots),
            FixedValues::Fixed2(values) => pick(values, slots),
            FixedValues::Fixed4(values) => pick(values, slots),
            FixedValues::Fixed8(values) => pick(values, slots),
            FixedValues::Fixed16(values) => pick(values, slots),
        };
        fixed_array(&self.field.data_type, slots.len(), values, nulls)
    }

    fn scatter(
        &mut self,
        slots: &[u32],
        states: &ArrayRef,
        slots_max: usize,
    ) -> Result<(), RowError> {
        if self.field.nullable {
            self.valid.resize(slots_max, false);
            match states.nulls() {
                Some(nulls) => {
                    for (row, &slot) in slots.iter().enumerate() {
                        self.valid[slot as usize] = nulls.is_valid(row);
                    }
                }
                None => {
                    for &slot in slots {
                        self.valid[slot as usize] = true;
                    }
                }
            }
        }
        let mismatch = || {
            RowError::new(format!(
                "state `{}` is {} where {} is expected",
                self.field.name,
                states.data_type(),
                self.field.data_type
            ))
        };
        let fixed = |width| fixed_bytes(states, width).ok_or_else(mismatch);
        match &mut self.values {
            FixedValues::Bool(values) => {
                values.resize(slots_max, false);
                let states = states.as_boolean_opt().ok_or_else(mismatch)?;
                for (state, &slot) in states.values().iter().zip(slots) {
                    values[slot as usize] = state;
                }
            }
            FixedValues::Record(members) => {
                let states = states.as_struct_opt().ok_or_else(mismatch)?;
                if states.num_columns() != members.len() {
                    return Err(mismatch());
                }
                for (member, states) in members.iter_mut().zip(states.columns()) {
                    member.scatter(slots, states, slots_max)?;
                }
            }
            FixedValues::Fixed1(values) => put(values, slots, fixed(1)?.as_slice(), slots_max),
            FixedValues::Fixed2(values) => put(values, slots, fixed(2)?.typed_data(), slots_max),
            FixedValues::Fixed4(values) => put(values, slots, fixed(4)?.typed_data(), slots_max),
            FixedValues::Fixed8(values) => put(values, slots, fixed(8)?.typed_data(), slots_max),
            FixedValues::Fixed16(values) => put(values, slots, fixed(16)?.typed_data(), slots_max),
        }
        Ok(())
    }
}

impl ByteRows {
    fn used(&self) -> usize {
        self.bytes.len() - self.garbage + self.large_bytes
    }

    fn get(&self, slot: u32) -> &[u8] {
        let slot = slot as usize;
        match self.places.get(slot) {
            None => &[],
            Some(place) if place.room == 0 => self.large.get(&slot).map_or(&[], |row| row),
            Some(place) => &self.bytes[place.start..place.start + place.length],
        }
    }

    fn set(&mut self, slot: u32, row: &[u8]) {
        let index = slot as usize;
        if index >= self.places.len() {
            self.places.resize(index + 1, RowPlace::default());
        }
        if row.len() >= LARGE_BYTES {
            self.set_large(slot, row);
            return;
        }
        self.clear_large(index);
        let place = &mut self.places[index];
        if row.len() > place.room {
            // A row that has grown once is likely to grow again.
            let more = if place.room == 0 { 0 } else { row.len() / 2 };
            self.garbage += place.room;
            place.start = self.bytes.len();
            place.room = row.len() + more;
            self.bytes.resize(place.start + place.room, 0);
        }
        place.length = row.len();
        self.bytes[place.start..place.start + row.len()].copy_from_slice(row);
        if self.garbage > GARBAGE_BYTES_MIN && self.garbage > self.bytes.len() / 2 {
            self.sweep();
        }
    }

    #[cold]
    fn set_large(&mut self, slot: u32, row: &[u8]) {
        let index = slot as usize;
        if let Some(known) = self.large.get_mut(&index)
            && known.len() == row.len()
        {
            known.copy_from_slice(row);
            return;
        }
        self.clear(slot);
        self.large_bytes += row.len();
        self.large.insert(index, row.into());
    }

    fn clear(&mut self, slot: u32) {
        let index = slot as usize;
        self.clear_large(index);
        if let Some(place) = self.places.get_mut(index) {
            self.garbage += place.room;
            *place = RowPlace::default();
        }
    }

    fn clear_large(&mut self, index: usize) {
        if !self.large.is_empty()
            && let Some(row) = self.large.remove(&index)
        {
            self.large_bytes -= row.len();
        }
    }

    /// Moves the bytes in use together.
    fn sweep(&mut self) {
        let mut bytes = Vec::with_capacity(self.bytes.len() - self.garbage);
        for place in &mut self.places {
            let start = bytes.len();
            bytes.extend_from_slice(&self.bytes[place.start..place.start + place.length]);
            bytes.resize(start + place.room, 0);
            place.start = start;
        }
        self.bytes = bytes;
        self.garbage = 0;
    }
}

fn pick<T: Copy + arrow_buffer::ArrowNativeType>(values: &[T], slots: &[u32]) -> Buffer {
    let picked: Vec<T> = slots.iter().map(|&slot| values[slot as usize]).collect();
    Buffer::from_vec(picked)
}

fn put<T: Copy + Default>(values: &mut Vec<T>, slots: &[u32], states: &[T], slots_max: usize) {
    if values.len() < slots_max {
        values.resize(slots_max, T::default());
    }
    for (&slot, &state) in slots.iter().zip(states) {
        values[slot as usize] = state;
    }
}
