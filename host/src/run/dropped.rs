//! What a run is told to start without: nodes, and partitions of sources, which are
//! named `source/partition`.

use std::collections::HashSet;

use super::error::RunError;
use crate::checkpoint::manifest::{Manifest, NodeManifest, ProgressManifest};
use crate::paths::name_matches;
use crate::plan::change::{NodeClass, NodeDescription, StateChange, changes};
use crate::suggest;

#[derive(Default)]
pub struct Dropped {
    nodes: Vec<String>,
    partitions: Vec<DroppedPartitions>,
}

struct DroppedPartitions {
    source: String,
    /// The partition's name, or a pattern of names.
    pattern: String,
}

impl Dropped {
    /// Of names of nodes, which have no slash, and of partitions.
    pub fn parse(names: &[String]) -> Self {
        let mut dropped = Dropped::default();
        for name in names {
            match name.split_once('/') {
                None => dropped.nodes.push(name.clone()),
                Some((source, pattern)) => dropped.partitions.push(DroppedPartitions {
                    source: source.to_owned(),
                    pattern: pattern.to_owned(),
                }),
            }
        }
        dropped
    }

    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty() && self.partitions.is_empty()
    }

    /// Whether the node starts without what the checkpoint has of it.
    pub fn has(&self, node: &str) -> bool {
        self.nodes.iter().any(|name| name == node)
    }

    /// As they were written.
    pub fn written(&self) -> impl Iterator<Item = String> {
        let partitions = self.partitions.iter();
        let partitions = partitions.map(|it| format!("{}/{}", it.source, it.pattern));
        self.nodes.iter().cloned().chain(partitions)
    }

    /// Drops of a checkpoint only what does not fit, or is not in the plan any more.
    pub fn keep_what_fits(&mut self, manifest: &Manifest, now: &[NodeDescription]) {
        let nodes = manifest.nodes.iter();
        let then: Vec<NodeDescription> = nodes.map(|node| node.description.clone()).collect();
        let changes = changes(&then, now);
        let is_lost = |name: &String| {
            let mut changes = changes.iter();
            changes.any(|change| {
                let is_lost = matches!(
                    change.state,
                    StateChange::Incompatible(_) | StateChange::Gone
                );
                change.name == *name && is_lost
            })
        };
        self.nodes.retain(is_lost);
        self.partitions
            .retain(|dropped| dropped.leave(&mut manifest.clone()).is_ok());
    }

    /// Refuses to drop anything where there is no checkpoint.
    pub fn check_none(&self) -> Result<(), RunError> {
        match self.written().next() {
            None => Ok(()),
            Some(name) => Err(RunError::Usage(format!(
                "there is no checkpoint, so nothing of `{name}` to drop"
            ))),
        }
    }

    /// Checks that the checkpoint has what is to be dropped.
    pub fn check(&self, manifest: &Manifest) -> Result<(), RunError> {
        for name in &self.nodes {
            node_of(manifest, name)?;
        }
        let mut left = manifest.clone();
        let mut partitions = self.partitions.iter();
        partitions.try_for_each(|dropped| dropped.leave(&mut left).map(drop))
    }

    /// Checks that, says what it is, and takes the partitions out. Nodes stay in: their tables
    /// have to be deleted.
    pub fn leave(&self, manifest: &mut Manifest, now: &[NodeDescription]) -> Result<(), RunError> {
        let id = manifest.id;
        for name in &self.nodes {
            let class = node_of(manifest, name)?.description.class.role();
            tracing::warn!("dropping what checkpoint {id} has of {class} `{name}`");
        }
        for dropped in &self.partitions {
            for name in dropped.leave(manifest)? {
                tracing::warn!(
                    "dropping what checkpoint {id} has of {name}, of source `{}`",
                    dropped.source
                );
            }
        }
        let taken_twice = self.taken_twice(now, manifest);
        if !taken_twice.is_empty() {
            tracing::warn!(
                "what the checkpoint has of a source no more is read from its beginning, if it is \
                 there: states and files that are kept get its rows twice ({}); drop these, too, \
                 if that is wrong",
                taken_twice.join(", ")
            );
        }
        Ok(())
    }

    /// The operators and sinks that keep their states and rows although a source before
    /// them is dropped, or a part of it. Where it is gone, any new one may read the same.
    /// Nodes come after those that they read.
    fn taken_twice(&self, nodes: &[NodeDescription], manifest: &Manifest) -> Vec<String> {
        let sources = self.partitions.iter().map(|it| it.source.as_str());
        let sources = sources.chain(self.nodes.iter().map(String::as_str));
        let mut sources: HashSet<&str> = sources.collect();
        let is_there = |name: &str| nodes.iter().any(|node| node.name == name);
        let mut known = manifest.nodes.iter();
        let is_gone = known.any(|node| {
            let is_source = node.description.class == NodeClass::Source;
            is_source && sources.contains(node.name()) && !is_there(node.name())
        });
        if is_gone {
            let is_known = |name: &str| manifest.nodes.iter().any(|node| node.name() == name);
            let new = nodes.iter().filter(|node| !is_known(&node.name));
            sources.extend(new.map(|node| node.name.as_str()));
        }
        let mut fed: HashSet<&str> = HashSet::new();
        let mut taken = Vec::new();
        let find = |name: &str| nodes.iter().find(|node| node.name == name);
        for node in nodes {
            let mut upstream = node.upstream(find);
            if upstream.any(|input| fed.contains(input.name.as_str()))
                || (node.class == NodeClass::Source && sources.contains(node.name.as_str()))
            {
                fed.insert(&node.name);
                if node.is_stateful() && node.class != NodeClass::Source && !self.has(&node.name) {
                    taken.push(format!("`{}`", node.name));
                }
            }
        }
        taken
    }
}

fn node_of<'a>(manifest: &'a Manifest, name: &str) -> Result<&'a NodeManifest, RunError> {
    let mut nodes = manifest.nodes.iter();
    nodes.find(|node| node.name() == name).ok_or_else(|| {
        let names = manifest.nodes.iter().map(NodeManifest::name);
        RunError::Usage(format!(
            "checkpoint {} has no node `{name}` to drop: {}",
            manifest.id,
            suggest::help(name, "nodes", names)
        ))
    })
}

impl DroppedPartitions {
    /// Takes the partitions out of the checkpoint, and returns their names.
    fn leave(&self, manifest: &mut Manifest) -> Result<Vec<String>, RunError> {
        let (id, source) = (manifest.id, &self.source);
        let nodes = manifest.nodes.iter_mut();
        let mut sources = nodes.filter_map(|node| match &mut node.progress {
            ProgressManifest::Source(tasks) => Some((&node.description.name, tasks)),
            _ => None,
        });
        let Some((_, tasks)) = sources.find(|(name, _)| *name == source) else {
            return Err(RunError::Usage(format!(
                "checkpoint {id} has no source `{source}` to drop `{}` of",
                self.pattern
            )));
        };
        let is_dropped = |name: &str| name == self.pattern || name_matches(&self.pattern, name);
        let names = tasks.iter().flat_map(|task| &task.partitions);
        let names: Vec<String> = names.map(|partition| partition.name.clone()).collect();
        for task in tasks {
            task.partitions.retain(|it| !is_dropped(&it.name));
            task.turn.take_if(|(name, _)| is_dropped(name));
        }
        let (dropped, kept): (Vec<String>, Vec<String>) =
            names.into_iter().partition(|name| is_dropped(name));
        if dropped.is_empty() {
            return Err(RunError::Usage(format!(
                "checkpoint {id} has nothing of `{}` of source `{source}` to drop: {}",
                self.pattern,
                suggest::help(&self.pattern, "partitions", kept.iter().map(String::as_str))
            )));
        }
        Ok(dropped)
    }
}
