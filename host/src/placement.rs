//! Decides which task gets which partitions of a source, which shards of keyed
//! state, and which rows of an upstream task. Nothing else decides that.

use std::ops::Range;

use crate::shard::SHARDS;

/// Which of a node's tasks this is: task `task` of the `tasks` that each host
/// runs, on host `host` of `hosts`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    pub host: usize,
    pub hosts: usize,
    pub task: usize,
    pub tasks: usize,
}

impl Placement {
    /// Where one host runs the whole pipeline.
    pub fn on_one_host(task: usize, tasks: usize) -> Self {
        Placement {
            host: 0,
            hosts: 1,
            task,
            tasks,
        }
    }

    /// The task's number among those of all hosts.
    fn number(self) -> usize {
        self.host * self.tasks + self.task
    }

    /// How many tasks there are on all hosts.
    fn count(self) -> usize {
        self.hosts * self.tasks.max(1)
    }

    /// Whether the task reads this partition.
    pub fn has_partition(self, partition: usize) -> bool {
        partition % self.count() == self.number()
    }

    /// The shards of keyed state that the task has.
    pub fn shards(self) -> Range<u32> {
        let first = |number: usize| (number * SHARDS as usize).div_ceil(self.count()) as u32;
        first(self.number())..first(self.number() + 1)
    }

    /// Which of the `tasks` downstream on this host gets this task's rows where
    /// they are not routed by key.
    pub fn forward_to(self, tasks: usize) -> usize {
        self.task % tasks
    }
}

/// Which of the `tasks` on all hosts has a shard.
pub fn owner(shard: u32, tasks: usize) -> usize {
    shard as usize * tasks / SHARDS as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(hosts: usize, tasks: usize) -> impl Iterator<Item = Placement> {
        (0..hosts).flat_map(move |host| {
            (0..tasks).map(move |task| Placement {
                host,
                hosts,
                task,
                tasks,
            })
        })
    }

    #[test]
    fn shards_are_spread_evenly() {
        let counts: Vec<usize> = all(1, 3).map(|own| own.shards().len()).collect();
        assert_eq!(counts, [86, 85, 85]);
    }

    #[test]
    fn each_shard_has_one_owner_and_each_task_a_shard() {
        for (hosts, tasks) in [(1, 1), (1, 2), (1, 7), (1, 256), (3, 2), (2, 128)] {
            let mut next = 0;
            for (number, own) in all(hosts, tasks).enumerate() {
                let shards = own.shards();
                assert!(shards.start == next && !shards.is_empty(), "{own:?}");
                next = shards.end;
                for shard in shards {
                    assert_eq!(owner(shard, hosts * tasks), number);
                }
            }
            assert_eq!(next, SHARDS);
        }
    }

    #[test]
    fn each_partition_has_one_reader() {
        for (hosts, tasks) in [(1, 1), (1, 3), (2, 3)] {
            for partition in 0..20 {
                let readers = all(hosts, tasks).filter(|own| own.has_partition(partition));
                assert_eq!(readers.count(), 1, "{hosts} hosts, {tasks} tasks");
            }
        }
    }
}
