//! What became of the rows of one node, counted twice: where they come and leave, and
//! where it is decided what becomes of each. [`crate::run::reconcile`] compares the two.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use crate::element::Inlet;
use crate::operator::Counts;

/// The entries of one attempt, shared by the node's tasks.
#[derive(Debug, Default)]
pub struct Ledger {
    /// By input port and edge; a source has none.
    came: Vec<Vec<AtomicU64>>,
    /// By output port.
    left: Vec<AtomicU64>,
    read: AtomicU64,
    taken: AtomicU64,
    filtered: AtomicU64,
    too_late: AtomicU64,
    lost: AtomicU64,
    held: AtomicI64,
    made: AtomicU64,
    unmade: AtomicU64,
    out: AtomicU64,
    put: AtomicU64,
    /// Whether rows that an earlier ledger has may be held.
    is_restored: AtomicBool,
    /// Whether it began in the middle of an attempt, at the barrier at which logic was
    /// replaced.
    is_later: AtomicBool,
}

/// The entries at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entries {
    pub came: Vec<Vec<u64>>,
    pub left: Vec<u64>,
    pub read: u64,
    pub taken: u64,
    pub filtered: u64,
    pub too_late: u64,
    pub lost: u64,
    /// Less than 0 where rows of an earlier attempt were handed out.
    pub held: i64,
    pub made: u64,
    pub unmade: u64,
    pub out: u64,
    pub put: u64,
    pub is_restored: bool,
    pub is_later: bool,
}

impl Ledger {
    /// `edges` has the number of edges into each input port.
    pub(super) fn new(edges: &[usize], outputs: usize) -> Self {
        let counters = |count: usize| (0..count).map(|_| AtomicU64::new(0)).collect();
        Ledger {
            came: edges.iter().map(|&edges| counters(edges)).collect(),
            left: counters(outputs),
            ..Ledger::default()
        }
    }

    /// That of the same node, which goes on: what it holds was counted before.
    pub(super) fn anew(&self) -> Self {
        let edges: Vec<usize> = self.came.iter().map(Vec::len).collect();
        let anew = Ledger::new(&edges, self.left.len());
        anew.begin(true);
        anew.is_later.store(true, Ordering::Relaxed);
        anew
    }

    /// Begins anew with an attempt: rows that were on their way in the one before come
    /// again.
    pub fn begin(&self, is_restored: bool) {
        let counters = [
            &self.read,
            &self.taken,
            &self.filtered,
            &self.too_late,
            &self.lost,
            &self.made,
            &self.unmade,
            &self.out,
            &self.put,
        ];
        let ports = self.came.iter().flatten().chain(&self.left);
        for counter in ports.chain(counters) {
            counter.store(0, Ordering::Relaxed);
        }
        self.held.store(0, Ordering::Relaxed);
        self.is_restored.store(is_restored, Ordering::Relaxed);
        self.is_later.store(false, Ordering::Relaxed);
    }

    /// Rows come to an operator or a sink.
    pub fn came(&self, inlet: Inlet, rows: usize) {
        if let Some(came) = self.came.get(inlet.port).and_then(|of| of.get(inlet.edge)) {
            came.fetch_add(rows as u64, Ordering::Relaxed);
        }
    }

    /// A source has read rows, and lost some of them.
    pub fn read(&self, rows: u64, lost: u64) {
        self.read.fetch_add(rows, Ordering::Relaxed);
        self.lost.fetch_add(lost, Ordering::Relaxed);
    }

    /// A sink has written rows.
    pub fn wrote(&self, rows: usize) {
        self.taken.fetch_add(rows as u64, Ordering::Relaxed);
    }

    /// Rows that a sink has taken were refused, and are lost.
    pub fn refused(&self, rows: u64) {
        self.taken.fetch_sub(rows, Ordering::Relaxed);
    }

    /// Rows go to all that reads an output.
    pub fn left(&self, port: usize, rows: usize) {
        if let Some(left) = self.left.get(port) {
            left.fetch_add(rows as u64, Ordering::Relaxed);
        }
    }

    pub(super) fn add(&self, counts: &Counts) {
        for (counter, rows) in [
            (&self.taken, counts.taken),
            (&self.filtered, counts.filtered),
            (&self.too_late, counts.too_late),
            (&self.lost, counts.lost),
            (&self.made, counts.made),
            (&self.unmade, counts.unmade),
            (&self.out, counts.out),
            (&self.put, counts.put),
        ] {
            counter.fetch_add(rows, Ordering::Relaxed);
        }
        self.held.fetch_add(counts.held, Ordering::Relaxed);
    }

    pub fn entries(&self) -> Entries {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Entries {
            came: self
                .came
                .iter()
                .map(|edges| edges.iter().map(read).collect())
                .collect(),
            left: self.left.iter().map(read).collect(),
            read: read(&self.read),
            taken: read(&self.taken),
            filtered: read(&self.filtered),
            too_late: read(&self.too_late),
            lost: read(&self.lost),
            held: self.held.load(Ordering::Relaxed),
            made: read(&self.made),
            unmade: read(&self.unmade),
            out: read(&self.out),
            put: read(&self.put),
            is_restored: self.is_restored.load(Ordering::Relaxed),
            is_later: self.is_later.load(Ordering::Relaxed),
        }
    }
}
