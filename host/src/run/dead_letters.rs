//! Writes the dead letters of all tasks to the one file of the pipeline.

use std::collections::BTreeSet;
use std::path::PathBuf;

use tokio::sync::{mpsc, oneshot, watch};

use crate::checkpoint::barrier::DeadLetterMessage;
use crate::checkpoint::manifest::LettersAfter;
use crate::dead_letter::DeadLetter;
use crate::element::{CheckpointId, NodeId};
use crate::paths::identity;
use crate::plan::{NodeKind, Plan};
use crate::sink::SinkError;
use crate::sink::dead_letter::{DeadLetters, Writer};
use crate::stop::Stop;

/// Makes the file when the first dead letter comes. Dead letters from after a
/// barrier wait until all tasks have passed it.
pub(super) struct DeadLetterWriter {
    pub writer: Writer,
    pub path: Option<PathBuf>,
    /// A pipe that nobody reads is not waited for then.
    pub stop: Stop,
    /// What is taken back at the start, if the run starts from a checkpoint.
    pub taken_back: Vec<TakenBack>,
    /// The last barrier that all tasks have passed.
    pub passed: CheckpointId,
    /// The checkpoint before the first row, if there is one, and the last that was
    /// committed. Until then the next run may start from another one, so nothing is
    /// taken back.
    pub first: Option<(CheckpointId, watch::Receiver<CheckpointId>)>,
    /// Who may still have dead letters.
    pub tasks: Tasks,
}

/// The tasks of a run, by number, and which of them have ended.
#[derive(Default)]
pub(super) struct Tasks {
    /// The sources that a task's rows come from: it ends when these have ended.
    sources: Vec<BTreeSet<NodeId>>,
    has_ended: Vec<bool>,
    waiting: Vec<(usize, oneshot::Sender<()>)>,
}

impl Tasks {
    /// Each task by the first of its nodes.
    pub fn of(plan: &Plan, first_nodes: impl Iterator<Item = NodeId>) -> Self {
        let mut sources: Vec<BTreeSet<NodeId>> = Vec::with_capacity(plan.nodes.len());
        for (id, node) in plan.nodes.iter().enumerate() {
            sources.push(match node.kind {
                NodeKind::Source(_) => BTreeSet::from([id]),
                _ => {
                    let upstream = node.edges().flat_map(|edge| &sources[edge.from]);
                    upstream.copied().collect()
                }
            });
        }
        let sources: Vec<_> = first_nodes.map(|first| sources[first].clone()).collect();
        Tasks {
            has_ended: vec![false; sources.len()],
            sources,
            waiting: Vec::new(),
        }
    }

    fn end(&mut self, task: usize, answer: oneshot::Sender<()>) {
        self.has_ended[task] = true;
        self.waiting.push((task, answer));
    }

    /// Those who wait no longer. A task with other sources may run for ever.
    fn take_settled(&mut self) -> Vec<oneshot::Sender<()>> {
        let running = self.sources.iter().zip(&self.has_ended);
        let running = running.filter(|(_, has_ended)| !**has_ended);
        let running: Vec<&BTreeSet<NodeId>> = running.map(|(sources, _)| sources).collect();
        let is_settled = |(task, _): &mut (usize, _)| {
            let own = &self.sources[*task];
            !running.iter().any(|sources| sources.is_subset(own))
        };
        let settled = self.waiting.extract_if(.., is_settled);
        settled.map(|(_, answer)| answer).collect()
    }
}

/// The dead letters after a checkpoint, which come again.
pub(super) struct TakenBack {
    /// The pipeline may have had another name.
    pub writer: Writer,
    pub after: CheckpointId,
    /// The files that they may be in.
    pub paths: Vec<PathBuf>,
}

impl TakenBack {
    pub fn of(letters: &LettersAfter, started_ms: i64, plan: &Plan) -> Self {
        let before = letters.place.as_ref().map(|place| plan.folder.join(place));
        let mut paths: Vec<PathBuf> = before
            .into_iter()
            .chain(plan.dead_letters.clone())
            .collect();
        paths.dedup_by_key(|path| identity(path));
        TakenBack {
            writer: Writer {
                pipeline: letters.pipeline.clone(),
                started_ms: Some(started_ms),
            },
            after: letters.checkpoint,
            paths,
        }
    }
}

impl DeadLetterWriter {
    pub async fn run(
        mut self,
        mut messages: mpsc::Receiver<DeadLetterMessage>,
    ) -> Result<(), SinkError> {
        if self.first.is_none() {
            self.take_back()?;
        }
        let mut file = None;
        let mut ahead = Vec::new();
        while let Some(message) = messages.recv().await {
            match message {
                DeadLetterMessage::Written(passed, dead_letters, _) if passed > self.passed => {
                    ahead.extend(dead_letters);
                }
                DeadLetterMessage::Written(_, dead_letters, answer) => {
                    self.write(&mut file, &dead_letters).await?;
                    // With checkpoints, nobody waits for it.
                    let _ = answer.send(());
                }
                DeadLetterMessage::Barrier(id, answer) => {
                    self.passed = id;
                    let bytes = self.sync(&mut file)?;
                    // Nobody waits for the answer when the run is ending.
                    let _ = answer.send(bytes);
                    if let Some((first, mut committed)) = self.first.take() {
                        let waited = committed.wait_for(|&committed| committed >= first).await;
                        if waited.is_err() {
                            return Ok(());
                        }
                        self.take_back()?;
                    }
                    self.write(&mut file, &std::mem::take(&mut ahead)).await?;
                }
                DeadLetterMessage::Ended(task, answer) => {
                    self.tasks.end(task, answer);
                    let settled = self.tasks.take_settled();
                    if !settled.is_empty() {
                        self.sync(&mut file)?;
                    }
                    for answer in settled {
                        // Only tasks with sinks wait for it.
                        let _ = answer.send(());
                    }
                }
            }
        }
        Ok(())
    }

    fn take_back(&mut self) -> Result<(), SinkError> {
        for TakenBack {
            writer,
            after,
            paths,
        } in self.taken_back.drain(..)
        {
            for path in paths {
                DeadLetters::take_back(&path, &writer, after)?;
            }
        }
        Ok(())
    }

    async fn write(
        &self,
        file: &mut Option<DeadLetters>,
        dead_letters: &[DeadLetter],
    ) -> Result<(), SinkError> {
        let (Some(path), false) = (&self.path, dead_letters.is_empty()) else {
            return Ok(());
        };
        let file = match file {
            Some(file) => file,
            none => {
                let _reader = tokio::select! {
                    biased;
                    reader = DeadLetters::wait_for_reader(path) => reader?,
                    () = self.stop.wait() => return Err(DeadLetters::unread(path)),
                };
                let file = DeadLetters::open(path, self.writer.clone())?;
                none.insert(file.until(self.stop.clone()))
            }
        };
        file.write(self.passed, dead_letters)
    }

    /// Syncs the file to the disk, and returns its length.
    fn sync(&self, file: &mut Option<DeadLetters>) -> Result<u64, SinkError> {
        match (file, &self.path) {
            (Some(file), _) => file.sync(),
            // No dead letter yet: the file, if there is one, is an earlier run's.
            (None, Some(path)) => Ok(std::fs::metadata(path).map_or(0, |found| found.len())),
            (None, None) => Ok(0),
        }
    }
}
