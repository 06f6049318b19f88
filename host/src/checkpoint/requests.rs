//! The one place where a checkpoint is asked for: by the memory budget, for a
//! savepoint, to stop the run, or to swap its revision.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::element::Purpose;
use crate::stop::Stop;

/// What has been asked for and is not done. Shared by all who ask, and by the
/// coordinator.
#[derive(Clone, Debug, Default)]
pub struct Requests {
    waiting: Arc<Mutex<Waiting>>,
    bell: Arc<Notify>,
    stop: Stop,
}

#[derive(Debug, Default)]
struct Waiting {
    pressure: bool,
    swap: bool,
    /// Names of savepoints, in the order in which they were asked for.
    savepoints: VecDeque<String>,
}

impl Requests {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Each change is whole before the lock is given back.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a checkpoint because changed states fill the memory: until it is
    /// done, nothing that has changed can be evicted.
    pub fn press(&self) {
        self.waiting().pressure = true;
        self.bell.notify_one();
    }

    /// Asks for a checkpoint that is kept under this name.
    pub fn savepoint(&self, name: &str) {
        self.waiting().savepoints.push_back(name.to_owned());
        self.bell.notify_one();
    }

    /// Asks for the revision to end with a checkpoint, from which the next
    /// revision goes on.
    pub fn swap(&self) {
        self.waiting().swap = true;
        self.bell.notify_one();
    }

    /// Asks for the run to end with a checkpoint.
    pub fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Returns once something is asked for.
    pub async fn wait(&self) {
        loop {
            let rung = self.bell.notified();
            if self.next().is_some() {
                return;
            }
            tokio::select! {
                () = rung => {}
                () = self.stop.wait() => return,
            }
        }
    }

    /// The purpose of the next checkpoint, if one is asked for.
    pub fn next(&self) -> Option<Purpose> {
        let waiting = self.waiting();
        if self.stop.asked() {
            Some(Purpose::Stop)
        } else if waiting.swap {
            Some(Purpose::Swap)
        } else if !waiting.savepoints.is_empty() {
            Some(Purpose::Savepoint)
        } else {
            waiting.pressure.then_some(Purpose::Pressure)
        }
    }

    /// The name of the checkpoint that is made now, whatever its purpose.
    pub fn savepoint_name(&self) -> Option<String> {
        self.waiting().savepoints.front().cloned()
    }

    /// A checkpoint begins: pressure from now on asks for another one.
    pub fn begin(&self) {
        self.waiting().pressure = false;
    }

    /// A checkpoint of this purpose and name is done.
    pub fn done(&self, purpose: Purpose, name: Option<&str>) {
        let mut waiting = self.waiting();
        waiting
            .savepoints
            .retain(|asked| Some(asked.as_str()) != name);
        if purpose.is_last() {
            waiting.swap = false;
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
        requests.press();
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
    async fn who_waits_hears_of_what_is_asked_later_and_before() {
        let requests = Requests::default();
        let asked = requests.clone();
        let later = tokio::spawn(async move { asked.press() });
        requests.wait().await;
        later.await.expect("it does not panic");
        requests.begin();
        requests.stop().ask();
        requests.wait().await;
    }
}
