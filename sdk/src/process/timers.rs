use crate::bindings::exports::sluicebox::plugin::process;
use crate::bindings::sluicebox::plugin::columns::Packed;

/// How many timers a key can have in each kind of time.
pub const TIMERS_MAX: usize = 1_000;

/// The timers of a key, in both kinds of time.
#[derive(Clone, Default)]
pub struct Timers {
    pub event: TimerList,
    pub processing: TimerList,
}

/// Timers by time, then by name.
#[derive(Clone, Default)]
pub struct TimerList(Vec<SetTimer>);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct SetTimer {
    time_ms: i64,
    name: String,
}

/// A timer that fires.
pub struct Due {
    pub name: String,
    pub time_ms: i64,
    pub in_processing_time: bool,
}

impl Timers {
    pub fn are_empty(&self) -> bool {
        self.event.0.is_empty() && self.processing.0.is_empty()
    }

    /// The first timer that is due, without those that are done: by their names, and
    /// whether they are in processing time.
    pub fn next_due(
        &self,
        watermark_ms: i64,
        now_ms: i64,
        is_done: impl Fn(&str, bool) -> bool,
    ) -> Option<Due> {
        let event = self.event.due(watermark_ms, |name| is_done(name, false));
        let processing = self.processing.due(now_ms, |name| is_done(name, true));
        let (timer, in_processing_time) = match (event, processing) {
            (Some(event), Some(processing)) if processing.time_ms < event.time_ms => {
                (processing, true)
            }
            (Some(event), _) => (event, false),
            (None, processing) => (processing?, true),
        };
        Some(Due {
            name: timer.name.clone(),
            time_ms: timer.time_ms,
            in_processing_time,
        })
    }

    /// Removes what is left where time has ended: timers that were set again.
    pub fn end(&mut self, watermark_ms: i64, now_ms: i64) {
        for (list, time_ms) in [
            (&mut self.event, watermark_ms),
            (&mut self.processing, now_ms),
        ] {
            if time_ms == i64::MAX {
                list.0.clear();
            }
        }
    }

    pub fn remove(&mut self, due: &Due) {
        let list = match due.in_processing_time {
            true => &mut self.processing,
            false => &mut self.event,
        };
        list.cancel(&due.name);
    }
}

impl TimerList {
    /// Adds a timer that comes after all others.
    pub fn add(&mut self, name: &str, time_ms: i64) {
        self.0.push(SetTimer {
            time_ms,
            name: name.to_owned(),
        });
    }

    /// Sets a timer in place of the one of the same name. Returns whether there are not
    /// too many then.
    pub fn set(&mut self, name: &str, time_ms: i64) -> bool {
        self.cancel(name);
        let timer = SetTimer {
            time_ms,
            name: name.to_owned(),
        };
        let at = self.0.partition_point(|other| *other < timer);
        self.0.insert(at, timer);
        self.0.len() <= TIMERS_MAX
    }

    pub fn cancel(&mut self, name: &str) {
        self.0.retain(|timer| timer.name != name);
    }

    pub fn time(&self, name: &str) -> Option<i64> {
        let mut timers = self.0.iter();
        let timer = timers.find(|timer| timer.name == name);
        timer.map(|timer| timer.time_ms)
    }

    fn due(&self, now_ms: i64, is_done: impl Fn(&str) -> bool) -> Option<&SetTimer> {
        let mut due = self.0.iter().take_while(|timer| timer.time_ms <= now_ms);
        due.find(|timer| !is_done(&timer.name))
    }
}

/// A timer as the host sends it.
pub struct Unpacked<'a> {
    pub group: usize,
    pub time_ms: i64,
    pub name: &'a str,
}

impl<'a> Unpacked<'a> {
    /// The timers of each group, by time, then by name.
    pub fn of(timers: &'a process::Timers) -> impl Iterator<Item = Unpacked<'a>> {
        let names = &timers.names;
        let mut start = 0;
        let each = timers.groups.iter().zip(&timers.times).zip(&names.ends);
        each.map(move |((&group, &time_ms), &end)| {
            let name = &names.data[start..end as usize];
            start = end as usize;
            Unpacked {
                group: group as usize,
                time_ms,
                name: std::str::from_utf8(name).expect("the host sends names as it got them"),
            }
        })
    }
}

/// The timers of all groups, in order.
pub fn packed<'a>(of_groups: impl Iterator<Item = &'a TimerList>) -> process::Timers {
    let mut timers = process::Timers {
        groups: Vec::new(),
        times: Vec::new(),
        names: Packed {
            ends: Vec::new(),
            data: Vec::new(),
        },
    };
    for (group, list) in (0..).zip(of_groups) {
        for timer in &list.0 {
            timers.groups.push(group);
            timers.times.push(timer.time_ms);
            timers.names.data.extend_from_slice(timer.name.as_bytes());
            timers.names.ends.push(timers.names.data.len() as u32);
        }
    }
    timers
}
