//! Generates shop events, the same ones for the same seed.
//!
//! Each row depends on nothing but the seed and its number, so the generator
//! can start at any row. Few users and items have most of the events (Zipf,
//! exponents 0.8 and 1). Of the actions 45% are `add`, 40% `view`, 10% `remove`
//! and 5% `checkout`; quantities are 1 to 5. Event times advance evenly, and
//! each row is then moved back by up to the jitter. An item has one price, from 0.99 to
//! 199.98.
//!
//! Broken rows can be decoded, but a shop should reject them: an unknown
//! action, no user, no item, a quantity of 0 or 10,000.

use std::io::{self, Write};
use std::sync::Arc;

use arrow_array::types::{Decimal128Type, Int64Type, TimestampMillisecondType};
use arrow_array::{ArrayRef, PrimitiveArray, StringArray};
use arrow_buffer::OffsetBuffer;

use crate::schema::{DataType, Field, Schema};

/// 2^64 divided by the golden ratio: the increment of splitmix64.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// Each action, with the percentage below which a draw selects it.
const ACTIONS: [(&str, u64); 4] = [("add", 45), ("view", 85), ("remove", 95), ("checkout", 100)];

const PRICE: DataType = DataType::Decimal {
    precision: 9,
    scale: 2,
};

/// `user_id`, `item_id`, `action`, `quantity`, `ts`, and `price`, if it is wanted. Actions
/// are plain text, since broken rows have actions that no symbol lists.
pub fn schema(prices: bool) -> Arc<Schema> {
    let mut fields = vec![
        Field::new("user_id", DataType::Utf8, false),
        Field::new("item_id", DataType::Utf8, false),
        Field::new("action", DataType::Utf8, false),
        Field::new("quantity", DataType::Int64, false),
        Field::new("ts", DataType::Timestamp, false),
    ];
    if prices {
        fields.push(Field::new("price", PRICE, false));
    }
    Arc::new(Schema::new(fields))
}

/// Writes the rows of a plan as JSON lines, for benchmarks and examples. The
/// plan must have a count and a start.
pub fn write_json_lines(plan: &EventsPlan, out: &mut dyn Write) -> io::Result<()> {
    let (Some(count), Some(start_ms)) = (plan.count, plan.start_ms) else {
        return Err(io::Error::other("expected a number of rows and a start"));
    };
    let events = Events::new(plan, start_ms);
    let mut text = Vec::new();
    for first in (0..count).step_by(4_096) {
        text.clear();
        for number in first..count.min(first + 4_096) {
            let event = events.event(number);
            text.extend_from_slice(b"{\"user_id\":\"");
            event.user.append_to(&mut text, "user-", 6);
            text.extend_from_slice(b"\",\"item_id\":\"");
            event.item.append_to(&mut text, "item-", 5);
            text.extend_from_slice(b"\",\"action\":\"");
            text.extend_from_slice(event.action.as_bytes());
            text.extend_from_slice(b"\",\"quantity\":");
            write!(text, "{},\"ts\":{}", event.quantity, event.time_ms)?;
            if plan.prices {
                let cents = event.price_cents;
                write!(text, ",\"price\":{}.{:02}", cents / 100, cents % 100)?;
            }
            text.extend_from_slice(b"}\n");
        }
        out.write_all(&text)?;
    }
    out.flush()
}

/// Which shop events are generated, and how many.
#[derive(Clone, Debug)]
pub struct EventsPlan {
    pub seed: u64,
    /// Rows a second of wall clock; as fast as they are read if `None`.
    pub rate: Option<f64>,
    /// How many rows; endless if `None`.
    pub count: Option<u64>,
    pub users: u32,
    pub items: u32,
    /// Event time of the first row, in ms; now if `None`.
    pub start_ms: Option<i64>,
    /// Rows a second of event time.
    pub events_per_second: f64,
    /// How much earlier than its even place a row may be, in ms.
    pub jitter_ms: u64,
    /// One row in this many is broken on purpose; 0 for none.
    pub broken_one_in: u64,
    /// Whether rows have the price of their item.
    pub prices: bool,
}

/// Generates any range of a plan's rows.
pub struct Events {
    seed: u64,
    users: Zipf,
    items: Zipf,
    pub start_ms: i64,
    ms_per_event: f64,
    jitter_ms: u64,
    broken_one_in: u64,
    prices: bool,
}

struct Event {
    user: EntityNumber,
    item: EntityNumber,
    action: &'static str,
    quantity: i64,
    time_ms: i64,
    price_cents: i64,
}

/// The number of a user or an item; `None` in a broken row.
struct EntityNumber(Option<u32>);

impl Events {
    pub fn new(plan: &EventsPlan, start_ms: i64) -> Self {
        Events {
            seed: mix(plan.seed.wrapping_add(GOLDEN)),
            users: Zipf::new(plan.users, 0.8, 123, 49_999),
            items: Zipf::new(plan.items, 1.0, 42, 7_919),
            start_ms,
            ms_per_event: 1_000.0 / plan.events_per_second,
            // The jitter has to fit into 32 bits, some seven weeks.
            jitter_ms: plan.jitter_ms.min(u64::from(u32::MAX) - 1),
            broken_one_in: plan.broken_one_in,
            prices: plan.prices,
        }
    }

    /// Rows `first..first + rows`.
    pub fn rows(&self, first: u64, rows: usize) -> Vec<ArrayRef> {
        let mut users = Texts::with_capacity(rows, 11);
        let mut items = Texts::with_capacity(rows, 10);
        let mut actions = Texts::with_capacity(rows, 8);
        let mut quantities = Vec::with_capacity(rows);
        let mut times = Vec::with_capacity(rows);
        let mut prices = Vec::with_capacity(if self.prices { rows } else { 0 });
        for number in first..first.saturating_add(rows as u64) {
            let event = self.event(number);
            event.user.append_to(&mut users.data, "user-", 6);
            users.end();
            event.item.append_to(&mut items.data, "item-", 5);
            items.end();
            actions.data.extend_from_slice(event.action.as_bytes());
            actions.end();
            quantities.push(event.quantity);
            times.push(event.time_ms);
            if self.prices {
                prices.push(i128::from(event.price_cents));
            }
        }
        let times = PrimitiveArray::<TimestampMillisecondType>::new(times.into(), None);
        let mut columns: Vec<ArrayRef> = vec![
            users.finish(),
            items.finish(),
            actions.finish(),
            Arc::new(PrimitiveArray::<Int64Type>::new(quantities.into(), None)),
            Arc::new(times.with_data_type(DataType::Timestamp.to_arrow())),
        ];
        if self.prices {
            let prices = PrimitiveArray::<Decimal128Type>::new(prices.into(), None);
            columns.push(Arc::new(prices.with_data_type(PRICE.to_arrow())));
        }
        columns
    }

    fn event(&self, number: u64) -> Event {
        let who = mix(self.seed.wrapping_add(number.wrapping_mul(GOLDEN)));
        let what = mix(who.wrapping_add(GOLDEN));
        let how = mix(what.wrapping_add(GOLDEN));
        let percent = below(how & 0xFFFF, 16, 100);
        let action = ACTIONS
            .iter()
            .find(|(_, up_to)| percent < *up_to)
            .map_or("view", |(action, _)| action);
        let jitter_ms = below(how >> 32, 32, self.jitter_ms + 1);
        let place_ms = (number as f64 * self.ms_per_event) as i64;
        let item = self.items.sample(what);
        let price = mix(self.seed ^ u64::from(item)) >> 32;
        let mut event = Event {
            user: EntityNumber(Some(self.users.sample(who))),
            item: EntityNumber(Some(item)),
            price_cents: 99 + below(price, 32, 19_900) as i64,
            action,
            quantity: 1 + below(how >> 16 & 0xFFFF, 16, 5) as i64,
            time_ms: self
                .start_ms
                .saturating_add(place_ms)
                .saturating_sub(jitter_ms as i64),
        };
        if self.broken_one_in > 0 {
            let luck = mix(how.wrapping_add(GOLDEN));
            if luck.is_multiple_of(self.broken_one_in) {
                event.break_row(luck / self.broken_one_in);
            }
        }
        event
    }
}

impl Event {
    fn break_row(&mut self, how: u64) {
        match how % 5 {
            0 => self.action = "steal",
            1 => self.user = EntityNumber(None),
            2 => self.item = EntityNumber(None),
            3 => self.quantity = 0,
            _ => self.quantity = 10_000,
        }
    }
}

impl EntityNumber {
    /// Writes `user-000042`: the prefix and at least this many digits.
    fn append_to(&self, out: &mut Vec<u8>, prefix: &str, digits: usize) {
        let Some(number) = self.0 else {
            return;
        };
        let mut text = [b'0'; 10];
        let mut first = text.len();
        let mut rest = number;
        while rest > 0 {
            first -= 1;
            text[first] = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        out.extend_from_slice(prefix.as_bytes());
        out.extend_from_slice(&text[first.min(text.len() - digits)..]);
    }
}

struct Texts {
    data: Vec<u8>,
    offsets: Vec<i32>,
}

impl Texts {
    fn with_capacity(rows: usize, bytes: usize) -> Self {
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(0);
        Texts {
            data: Vec::with_capacity(rows * bytes),
            offsets,
        }
    }

    fn end(&mut self) {
        // A batch's texts are far shorter than i32 can count.
        self.offsets.push(self.data.len() as i32);
    }

    fn finish(self) -> ArrayRef {
        let offsets = OffsetBuffer::new(self.offsets.into());
        Arc::new(StringArray::new(offsets, self.data.into(), None))
    }
}

/// Draws numbers below a count, of which the one of rank r has a share
/// proportional to 1/r^exponent, by Walker's alias method: one look-up for any
/// distribution.
struct Zipf {
    /// For each number, the draw up to which it is taken itself, and the number
    /// that is taken above that.
    slots: Vec<(u32, u32)>,
}

impl Zipf {
    /// Rank r becomes number `first + r * step`, modulo the count, so that
    /// frequent numbers are not neighbours.
    fn new(count: u32, exponent: f64, first: u64, step: u64) -> Self {
        let count = u64::from(count.max(1));
        let step = coprime(step, count);
        let mut shares = vec![0.0; count as usize];
        for rank in 0..count {
            let number = (first + rank * step) % count;
            shares[number as usize] = ((rank + 1) as f64).powf(-exponent);
        }
        let mean = shares.iter().sum::<f64>() / count as f64;
        shares.iter_mut().for_each(|share| *share /= mean);
        // A number with less than the mean share is filled up from one with
        // more.
        let mut slots = vec![(u32::MAX, 0); shares.len()];
        let (mut low, mut high): (Vec<usize>, Vec<usize>) =
            (0..shares.len()).partition(|&number| shares[number] < 1.0);
        while let (Some(&giver), Some(taker)) = (high.last(), low.pop()) {
            slots[taker] = ((shares[taker] * f64::from(u32::MAX)) as u32, giver as u32);
            shares[giver] -= 1.0 - shares[taker];
            if shares[giver] < 1.0 {
                high.pop();
                low.push(giver);
            }
        }
        Zipf { slots }
    }

    fn sample(&self, draw: u64) -> u32 {
        let own = below(draw >> 32, 32, self.slots.len() as u64) as u32;
        let (up_to, other) = self.slots[own as usize];
        if draw as u32 <= up_to { own } else { other }
    }
}

/// The first number from `step` on that has no common divisor with `count`, so
/// that stepping by it visits every number once.
fn coprime(step: u64, count: u64) -> u64 {
    let divisor = |mut a: u64, mut b: u64| {
        while b > 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    (step..)
        .find(|&step| divisor(step, count) == 1)
        .unwrap_or(1)
}

/// A number below `bound` (at most 2^32) from `bits` random bits (at most 32).
fn below(draw: u64, bits: u32, bound: u64) -> u64 {
    (draw * bound) >> bits
}

/// The finalizer of splitmix64 (Steele, Lea, Flood: "Fast splittable
/// pseudorandom number generators"): every bit of the result depends on every
/// bit of the input.
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}
