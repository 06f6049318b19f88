//! Where a task's elements come from: a source, or a gate that merges the output of
//! other tasks.

use std::sync::Arc;

use super::error::TaskError;
use crate::batch::Batch;
use crate::checkpoint::barrier::TaskCheckpoints;
use crate::checkpoint::snapshot::NodeSnapshot;
use crate::dead_letter::DeadLetter;
use crate::element::{Barrier, CheckpointId, END_OF_TIME, Element, Inlet, NodeId};
use crate::gate::{Gate, Merged};
use crate::operator::Counts;
use crate::plan::MAIN_OUTPUT;
use crate::progress::NodeProgress;
use crate::router::Gone;
use crate::source::reader::SourceReader;
use crate::state::look::LookRequest;
use crate::stop::Stop;

/// Where a task's elements come from.
pub enum Head {
    Source {
        node: NodeId,
        reader: Box<SourceReader>,
        progress: Arc<NodeProgress>,
        /// Its number among those of the source.
        task: usize,
        /// The source has no more rows, and waits for the last checkpoint.
        has_ended: bool,
    },
    Gate {
        gate: Gate,
        /// Whether a barrier has passed after which open windows must not fire.
        leaves_windows_open: bool,
    },
}

/// What the loop handles next: an element of the head, a timer, or a commit.
pub(super) enum Incoming {
    Batch(Inlet, Batch),
    Watermark(i64),
    Idle,
    Barrier(Barrier, Vec<(NodeId, NodeSnapshot)>),
    End,
    /// A timer of the chain is due.
    Wake,
    /// The checkpoint was committed.
    Committed(CheckpointId),
    /// Somebody looks at the state of an operator.
    Look(LookRequest),
}

impl Head {
    pub(super) async fn next(
        &mut self,
        stop: &Stop,
        checkpoints: Option<TaskCheckpoints>,
        dead_letters: &mut Vec<DeadLetter>,
    ) -> Result<Vec<Incoming>, TaskError> {
        match self {
            Head::Gate {
                gate,
                leaves_windows_open,
            } => Ok(match gate.next().await {
                Merged::Batch(inlet, batch) => vec![Incoming::Batch(inlet, batch)],
                // More rows may come to the windows that are open.
                Merged::EndOfTime(_) if *leaves_windows_open || stop.asked() => Vec::new(),
                Merged::EndOfTime(newest) => {
                    let times = newest.into_iter().chain([END_OF_TIME]);
                    times.map(Incoming::Watermark).collect()
                }
                Merged::Watermark(watermark) => vec![Incoming::Watermark(watermark)],
                Merged::Idle => vec![Incoming::Idle],
                Merged::Barrier(barrier) => {
                    *leaves_windows_open |= barrier.purpose.leaves_windows_open();
                    vec![Incoming::Barrier(barrier, Vec::new())]
                }
                Merged::End => vec![Incoming::End],
            }),
            Head::Source {
                node,
                reader,
                progress,
                task,
                has_ended,
            } => {
                let pulled = tokio::select! {
                    biased;
                    trigger = next_trigger(checkpoints.as_ref(), stop) => {
                        let Some(barrier) = trigger else {
                            return Ok(vec![Incoming::End]);
                        };
                        let snapshot = NodeSnapshot::Source(reader.snapshot());
                        let mut incoming = vec![Incoming::Barrier(barrier, vec![(*node, snapshot)])];
                        if barrier.purpose.is_last() {
                            incoming.push(Incoming::End);
                        }
                        return Ok(incoming);
                    }
                    pulled = async {
                        wait_for_first_commit(checkpoints.as_ref()).await?;
                        Ok::<_, TaskError>(reader.next().await?)
                    }, if !*has_ended => pulled?,
                };
                let Some(pulled) = pulled else {
                    progress.set_idle(*task);
                    progress.set_slowest(*task, None);
                    if checkpoints.is_none() {
                        return Ok(vec![Incoming::Watermark(END_OF_TIME), Incoming::End]);
                    }
                    // The task stays for the checkpoints that are still to come.
                    *has_ended = true;
                    return Ok(vec![Incoming::Watermark(END_OF_TIME)]);
                };
                progress.add_in(pulled.rows_in as usize);
                progress.add_lost(pulled.lost);
                progress.ledger.read(pulled.rows_in, pulled.failed);
                progress.add_counts(Counts {
                    failed: pulled.failed,
                    ..Default::default()
                });
                if let Some(part) = pulled.progress {
                    progress.set_read(part);
                }
                if let Some(cut) = &pulled.cut_times
                    && progress.add_cut_times(cut)
                {
                    tracing::warn!(
                        "source `{}`: times are kept in milliseconds, and what is below is cut \
                         off: {}",
                        progress.name,
                        cut.example
                    );
                }
                if let Some(misspelt) = &pulled.misspelt
                    && progress.begins_to_tell_misspelt()
                {
                    tracing::warn!("{misspelt}");
                }
                progress.set_slowest(*task, reader.slowest());
                progress.add_dead_letters(&pulled.dead_letters);
                dead_letters.extend(pulled.dead_letters);
                Ok(pulled
                    .elements
                    .into_iter()
                    .map(|element| match element {
                        Element::Batch(batch) => {
                            progress.add_out(batch.rows());
                            progress.ledger.left(MAIN_OUTPUT, batch.rows());
                            Incoming::Batch(Inlet::default(), batch)
                        }
                        Element::Watermark(watermark) => {
                            // An operator that finds the times tells most of its watermarks.
                            if reader.finds_times() {
                                progress.set_watermark(*task, watermark);
                            }
                            Incoming::Watermark(watermark)
                        }
                        Element::Idle => {
                            progress.set_idle(*task);
                            Incoming::Idle
                        }
                        Element::Barrier(barrier) => Incoming::Barrier(barrier, Vec::new()),
                        Element::End => Incoming::End,
                    })
                    .collect())
            }
        }
    }
}

/// Waits for the barrier that the source has to send next; `None` if it is to end
/// without one. The future may be dropped.
async fn next_trigger(checkpoints: Option<&TaskCheckpoints>, stop: &Stop) -> Option<Barrier> {
    let Some(own) = checkpoints else {
        stop.wait().await;
        return None;
    };
    let mut trigger = own.trigger.clone();
    let next = trigger
        .wait_for(|trigger| trigger.id > own.last_passed)
        .await;
    match next.map(|next| *next) {
        Ok(next) => Some(next),
        // The coordinator is gone: the run is ending.
        Err(_) => std::future::pending().await,
    }
}

/// Waits for the commit of the checkpoint that precedes the first row, if any.
async fn wait_for_first_commit(checkpoints: Option<&TaskCheckpoints>) -> Result<(), TaskError> {
    if let Some(own) = checkpoints
        && let Some(first) = own.first
    {
        let mut committed = own.committed.clone();
        let waited = committed.wait_for(|&committed| committed >= first).await;
        waited.map_err(|_| Gone)?;
    }
    Ok(())
}
