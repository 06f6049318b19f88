//! Results that others replace, and those that are taken back: which are left in the end.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Map, Value};

use crate::batch::Batch;
use crate::json::render_exact_row;
use crate::plan::{TAKEN_BACK, TableKey, Timing};
use crate::schema::Schema;

/// The rows that were added and not taken back, as the column `change` says, which is left
/// out.
pub(super) fn standing(rows: Vec<Map<String, Value>>, change: &str) -> Vec<Map<String, Value>> {
    let mut standing: BTreeMap<String, (i64, Map<String, Value>)> = BTreeMap::new();
    for mut row in rows {
        let is_taken_back = row
            .remove(change)
            .is_some_and(|change| change == TAKEN_BACK);
        let text = Value::from_iter(row.clone()).to_string();
        let (times, _) = standing.entry(text).or_insert((0, row));
        *times += if is_taken_back { -1 } else { 1 };
    }
    let rows = standing.into_values();
    let rows = rows.flat_map(|(times, row)| (0..times).map(move |_| row.clone()));
    rows.collect()
}

/// A table of results by key, each a row.
#[derive(Debug)]
pub(super) struct ResultTable(pub TableKey);

impl ResultTable {
    /// Whether a result in this batch has several rows. No batch has two results of a
    /// key.
    pub fn has_several(&self, batch: &Batch) -> bool {
        let mut seen = HashSet::new();
        let rows = (0..batch.rows()).map(|row| render_exact_row(batch, row));
        let mut rows = rows.filter_map(|text| serde_json::from_str(&text).ok());
        rows.any(|row| !seen.insert(self.key(&row)))
    }

    /// The rows that are left in the end. Their timing, which depends on the order of
    /// the input, is left out.
    pub fn left_of(&self, rows: Vec<Map<String, Value>>) -> Vec<Map<String, Value>> {
        let mut left: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
        for mut row in rows {
            let key = self.key(&row);
            let timing = self.0.timing.as_ref().and_then(|name| row.remove(name));
            match timing {
                Some(timing) if timing == Timing::Gone.name() => left.remove(&key),
                _ => left.insert(key, row),
            };
        }
        left.into_values().collect()
    }

    pub fn without_timing(&self, schema: &Schema) -> Schema {
        let mut schema = schema.clone();
        let timing = self.0.timing.as_ref();
        schema.fields.retain(|field| Some(&field.name) != timing);
        schema
    }

    fn key(&self, row: &Map<String, Value>) -> String {
        let values = self.0.columns.iter().map(|name| row.get(name).cloned());
        Value::from_iter(values.map(Option::unwrap_or_default)).to_string()
    }
}
