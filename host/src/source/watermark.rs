//! Decides when event time advances.
//!
//! A partition's watermark is its newest event time minus the bound on
//! out-of-orderness. A source's watermark is the lowest among its active
//! partitions; ended and idle ones do not count.
//!
//! A partition that bootstraps has no watermark before all rows have been read that are there
//! at the start of the run: what joins rows with these waits, and none of them is late.
//!
//! The watermark is evaluated for each row, and emitted before the first row
//! that it makes late, so that results do not depend on where batches are cut.
//! Before other rows it would have no effect, so it is emitted after them.
//!
//! Where an operator finds the event times, it shares the watermarks with the reader of
//! the source, and is in the same task: the reader knows the partitions, the operator
//! the times.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow_buffer::ScalarBuffer;

use crate::batch::Batch;
use crate::checkpoint::snapshot::PartitionState;
use crate::element::Element;

/// The watermarks of a task, for the reader of its source and the operator that finds
/// the event times, if there is one. Neither waits for the other.
#[derive(Clone, Debug)]
pub struct SharedWatermarks(Arc<Mutex<Watermarks>>);

impl SharedWatermarks {
    pub fn new(watermarks: Watermarks) -> Self {
        SharedWatermarks(Arc::new(Mutex::new(watermarks)))
    }

    pub fn lock(&self) -> MutexGuard<'_, Watermarks> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The watermarks of the partitions that one task reads. The wall clock is
/// passed in as a number.
#[derive(Debug)]
pub struct Watermarks {
    out_of_orderness_ms: i64,
    idle_after_ms: Option<i64>,
    partitions: Vec<PartitionTime>,
    /// The partition whose rows pass through the task.
    current: usize,
    /// The watermark emitted last; rows with an earlier event time are late.
    emitted_ms: i64,
    emitted_idle: bool,
    /// Whether batches tell the watermark before each row.
    tells_each: bool,
    /// Whether new partitions bootstrap.
    bootstraps: bool,
}

#[derive(Debug)]
struct PartitionTime {
    /// The newest event time so far.
    newest_ms: i64,
    /// When its last row with an event time came, or else when it was added.
    last_row_ms: i64,
    state: PartitionState,
    /// Whether rows have still to be read that were there at the start.
    bootstraps: bool,
}

/// The partition that holds back a watermark.
#[derive(Clone, Copy, Debug)]
pub struct Lowest {
    pub partition: usize,
    pub watermark_ms: i64,
    /// When its last row with an event time came, or else when it was added.
    pub last_row_ms: i64,
    /// Whether it does not hold back the watermark for ever.
    pub becomes_idle: bool,
}

impl PartitionTime {
    fn new(now_ms: i64, bootstraps: bool) -> Self {
        PartitionTime {
            newest_ms: i64::MIN,
            last_row_ms: now_ms,
            state: PartitionState::Active,
            bootstraps,
        }
    }

    /// Its watermark once its newest row has this time.
    fn watermark_ms(&self, newest_ms: i64, out_of_orderness_ms: i64) -> i64 {
        match self.bootstraps {
            true => i64::MIN,
            false => newest_ms.saturating_sub(out_of_orderness_ms),
        }
    }

    /// Whether it is active, but has had no rows for long enough to be idle.
    fn is_overdue(&self, idle_after_ms: Option<i64>, now_ms: i64) -> bool {
        let silent_ms = now_ms.saturating_sub(self.last_row_ms);
        self.state == PartitionState::Active
            && !self.bootstraps
            && idle_after_ms.is_some_and(|idle_after_ms| silent_ms >= idle_after_ms)
    }
}

impl Watermarks {
    pub fn new(
        partitions: usize,
        out_of_orderness_ms: i64,
        idle_after_ms: Option<u64>,
        now_ms: i64,
    ) -> Self {
        Watermarks {
            out_of_orderness_ms,
            idle_after_ms: idle_after_ms.map(|ms| i64::try_from(ms).unwrap_or(i64::MAX)),
            partitions: std::iter::repeat_with(|| PartitionTime::new(now_ms, false))
                .take(partitions)
                .collect(),
            current: 0,
            emitted_ms: i64::MIN,
            emitted_idle: false,
            tells_each: false,
            bootstraps: false,
        }
    }

    /// Has batches tell the watermark before each row.
    pub fn telling_each(mut self, tells_each: bool) -> Self {
        self.tells_each = tells_each;
        self
    }

    /// Has partitions bootstrap, also those that are added.
    pub fn bootstrapping(mut self, bootstraps: bool) -> Self {
        self.bootstraps = bootstraps;
        for partition in &mut self.partitions {
            partition.bootstraps = bootstraps;
        }
        self
    }

    /// All rows of a partition have been read that were there at the start.
    pub fn bootstrapped(&mut self, partition: usize, out: &mut Vec<Element>) {
        if let Some(partition) = self.partitions.get_mut(partition) {
            partition.bootstraps = false;
        }
        self.emit(out);
    }

    /// Adds a partition.
    pub fn add(&mut self, now_ms: i64) {
        let partition = PartitionTime::new(now_ms, self.bootstraps);
        self.partitions.push(partition);
    }

    /// Forgets a partition, which has no more rows. Those behind it move up.
    pub fn remove(&mut self, partition: usize, out: &mut Vec<Element>) {
        self.end(partition, out);
        self.partitions.remove(partition);
        if self.partitions.is_empty() && !self.emitted_idle {
            // Without partitions, this task must not hold back event time.
            self.emitted_idle = true;
            out.push(Element::Idle);
        }
    }

    /// A partition's newest event time, and whether it is active.
    pub fn snapshot(&self, partition: usize) -> (Option<i64>, PartitionState) {
        let partition = &self.partitions[partition];
        let newest_ms = Some(partition.newest_ms).filter(|&newest_ms| newest_ms > i64::MIN);
        (newest_ms, partition.state)
    }

    /// Restores what [`Watermarks::snapshot`] returned.
    pub fn restore(&mut self, partition: usize, newest_ms: Option<i64>, state: PartitionState) {
        let partition = &mut self.partitions[partition];
        partition.newest_ms = newest_ms.unwrap_or(i64::MIN);
        partition.state = state;
    }

    /// The rows that come to the operator next are of this partition.
    pub fn begin(&mut self, partition: usize) {
        self.current = partition;
    }

    /// As [`Watermarks::observe`], of the partition that [`Watermarks::begin`] has named.
    pub fn observe_current(&mut self, batch: Batch, now_ms: i64, out: &mut Vec<Element>) {
        self.observe(self.current, batch, now_ms, out);
    }

    /// Appends a partition's next rows to `out`, cut where the watermark has to
    /// be emitted.
    pub fn observe(
        &mut self,
        partition: usize,
        mut batch: Batch,
        now_ms: i64,
        out: &mut Vec<Element>,
    ) {
        let others_ms = self.lowest_except(partition);
        if self.tells_each {
            batch.watermarks = Some(self.before_each(partition, others_ms, &batch.times));
        }
        let Some(current) = self.partitions.get_mut(partition) else {
            out.push(Element::Batch(batch));
            return;
        };
        current.last_row_ms = now_ms;
        current.state = PartitionState::Active;
        let mut newest_ms = current.newest_ms;
        let mut start = 0;
        for (row, &time_ms) in batch.times.iter().enumerate() {
            if time_ms > newest_ms {
                newest_ms = time_ms;
                continue;
            }
            let own_ms = current.watermark_ms(newest_ms, self.out_of_orderness_ms);
            let watermark_ms = own_ms.min(others_ms);
            if time_ms < watermark_ms && watermark_ms > self.emitted_ms {
                if row > start {
                    out.push(Element::Batch(batch.slice(start, row - start)));
                }
                out.push(Element::Watermark(watermark_ms));
                self.emitted_ms = watermark_ms;
                start = row;
            }
        }
        current.newest_ms = newest_ms;
        match batch.rows() - start {
            0 => {}
            rows if rows == batch.rows() => out.push(Element::Batch(batch)),
            rows => out.push(Element::Batch(batch.slice(start, rows))),
        }
        self.emit(out);
    }

    /// The watermark before each of a partition's next rows.
    fn before_each(&self, partition: usize, others_ms: i64, times: &[i64]) -> ScalarBuffer<i64> {
        let partition = self.partitions.get(partition);
        let mut newest_ms = partition.map_or(i64::MIN, |partition| partition.newest_ms);
        let before = |&time_ms| {
            let own_ms = partition.map_or(i64::MIN, |partition| {
                partition.watermark_ms(newest_ms, self.out_of_orderness_ms)
            });
            newest_ms = newest_ms.max(time_ms);
            own_ms.min(others_ms).max(self.emitted_ms)
        };
        times.iter().map(before).collect()
    }

    /// The partition has no more rows.
    pub fn end(&mut self, partition: usize, out: &mut Vec<Element>) {
        if let Some(partition) = self.partitions.get_mut(partition) {
            partition.state = PartitionState::Ended;
            partition.bootstraps = false;
        }
        self.emit(out);
        self.emit_newest(out);
    }

    /// Where all partitions have ended, emits the newest of their watermarks, whichever has
    /// ended first.
    fn emit_newest(&mut self, out: &mut Vec<Element>) {
        let mut partitions = self.partitions.iter();
        if !partitions.all(|partition| partition.state == PartitionState::Ended) {
            return;
        }
        let of_each = self.partitions.iter();
        let of_each = of_each.map(|it| it.watermark_ms(it.newest_ms, self.out_of_orderness_ms));
        if let Some(newest_ms) = of_each
            .max()
            .filter(|&newest_ms| newest_ms > self.emitted_ms)
        {
            self.emitted_ms = newest_ms;
            out.push(Element::Watermark(newest_ms));
        }
    }

    /// A partition has rows, though they are still to come.
    pub fn heard(&mut self, partition: usize, now_ms: i64) {
        if let Some(partition) = self.partitions.get_mut(partition) {
            partition.last_row_ms = now_ms;
        }
    }

    /// Marks partitions as idle that have had no rows for too long.
    pub fn check_idle(&mut self, now_ms: i64, out: &mut Vec<Element>) {
        let overdue: Vec<usize> = self.overdue(now_ms).collect();
        self.mark_idle(overdue, out);
    }

    /// Marks these partitions as idle.
    pub fn mark_idle(
        &mut self,
        partitions: impl IntoIterator<Item = usize>,
        out: &mut Vec<Element>,
    ) {
        for index in partitions {
            if let Some(partition) = self.partitions.get_mut(index) {
                partition.state = PartitionState::Idle;
            }
        }
        self.emit(out);
    }

    /// When the last row with an event time came of this partition, or else when it was
    /// added.
    pub fn last_row_ms(&self, partition: usize) -> i64 {
        self.partitions[partition].last_row_ms
    }

    fn overdue(&self, now_ms: i64) -> impl Iterator<Item = usize> {
        let partitions = self.partitions.iter().enumerate();
        partitions
            .filter(move |(_, partition)| partition.is_overdue(self.idle_after_ms, now_ms))
            .map(|(index, _)| index)
    }

    /// The partitions that have not ended: first those that are overdue to
    /// become idle, with their number, then the others, the furthest behind
    /// first.
    ///
    /// An overdue partition becomes idle only if it has no rows now: perhaps
    /// the reader was slow, and rows are waiting.
    pub fn reading_order(&self, now_ms: i64) -> (Vec<usize>, usize) {
        let mut order: Vec<usize> = (0..self.partitions.len())
            .filter(|&index| self.partitions[index].state != PartitionState::Ended)
            .collect();
        let overdue = |index: usize| self.partitions[index].is_overdue(self.idle_after_ms, now_ms);
        order.sort_by_key(|&index| (!overdue(index), self.partitions[index].newest_ms));
        let count = order.iter().take_while(|&&index| overdue(index)).count();
        (order, count)
    }

    /// When [`Watermarks::check_idle`] next has something to do, if no rows
    /// come.
    pub fn idle_at_ms(&self) -> Option<i64> {
        let idle_after_ms = self.idle_after_ms?;
        self.partitions
            .iter()
            .filter(|partition| partition.state == PartitionState::Active && !partition.bootstraps)
            .map(|partition| partition.last_row_ms.saturating_add(idle_after_ms))
            .min()
    }

    /// The active partition that holds back the watermark.
    pub fn lowest(&self) -> Option<Lowest> {
        let (partition, lowest) = self.active().min_by_key(|(_, it)| it.newest_ms)?;
        Some(Lowest {
            partition,
            watermark_ms: lowest.watermark_ms(lowest.newest_ms, self.out_of_orderness_ms),
            last_row_ms: lowest.last_row_ms,
            becomes_idle: self.idle_after_ms.is_some(),
        })
    }

    /// When the last row with an event time came of any active partition, or else when
    /// the partition was added.
    pub fn newest_row_ms(&self) -> Option<i64> {
        self.active().map(|(_, it)| it.last_row_ms).max()
    }

    fn active(&self) -> impl Iterator<Item = (usize, &PartitionTime)> {
        let partitions = self.partitions.iter().enumerate();
        partitions.filter(|(_, it)| it.state == PartitionState::Active)
    }

    /// The partition with the oldest event time, which is read next so that
    /// none runs ahead of the others. `None` when all have ended.
    pub fn furthest_behind(&self) -> Option<usize> {
        self.partitions
            .iter()
            .enumerate()
            .filter(|(_, partition)| partition.state != PartitionState::Ended)
            .min_by_key(|(_, partition)| partition.newest_ms)
            .map(|(index, _)| index)
    }

    /// Emits the watermark or idleness if it has changed.
    pub fn emit(&mut self, out: &mut Vec<Element>) {
        let is_active = |partition: &PartitionTime| partition.state == PartitionState::Active;
        let is_idle = |partition: &PartitionTime| partition.state == PartitionState::Idle;
        if self.partitions.iter().any(is_active) {
            let watermark_ms = self.lowest_except(usize::MAX);
            // After idleness it is emitted again, so that the source counts
            // again.
            let again = self.emitted_idle && self.emitted_ms > i64::MIN;
            self.emitted_idle = false;
            if watermark_ms > self.emitted_ms {
                self.emitted_ms = watermark_ms;
                out.push(Element::Watermark(watermark_ms));
            } else if again {
                out.push(Element::Watermark(self.emitted_ms));
            }
        } else if self.partitions.iter().any(is_idle) && !self.emitted_idle {
            self.emitted_idle = true;
            out.push(Element::Idle);
        }
    }

    /// The lowest watermark of the active partitions other than `partition`.
    fn lowest_except(&self, partition: usize) -> i64 {
        self.partitions
            .iter()
            .enumerate()
            .filter(|(index, other)| *index != partition && other.state == PartitionState::Active)
            .map(|(_, other)| other.watermark_ms(other.newest_ms, self.out_of_orderness_ms))
            .min()
            .unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;
    use crate::schema::Schema;

    fn batch(times: &[i64]) -> Batch {
        Batch {
            schema: Arc::new(Schema::default()),
            columns: Vec::new(),
            times: times.to_vec().into(),
            origin: None,
            watermarks: None,
            taken_back: None,
        }
    }

    fn render(elements: &[Element]) -> String {
        elements
            .iter()
            .map(|element| match element {
                Element::Batch(batch) => format!("{:?}", batch.times.to_vec()),
                Element::Watermark(ms) => format!("W{ms}"),
                Element::Idle => "idle".to_owned(),
                Element::Barrier(barrier) => format!("B{}", barrier.id),
                Element::End => "end".to_owned(),
            })
            .collect::<Vec<_>>()
            .join(" ")
    }

    fn check(watermarks: &mut Watermarks, partition: usize, times: &[i64], expected: Expect) {
        let mut out = Vec::new();
        watermarks.observe(partition, batch(times), 0, &mut out);
        expected.assert_eq(&render(&out));
    }

    #[test]
    fn batches_are_cut_in_front_of_late_rows_only() {
        let mut one = Watermarks::new(1, 10, None, 0);
        check(&mut one, 0, &[100, 95, 120], expect!["[100, 95, 120] W110"]);
        check(&mut one, 0, &[110, 109, 108], expect!["[110, 109, 108]"]);
        check(
            &mut one,
            0,
            &[130, 119, 118, 140, 129, 135],
            expect!["[130] W120 [119, 118, 140] W130 [129, 135]"],
        );
        check(&mut one, 0, &[], expect![""]);
    }

    #[test]
    fn a_strict_watermark_keeps_rows_of_the_same_time() {
        let mut one = Watermarks::new(1, 0, None, 0);
        check(&mut one, 0, &[5, 5, 4, 6], expect!["[5, 5] W5 [4, 6] W6"]);
    }

    #[test]
    fn there_is_no_time_before_all_has_been_read_that_was_there() {
        let mut two = Watermarks::new(2, 10, Some(1_000), 0).bootstrapping(true);
        check(&mut two, 0, &[100, 5, 120], expect!["[100, 5, 120]"]);
        let mut out = Vec::new();
        assert_eq!(two.idle_at_ms(), None);
        two.check_idle(5_000, &mut out);
        two.bootstrapped(0, &mut out);
        assert_eq!(two.idle_at_ms(), Some(1_000));
        two.check_idle(5_000, &mut out);
        expect![""].assert_eq(&render(&out));
        check(&mut two, 1, &[90, 3], expect!["[90, 3]"]);
        two.bootstrapped(1, &mut out);
        expect!["W80"].assert_eq(&render(&out));
        two.add(0);
        check(&mut two, 0, &[200], expect!["[200]"]);
        two.end(2, &mut out);
        two.end(1, &mut out);
        expect!["W80 W190"].assert_eq(&render(&out));
    }

    #[test]
    fn the_slowest_active_partition_decides() {
        let mut two = Watermarks::new(2, 0, Some(1_000), 0);
        check(&mut two, 0, &[100, 50], expect!["[100, 50]"]);
        check(&mut two, 1, &[70, 60], expect!["[70] W70 [60]"]);
        assert_eq!(two.furthest_behind(), Some(1));
        let mut out = Vec::new();
        two.observe(0, batch(&[200]), 900, &mut out);
        assert_eq!(two.idle_at_ms(), Some(1_000));
        two.check_idle(1_000, &mut out);
        two.check_idle(2_000, &mut out);
        expect!["[200] W200 idle"].assert_eq(&render(&out));
        check(&mut two, 1, &[90], expect!["[90] W200"]);
        check(&mut two, 1, &[300], expect!["[300] W300"]);
    }

    #[test]
    fn ended_and_idle_partitions_do_not_hold_back_the_watermark() {
        let mut three = Watermarks::new(3, 0, Some(1_000), 0);
        check(&mut three, 0, &[100], expect!["[100]"]);
        let mut out = Vec::new();
        three.end(1, &mut out);
        expect![""].assert_eq(&render(&out));
        three.end(2, &mut out);
        expect!["W100"].assert_eq(&render(&out));
        three.end(0, &mut out);
        expect!["W100"].assert_eq(&render(&out));
        assert_eq!(three.furthest_behind(), None);

        let mut silent = Watermarks::new(1, 0, Some(1_000), 500);
        let mut out = Vec::new();
        silent.check_idle(1_499, &mut out);
        expect![""].assert_eq(&render(&out));
        silent.check_idle(1_500, &mut out);
        expect!["idle"].assert_eq(&render(&out));
    }

    #[test]
    fn a_partition_that_is_forgotten_holds_nothing_back() {
        let mut three = Watermarks::new(3, 0, Some(1_000), 0);
        check(&mut three, 0, &[100], expect!["[100]"]);
        check(&mut three, 1, &[50], expect!["[50]"]);
        check(&mut three, 2, &[70], expect!["[70] W50"]);
        let mut out = Vec::new();
        three.remove(1, &mut out);
        expect!["W70"].assert_eq(&render(&out));
        check(&mut three, 1, &[90], expect!["[90] W90"]);
        let mut out = Vec::new();
        three.remove(1, &mut out);
        three.remove(0, &mut out);
        expect!["W100 idle"].assert_eq(&render(&out));
        three.add(0);
        check(&mut three, 0, &[100], expect!["[100] W100"]);
    }

    proptest! {
        /// Which rows are late does not depend on where batches are cut.
        #[test]
        fn late_rows_are_the_same_for_any_cut(
            rows in prop::collection::vec((0usize..2, 0i64..60), 0..60),
            sizes in prop::collection::vec(1usize..5, 60),
            out_of_orderness_ms in 0i64..20,
        ) {
            let late = |sizes: &[usize]| {
                let mut watermarks = Watermarks::new(2, out_of_orderness_ms, None, 0);
                let mut out = Vec::new();
                let mut at = 0;
                for &size in sizes {
                    let Some(&(partition, _)) = rows.get(at) else { break };
                    // All rows of a batch are of one partition.
                    let times: Vec<i64> = rows[at..]
                        .iter()
                        .take(size)
                        .take_while(|row| row.0 == partition)
                        .map(|row| row.1)
                        .collect();
                    at += times.len();
                    watermarks.observe(partition, batch(&times), 0, &mut out);
                }
                let mut watermark = i64::MIN;
                let mut late = Vec::new();
                for element in out {
                    match element {
                        Element::Batch(batch) => {
                            late.extend(batch.times.iter().map(|&time| time < watermark));
                        }
                        Element::Watermark(ms) => {
                            assert!(ms > watermark);
                            watermark = ms;
                        }
                        _ => {}
                    }
                }
                late
            };
            let single = late(&[1; 60]);
            prop_assert_eq!(single.len(), rows.len());
            prop_assert_eq!(late(&sizes), single);
        }
    }
}
