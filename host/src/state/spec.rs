//! What a checkpoint's manifest says of a table of keyed state, and whether a later
//! plan can restore it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::schema::{Field, Schema};

/// A table of keyed state. A restore finds a node's tables by their role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSpec {
    /// What the node uses the table for: `windows`, for example.
    pub role: String,
    /// The fields of the key as `name: type`.
    pub key: Vec<String>,
    /// The fields of a state as `name: type`.
    pub state: Vec<String>,
    pub rows: RowKind,
}

/// How a row of the table is laid out around its states.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowKind {
    pub kind: String,
    pub version: u32,
}

impl RowKind {
    pub fn new(kind: &str, version: u32) -> Self {
        RowKind {
            kind: kind.to_owned(),
            version,
        }
    }

    /// That of buffered rows, as `state::rows` says.
    pub fn buffered() -> Self {
        RowKind::new("rows", 1)
    }
}

impl TableSpec {
    pub fn new(role: &str, key: &Schema, state: &Schema, rows: RowKind) -> Self {
        TableSpec {
            role: role.to_owned(),
            key: field_texts(key),
            state: field_texts(state),
            rows,
        }
    }

    /// Why a node cannot restore this table, if so. `now` is the table of the same
    /// role in the plan.
    pub fn difference(&self, now: &TableSpec) -> Option<String> {
        let rows = |table: &TableSpec| table.rows.to_string();
        FieldChange::between("key", listed(&self.key), listed(&now.key))
            .or_else(|| FieldChange::between("state", listed(&self.state), listed(&now.state)))
            .or_else(|| FieldChange::between("layout of rows", rows(self), rows(now)))
            .map(|change| change.to_string())
    }
}

/// One thing that differs.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldChange {
    pub field: &'static str,
    pub then: String,
    pub now: String,
}

impl FieldChange {
    pub fn between(field: &'static str, then: String, now: String) -> Option<FieldChange> {
        (then != now).then_some(FieldChange { field, then, now })
    }
}

impl fmt::Display for FieldChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FieldChange { field, then, now } = self;
        match *field {
            "columns" | "parameters" => write!(f, "its {field} were {then} and are now {now}"),
            _ => write!(f, "its {field} was {then} and is now {now}"),
        }
    }
}

/// Fields as `name: type`, the form in which manifests list them.
pub fn field_texts(schema: &Schema) -> Vec<String> {
    schema.fields.iter().map(Field::to_string).collect()
}

/// Fields, or other names, for messages.
pub fn listed(texts: &[String]) -> String {
    match texts {
        [] => "empty".to_owned(),
        texts => texts.join(", "),
    }
}

impl fmt::Display for RowKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::DataType;

    fn spec() -> TableSpec {
        let key = Schema::new(vec![Field::new("user", DataType::Utf8, true)]);
        let state = Schema::new(vec![Field::new("sum", DataType::Int64, false)]);
        let rows = RowKind {
            kind: "session".to_owned(),
            version: 1,
        };
        TableSpec::new("windows", &key, &state, rows)
    }

    #[test]
    fn a_table_is_listed_as_data() {
        let json = serde_json::to_value(spec()).expect("it has only text and numbers");
        let expected = serde_json::json!({
            "role": "windows",
            "key": [Field::new("user", DataType::Utf8, true).to_string()],
            "state": ["sum: int64"],
            "rows": { "kind": "session", "version": 1 },
        });
        assert_eq!(json, expected);
        assert_eq!(serde_json::from_value::<TableSpec>(json).ok(), Some(spec()));
    }

    #[test]
    fn what_differs_is_named() {
        let then = spec();
        assert_eq!(then.difference(&spec()), None);
        let mut key = spec();
        key.key.clear();
        let mut state = spec();
        state.state = vec!["sum: float64".to_owned()];
        let mut rows = spec();
        rows.rows.version = 2;
        let said = [key, state, rows].map(|now| then.difference(&now).unwrap_or_default());
        let user = &then.key[0];
        assert_eq!(said[0], format!("its key was {user} and is now empty"));
        assert_eq!(said[1], "its state was sum: int64 and is now sum: float64");
        assert_eq!(
            said[2],
            "its layout of rows was session 1 and is now session 2"
        );
    }
}
