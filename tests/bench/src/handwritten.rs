//! The jobs as one hand-written loop each: for one input, one thread, and
//! no stopping, restarting or reconfiguring.

/// Looks prices up.
mod lookup;
/// Recommends items.
mod recommend;

use std::collections::BTreeMap;
use std::hint::black_box;

use arrow_array::cast::AsArray;
use arrow_array::types::{Decimal128Type, Int64Type, TimestampMillisecondType};
use arrow_array::{Array, RecordBatch};
use hashbrown::HashMap;
use serde::{Deserialize, Deserializer};

use lookup::Bills;
use recommend::Recommend;

use crate::{Case, OUT_OF_ORDERNESS_MS};

/// One row, borrowed from its line or columns.
#[derive(Clone, Copy, Deserialize)]
pub struct Event<'a> {
    user_id: &'a str,
    item_id: &'a str,
    action: &'a str,
    quantity: i64,
    ts: i64,
    /// 0 where rows have no price.
    #[serde(default, rename = "price", deserialize_with = "cents")]
    price_cents: i64,
}

fn cents<'de, D: Deserializer<'de>>(price: D) -> Result<i64, D::Error> {
    // So small an amount is exact enough as a float.
    f64::deserialize(price).map(|price| (price * 100.0).round() as i64)
}

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// Runs a job over the lines of a file.
pub fn over_lines(case: Case, lines: &[u8]) -> anyhow::Result<u64> {
    let mut job = Job::new(case);
    let mut rows = 0;
    let mut start = 0;
    for end in memchr::memchr_iter(b'\n', lines) {
        job.row(sonic_rs::from_slice(&lines[start..end])?);
        rows += 1;
        start = end + 1;
    }
    job.finish();
    Ok(rows)
}

/// Runs a job over columns.
pub fn over_columns(case: Case, batches: &[RecordBatch]) -> u64 {
    let mut job = Job::new(case);
    let mut rows = 0;
    for batch in batches {
        let [users, items, actions] = [0, 1, 2].map(|c| batch.column(c).as_string::<i32>());
        let quantities = batch.column(3).as_primitive::<Int64Type>().values();
        let times = batch
            .column(4)
            .as_primitive::<TimestampMillisecondType>()
            .values();
        let prices = batch.columns().get(5);
        let prices = prices.map(|prices| prices.as_primitive::<Decimal128Type>().values());
        for row in 0..users.len() {
            job.row(Event {
                user_id: users.value(row),
                item_id: items.value(row),
                action: actions.value(row),
                quantity: quantities[row],
                ts: times[row],
                price_cents: prices.map_or(0, |prices| prices[row] as i64),
            });
            rows += 1;
        }
    }
    job.finish();
    rows
}

/// One of the jobs, running.
enum Job {
    Stateless(Changes),
    Filter(u64),
    Tumbling(Tumbling),
    SlidingTop10(Sliding),
    Sessions(Sessions),
    Process(LeftCarts),
    IntervalJoin(IntervalJoin),
    AsOfJoin(AsOfJoin),
    Lookup(Bills),
    Recommend(Recommend),
}

impl Job {
    fn new(case: Case) -> Self {
        match case {
            Case::Stateless => Job::Stateless(Changes::default()),
            Case::Filter => Job::Filter(0),
            Case::Tumbling => Job::Tumbling(Tumbling::default()),
            Case::SlidingTop10 => Job::SlidingTop10(Sliding::default()),
            Case::Sessions => Job::Sessions(Sessions::default()),
            Case::Process => Job::Process(LeftCarts::default()),
            Case::IntervalJoin => Job::IntervalJoin(IntervalJoin::default()),
            Case::AsOfJoin => Job::AsOfJoin(AsOfJoin::default()),
            Case::Lookup => Job::Lookup(Bills::default()),
            Case::Recommend => Job::Recommend(Recommend::default()),
        }
    }

    fn row(&mut self, event: Event<'_>) {
        match self {
            Job::Stateless(job) => job.row(event),
            Job::Filter(kept) => *kept += u64::from(black_box(&event).action == "add"),
            Job::Tumbling(job) => job.row(event),
            Job::SlidingTop10(job) => job.row(event),
            Job::Sessions(job) => job.row(event),
            Job::Process(job) => job.row(event),
            Job::IntervalJoin(job) => job.row(event),
            Job::AsOfJoin(job) => job.row(event),
            Job::Lookup(job) => job.row(event),
            Job::Recommend(job) => job.row(event),
        }
    }

    fn finish(self) {
        match self {
            Job::Stateless(job) => drop(black_box(job)),
            Job::Filter(kept) => drop(black_box(kept)),
            Job::Tumbling(mut job) => job.advance(i64::MAX),
            Job::SlidingTop10(mut job) => job.advance(i64::MAX),
            Job::Sessions(mut job) => job.advance(i64::MAX),
            Job::Process(mut job) => job.advance(i64::MAX),
            Job::IntervalJoin(mut job) => job.advance(i64::MAX),
            Job::AsOfJoin(mut job) => job.advance(i64::MAX),
            Job::Lookup(mut job) => job.advance(i64::MAX),
            Job::Recommend(mut job) => job.advance(i64::MAX),
        }
    }
}

/// Map and filter; results are collected a few thousand at a time, as for a
/// sink.
#[derive(Default)]
struct Changes {
    users: Vec<u8>,
    items: Vec<u8>,
    deltas: Vec<i64>,
}

impl Changes {
    fn row(&mut self, event: Event<'_>) {
        let delta = match event.action {
            "add" => event.quantity,
            "remove" => -event.quantity,
            _ => return,
        };
        self.users.extend_from_slice(event.user_id.as_bytes());
        self.items.extend_from_slice(event.item_id.as_bytes());
        self.deltas.push(delta);
        if self.deltas.len() == 4096 {
            black_box(&*self);
            self.users.clear();
            self.items.clear();
            self.deltas.clear();
        }
    }
}

#[derive(Default)]
struct Tumbling {
    windows: BTreeMap<i64, Map<Box<str>, (i64, i64)>>,
    newest: i64,
}

impl Tumbling {
    const SIZE_MS: i64 = 60_000;

    fn row(&mut self, event: Event<'_>) {
        if event.action == "add" {
            let window = self
                .windows
                .entry(event.ts - event.ts.rem_euclid(Self::SIZE_MS));
            let users = window.or_default();
            match users.get_mut(event.user_id) {
                Some((count, sum)) => {
                    *count += 1;
                    *sum += event.quantity;
                }
                None => {
                    users.insert(event.user_id.into(), (1, event.quantity));
                }
            }
        }
        if event.ts > self.newest {
            self.newest = event.ts;
            self.advance(self.newest - OUT_OF_ORDERNESS_MS);
        }
    }

    fn advance(&mut self, watermark: i64) {
        while let Some(window) = self.windows.first_entry()
            && *window.key() <= watermark.saturating_sub(Self::SIZE_MS)
        {
            black_box(window.remove());
        }
    }
}

/// Counts a pane; a window is the sum of its panes.
#[derive(Default)]
struct Sliding {
    items: Map<Box<str>, u32>,
    names: Vec<Box<str>>,
    panes: BTreeMap<i64, Map<u32, i64>>,
    newest: i64,
    /// The end of the next window to fire.
    next_end: Option<i64>,
}

impl Sliding {
    const SIZE_MS: i64 = 60_000;
    const SLIDE_MS: i64 = 5_000;

    fn row(&mut self, event: Event<'_>) {
        if event.action == "add" {
            let item = match self.items.get(event.item_id) {
                Some(&item) => item,
                None => {
                    let item = self.names.len() as u32;
                    self.names.push(event.item_id.into());
                    self.items.insert(event.item_id.into(), item);
                    item
                }
            };
            let pane = event.ts - event.ts.rem_euclid(Self::SLIDE_MS);
            *self.panes.entry(pane).or_default().entry(item).or_default() += 1;
            let first = pane + Self::SLIDE_MS;
            self.next_end = Some(self.next_end.map_or(first, |next| next.min(first)));
        }
        if event.ts > self.newest {
            self.newest = event.ts;
            self.advance(self.newest - OUT_OF_ORDERNESS_MS);
        }
    }

    fn advance(&mut self, watermark: i64) {
        while let Some(end) = self.next_end
            && end <= watermark
            && !self.panes.is_empty()
        {
            let mut counts: Map<u32, i64> = Map::default();
            for pane in self
                .panes
                .range(end - Self::SIZE_MS..end)
                .map(|(_, pane)| pane)
            {
                for (&item, count) in pane {
                    *counts.entry(item).or_default() += count;
                }
            }
            let mut ranked: Vec<(i64, &str)> = counts
                .iter()
                .map(|(&item, &count)| (-count, &*self.names[item as usize]))
                .collect();
            let best = ranked.len().min(10);
            if best > 0 {
                ranked.select_nth_unstable(best - 1);
                ranked[..best].sort_unstable();
            }
            black_box(&ranked[..best]);
            self.panes = self
                .panes
                .split_off(&(end + Self::SLIDE_MS - Self::SIZE_MS));
            self.next_end = Some(end + Self::SLIDE_MS);
        }
    }
}

#[derive(Default)]
struct Sessions {
    users: Map<Box<str>, u32>,
    names: Vec<Box<str>>,
    open: Vec<Vec<Session>>,
    /// The users whose session may end at each time.
    timers: BTreeMap<i64, Vec<u32>>,
    newest: i64,
}

#[derive(Clone, Copy)]
struct Session {
    first: i64,
    last: i64,
    counts: [i64; 4],
    sum: i64,
}

impl Sessions {
    const GAP_MS: i64 = 30_000;

    fn row(&mut self, event: Event<'_>) {
        let user = match self.users.get(event.user_id) {
            Some(&user) => user,
            None => {
                let user = self.names.len() as u32;
                self.names.push(event.user_id.into());
                self.open.push(Vec::new());
                self.users.insert(event.user_id.into(), user);
                user
            }
        };
        let mut session = Session {
            first: event.ts,
            last: event.ts,
            counts: [0; 4],
            sum: event.quantity,
        };
        let action = match event.action {
            "add" => 0,
            "remove" => 1,
            "view" => 2,
            _ => 3,
        };
        session.counts[action] = 1;
        self.open[user as usize].retain(|other| {
            let apart = other.first > session.last + Self::GAP_MS
                || session.first > other.last + Self::GAP_MS;
            if !apart {
                session.first = session.first.min(other.first);
                session.last = session.last.max(other.last);
                session.sum += other.sum;
                for (count, more) in session.counts.iter_mut().zip(other.counts) {
                    *count += more;
                }
            }
            apart
        });
        self.open[user as usize].push(session);
        self.timers
            .entry(session.last + Self::GAP_MS)
            .or_default()
            .push(user);
        if event.ts > self.newest {
            self.newest = event.ts;
            self.advance(self.newest - OUT_OF_ORDERNESS_MS);
        }
    }

    fn advance(&mut self, watermark: i64) {
        while let Some(due) = self.timers.first_entry()
            && *due.key() < watermark
        {
            for user in due.remove() {
                self.open[user as usize].retain(|session| {
                    let over = session.last.saturating_add(Self::GAP_MS) < watermark;
                    if over {
                        black_box(session);
                    }
                    !over
                });
            }
        }
    }
}

/// The number of a user, and what is kept of them.
fn of_user<'a, T: Default>(
    users: &mut Map<Box<str>, u32>,
    all: &'a mut Vec<T>,
    name: &str,
) -> (u32, &'a mut T) {
    let user = match users.get(name) {
        Some(&user) => user,
        None => {
            let user = all.len() as u32;
            users.insert(name.into(), user);
            all.push(T::default());
            user
        }
    };
    (user, &mut all[user as usize])
}

/// Carts that nothing happens to for a minute: a timer for each user, which is moved.
#[derive(Default)]
struct LeftCarts {
    users: Map<Box<str>, u32>,
    carts: Vec<Cart>,
    /// The users whose cart may be left at each time.
    timers: BTreeMap<i64, Vec<u32>>,
    newest: i64,
}

#[derive(Clone, Copy, Default)]
struct Cart {
    items: i64,
    since: i64,
    left_at: i64,
}

impl LeftCarts {
    const AFTER_MS: i64 = 60_000;

    fn row(&mut self, event: Event<'_>) {
        let delta = match event.action {
            "add" => event.quantity,
            "remove" => -event.quantity,
            _ => 0,
        };
        if delta != 0 {
            let (user, cart) = of_user(&mut self.users, &mut self.carts, event.user_id);
            if cart.items == 0 {
                cart.since = event.ts;
            }
            cart.items = (cart.items + delta).max(0);
            cart.left_at = event.ts + Self::AFTER_MS;
            if cart.items > 0 {
                self.timers.entry(cart.left_at).or_default().push(user);
            }
        }
        if event.ts > self.newest {
            self.newest = event.ts;
            self.advance(self.newest - OUT_OF_ORDERNESS_MS);
        }
    }

    fn advance(&mut self, watermark: i64) {
        while let Some(due) = self.timers.first_entry()
            && *due.key() <= watermark
        {
            let time = *due.key();
            for user in due.remove() {
                let cart = &mut self.carts[user as usize];
                if cart.items > 0 && cart.left_at == time {
                    black_box(&*cart);
                    cart.items = 0;
                }
            }
        }
    }
}

/// Adds of a user, each with what the user does in the ten seconds after it.
#[derive(Default)]
struct IntervalJoin {
    users: Map<Box<str>, u32>,
    sides: Vec<Sides>,
    /// The users with rows of each second, to drop these.
    seconds: BTreeMap<i64, Vec<u32>>,
    newest: i64,
}

/// The rows of a user that others may match, by time.
#[derive(Default)]
struct Sides {
    adds: BTreeMap<(i64, u64), Box<str>>,
    events: BTreeMap<(i64, u64), Box<str>>,
}

impl IntervalJoin {
    const AFTER_MS: i64 = 10_000;

    fn row(&mut self, event: Event<'_>) {
        let (user, sides) = of_user(&mut self.users, &mut self.sides, event.user_id);
        let number = (sides.adds.len() + sides.events.len()) as u64;
        if event.action == "add" {
            let after = (event.ts, 0)..=(event.ts + Self::AFTER_MS, u64::MAX);
            for then in sides.events.range(after) {
                black_box((event.user_id, event.item_id, then));
            }
            sides.adds.insert((event.ts, number), event.item_id.into());
        }
        let before = (event.ts - Self::AFTER_MS, 0)..=(event.ts, u64::MAX);
        for added in sides.adds.range(before) {
            black_box((event.user_id, added, event.item_id));
        }
        sides
            .events
            .insert((event.ts, number), event.item_id.into());
        let second = event.ts.div_euclid(1_000);
        self.seconds.entry(second).or_default().push(user);
        if event.ts > self.newest {
            self.newest = event.ts;
            self.advance(self.newest - OUT_OF_ORDERNESS_MS);
        }
    }

    fn advance(&mut self, watermark: i64) {
        let over = watermark.saturating_sub(Self::AFTER_MS);
        while let Some(second) = self.seconds.first_entry()
            && (second.key() + 1) * 1_000 <= over
        {
            for user in second.remove() {
                let sides = &mut self.sides[user as usize];
                for rows in [&mut sides.adds, &mut sides.events] {
                    while let Some(row) = rows.first_entry()
                        && row.key().0 < over
                    {
                        row.remove();
                    }
                }
            }
        }
    }
}

/// Events with what their user has added last, as of their time.
#[derive(Default)]
struct AsOfJoin {
    added: Map<Box<str>, Box<str>>,
    /// Rows that wait for the watermark.
    waiting: BTreeMap<i64, Vec<Waiting>>,
    newest: i64,
}

struct Waiting {
    user: Box<str>,
    action: Box<str>,
    /// Of an add.
    item: Option<Box<str>>,
}

impl AsOfJoin {
    fn row(&mut self, event: Event<'_>) {
        self.waiting.entry(event.ts).or_default().push(Waiting {
            user: event.user_id.into(),
            action: event.action.into(),
            item: (event.action == "add").then(|| event.item_id.into()),
        });
        if event.ts > self.newest {
            self.newest = event.ts;
            self.advance(self.newest - OUT_OF_ORDERNESS_MS);
        }
    }

    fn advance(&mut self, watermark: i64) {
        while let Some(due) = self.waiting.first_entry()
            && *due.key() < watermark
        {
            let mut rows = due.remove();
            for row in &mut rows {
                if let Some(item) = row.item.take() {
                    self.added.insert(row.user.clone(), item);
                }
            }
            for row in rows {
                black_box((self.added.get(&row.user), &row.user, &row.action));
            }
        }
    }
}
