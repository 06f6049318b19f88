//! `sluicebox plan`: shows what a pipeline's file would change on a running host.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::Args;
use reqwest::Method;

use super::CliError;
use super::client::{Answer, Client, HostArguments};
use super::format::table;
use crate::service::change::{ChangePlan, NodeEffect, NodePlan, StateEffect};

#[derive(Args)]
pub struct PlanArguments {
    #[command(flatten)]
    file: PipelineFile,
    #[command(flatten)]
    host: HostArguments,
}

/// A pipeline's file on this machine, for a pipeline of the host.
#[derive(Args)]
pub struct PipelineFile {
    /// The pipeline's TOML file; its plugins are those on the host, at the paths that it names
    file: PathBuf,
    /// Agree that this source, operator or sink loses what the checkpoint has of it; may be
    /// repeated
    #[arg(long, value_name = "NODE")]
    drop: Vec<String>,
}

impl PipelineFile {
    /// The pipeline's name, which the file says. Mistakes in the file are the host's to tell.
    pub fn name(&self) -> Result<String, CliError> {
        let table = self.text()?.parse::<toml::Table>().ok();
        let named = table.and_then(|table| Some(table.get("name")?.as_str()?.to_owned()));
        let of_file = || Some(self.file.file_stem()?.to_str()?.to_owned());
        named.or_else(of_file).ok_or_else(|| {
            CliError::Usage(anyhow!("{} has no name of a pipeline", self.file.display()))
        })
    }

    /// Sends the file to the host.
    pub fn send(&self, client: &Client, method: Method, path: &[&str]) -> Result<Answer, CliError> {
        let dropped = self.drop.join(",");
        let query = [("drop", dropped.as_str())];
        let query = match dropped.is_empty() {
            true => &[][..],
            false => &query[..],
        };
        client.ask(method, path, query, Some(self.text()?))
    }

    fn text(&self) -> Result<String, CliError> {
        read(&self.file).map_err(CliError::Usage)
    }
}

fn read(file: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(file)
        .with_context(|| format!("cannot read the pipeline {}", file.display()))
}

pub fn plan(arguments: &PlanArguments) -> Result<(), CliError> {
    let client = arguments.host.client()?;
    let name = arguments.file.name()?;
    let answer = arguments
        .file
        .send(&client, Method::POST, &[&name, "plan"])?;
    client.show(&answer, |change: ChangePlan| to_text(&name, &change))?;
    match answer.read::<ChangePlan>()?.loses() {
        Some(why) => Err(CliError::Usage(anyhow!("it would be refused: {why}"))),
        None => Ok(()),
    }
}

/// A line for each node, and how the change takes effect.
pub(super) fn to_text(name: &str, change: &ChangePlan) -> String {
    let rows = change.nodes.iter().map(|node| {
        vec![
            node.name.clone(),
            node.role.clone(),
            effect(node.change).to_owned(),
            state(node).to_owned(),
            differences(node),
        ]
    });
    let table = table(&["node", "role", "change", "state", ""], rows);
    let is = |wanted: NodeEffect| move |node: &NodePlan| node.change == wanted;
    let how = if change.loses().is_some() {
        "it would not take over"
    } else if change.nodes.iter().all(is(NodeEffect::Added)) {
        "it is new"
    } else if change.in_place {
        "it takes over in place, at a checkpoint's barrier, without a restart"
    } else if change.nodes.iter().all(is(NodeEffect::Unchanged)) {
        "no node is another"
    } else {
        "it takes over at a checkpoint, by a restart"
    };
    format!("{table}{name}: {how}\n")
}

fn effect(effect: NodeEffect) -> &'static str {
    match effect {
        NodeEffect::Unchanged => "unchanged",
        NodeEffect::Changed => "changed",
        NodeEffect::Added => "added",
        NodeEffect::Removed => "removed",
    }
}

fn state(node: &NodePlan) -> &'static str {
    match node.state {
        StateEffect::Stateless => "none",
        StateEffect::New => "new",
        StateEffect::Kept => "kept",
        StateEffect::Migrated => "migrated",
        StateEffect::Incompatible => "incompatible",
        StateEffect::Gone => "lost",
        StateEffect::Dropped => "dropped",
    }
}

fn differences(node: &NodePlan) -> String {
    let fields = node.fields.iter().cloned();
    let all: Vec<String> = fields.chain(node.why.clone()).collect();
    all.join("; ")
}

/// The nodes that a change changes, on one line.
pub(super) fn summary(change: &ChangePlan) -> String {
    let changed = change.nodes.iter();
    let changed = changed.filter(|node| node.change != NodeEffect::Unchanged);
    let told = changed.map(|node| match node.state {
        StateEffect::Stateless | StateEffect::New => {
            format!("{} {}", node.name, effect(node.change))
        }
        _ => format!(
            "{} {} (state {})",
            node.name,
            effect(node.change),
            state(node)
        ),
    });
    let told: Vec<String> = told.collect();
    told.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, change: NodeEffect, state: StateEffect) -> NodePlan {
        NodePlan {
            name: name.to_owned(),
            role: "operator".to_owned(),
            change,
            fields: Vec::new(),
            state,
            why: None,
            compared: None,
        }
    }

    #[test]
    fn a_plan_says_what_becomes_of_each_node_and_how() {
        let mut change = ChangePlan {
            nodes: vec![
                node("clean", NodeEffect::Unchanged, StateEffect::Stateless),
                NodePlan {
                    fields: vec!["key: user -> item".to_owned()],
                    why: Some("its key was user".to_owned()),
                    ..node("totals", NodeEffect::Changed, StateEffect::Incompatible)
                },
            ],
            in_place: false,
        };
        expect_test::expect![[r#"
             node    role      change     state
             clean   operator  unchanged  none
             totals  operator  changed    incompatible  key: user -> item; its key was user
            shop: it would not take over
        "#]]
        .assert_eq(&to_text("shop", &change));
        assert_eq!(summary(&change), "totals changed (state incompatible)");
        change.nodes[1].state = StateEffect::Kept;
        assert!(to_text("shop", &change).contains("by a restart"));
        change.in_place = true;
        assert!(to_text("shop", &change).contains("in place"));
    }
}
