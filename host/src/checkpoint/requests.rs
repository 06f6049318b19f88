//! Requests for checkpoints: by the memory budget, for a savepoint, to stop the
//! run, to swap its revision, or to replace its logic. Decides which comes first.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

use crate::element::Purpose;
use crate::stop::Stop;

/// The open requests, shared by all who make them and the coordinator.
#[derive(Clone, Debug, Default)]
pub struct Requests {
    waiting: Arc<Mutex<Waiting>>,
    changed: Arc<Notify>,
    stop: Stop,
    /// Whether no checkpoint is made by its interval.
    held_back: Arc<watch::Sender<bool>>,
    /// Whether something else runs after the next failure, instead of a restart.
    gives_way: Arc<watch::Sender<bool>>,
}

#[derive(Debug, Default)]
struct Waiting {
    pressure: bool,
    swap: bool,
    /// Whether a restart withdraws the request to swap.
    swap_of_attempt: bool,
    /// How often the run was restarted.
    attempt: u64,
    replace: bool,
    /// Names of savepoints, in the order of their requests.
    savepoints: VecDeque<String>,
}

impl Requests {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // A panic elsewhere leaves no change half made.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Requests a checkpoint because changed states fill the memory budget: they
    /// cannot be evicted before it is written.
    pub fn memory_pressure(&self) {
        self.waiting().pressure = true;
        self.changed.notify_one();
    }

    /// Requests a checkpoint that is kept under this name.
    pub fn savepoint(&self, name: &str) {
        self.waiting().savepoints.push_back(name.to_owned());
        self.changed.notify_one();
    }

    /// Withdraws the request for a savepoint.
    pub fn withdraw_savepoint(&self, name: &str) {
        self.waiting().savepoints.retain(|asked| asked != name);
    }

    /// Requests that the revision ends with a checkpoint, from which the next
    /// revision continues.
    pub fn swap(&self) {
        let mut waiting = self.waiting();
        (waiting.swap, waiting.swap_of_attempt) = (true, false);
        self.changed.notify_one();
    }

    /// The number of the run's attempt, for [`Requests::swap_after`].
    pub fn attempt(&self) -> u64 {
        self.waiting().attempt
    }

    /// Requests the same because of what was seen of this attempt, of which nothing holds for
    /// a later one: that goes on from the last checkpoint.
    pub fn swap_after(&self, attempt: u64) {
        let mut waiting = self.waiting();
        if waiting.attempt == attempt && !waiting.swap {
            (waiting.swap, waiting.swap_of_attempt) = (true, true);
            self.changed.notify_one();
        }
    }

    /// The run is restarted. What is seen of its attempt before this is of the one before.
    pub fn restarted(&self) {
        let mut waiting = self.waiting();
        waiting.attempt += 1;
        if std::mem::take(&mut waiting.swap_of_attempt) {
            waiting.swap = false;
        }
    }

    /// Requests that the run's operators call other logic from a checkpoint on.
    pub fn replace(&self) {
        self.waiting().replace = true;
        self.changed.notify_one();
    }

    /// Requests that the run ends with a checkpoint.
    pub fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Whether checkpoints by their interval have to wait: what waits for a commit can be
    /// taken back until then, by dropping the run.
    pub fn hold_back(&self, waits: bool) {
        self.held_back.send_replace(waits);
    }

    pub fn are_held_back(&self) -> bool {
        *self.held_back.borrow()
    }

    /// Waits until checkpoints by their interval may be made.
    pub async fn released(&self) {
        // The sender lives as long as `self`.
        let _ = self.held_back.subscribe().wait_for(|waits| !waits).await;
    }

    /// Whether the run ends when it fails, and does not wait for a restart: something else is
    /// to run, from the last checkpoint. It fails by a plugin's call that does not end soon.
    pub fn give_way(&self, gives_way: bool) {
        self.stop.hurry(gives_way);
        self.gives_way.send_replace(gives_way);
    }

    /// Whether the run is not restarted when it fails, whatever the plan says.
    pub fn ends_at_failure(&self) -> bool {
        self.stop.asked() || *self.gives_way.borrow()
    }

    /// Waits until that is so.
    pub async fn until_ends_at_failure(&self) {
        let mut gives_way = self.gives_way.subscribe();
        tokio::select! {
            () = self.stop.wait() => {}
            // The sender lives as long as `self`.
            _ = gives_way.wait_for(|gives_way| *gives_way) => {}
        }
    }

    /// Waits for a request.
    pub async fn wait(&self) {
        loop {
            let changed = self.changed.notified();
            if self.next().is_some() {
                return;
            }
            tokio::select! {
                () = changed => {}
                () = self.stop.wait() => return,
            }
        }
    }

    /// The purpose of the next checkpoint, if one is requested.
    pub fn next(&self) -> Option<Purpose> {
        let waiting = self.waiting();
        if self.stop.asked() {
            Some(Purpose::Stop)
        } else if waiting.swap {
            Some(Purpose::Swap)
        } else if waiting.replace {
            Some(Purpose::Replace)
        } else if !waiting.savepoints.is_empty() {
            Some(Purpose::Savepoint)
        } else {
            waiting.pressure.then_some(Purpose::Pressure)
        }
    }

    /// The savepoint's name that the next checkpoint gets, whatever its purpose.
    pub fn savepoint_name(&self) -> Option<String> {
        self.waiting().savepoints.front().cloned()
    }

    /// Notes that a checkpoint begins: later memory pressure needs another one.
    pub fn begin(&self) {
        self.waiting().pressure = false;
    }

    /// Removes the requests that this checkpoint has answered.
    pub fn done(&self, purpose: Purpose, name: Option<&str>) {
        let mut waiting = self.waiting();
        waiting
            .savepoints
            .retain(|asked| Some(asked.as_str()) != name);
        if purpose.is_last() {
            (waiting.swap, waiting.swap_of_attempt) = (false, false);
        }
        if purpose.is_last() || purpose == Purpose::Replace {
            waiting.replace = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_urgent_request_is_next_and_stays_until_it_is_done() {
        let requests = Requests::default();
        assert_eq!(requests.next(), None);
        requests.memory_pressure();
        requests.savepoint("one");
        assert_eq!(requests.next(), Some(Purpose::Savepoint));
        requests.swap();
        assert_eq!(requests.next(), Some(Purpose::Swap));
        requests.begin();
        assert_eq!(requests.next(), Some(Purpose::Swap), "it may fail");
        requests.done(Purpose::Swap, None);
        assert_eq!(requests.next(), Some(Purpose::Savepoint));
        requests.done(Purpose::Savepoint, Some("one"));
        assert_eq!(
            requests.next(),
            None,
            "one checkpoint relieves the pressure"
        );
        requests.stop().ask();
        assert_eq!(requests.next(), Some(Purpose::Stop));
    }

    #[test]
    fn a_restart_withdraws_what_was_asked_of_the_attempt_before() {
        let requests = Requests::default();
        let first = requests.attempt();
        requests.swap_after(first);
        assert_eq!(requests.next(), Some(Purpose::Swap));
        requests.restarted();
        assert_eq!(requests.next(), None);
        requests.swap_after(first);
        assert_eq!(requests.next(), None, "it was seen of another attempt");
        requests.swap_after(requests.attempt());
        requests.swap();
        requests.restarted();
        assert_eq!(requests.next(), Some(Purpose::Swap), "of any attempt");
        requests.done(Purpose::Swap, None);
        assert_eq!(requests.next(), None);
    }

    #[test]
    fn savepoints_are_made_one_after_the_other() {
        let requests = Requests::default();
        requests.savepoint("one");
        requests.savepoint("two");
        assert_eq!(requests.savepoint_name().as_deref(), Some("one"));
        requests.done(Purpose::Savepoint, Some("one"));
        assert_eq!(requests.savepoint_name().as_deref(), Some("two"));
        requests.done(Purpose::Interval, Some("two"));
        assert_eq!(requests.savepoint_name(), None);
    }

    #[tokio::test]
    async fn checkpoints_by_their_interval_can_be_held_back() {
        let requests = Requests::default();
        requests.released().await;
        requests.hold_back(true);
        let asked = requests.clone();
        let released = tokio::spawn(async move { asked.released().await });
        tokio::task::yield_now().await;
        assert!(!released.is_finished());
        requests.hold_back(false);
        released.await.expect("it does not panic");
    }

    #[tokio::test]
    async fn a_stop_and_one_who_wants_to_run_instead_end_the_wait_for_a_restart() {
        let asks: [fn(&Requests); 2] = [|asked| asked.stop().ask(), |asked| asked.give_way(true)];
        for ask in asks {
            let requests = Requests::default();
            requests.swap();
            assert!(!requests.ends_at_failure(), "the restart makes it");
            let waiting = requests.clone();
            let ended = tokio::spawn(async move { waiting.until_ends_at_failure().await });
            tokio::task::yield_now().await;
            assert!(!ended.is_finished());
            ask(&requests);
            assert!(requests.ends_at_failure());
            ended.await.expect("it does not panic");
            requests.until_ends_at_failure().await;
        }
    }

    #[tokio::test]
    async fn wait_returns_for_earlier_and_later_requests() {
        let requests = Requests::default();
        let asked = requests.clone();
        let later = tokio::spawn(async move { asked.memory_pressure() });
        requests.wait().await;
        later.await.expect("it does not panic");
        requests.begin();
        requests.stop().ask();
        requests.wait().await;
    }
}
