//! Migrates the states of a restored checkpoint that earlier versions of plugins have
//! kept.

use std::sync::Arc;
use std::time::Instant;

use super::dropped::Dropped;
use super::error::RunError;
use super::revision::Revision;
use crate::blame::Blame;
use crate::budget::Budget;
use crate::checkpoint::manifest::{Manifest, NodeManifest};
use crate::checkpoint::storage::Storage;
use crate::dead_letter::{self, DeadLetter, OnMigrationError};
use crate::logic::Factory;
use crate::offload::Offload;
use crate::plan::change::{NodeDescription, earlier_state};
use crate::plan::{Node, NodeKind};
use crate::schema::Schema;
use crate::shard::SHARDS;
use crate::state::migration::{Layout, LostState, Migrated, Migration, MigrationError};
use crate::state::spec::{TableSpec, field_texts};
use crate::state::stored::StoredTable;
use crate::{process, window};

/// How many states of a table may become dead letters: more are no exceptions.
const LOST_MAX: usize = 10_000;

/// Rewrites the current rows of each table whose states are those of an earlier version,
/// and returns the dead letters of those that are lost. The checkpoint itself stays as it
/// is: to run the earlier version again, it is restored.
pub async fn migrate(
    revision: &Revision,
    manifest: &Manifest,
    dropped: &Dropped,
    storage: &Arc<dyn Storage>,
    offload: Offload,
) -> Result<Vec<DeadLetter>, RunError> {
    let mut letters = Vec::new();
    for (node, now) in revision.plan.nodes.iter().zip(&revision.description) {
        let mut known = manifest.nodes.iter();
        let then = known.find(|then| then.name() == node.name && !dropped.has(then.name()));
        let due = then
            .into_iter()
            .flat_map(|then| due(node, now, then, storage));
        for migration in due.collect::<Vec<_>>() {
            let began = Instant::now();
            let migrated = offload.run(move || migration.run()).await;
            let Migrated { states, lost } =
                migrated.map_err(|error| refused(node, manifest, error))?;
            tracing::info!(
                "operator `{}`: {states} states of an earlier version, from checkpoint {}, are \
                 migrated ({} ms)",
                node.name,
                manifest.id,
                began.elapsed().as_millis()
            );
            if let Some(first) = lost.first() {
                tracing::warn!(
                    "operator `{}`: {} states cannot be migrated, and their keys begin anew; the \
                     first is that of the key {}: {}",
                    node.name,
                    lost.len(),
                    first.key,
                    first.why
                );
            }
            letters.extend(lost.into_iter().map(|state| letter(node, state)));
        }
    }
    Ok(letters)
}

fn letter(node: &Node, lost: LostState) -> DeadLetter {
    let operator = node.kind.operator();
    DeadLetter {
        node: node.name.clone(),
        plugin: operator.map(|operator| operator.name.clone()),
        plugin_digest: operator.map(|operator| operator.factory.digest().to_owned()),
        kind: "migration".to_owned(),
        error: lost.why,
        ..dead_letter::of_state(&lost.key, Some(&lost.state))
    }
}

/// The migrations of a node's tables.
fn due(
    node: &Node,
    now: &NodeDescription,
    then: &NodeManifest,
    storage: &Arc<dyn Storage>,
) -> Vec<Migration> {
    let migration = |table: &TableSpec| {
        let tables = &then.description.tables;
        let known = tables.iter().find(|known| known.role == table.role)?;
        if known.state == table.state {
            return None;
        }
        Some(Migration {
            table: StoredTable {
                storage: storage.clone(),
                table: then.table(&table.role)?,
                shards: 0..SHARDS,
                restored: None,
                budget: Arc::new(Budget::new(usize::MAX)),
            },
            factory: migrates_from(node, &known.state)?,
            key: key_schema(node)?,
            layout: layout(node)?,
            lost_max: match node.kind.operator()?.on_migration_error {
                OnMigrationError::Fail => 0,
                OnMigrationError::DeadLetter => LOST_MAX,
            },
        })
    };
    now.tables.iter().filter_map(migration).collect()
}

fn migrates_from(node: &Node, state: &[String]) -> Option<Arc<dyn Factory>> {
    let mut earlier = node.kind.operator()?.earlier.iter();
    let takes = |migration: &&Arc<dyn Factory>| field_texts(earlier_state(&***migration)) == state;
    earlier.find(takes).cloned()
}

fn key_schema(node: &Node) -> Option<Arc<Schema>> {
    match &node.kind {
        NodeKind::Aggregate(aggregate) => Some(aggregate.key_schema.clone()),
        NodeKind::Process(process) => Some(process.key_schema.clone()),
        _ => None,
    }
}

fn layout(node: &Node) -> Option<Layout> {
    match &node.kind {
        NodeKind::Aggregate(aggregate) => {
            let window = aggregate.window;
            Some(Box::new(move |row, states| {
                window::migrated::states(window, row, states)
            }))
        }
        NodeKind::Process(_) => Some(Box::new(process::migrated::states)),
        _ => None,
    }
}

fn refused(node: &Node, manifest: &Manifest, error: MigrationError) -> RunError {
    match error {
        MigrationError::Storage(error) => error.into(),
        error => RunError::Restore {
            why: format!(
                "operator `{}` keeps other states than in checkpoint {}, and {error}; nothing was \
                 changed: the plugin from before goes on from there",
                node.name, manifest.id
            ),
            blame: Blame::Plugin,
        },
    }
}
