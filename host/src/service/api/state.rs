//! Shows the state of an operator: of a key, or of all keys page by page; as it is now, or
//! as of the last checkpoint.

use std::sync::Arc;

use arrow_array::ArrayRef;
use axum::Json;
use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::task::spawn_blocking;
use tokio::time::{Duration, Instant, timeout_at};
use utoipa::ToSchema;

use super::problem::Problem;
use super::{NamedNode, blocking, checkpoints, running};
use crate::budget::Budget;
use crate::checkpoint::storage::StorageError;
use crate::checkpoint::storage::folder::{Archive, CheckpointRows};
use crate::decode::Decoder;
use crate::element::NodeId;
use crate::format::{Format, RowFormat};
use crate::plan::{NodeKind, Plan};
use crate::run::{LookError, Looks};
use crate::schema::Schema;
use crate::service::hosted::{Phase, Running};
use crate::shard::{SHARDS, shards};
use crate::state::error::StateError;
use crate::state::key::{BatchKeys, KeyLayout};
use crate::state::look::{Look, Place, Seen, SeenRow, WantedKey};
use crate::state::row::RowError;
use crate::state::shown::{Shown, show_key};
use crate::state::spec::{field_texts, listed};
use crate::state::stored::StoredTable;
use crate::{join, placement, process, window};

const LIMIT: usize = 100;
const LIMIT_MAX: usize = 1_000;

/// How long tasks may take to answer, all together. One that waits for the tasks behind it
/// answers late.
const WAIT: Duration = Duration::from_secs(5);

/// How often a look at a checkpoint is tried again that goes away meanwhile.
const LOOK_TRIES: usize = 5;
const LOOK_PAUSE: Duration = Duration::from_millis(50);

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct StateQuery {
    /// A JSON object of the key's fields, such as `{"user_id":"ann"}`; all keys without it
    key: Option<String>,
    /// `live` by default
    #[serde(default)]
    #[param(inline)]
    as_of: AsOf,
    /// How many keys there are in an answer at most: 1 to 1000, 100 by default
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// The `next` of the answer before, asked in the same way
    cursor: Option<String>,
}

/// Which state is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum AsOf {
    /// As it is now. The answers for all keys are not of one moment: a key that moves between
    /// memory and disk meanwhile may be in two of them, or in none.
    #[default]
    Live,
    /// As it was at the last checkpoint.
    Checkpoint,
}

/// The state of an operator, or a part of it.
#[derive(Serialize, ToSchema)]
pub struct StateView {
    operator: String,
    as_of: AsOf,
    /// The last complete checkpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    checkpoint: Option<u64>,
    /// The fields of the key as `name: type`.
    key: Vec<String>,
    entries: Vec<EntryView>,
    /// For `cursor` of the next request; absent where nothing follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// What is kept for a key.
#[derive(Serialize, ToSchema)]
struct EntryView {
    /// What the operator has it for.
    table: String,
    #[schema(value_type = Object)]
    key: Box<RawValue>,
    #[serde(flatten)]
    shown: Shown,
}

/// How far the answers have come.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Cursor {
    as_of: AsOf,
    table: usize,
    /// Of live state.
    task: usize,
    place: Place,
}

/// The state of an operator: of a key, or of all
#[utoipa::path(get, path = "/api/v1/pipelines/{name}/operators/{node}/state",
    params(("name" = String, Path), ("node" = String, Path), StateQuery), responses(
    (status = 200, body = StateView),
    (status = 400, body = Problem, content_type = "application/problem+json",
        description = "The key does not fit; the answer says which fields it has"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
    (status = 409, body = Problem, content_type = "application/problem+json",
        description = "The operator keeps nothing, or the pipeline does not run and has no checkpoint that can be seen"),
    (status = 500, body = Problem, content_type = "application/problem+json"),
    (status = 504, body = Problem, content_type = "application/problem+json",
        description = "A task is busy; the state as of the last checkpoint can still be seen"),
))]
pub async fn state(
    NamedNode { pipeline, node }: NamedNode,
    query: Result<Query<StateQuery>, QueryRejection>,
) -> Result<Json<StateView>, Problem> {
    let Query(query) = query.map_err(|error| Problem::bad_request(&error.body_text()))?;
    let running = running(&pipeline)?;
    let mut looking = Looking::new(&running, node, &query)?;
    let phase = pipeline.shown().phase;
    if phase.rests() && looking.looks.tasks(node) == 0 {
        looking.kept = Some(kept(&running, node, phase, query.as_of).await?);
    }
    let (entries, next) = looking.look(query.cursor.as_deref()).await?;
    let plan = &running.planned.plan;
    let state = running.state.as_ref().map(|state| state.snapshot());
    Ok(Json(StateView {
        operator: plan.nodes[node].name.clone(),
        as_of: query.as_of,
        checkpoint: match &looking.kept {
            Some(kept) => Some(kept.rows.manifest.id),
            None => state.and_then(|state| Some(state.checkpoint?.id)),
        },
        key: field_texts(looking.key_schema),
        entries,
        next: next.map(|cursor| cursor.write()),
    }))
}

/// What the last checkpoint has of an operator, while the pipeline does not run.
struct Kept {
    /// By table; absent where the checkpoint has none.
    tables: Vec<Option<StoredTable>>,
    /// Closed behind them.
    rows: CheckpointRows,
}

/// Opens the last checkpoint of a pipeline that does not run.
async fn kept(
    running: &Running,
    node: NodeId,
    phase: Phase,
    as_of: AsOf,
) -> Result<Arc<Kept>, Problem> {
    let planned = running.planned.clone();
    if as_of == AsOf::Live {
        return Err(Problem::conflict(&format!(
            "the pipeline is {}: live state is seen while it runs; ask with as_of=checkpoint for \
             that of its last checkpoint",
            phase.name()
        )));
    }
    let archive = checkpoints::archive(&planned.plan)?;
    let opened = blocking(move || {
        let rows = last_rows(&archive).map_err(|error| Problem::internal(&error))?;
        let rows = rows.ok_or_else(|| {
            let why = format!(
                "the pipeline is {}, and has made no checkpoint",
                phase.name()
            );
            Problem::conflict(&why)
        })?;
        let name = &planned.plan.nodes[node].name;
        let mut nodes = rows.manifest.nodes.iter();
        let known = nodes.find(|known| known.name() == name);
        let stored = |role: &str| {
            Some(StoredTable {
                storage: rows.storage(),
                table: known?.table(role)?,
                shards: 0..SHARDS,
                restored: None,
                budget: Arc::new(Budget::new(usize::MAX)),
            })
        };
        let tables = planned.description[node].tables.iter();
        let tables = tables.map(|table| stored(&table.role)).collect();
        Ok(Kept { tables, rows })
    });
    opened.await.map(Arc::new)
}

/// The rows of the last whole checkpoint.
fn last_rows(archive: &Archive) -> Result<Option<CheckpointRows>, StorageError> {
    let mut tries = 0..LOOK_TRIES;
    loop {
        let list = archive.list()?;
        let Some(last) = list.iter().rfind(|info| info.damage.is_none()) else {
            return Ok(None);
        };
        match CheckpointRows::open(archive, last.id) {
            Ok(rows) => return Ok(Some(rows)),
            // The pipeline was started meanwhile, and makes and deletes checkpoints.
            Err(_) if tries.next().is_some() => std::thread::sleep(LOOK_PAUSE),
            Err(error) => return Err(error),
        }
    }
}

impl Kept {
    fn look(&self, look: &Look) -> Result<Seen, LookError> {
        let mut seen = Seen::new(look.rows_max);
        if let Some(table) = &self.tables[look.table] {
            table.look(look, &mut seen).map_err(StateError::from)?;
        }
        Ok(seen)
    }
}

/// A look at an operator.
struct Looking<'a> {
    plan: &'a Plan,
    node: NodeId,
    key_schema: &'a Schema,
    /// What its tables are for.
    tables: Vec<&'a str>,
    looks: Looks,
    /// Where nothing runs.
    kept: Option<Arc<Kept>>,
    as_of: AsOf,
    key: Option<WantedKey>,
    limit: usize,
}

impl<'a> Looking<'a> {
    fn new(running: &'a Running, node: NodeId, query: &StateQuery) -> Result<Self, Problem> {
        let planned = &running.planned;
        let name = &planned.plan.nodes[node].name;
        // Of sessions that are over, an aggregate keeps only that they are.
        let (key_schema, shown) = match &planned.plan.nodes[node].kind {
            NodeKind::Aggregate(plan) => (&plan.key_schema, 1),
            NodeKind::Process(plan) => (&plan.key_schema, usize::MAX),
            NodeKind::Join(plan) => (&plan.key_schema, usize::MAX),
            NodeKind::Source(_) | NodeKind::Transform(_) | NodeKind::Sink(_) => {
                return Err(Problem::conflict(&format!(
                    "`{name}` keeps no state: aggregates, processes and joins do"
                )));
            }
        };
        let limit = query.limit.unwrap_or(LIMIT);
        if !(1..=LIMIT_MAX).contains(&limit) {
            return Err(Problem::bad_request(&format!(
                "`limit` is {limit}; it must be 1 to {LIMIT_MAX}"
            )));
        }
        let key = query.key.as_deref().map(|text| read_key(key_schema, text));
        let tables = planned.description[node].tables.iter();
        Ok(Looking {
            plan: &planned.plan,
            node,
            key_schema,
            tables: tables
                .map(|table| table.role.as_str())
                .take(shown)
                .collect(),
            looks: running.pipeline.looks().clone(),
            kept: None,
            as_of: query.as_of,
            key: key.transpose().map_err(|why| Problem::bad_request(&why))?,
            limit,
        })
    }

    /// Looks from a cursor on. Returns the next one, if there may be more.
    async fn look(&self, from: Option<&str>) -> Result<(Vec<EntryView>, Option<Cursor>), Problem> {
        let tasks = match self.as_of {
            AsOf::Live => self.looks.tasks(self.node),
            AsOf::Checkpoint => 1,
        };
        let tasks = match &self.key {
            Some(key) => {
                let owner = placement::owner(key.shard, tasks);
                owner..(owner + 1).min(tasks)
            }
            None => 0..tasks,
        };
        if tasks.is_empty() {
            return Err(problem_of(LookError::Between));
        }
        let start = |table, task| Cursor {
            as_of: self.as_of,
            table,
            task,
            place: Place::START,
        };
        let mut at = match from {
            Some(text) => Cursor::read(text, self.as_of)?,
            None => start(0, tasks.start),
        };
        let until = Instant::now() + WAIT;
        let mut entries = Vec::new();
        let mut keys = 0;
        while at.table < self.tables.len() {
            if keys == self.limit {
                return Ok((entries, Some(at)));
            }
            let looked = timeout_at(until, self.look_once(&at, self.limit - keys));
            let seen = looked.await.map_err(|_| {
                Problem::timeout(
                    "a task of the operator is busy, or waits for the tasks behind it: try again, \
                     or ask with as_of=checkpoint",
                )
            })?;
            let seen = seen.map_err(problem_of)?;
            keys += seen.rows.len();
            for row in &seen.rows {
                let shown = self.show(at.table, row, &mut entries);
                shown.map_err(|error| Problem::internal(&error))?;
            }
            at = match seen.next {
                Some(place) => Cursor { place, ..at },
                None if at.task + 1 < tasks.end => start(at.table, at.task + 1),
                None => start(at.table + 1, tasks.start),
            };
        }
        Ok((entries, None))
    }

    async fn look_once(&self, at: &Cursor, rows_max: usize) -> Result<Seen, LookError> {
        let look = Look {
            table: at.table,
            key: self.key.clone(),
            from: at.place.clone(),
            rows_max,
        };
        match self.as_of {
            AsOf::Live => self.looks.live(self.node, at.task, look).await,
            AsOf::Checkpoint => {
                let (looks, node, kept) = (self.looks.clone(), self.node, self.kept.clone());
                let looking = spawn_blocking(move || match kept {
                    Some(kept) => kept.look(&look),
                    None => looks.as_of_checkpoint(node, &look),
                });
                looking.await.map_err(|_| LookError::Between)?
            }
        }
    }

    fn show(
        &self,
        table: usize,
        row: &SeenRow,
        entries: &mut Vec<EntryView>,
    ) -> Result<(), RowError> {
        let shown = match &self.plan.nodes[self.node].kind {
            NodeKind::Aggregate(plan) => window::show(plan, row)?,
            NodeKind::Process(plan) => vec![process::show(plan, table, row)?],
            NodeKind::Join(plan) => vec![join::show(plan, table, row)?],
            _ => Vec::new(),
        };
        for shown in shown {
            entries.push(EntryView {
                table: self.tables[table].to_owned(),
                key: show_key(self.key_schema, row)?,
                shown,
            });
        }
        Ok(())
    }
}

fn problem_of(error: LookError) -> Problem {
    match &error {
        LookError::Between | LookError::NoCheckpoints => Problem::conflict(&error.to_string()),
        LookError::State(_) => Problem::internal(&error),
    }
}

impl Cursor {
    fn write(&self) -> String {
        let json = serde_json::to_vec(self)
            .unwrap_or_else(|error| unreachable!("it has only texts and numbers: {error}"));
        BASE64_URL_SAFE_NO_PAD.encode(json)
    }

    fn read(text: &str, as_of: AsOf) -> Result<Cursor, Problem> {
        let json = BASE64_URL_SAFE_NO_PAD.decode(text).ok();
        let cursor: Option<Cursor> = json.and_then(|json| serde_json::from_slice(&json).ok());
        let cursor = cursor.filter(|cursor| cursor.as_of == as_of);
        cursor.ok_or_else(|| {
            Problem::bad_request("`cursor` is not the `next` of an answer to the same question")
        })
    }
}

/// Reads a key. The error says what it should be.
fn read_key(schema: &Schema, text: &str) -> Result<WantedKey, String> {
    let expected = || {
        let fields = listed(&field_texts(schema));
        format!("`key` is a JSON object of the key's fields, which are {fields}")
    };
    let object: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(text).map_err(|error| format!("{}: {error}", expected()))?;
    let is_field = |name: &str| schema.fields.iter().any(|field| field.name == name);
    if let Some(unknown) = object.keys().find(|name| !is_field(name)) {
        return Err(format!("there is no field `{unknown}`: {}", expected()));
    }
    let length = u32::try_from(text.len()).map_err(|_| expected())?;
    let mut decoder = Decoder::new(&RowFormat::from(Format::Json), schema);
    let decoded = decoder.decode(text.as_bytes(), &[(0, length)]);
    if let Some(bad) = decoded.bad.first() {
        return Err(format!("{}: {}", bad.error, expected()));
    }
    wanted_key(schema, decoded.columns).map_err(|error| format!("{error}: {}", expected()))
}

fn wanted_key(schema: &Schema, columns: Vec<ArrayRef>) -> Result<WantedKey, RowError> {
    let shard = shards(columns.iter(), 1)[0];
    let layout = KeyLayout::new(schema);
    let mut keys = BatchKeys::new(layout.clone());
    keys.read(columns, 1, |_| false)?;
    let mut row = Vec::new();
    layout.encode(keys.key(0), &mut row);
    Ok(WantedKey { row, shard })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{DataType, Field};
    use crate::state::look::Within;

    fn schema() -> Schema {
        Schema::new(vec![
            Field::new("user", DataType::Utf8, false),
            Field::new("day", DataType::Int64, true),
        ])
    }

    #[test]
    fn a_key_that_does_not_fit_is_told_what_fits() {
        for (text, why) in [
            ("ann", "expected value"),
            ("[]", "invalid type"),
            (r#"{"user":"ann","dya":3}"#, "there is no field `dya`"),
            (r#"{"day":3}"#, "user"),
            (r#"{"user":"ann","day":"x"}"#, "day"),
        ] {
            let error = read_key(&schema(), text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
            assert!(error.contains("user: utf8, day: int64"), "{text}: {error}");
        }
    }

    #[test]
    fn equal_keys_are_the_same_row_however_they_are_written() {
        let key = |text| read_key(&schema(), text).expect("it fits");
        let (one, two) = (
            key(r#"{"user":"ann","day":null}"#),
            key(r#" { "user" : "\u0061nn" } "#),
        );
        assert_eq!((one.row, one.shard), (two.row, two.shard));
        let shown = show_key(
            &schema(),
            &SeenRow::new(0, &key(r#"{"user":"ann"}"#).row, &[]),
        );
        assert_eq!(
            shown.expect("it fits").get(),
            r#"{"user":"ann","day":null}"#
        );
        let none = read_key(&Schema::default(), "{}").expect("it fits");
        assert!(none.row.is_empty());
    }

    #[test]
    fn a_cursor_is_read_as_it_was_written_and_nothing_else() {
        let cursor = Cursor {
            as_of: AsOf::Live,
            table: 1,
            task: 2,
            place: Place {
                pane: -3,
                within: Within::Stored(Some(vec![0, 255])),
            },
        };
        let text = cursor.write();
        assert_eq!(Cursor::read(&text, AsOf::Live).expect("it is one"), cursor);
        assert!(Cursor::read(&text, AsOf::Checkpoint).is_err());
        assert!(Cursor::read("x", AsOf::Live).is_err());
    }
}
