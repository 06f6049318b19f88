//! Sends a task's output downstream: decides which task gets each row.

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Int8Type, Int16Type, Int32Type, Int64Type, TimestampMillisecondType, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, ArrowPrimitiveType, PrimitiveArray};
use arrow_schema::{DataType, TimeUnit};
use tokio::sync::mpsc::Sender;
use twox_hash::XxHash3_64;

use crate::batch::Batch;
use crate::element::Element;
use crate::placement::{SHARDS, owner};

/// All consumers of one output of a node.
#[derive(Default)]
pub struct Router {
    pub consumers: Vec<Consumer>,
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

/// The shard of each row. Part of the format of persisted state: a key must
/// have the same shard in every version.
pub fn shards<'a>(key: impl Iterator<Item = &'a ArrayRef>, rows: usize) -> Vec<u32> {
    let mut hashes = vec![0; rows];
    for column in key {
        hash_column(column, &mut hashes);
    }
    hashes
        .into_iter()
        .map(|hash| (hash >> 32) as u32 % SHARDS)
        .collect()
}

/// Mixes a column into the hashes of its rows.
fn hash_column(column: &ArrayRef, hashes: &mut [u64]) {
    match column.data_type() {
        DataType::Boolean => {
            let values = column.as_boolean();
            hash_rows(column, hashes, |row| mix(u64::from(values.value(row))));
        }
        DataType::Int8 => hash_integers::<Int8Type>(column, hashes, |v| v as u64),
        DataType::Int16 => hash_integers::<Int16Type>(column, hashes, |v| v as u64),
        DataType::Int32 => hash_integers::<Int32Type>(column, hashes, |v| v as u64),
        DataType::Int64 => hash_integers::<Int64Type>(column, hashes, |v| v as u64),
        DataType::UInt8 => hash_integers::<UInt8Type>(column, hashes, u64::from),
        DataType::UInt16 => hash_integers::<UInt16Type>(column, hashes, u64::from),
        DataType::UInt32 => hash_integers::<UInt32Type>(column, hashes, u64::from),
        DataType::UInt64 => hash_integers::<UInt64Type>(column, hashes, |v| v),
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            hash_integers::<TimestampMillisecondType>(column, hashes, |v| v as u64);
        }
        DataType::Utf8 => {
            let values = column.as_string::<i32>();
            hash_rows(column, hashes, |row| {
                XxHash3_64::oneshot(values.value(row).as_bytes())
            });
        }
        DataType::Binary => {
            let values = column.as_binary::<i32>();
            hash_rows(column, hashes, |row| XxHash3_64::oneshot(values.value(row)));
        }
        other => unreachable!("the planner lets no {other} be a key"),
    }
}

fn hash_integers<T: ArrowPrimitiveType>(
    column: &ArrayRef,
    hashes: &mut [u64],
    bits: impl Fn(T::Native) -> u64,
) {
    let values: &PrimitiveArray<T> = column.as_primitive();
    hash_rows(column, hashes, |row| mix(bits(values.value(row))));
}

fn hash_rows(column: &ArrayRef, hashes: &mut [u64], hash: impl Fn(usize) -> u64) {
    for (row, known) in hashes.iter_mut().enumerate() {
        let value = if column.is_null(row) { 0 } else { hash(row) };
        *known = mix(known.rotate_left(5) ^ value);
    }
}

/// The finaliser of splitmix64 (Steele, Lea, Flood: Fast splittable
/// pseudorandom number generators, 2014).
fn mix(bits: u64) -> u64 {
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

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
        }
    }

    /// Persisted state is found by these.
    #[test]
    fn shards_are_the_same_for_ever() {
        let columns = batch().columns;
        let shards = [&columns[..1], &columns[1..], &columns[..]].map(|key| shards(key.iter(), 4));
        assert_eq!(shards, [[99, 16, 30, 99], [9, 122, 0, 9], [22, 53, 41, 22]]);
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
