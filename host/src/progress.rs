//! Counters of a run: tasks add to them, and anyone may read them at any time.

/// What became of the rows of a node, counted twice.
pub mod ledger;
/// The processors' time.
mod processor;

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use ledger::Ledger;
use serde::Serialize;
use utoipa::ToSchema;

use crate::blame::Blame;
use crate::budget::Budget;
use crate::dead_letter::{self, DeadLetter};
use crate::element::CheckpointId;
use crate::operator::Counts;
use crate::timestamp::CutTimes;

/// One node's counters, shared by its tasks.
#[derive(Debug)]
pub struct NodeProgress {
    pub name: String,
    pub role: Role,
    rows_in: AtomicU64,
    rows_out: AtomicU64,
    late: AtomicU64,
    rejected: AtomicU64,
    failed: AtomicU64,
    failed_calls: AtomicU64,
    lost: AtomicU64,
    dead_letters: AtomicU64,
    /// Of each task of a source, if it is found out.
    backlogs: Mutex<Vec<Option<Arc<Backlog>>>>,
    cut_times: Mutex<Option<CutTimes>>,
    tells_misspelt: AtomicBool,
    /// What was wrong with the first row that became a dead letter.
    first_dead_letter: OnceLock<String>,
    /// The watermark of each task; `i64::MIN` before its first one.
    watermarks: Vec<AtomicI64>,
    /// Of a source, the partition of each task that holds back its watermark.
    slowest: Vec<Mutex<Option<SlowestPartition>>>,
    /// How much of a bounded input was read, in millionths.
    read: AtomicU64,
    had_ended: AtomicBool,
    began: Instant,
    /// What the node has counted before these counters took the place of others.
    earlier: Mutex<Earlier>,
    /// Of each task.
    work: Vec<Spell>,
    samples: Vec<Sample>,
    blocked: Vec<Spell>,
    pub ledger: Ledger,
}

/// What a node has counted by other logic, in the same tasks.
#[derive(Debug)]
enum Earlier {
    /// Its tasks may still count there.
    Counting(Arc<NodeProgress>),
    Counted(Counted),
}

/// What adds up over the counters of a node.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    rows_in: u64,
    rows_out: u64,
    late: u64,
    rejected: u64,
    failed: u64,
    failed_calls: u64,
    lost: u64,
    dead_letters: u64,
    busy_ms: f64,
    blocked_ms: f64,
}

impl Counted {
    fn and(self, other: Counted) -> Counted {
        Counted {
            rows_in: self.rows_in + other.rows_in,
            rows_out: self.rows_out + other.rows_out,
            late: self.late + other.late,
            rejected: self.rejected + other.rejected,
            failed: self.failed + other.failed,
            failed_calls: self.failed_calls + other.failed_calls,
            lost: self.lost + other.lost,
            dead_letters: self.dead_letters + other.dead_letters,
            busy_ms: self.busy_ms + other.busy_ms,
            blocked_ms: self.blocked_ms + other.blocked_ms,
        }
    }
}

/// Some of the work of a task, timed by its thread's processor time as well, in ns: what
/// other threads take of the processors meanwhile makes work last longer, and no other work.
#[derive(Debug, Default)]
struct Sample {
    lasted: AtomicU64,
    processor: AtomicU64,
    /// When the last one began, from the node's beginning.
    began: AtomicU64,
}

/// To read a thread's processor time can take microseconds: it is read so often at most.
const SAMPLE_EVERY_NS: u64 = 1_000_000;

/// How many messages wait where a task of a source reads, as was found out last.
#[derive(Debug)]
pub struct Backlog(AtomicU64);

impl Default for Backlog {
    fn default() -> Self {
        Backlog(AtomicU64::new(UNKNOWN))
    }
}

impl Backlog {
    pub fn set(&self, messages: u64) {
        self.0.store(messages, Ordering::Relaxed);
    }

    /// Absent before it was found out.
    pub fn get(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|&messages| messages != UNKNOWN)
    }
}

/// How long a task has done something, such as work at a node, in ns.
#[derive(Debug, Default)]
struct Spell {
    done: AtomicU64,
    /// Since when it does it now, from the node's beginning; 0 if it does not.
    since: AtomicU64,
}

impl Spell {
    fn begin(&self, now: u64) {
        self.since.store(now, Ordering::Relaxed);
    }

    fn end(&self, now: u64) {
        let since = self.since.swap(0, Ordering::Relaxed);
        if since != 0 {
            self.done
                .fetch_add(now.saturating_sub(since), Ordering::Relaxed);
        }
    }

    /// For how long it is done now.
    fn lasts(&self, now: u64) -> u64 {
        match self.since.load(Ordering::Relaxed) {
            0 => 0,
            since => now.saturating_sub(since),
        }
    }

    fn total(&self, now: u64) -> u64 {
        self.done.load(Ordering::Relaxed) + self.lasts(now)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Source,
    Operator,
    Sink,
}

impl Role {
    pub fn name(self) -> &'static str {
        match self {
            Role::Source => "source",
            Role::Operator => "operator",
            Role::Sink => "sink",
        }
    }
}

/// The counters at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct NodeStatus {
    pub name: String,
    pub role: Role,
    pub rows_in: u64,
    pub rows_out: u64,
    pub late: u64,
    pub rejected: u64,
    pub failed: u64,
    /// Calls in which its plugin trapped or broke the contract. They are repeated, in parts
    /// until it is known which row is to blame, if one is.
    pub failed_calls: u64,
    /// Messages that were lost before a source could read them.
    #[serde(skip_serializing_if = "is_zero")]
    pub lost: u64,
    /// Messages that wait to be read by a source, as its brokers have told last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backlog: Option<u64>,
    /// The lowest of its tasks; absent before the first watermark and after the
    /// end of event time.
    pub watermark_ms: Option<i64>,
    /// How much of a bounded input was read, 0 to 1.
    pub read: Option<f64>,
    /// How long its tasks have worked, all together; 0 for sources and sinks.
    pub busy_ms: f64,
    /// How long its tasks have waited for those behind them to have room, all together,
    /// between two elements.
    pub blocked_ms: f64,
    /// Times that a source has rounded down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cut_times: Option<CutTimes>,
    /// Whether the run goes on after all its inputs had ended, with which all windows
    /// fired.
    #[serde(skip)]
    pub had_ended: bool,
}

/// The partition of a source that holds back a watermark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlowestPartition {
    pub name: Arc<str>,
    /// `i64::MIN` before its first row.
    pub watermark_ms: i64,
    /// When its last row came, or else when it was found.
    pub last_row_ms: i64,
}

/// How long a task has worked at a node, and waited for those behind it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TaskTimes {
    pub busy_ms: f64,
    pub blocked_ms: f64,
}

/// The state of a pipeline with checkpoints.
#[derive(Debug)]
pub struct StateProgress {
    budget: Arc<Budget>,
    last: Mutex<Option<CheckpointProgress>>,
}

/// How large a pipeline's state is at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct StateStatus {
    /// What keys and states take in memory, and what they may take.
    pub memory_bytes: usize,
    pub memory_bytes_max: usize,
    /// The last complete one.
    pub checkpoint: Option<CheckpointProgress>,
}

#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct CheckpointProgress {
    pub id: CheckpointId,
    /// Of its files together: the whole state, more or less compressed.
    pub bytes: u64,
    pub completed_ms: i64,
    pub milliseconds: u64,
}

/// How often a pipeline was restarted, and whether it waits for that now.
#[derive(Debug, Default)]
pub struct Restarts {
    count: AtomicU64,
    waiting: Mutex<Option<Restarting>>,
}

/// What is known of a run that has failed, and waits before it is restarted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Restarting {
    /// When it is restarted.
    pub at_ms: i64,
    /// When it has failed.
    pub failed_ms: i64,
    /// How often it has failed within the time that `[restart]` says.
    pub failures: u32,
    /// If it fails more often, it is not restarted any more.
    pub failures_max: u32,
    /// Why it has failed.
    pub message: String,
    pub blame: Blame,
}

impl Restarts {
    /// Counts a restart, for which the run waits until the answer is dropped.
    pub fn begin(&self, restarting: Restarting) -> WaitsForRestart<'_> {
        self.count.fetch_add(1, Ordering::Relaxed);
        *self.lock() = Some(restarting);
        WaitsForRestart(self)
    }

    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    pub fn waiting(&self) -> Option<Restarting> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Restarting>> {
        // It is set as a whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A run waits before it is restarted.
pub struct WaitsForRestart<'a>(&'a Restarts);

impl Drop for WaitsForRestart<'_> {
    fn drop(&mut self) {
        *self.0.lock() = None;
    }
}

impl StateProgress {
    pub fn new(budget: Arc<Budget>) -> Self {
        StateProgress {
            budget,
            last: Mutex::default(),
        }
    }

    pub fn set_checkpoint(&self, checkpoint: CheckpointProgress) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some(checkpoint);
    }

    pub fn snapshot(&self) -> StateStatus {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        StateStatus {
            memory_bytes: self.budget.bytes(),
            memory_bytes_max: self.budget.bytes_max(),
            checkpoint: last.clone(),
        }
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

const UNKNOWN: u64 = u64::MAX;

impl NodeProgress {
    pub fn new(name: &str, role: Role, tasks: usize) -> Self {
        NodeProgress {
            name: name.to_owned(),
            role,
            rows_in: AtomicU64::new(0),
            rows_out: AtomicU64::new(0),
            late: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            failed_calls: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            dead_letters: AtomicU64::new(0),
            backlogs: Mutex::new(vec![None; tasks]),
            cut_times: Mutex::default(),
            tells_misspelt: AtomicBool::new(false),
            first_dead_letter: OnceLock::new(),
            watermarks: (0..tasks).map(|_| AtomicI64::new(i64::MIN)).collect(),
            slowest: (0..tasks).map(|_| Mutex::default()).collect(),
            read: AtomicU64::new(UNKNOWN),
            had_ended: AtomicBool::new(false),
            began: Instant::now(),
            earlier: Mutex::new(Earlier::Counted(Counted::default())),
            work: (0..tasks).map(|_| Spell::default()).collect(),
            samples: (0..tasks).map(|_| Sample::default()).collect(),
            blocked: (0..tasks).map(|_| Spell::default()).collect(),
            ledger: Ledger::default(),
        }
    }

    /// The node has these numbers of edges into its input ports, and of outputs.
    pub fn connected(mut self, edges: &[usize], outputs: usize) -> Self {
        self.ledger = Ledger::new(edges, outputs);
        self
    }

    /// The same node's, counted anew for whoever looks at [`NodeProgress::own`]. Watermarks go
    /// on: tasks get no other before time advances.
    pub fn anew(self: &Arc<Self>) -> NodeProgress {
        let mut anew = NodeProgress::new(&self.name, self.role, self.watermarks.len());
        for (then, now) in self.watermarks.iter().zip(&anew.watermarks) {
            now.store(then.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        anew.ledger = self.ledger.anew();
        anew.earlier = Mutex::new(Earlier::Counting(self.clone()));
        let backlogs = self.backlogs.lock().unwrap_or_else(PoisonError::into_inner);
        anew.backlogs = Mutex::new(backlogs.clone());
        anew
    }

    /// Nobody counts any more where these counters were made anew from.
    pub fn take_over(&self) {
        let counted = self.earlier();
        *self.lock_earlier() = Earlier::Counted(counted);
    }

    fn earlier(&self) -> Counted {
        match &*self.lock_earlier() {
            Earlier::Counting(counting) => counting.counted().and(counting.earlier()),
            Earlier::Counted(counted) => *counted,
        }
    }

    fn lock_earlier(&self) -> MutexGuard<'_, Earlier> {
        // It is set as a whole.
        self.earlier.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn counted(&self) -> Counted {
        Counted {
            rows_in: self.rows_in.load(Ordering::Relaxed),
            rows_out: self.rows_out.load(Ordering::Relaxed),
            late: self.late.load(Ordering::Relaxed),
            rejected: self.rejected.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            failed_calls: self.failed_calls.load(Ordering::Relaxed),
            lost: self.lost.load(Ordering::Relaxed),
            dead_letters: self.dead_letters.load(Ordering::Relaxed),
            busy_ms: self.total_ms(&self.work),
            blocked_ms: self.total_ms(&self.blocked),
        }
    }

    /// Counts the time that an operator's work takes, also while it lasts.
    pub fn time<T>(&self, task: usize, work: impl FnOnce() -> T) -> T {
        let (began, sample) = (self.elapsed_ns(), &self.samples[task]);
        let is_sampled =
            began.saturating_sub(sample.began.load(Ordering::Relaxed)) > SAMPLE_EVERY_NS;
        let processor = is_sampled.then(processor::time_of_thread).flatten();
        self.work[task].begin(began);
        let worked = work();
        let ended = self.elapsed_ns();
        self.work[task].end(ended);
        if let Some(before) = processor
            && let Some(now) = processor::time_of_thread()
        {
            let taken = now.saturating_sub(before).as_nanos() as u64;
            sample.began.store(began, Ordering::Relaxed);
            sample.processor.fetch_add(taken, Ordering::Relaxed);
            let lasted = ended.saturating_sub(began);
            sample.lasted.fetch_add(lasted, Ordering::Relaxed);
        }
        worked
    }

    /// How much of the processors' time its tasks have taken, all together, in ms: known of
    /// samples, and taken as the same share of all work that is done. Work that lasts still
    /// is counted as it lasts.
    pub fn processor_ms(&self) -> f64 {
        let now = self.elapsed_ns();
        let of_task = |(spell, sample): (&Spell, &Sample)| {
            let done = spell.done.load(Ordering::Relaxed);
            let lasts = spell.total(now).saturating_sub(done);
            let processor = sample.processor.load(Ordering::Relaxed) as f64;
            let share = match sample.lasted.load(Ordering::Relaxed) {
                0 => 1.0,
                lasted => (processor / lasted as f64).min(1.0),
            };
            done as f64 * share + lasts as f64
        };
        self.work
            .iter()
            .zip(&self.samples)
            .map(of_task)
            .sum::<f64>()
            / 1e6
    }

    /// For how long one of its tasks has worked on the same rows.
    pub fn works_for(&self) -> Duration {
        let now = self.elapsed_ns();
        let lasts = self.work.iter().map(|task| task.lasts(now)).max();
        Duration::from_nanos(lasts.unwrap_or(0))
    }

    /// The task of this number waits for those behind it from now on, or not any more.
    pub fn block(&self, task: usize, is_blocked: bool) {
        match is_blocked {
            true => self.blocked[task].begin(self.elapsed_ns()),
            false => self.blocked[task].end(self.elapsed_ns()),
        }
    }

    /// Never 0.
    fn elapsed_ns(&self) -> u64 {
        1 + self.began.elapsed().as_nanos() as u64
    }

    /// All tasks together.
    fn total_ms(&self, tasks: &[Spell]) -> f64 {
        let now = self.elapsed_ns();
        let total = tasks.iter().map(|task| task.total(now)).sum();
        Duration::from_nanos(total).as_secs_f64() * 1e3
    }

    pub fn add_in(&self, rows: usize) {
        self.rows_in.fetch_add(rows as u64, Ordering::Relaxed);
    }

    /// Of a task of a source, how many messages wait for it.
    pub fn set_backlog(&self, task: usize, backlog: Option<Arc<Backlog>>) {
        let mut backlogs = self.backlogs.lock().unwrap_or_else(PoisonError::into_inner);
        backlogs[task] = backlog;
    }

    /// Of all tasks together, as far as it is known.
    fn backlog(&self) -> Option<u64> {
        let backlogs = self.backlogs.lock().unwrap_or_else(PoisonError::into_inner);
        let known = backlogs.iter().flatten().filter_map(|task| task.get());
        known.reduce(u64::saturating_add)
    }

    pub fn add_lost(&self, messages: u64) {
        self.lost.fetch_add(messages, Ordering::Relaxed);
    }

    pub fn add_out(&self, rows: usize) {
        self.rows_out.fetch_add(rows as u64, Ordering::Relaxed);
    }

    pub fn add_counts(&self, counts: Counts) {
        self.rows_out.fetch_add(counts.out, Ordering::Relaxed);
        self.late.fetch_add(counts.late, Ordering::Relaxed);
        self.rejected.fetch_add(counts.rejected, Ordering::Relaxed);
        self.failed.fetch_add(counts.failed, Ordering::Relaxed);
        self.failed_calls
            .fetch_add(counts.failed_calls, Ordering::Relaxed);
        self.ledger.add(&counts);
    }

    /// Counts rows that became dead letters.
    pub fn add_dead_letters(&self, dead_letters: &[DeadLetter]) {
        let Some(first) = dead_letters.first() else {
            return;
        };
        let rows = dead_letters.len() as u64;
        self.dead_letters.fetch_add(rows, Ordering::Relaxed);
        self.first_dead_letter
            .get_or_init(|| dead_letter::sentence(first));
    }

    /// Counts times that were rounded down, and returns whether they are the first.
    pub fn add_cut_times(&self, cut: &CutTimes) -> bool {
        let mut all = self
            .cut_times
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match &mut *all {
            Some(all) => {
                all.values += cut.values;
                false
            }
            None => {
                *all = Some(cut.clone());
                true
            }
        }
    }

    /// Whether nobody has told yet that keys of rows are nearly the names of fields.
    pub fn begins_to_tell_misspelt(&self) -> bool {
        !self.tells_misspelt.swap(true, Ordering::Relaxed)
    }

    /// How many rows became dead letters.
    pub fn dead_letters(&self) -> u64 {
        self.dead_letters.load(Ordering::Relaxed) + self.earlier().dead_letters
    }

    /// What was wrong with the first row that became a dead letter.
    pub fn first_dead_letter(&self) -> Option<&str> {
        self.first_dead_letter.get().map(String::as_str)
    }

    pub fn set_watermark(&self, task: usize, watermark_ms: i64) {
        self.watermarks[task].store(watermark_ms, Ordering::Relaxed);
    }

    /// A task of a source does not count for its watermark: it has no partition with rows.
    pub fn set_idle(&self, task: usize) {
        self.watermarks[task].store(i64::MAX, Ordering::Relaxed);
    }

    /// Sets which partition holds back the watermark of a source's task.
    pub fn set_slowest(&self, task: usize, slowest: Option<SlowestPartition>) {
        let mut of_task = self.slowest[task]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *of_task = slowest;
    }

    /// The partition that holds back the watermark of a source.
    pub fn slowest(&self) -> Option<SlowestPartition> {
        let tasks = self.slowest.iter();
        let of_tasks =
            tasks.filter_map(|it| it.lock().unwrap_or_else(PoisonError::into_inner).clone());
        of_tasks.min_by_key(|slowest| (slowest.watermark_ms, slowest.last_row_ms))
    }

    /// Of each of its tasks.
    pub fn task_times(&self) -> Vec<TaskTimes> {
        let tasks = 0..self.watermarks.len();
        let times = tasks.map(|task| TaskTimes {
            busy_ms: self.total_ms(&self.work[task..=task]),
            blocked_ms: self.total_ms(&self.blocked[task..=task]),
        });
        times.collect()
    }

    /// Sets how much of the input was read, 0 to 1.
    pub fn set_read(&self, part: f64) {
        self.read.store((part * 1e6) as u64, Ordering::Relaxed);
    }

    /// A restart reads again what no checkpoint has.
    pub fn forget_read(&self) {
        self.read.store(UNKNOWN, Ordering::Relaxed);
    }

    /// The run goes on after all the node's inputs had ended.
    pub fn set_had_ended(&self) {
        self.had_ended.store(true, Ordering::Relaxed);
    }

    /// What the node has counted, by this and by earlier logic.
    pub fn snapshot(&self) -> NodeStatus {
        self.status(self.counted().and(self.earlier()))
    }

    /// What it has counted by this logic alone.
    pub fn own(&self) -> NodeStatus {
        self.status(self.counted())
    }

    fn status(&self, counted: Counted) -> NodeStatus {
        let watermark = self
            .watermarks
            .iter()
            .map(|task| task.load(Ordering::Relaxed))
            .min();
        let read = self.read.load(Ordering::Relaxed);
        NodeStatus {
            name: self.name.clone(),
            role: self.role,
            rows_in: counted.rows_in,
            rows_out: counted.rows_out,
            late: counted.late,
            rejected: counted.rejected,
            failed: counted.failed,
            failed_calls: counted.failed_calls,
            lost: counted.lost,
            backlog: self.backlog(),
            watermark_ms: watermark.filter(|time| ![i64::MIN, i64::MAX].contains(time)),
            read: (read != UNKNOWN).then_some(read as f64 / 1e6),
            busy_ms: counted.busy_ms,
            blocked_ms: counted.blocked_ms,
            cut_times: self
                .cut_times
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
            had_ended: self.had_ended.load(Ordering::Relaxed),
        }
    }
}
