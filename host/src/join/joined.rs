//! Makes rows of pairs: columns of both sides, in batches.

use std::sync::Arc;

use arrow_array::{ArrayRef, StructArray, new_null_array};
use arrow_schema::DataType as ArrowType;

use crate::batch::{Batch, bytes, gather};
use crate::operator::Outbox;
use crate::operator::guard::CALL_BYTES_MAX;
use crate::plan::{JoinColumn, JoinPlan, LEFT, MAIN_OUTPUT, RIGHT};
use crate::schema::{Field, Schema};
use crate::state::error::StateError;
use crate::state::table::StateTable;

/// The layout of joined rows.
pub(super) struct Joined {
    columns: Vec<JoinColumn>,
    schema: Arc<Schema>,
    sides: [Arc<Schema>; 2],
    batch_rows: usize,
}

/// Where the rows of a side are.
#[derive(Clone, Copy)]
pub(super) enum SideRows<'a> {
    Batch(&'a [ArrayRef]),
    Buffer(&'a StateTable),
    /// Nothing matches the rows of the other side.
    Missing,
}

/// Pairs that are to come out together.
pub(super) struct Pairs {
    /// The place of each side's row.
    places: [Vec<u32>; 2],
    times: Vec<i64>,
    /// How many there is room for.
    room: usize,
}

impl Joined {
    pub fn new(plan: &JoinPlan, schema: Arc<Schema>, batch_rows: usize) -> Self {
        Joined {
            columns: plan.output.clone(),
            schema,
            sides: plan.sides.each_ref().map(|side| side.schema.clone()),
            batch_rows: batch_rows.max(1),
        }
    }

    /// No pairs yet, of rows that are there: as many as have few enough bytes.
    pub fn pairs(&self, sides: [SideRows<'_>; 2]) -> Pairs {
        let bytes = sides.into_iter().map(SideRows::bytes_on_average).sum();
        let room = CALL_BYTES_MAX / std::cmp::max(bytes, 1);
        Pairs {
            places: [Vec::new(), Vec::new()],
            times: Vec::new(),
            room: room.clamp(1, self.batch_rows),
        }
    }

    /// Emits pairs, and forgets them.
    pub fn emit(
        &self,
        pairs: &mut Pairs,
        sides: [SideRows<'_>; 2],
        out: &mut Outbox,
    ) -> Result<(), StateError> {
        if pairs.times.is_empty() {
            return Ok(());
        }
        let of_side = |side: usize| match sides[side] {
            SideRows::Batch(columns) => Ok(gather(columns, &pairs.places[side])),
            SideRows::Buffer(states) => states.gather(&pairs.places[side]),
            SideRows::Missing => Ok(self.nulls(side, pairs.times.len())),
        };
        let (left, right) = (of_side(LEFT)?, of_side(RIGHT)?);
        let has_left = !matches!(sides[LEFT], SideRows::Missing);
        let (rows, columns) = ([&left, &right], self.columns.iter());
        let columns = columns.zip(&self.schema.fields);
        let columns = columns.map(|(column, field)| match column {
            JoinColumn::Left(at) => left[*at].clone(),
            JoinColumn::Right(at) => right[*at].clone(),
            JoinColumn::Record(side, _) if matches!(sides[*side], SideRows::Missing) => {
                new_null_array(&field.data_type.to_arrow(), pairs.times.len())
            }
            JoinColumn::Record(side, members) => {
                let members = members.iter().map(|&at| rows[*side][at].clone());
                record(field, members.collect())
            }
            JoinColumn::Key { left: at, .. } if has_left => left[*at].clone(),
            JoinColumn::Key { right: at, .. } => right[*at].clone(),
        });
        let batch = Batch {
            schema: self.schema.clone(),
            columns: columns.collect(),
            times: std::mem::take(&mut pairs.times).into(),
            origin: None,
            watermarks: None,
            taken_back: None,
        };
        for places in &mut pairs.places {
            places.clear();
        }
        out.put(MAIN_OUTPUT, batch);
        Ok(())
    }

    /// Emits rows of `side` that match none, by their places and times.
    pub fn emit_alone(
        &self,
        side: usize,
        own: SideRows<'_>,
        rows: impl Iterator<Item = (u32, i64)>,
        out: &mut Outbox,
    ) -> Result<(), StateError> {
        let sides = in_order(side, own, SideRows::Missing);
        let mut pairs = self.pairs(sides);
        for (place, time_ms) in rows {
            pairs.push_alone(side, place, time_ms);
            if pairs.is_full() {
                self.emit(&mut pairs, sides, out)?;
            }
        }
        self.emit(&mut pairs, sides, out)
    }

    fn nulls(&self, side: usize, rows: usize) -> Vec<ArrayRef> {
        let fields = self.sides[side].fields.iter();
        let nulls = fields.map(|field| new_null_array(&field.data_type.to_arrow(), rows));
        nulls.collect()
    }
}

impl Pairs {
    /// Adds a pair, by the places of the row of `side` and of the other.
    pub fn push(&mut self, side: usize, place: u32, other: u32, time_ms: i64) {
        self.places[side].push(place);
        self.places[1 - side].push(other);
        self.times.push(time_ms);
    }

    /// Adds a row of `side` that matches none.
    pub fn push_alone(&mut self, side: usize, place: u32, time_ms: i64) {
        self.places[side].push(place);
        self.times.push(time_ms);
    }

    pub fn is_full(&self) -> bool {
        self.times.len() >= self.room
    }
}

impl SideRows<'_> {
    fn bytes_on_average(self) -> usize {
        match self {
            SideRows::Batch(columns) => {
                let rows = columns.first().map_or(0, |column| column.len());
                bytes(columns, &(0..rows)) / rows.max(1)
            }
            SideRows::Buffer(states) => states.bytes_on_average(),
            SideRows::Missing => 0,
        }
    }
}

/// A column of records, none of which is missing.
fn record(field: &Field, members: Vec<ArrayRef>) -> ArrayRef {
    let ArrowType::Struct(fields) = field.data_type.to_arrow() else {
        unreachable!("the planner makes it of columns")
    };
    Arc::new(StructArray::new(fields, members, None))
}

/// The sides in their order: `own` are the rows of `side`.
pub(super) fn in_order<'a>(
    side: usize,
    own: SideRows<'a>,
    other: SideRows<'a>,
) -> [SideRows<'a>; 2] {
    match side {
        LEFT => [own, other],
        _ => [other, own],
    }
}
