//! Sends a task's output downstream: decides which task gets each row.

use std::sync::Arc;

use tokio::sync::mpsc::Sender;

use crate::batch::Batch;
use crate::element::Element;
use crate::placement::owner;
use crate::shard::shards;
use crate::tap::Tap;

/// All consumers of one output of a node.
#[derive(Default)]
pub struct Router {
    pub consumers: Vec<Consumer>,
    /// Where others see its rows.
    pub tap: Arc<Tap>,
}

/// The tasks that one edge leads to from this task.
pub enum Consumer {
    One(Sender<Element>),
    /// Each row goes to the task that has the shard of its key columns' hash.
    Sharded {
        key: Vec<usize>,
        tasks: Vec<Sender<Element>>,
    },
}

/// The downstream task is gone, since the run is ending.
#[derive(Debug)]
pub struct Gone;

impl Router {
    /// Waits while a consumer's channel is full.
    pub async fn send(&self, element: Element) -> Result<(), Gone> {
        for consumer in &self.consumers {
            match (consumer, &element) {
                (Consumer::One(task), element) => send(task, element.clone()).await?,
                (Consumer::Sharded { key, tasks }, Element::Batch(batch)) => {
                    for (task, rows) in split(batch, key, tasks.len()).into_iter().enumerate() {
                        if !rows.is_empty() {
                            send(&tasks[task], Element::Batch(batch.take(&rows))).await?;
                        }
                    }
                }
                (Consumer::Sharded { tasks, .. }, element) => {
                    for task in tasks {
                        send(task, element.clone()).await?;
                    }
                }
            }
        }
        Ok(())
    }
}

async fn send(task: &Sender<Element>, element: Element) -> Result<(), Gone> {
    task.send(element).await.map_err(|_| Gone)
}

/// The rows of a batch that go to each task.
fn split(batch: &Batch, key: &[usize], tasks: usize) -> Vec<Vec<u32>> {
    let mut rows = vec![Vec::with_capacity(batch.rows() / tasks + 1); tasks];
    let key = key.iter().map(|&column| &batch.columns[column]);
    for (row, shard) in shards(key, batch.rows()).into_iter().enumerate() {
        rows[owner(shard, tasks)].push(row as u32);
    }
    rows
}

#[cfg(test)]
mod tests {
    use arrow_array::{Int64Array, StringArray};

    use super::*;
    use crate::schema::{DataType, Field, Schema};

    fn batch() -> Batch {
        let users = ["anna", "ben", "carla", "anna"];
        Batch {
            schema: Arc::new(Schema::new(vec![
                Field::new("user", DataType::Utf8, true),
                Field::new("n", DataType::Int64, true),
            ])),
            columns: vec![
                Arc::new(StringArray::from(users.to_vec())),
                Arc::new(Int64Array::from(vec![Some(1), Some(-2), None, Some(1)])),
            ],
            times: vec![0, 1, 2, 3].into(),
            origin: None,
            watermarks: None,
            taken_back: None,
        }
    }

    #[test]
    fn every_row_goes_to_one_task_and_equal_keys_together() {
        for tasks in [1, 2, 3, 256] {
            let parts = split(&batch(), &[0], tasks);
            let mut all: Vec<u32> = parts.concat();
            all.sort_unstable();
            assert_eq!(all, [0, 1, 2, 3], "{tasks} tasks");
            assert!(
                parts
                    .iter()
                    .any(|rows| rows.contains(&0) && rows.contains(&3))
            );
        }
    }
}
