//! Adds to each row its number, and values of the rows before and behind it, in order of
//! event time.
//!
//! The host treats it as a process that takes rows in this order. It keeps the last rows of
//! each key that it still needs. A row that needs later ones waits for them: until they have
//! come, or the key has had none for so long that its state is forgotten. It then has the
//! event time at which that was known, so that it is late for nothing behind it.

/// Reads calls of functions.
pub mod call;

use std::collections::VecDeque;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, Int64Array, ListArray, StructArray, new_null_array};
use arrow_buffer::OffsetBuffer;
use arrow_schema::{ArrowError, Fields};
use arrow_select::interleave::interleave;

use self::call::{Call, Neighbour, Side};
use crate::builtin::values::integers;
use crate::logic::{
    Callee, Columns, Factory, Failure, FailureKind, GroupTimers, Instance, Keyed, Kind,
    OperatorInfo, Port, Process, Processed, Rows, Step, Steps, TimedRows,
};
use crate::schema::{DataType, Field, Schema};

/// A column that is added to rows.
#[derive(Clone, Debug)]
pub struct Added {
    pub name: String,
    pub call: Call,
    /// The column of its field.
    pub column: usize,
    /// What there is instead of a neighbour: one value, or none.
    pub default: Option<ArrayRef>,
}

/// Makes instances.
pub struct Neighbours {
    info: OperatorInfo,
    layout: Arc<Layout>,
}

/// What is added, and what is kept for it.
struct Layout {
    added: Vec<Added>,
    /// The input's columns whose values are kept of rows.
    kept: Vec<usize>,
    /// The place of each of the input's columns among those that are kept.
    place: Vec<Option<usize>>,
    members: Fields,
    /// How many rows before and behind each are needed.
    before: usize,
    behind: usize,
    /// How long a row waits for one behind it.
    ttl_ms: i64,
}

/// The name of the timer of a key whose rows wait.
const FORGOTTEN: &str = "forgotten";

impl Neighbours {
    /// For rows of these fields. `ttl_ms` is how long after its last row a key is forgotten.
    pub fn new(rows: Schema, added: Vec<Added>, ttl_ms: Option<i64>) -> Self {
        let reach = added.iter().map(|added| added.call.reach());
        let (before, behind) = reach.fold((0, 0), |(before, behind), (more, further)| {
            (before.max(more), behind.max(further))
        });
        let is_read = |column: usize| {
            let mut reading = added.iter().filter(|added| added.call != Call::RowNumber);
            reading.any(|added| added.column == column)
        };
        // A row that waits is kept as a whole.
        let kept: Vec<usize> = (0..rows.fields.len())
            .filter(|&column| behind > 0 || is_read(column))
            .collect();
        let members: Vec<Field> = kept.iter().map(|&at| rows.fields[at].clone()).collect();
        let layout = Layout {
            place: (0..rows.fields.len())
                .map(|column| kept.iter().position(|&kept| kept == column))
                .collect(),
            members: members.iter().map(Field::to_arrow).collect(),
            kept,
            before,
            behind,
            ttl_ms: ttl_ms.unwrap_or(i64::MAX),
            added,
        };
        let mut state = vec![Field::new("rows so far", DataType::Int64, false)];
        if before + behind > 0 {
            let row = Field::new("item", DataType::Record(members.into()), false);
            state.push(Field::new("rows that wait", DataType::Int64, false));
            state.push(Field::new(
                "last rows",
                DataType::List(Arc::new(row)),
                false,
            ));
        }
        let mut output = rows.clone();
        for added in &layout.added {
            output.fields.push(added.field(&rows));
        }
        let ports = [rows, output].map(|schema| vec![Port::main(Arc::new(schema))]);
        let [inputs, outputs] = ports;
        Neighbours {
            info: OperatorInfo {
                state: Arc::new(Schema::new(state)),
                ..OperatorInfo::new("order", Kind::Process, inputs, outputs)
            },
            layout: Arc::new(layout),
        }
    }
}

impl Added {
    fn field(&self, rows: &Schema) -> Field {
        match self.call {
            Call::RowNumber => Field::new(&self.name, DataType::Int64, false),
            Call::Neighbour(_) => {
                let field = &rows.fields[self.column];
                let nullable = field.nullable || self.default.is_none();
                Field::new(&self.name, field.data_type.clone(), nullable)
            }
        }
    }
}

impl Factory for Neighbours {
    fn info(&self) -> &OperatorInfo {
        &self.info
    }

    fn instance(&self) -> Result<Instance, Failure> {
        Ok(Instance::Process(Box::new(NeighboursInstance {
            layout: self.layout.clone(),
        })))
    }
}

struct NeighboursInstance {
    layout: Arc<Layout>,
}

/// Where a row is: among those of states, or of the input.
type Place = (usize, usize);

const KNOWN: usize = 0;
const CAME: usize = 1;

/// The rows of a key.
#[derive(Clone, Default)]
struct KeyRows {
    /// Whether there is a state.
    is_known: bool,
    /// How many rows have come.
    count: i64,
    /// The last rows, the newest last.
    last: VecDeque<Place>,
    /// How many of them wait.
    waiting: usize,
    /// When the key is forgotten, if rows wait for that.
    timer_ms: Option<i64>,
}

/// Rows that are put out.
#[derive(Default)]
struct PutOut {
    /// The step of each, and its event time.
    parents: Vec<u32>,
    times: Vec<i64>,
    rows: Vec<Place>,
    numbers: Vec<i64>,
    /// For each column that is added, where its value is; of those that read no neighbour,
    /// nothing.
    neighbours: Vec<Vec<Option<Place>>>,
}

impl Layout {
    /// Puts out the oldest row that waits.
    fn put_out(&self, of: &mut KeyRows, (step, time_ms): (usize, i64), out: &mut PutOut) {
        let at = of.last.len() - of.waiting;
        let behind = (of.last.len() - 1 - at) as i64;
        out.parents.push(step as u32);
        out.times.push(time_ms);
        out.rows.push(of.last[at]);
        out.numbers.push(of.count - behind);
        for (added, places) in self.added.iter().zip(&mut out.neighbours) {
            if let Call::Neighbour(Neighbour { side, rows, .. }) = added.call {
                let neighbour = match side {
                    Side::Before => at.checked_sub(rows),
                    Side::Behind => Some(at + rows),
                };
                places.push(neighbour.and_then(|at| of.last.get(at).copied()));
            }
        }
        of.waiting -= 1;
        while of.last.len() > self.before + of.waiting {
            of.last.pop_front();
        }
    }

    fn take_row(&self, of: &mut KeyRows, row: usize, at: (usize, i64), out: &mut PutOut) {
        of.is_known = true;
        of.count += 1;
        of.last.push_back((CAME, row));
        of.waiting += 1;
        while of.waiting > self.behind {
            self.put_out(of, at, out);
        }
        let forgotten_ms = at.1.saturating_add(self.ttl_ms).saturating_add(1);
        of.timer_ms = (of.waiting > 0).then_some(forgotten_ms);
    }

    /// Puts out the rows that wait, if the key is forgotten by now.
    fn forget(&self, of: &mut KeyRows, step: usize, now_ms: i64, out: &mut PutOut) {
        let Some(timer_ms) = of.timer_ms.filter(|&timer_ms| timer_ms <= now_ms) else {
            return;
        };
        while of.waiting > 0 {
            self.put_out(of, (step, timer_ms), out);
        }
        of.timer_ms = None;
        // When all inputs have ended, there may be more rows in another run.
        if now_ms < i64::MAX {
            *of = KeyRows::default();
        }
    }

    /// The rows of states, as the columns that are kept.
    fn known_rows(&self, states: Columns<'_>) -> Vec<ArrayRef> {
        match states.columns {
            [_, _, lists] => lists
                .as_list::<i32>()
                .values()
                .as_struct()
                .columns()
                .to_vec(),
            _ => Vec::new(),
        }
    }

    fn read_keys(&self, keyed: &Keyed<'_>) -> Vec<KeyRows> {
        let mut keys = vec![KeyRows::default(); keyed.groups];
        if keyed.states.rows > 0 {
            let counts = integers(&keyed.states.columns[0]);
            for (key, &count) in keys.iter_mut().zip(counts.iter()) {
                key.is_known = true;
                key.count = count;
            }
            if let [_, waiting, lists] = keyed.states.columns {
                let bounds = lists.as_list::<i32>().offsets().windows(2);
                let waiting = integers(waiting);
                for ((key, bounds), &waiting) in keys.iter_mut().zip(bounds).zip(waiting.iter()) {
                    let rows = bounds[0] as usize..bounds[1] as usize;
                    key.last = rows.map(|row| (KNOWN, row)).collect();
                    key.waiting = waiting as usize;
                }
            }
        }
        for (group, time_ms, _) in keyed.event_timers.each() {
            keys[group as usize].timer_ms = Some(time_ms);
        }
        keys
    }

    fn states(
        &self,
        keys: &[&KeyRows],
        known: &[ArrayRef],
        input: &[ArrayRef],
    ) -> Result<Vec<ArrayRef>, ArrowError> {
        let counts = keys.iter().map(|key| key.count);
        let mut states: Vec<ArrayRef> = vec![Arc::new(Int64Array::from_iter_values(counts))];
        if self.before + self.behind > 0 {
            let waiting = keys.iter().map(|key| key.waiting as i64);
            let places: Vec<Place> = keys.iter().flat_map(|key| &key.last).copied().collect();
            let columns = (0..self.kept.len()).map(|at| {
                let came: &dyn Array = &input[self.kept[at]];
                picked(known.get(at), came, &places)
            });
            let columns = columns.collect::<Result<Vec<_>, _>>()?;
            let rows = StructArray::try_new(self.members.clone(), columns, None)?;
            let ends = OffsetBuffer::from_lengths(keys.iter().map(|key| key.last.len()));
            let item = Field::new("item", DataType::Bool, false).to_arrow();
            let item = item.with_data_type(rows.data_type().clone());
            states.push(Arc::new(Int64Array::from_iter_values(waiting)));
            states.push(Arc::new(ListArray::try_new(
                Arc::new(item),
                ends,
                Arc::new(rows),
                None,
            )?));
        }
        Ok(states)
    }

    fn output(
        &self,
        out: &PutOut,
        known: &[ArrayRef],
        input: &[ArrayRef],
    ) -> Result<Vec<ArrayRef>, ArrowError> {
        let known_of = |column: usize| self.place[column].and_then(|at| known.get(at));
        let own = input.iter().enumerate();
        let own = own.map(|(column, came)| picked(known_of(column), came, &out.rows));
        let mut columns = own.collect::<Result<Vec<ArrayRef>, _>>()?;
        for (added, places) in self.added.iter().zip(&out.neighbours) {
            if added.call == Call::RowNumber {
                columns.push(Arc::new(Int64Array::from(out.numbers.clone())));
                continue;
            }
            let came = &input[added.column];
            let none = new_null_array(came.data_type(), 1);
            let instead = added.default.as_ref().unwrap_or(&none);
            let known = known_of(added.column).unwrap_or(came);
            let values: [&dyn Array; 3] = [known, came, instead];
            let places = places.iter().map(|place| place.unwrap_or((2, 0)));
            columns.push(interleave(&values, &places.collect::<Vec<_>>())?);
        }
        Ok(columns)
    }
}

/// The values at these places. Without known ones, all came.
fn picked(
    known: Option<&ArrayRef>,
    came: &dyn Array,
    places: &[Place],
) -> Result<ArrayRef, ArrowError> {
    interleave(&[known.map_or(came, |known| known), came], places)
}

impl Callee for NeighboursInstance {}

impl Process for NeighboursInstance {
    fn process(
        &mut self,
        inputs: &[Columns<'_>],
        steps: &Steps,
        keyed: Keyed<'_>,
    ) -> Result<Processed, Failure> {
        let layout = &*self.layout;
        let mut keys = layout.read_keys(&keyed);
        let mut out = PutOut::default();
        out.neighbours.resize_with(layout.added.len(), Vec::new);
        let mut next_row = 0;
        for (step, (&code, &group)) in steps.inputs.iter().zip(&steps.groups).enumerate() {
            let key = &mut keys[group as usize];
            let fires = code != Step::RowAlone(0).code(inputs.len());
            let now_ms = steps.watermarks[step];
            if fires {
                layout.forget(key, step, now_ms, &mut out);
            }
            if Step::has_row(code, inputs.len()) {
                layout.take_row(key, next_row, (step, steps.times[step]), &mut out);
                next_row += 1;
                if fires {
                    layout.forget(key, step, now_ms, &mut out);
                }
            }
        }
        let mut event_timers = GroupTimers::default();
        let mut groups = Vec::new();
        let mut kept = Vec::new();
        for (group, key) in (0..).zip(&keys) {
            if let Some(timer_ms) = key.timer_ms {
                event_timers.push(group, timer_ms, FORGOTTEN);
            }
            if key.is_known {
                groups.push(group);
                kept.push(key);
            }
        }
        let known = layout.known_rows(keyed.states);
        let input = inputs[0].columns;
        let failed = |error: ArrowError| {
            let message = format!("its rows are too large for one call: {error}");
            Failure::new(FailureKind::Memory, message)
        };
        Ok(Processed {
            groups,
            states: layout.states(&kept, &known, input).map_err(failed)?,
            event_timers,
            processing_timers: GroupTimers::default(),
            outputs: vec![TimedRows {
                rows: Rows {
                    columns: layout.output(&out, &known, input).map_err(failed)?,
                    parents: out.parents,
                },
                times: out.times,
            }],
            rejects: Vec::new(),
            rejected_timers: Vec::new(),
        })
    }
}
