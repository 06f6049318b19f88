//! Asks the brokers now and then where partitions end, so that it is known how many messages
//! wait. They are asked on a thread of its own: whoever is too slow for its rows does not look.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::Offset;

use super::discovery::Brokers;
use crate::progress::Backlog;

/// How often they are asked.
const EVERY: Duration = Duration::from_secs(5);

/// Which partitions are read, and how far.
#[derive(Debug, Default)]
pub(super) struct Ends {
    backlog: Arc<Backlog>,
    partitions: Arc<Mutex<Vec<Place>>>,
    /// Ends the thread when it is dropped.
    asking: Option<Sender<()>>,
}

/// The offset of the next message of a partition.
#[derive(Clone, Debug)]
struct Place {
    topic: usize,
    number: i32,
    next: Arc<AtomicU64>,
}

impl Ends {
    pub fn backlog(&self) -> Arc<Backlog> {
        self.backlog.clone()
    }

    /// Counts the messages of a partition that wait. The answer is to have the offset of the
    /// next one.
    pub fn add(&self, topic: usize, number: i32, next: u64) -> Arc<AtomicU64> {
        let next = Arc::new(AtomicU64::new(next));
        let mut partitions = self
            .partitions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        partitions.push(Place {
            topic,
            number,
            next: next.clone(),
        });
        next
    }

    /// Begins to ask.
    pub fn begin(&mut self, node: &str, brokers: Brokers) {
        if self.asking.is_some() {
            return;
        }
        let (sender, over) = channel();
        let (partitions, backlog) = (self.partitions.clone(), self.backlog.clone());
        let thread = std::thread::Builder::new()
            .name("kafka-ends".to_owned())
            .spawn(move || ask(&brokers, &partitions, &backlog, &over));
        match thread {
            Ok(_) => self.asking = Some(sender),
            Err(error) => tracing::warn!(source = node, "cannot start a thread: {error}"),
        }
    }
}

fn ask(brokers: &Brokers, partitions: &Mutex<Vec<Place>>, backlog: &Backlog, over: &Receiver<()>) {
    while over.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
        let places = partitions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let wanted = places.iter().map(|place| (place.topic, place.number));
        let wanted: Vec<(usize, i32)> = wanted.collect();
        // Brokers that do not answer are told of by the reader.
        let Ok(ends) = brokers.offsets(&wanted, Offset::End) else {
            continue;
        };
        let waiting = places.iter().zip(ends);
        let waiting =
            waiting.map(|(place, end)| end.saturating_sub(place.next.load(Ordering::Relaxed)));
        backlog.set(waiting.sum());
    }
}
