//! Small operators for tests of the host.

use sluicebox_sdk::prelude::*;

#[derive(Record)]
struct Nothing {}

#[derive(Record, Clone, Default)]
struct Counter {
    count: i64,
}

/// The number of rows.
#[operator]
struct Count {}

impl Aggregate for Count {
    type Input<'a> = Nothing;
    type State = Counter;
    type Output<'a> = Counter;

    fn accumulate(&self, state: &mut Counter, _row: Nothing) -> Result<(), Reject> {
        state.count += 1;
        Ok(())
    }

    fn merge(&self, state: &mut Counter, later: Counter) {
        state.count += later.count;
    }

    fn finish(&self, state: &Counter, _window: Window) -> Counter {
        state.clone()
    }
}

/// What the next version of [`Count`] keeps.
#[derive(Record, Clone, Default)]
struct BetterCounter {
    note: Option<String>,
    halves: i64,
}

impl From<Counter> for BetterCounter {
    fn from(before: Counter) -> BetterCounter {
        BetterCounter {
            note: (before.count % 3 == 0).then(|| "migrated".repeat(before.count as usize % 50)),
            halves: 2 * before.count,
        }
    }
}

/// What came before [`Counter`].
#[derive(Record)]
struct Tallied {
    marks: Vec<bool>,
}

impl From<Tallied> for BetterCounter {
    fn from(before: Tallied) -> BetterCounter {
        Counter {
            count: before.marks.len() as i64,
        }
        .into()
    }
}

/// The number of rows, by another state.
#[operator(migrates(Counter, Tallied))]
struct CountBetter {}

impl Aggregate for CountBetter {
    type Input<'a> = Nothing;
    type State = BetterCounter;
    type Output<'a> = Counter;

    fn accumulate(&self, state: &mut BetterCounter, _row: Nothing) -> Result<(), Reject> {
        state.halves += 2;
        Ok(())
    }

    fn merge(&self, state: &mut BetterCounter, later: BetterCounter) {
        state.halves += later.halves;
    }

    fn finish(&self, state: &BetterCounter, _window: Window) -> Counter {
        Counter {
            count: state.halves / 2,
        }
    }
}

/// A state that few counters can become.
#[derive(Record, Clone, Default)]
struct SmallCounter {
    count: i8,
}

impl TryFrom<Counter> for SmallCounter {
    type Error = Reject;

    fn try_from(before: Counter) -> Result<SmallCounter, Reject> {
        match before.count {
            count @ ..=3 => Ok(SmallCounter { count: count as i8 }),
            count => reject!("{count} is too much"),
        }
    }
}

/// The number of rows, up to 127.
#[operator(migrates(Counter))]
struct CountWorse {}

impl Aggregate for CountWorse {
    type Input<'a> = Nothing;
    type State = SmallCounter;
    type Output<'a> = Counter;

    fn accumulate(&self, state: &mut SmallCounter, _row: Nothing) -> Result<(), Reject> {
        state.count += 1;
        Ok(())
    }

    fn merge(&self, state: &mut SmallCounter, later: SmallCounter) {
        state.count += later.count;
    }

    fn finish(&self, state: &SmallCounter, _window: Window) -> Counter {
        Counter {
            count: i64::from(state.count),
        }
    }
}

/// Counts rows, and says how many there were when none has come for 30 ms.
#[operator(process)]
struct Visits {}

impl Process for Visits {
    type Input<'a> = Nothing;
    type Key<'a> = ();
    type State = Counter;
    type Output<'a> = Counter;

    fn row<'a>(
        &self,
        state: &mut Option<Counter>,
        _row: Nothing,
        context: &mut Context<'a, Self>,
    ) -> Result<(), Reject> {
        state.get_or_insert_default().count += 1;
        context.set("over", Timestamp(context.time().0 + 30));
        Ok(())
    }

    fn timer<'a>(
        &self,
        state: &mut Option<Counter>,
        _timer: Timer<'_>,
        context: &mut Context<'a, Self>,
    ) -> Result<(), Reject> {
        context.emit(state.take().unwrap_or_default());
        Ok(())
    }
}

/// The same with another state.
#[operator(process, migrates(Counter))]
struct VisitsBetter {}

impl Process for VisitsBetter {
    type Input<'a> = Nothing;
    type Key<'a> = ();
    type State = BetterCounter;
    type Output<'a> = Counter;

    fn row<'a>(
        &self,
        state: &mut Option<BetterCounter>,
        _row: Nothing,
        context: &mut Context<'a, Self>,
    ) -> Result<(), Reject> {
        state.get_or_insert_default().halves += 2;
        context.set("over", Timestamp(context.time().0 + 30));
        Ok(())
    }

    fn timer<'a>(
        &self,
        state: &mut Option<BetterCounter>,
        _timer: Timer<'_>,
        context: &mut Context<'a, Self>,
    ) -> Result<(), Reject> {
        let visits = state.take().unwrap_or_default();
        context.emit(Counter {
            count: visits.halves / 2,
        });
        Ok(())
    }
}

#[derive(Record)]
struct Value {
    n: i64,
}

#[derive(Record, Clone, Default)]
struct Measures {
    count: i64,
    sum: i64,
    min: Option<i64>,
    max: Option<i64>,
}

/// Count, sum, least and greatest of `n`. Takes no negative numbers.
#[operator]
struct Stats {}

impl Aggregate for Stats {
    type Input<'a> = Value;
    type State = Measures;
    type Output<'a> = Measures;

    fn accumulate(&self, state: &mut Measures, row: Value) -> Result<(), Reject> {
        if row.n < 0 {
            reject!("n is {}, below 0", row.n);
        }
        let one = Measures {
            count: 1,
            sum: row.n,
            min: Some(row.n),
            max: Some(row.n),
        };
        self.merge(state, one);
        Ok(())
    }

    fn merge(&self, state: &mut Measures, later: Measures) {
        state.count += later.count;
        state.sum += later.sum;
        state.min = state.min.into_iter().chain(later.min).min();
        state.max = state.max.into_iter().chain(later.max).max();
    }

    fn finish(&self, state: &Measures, _window: Window) -> Measures {
        state.clone()
    }
}

#[derive(Record, Clone, Default)]
struct Total {
    values: i64,
    total: i64,
}

/// How many values of `n` there are, and their sum. Takes no negative numbers.
#[operator(retracts)]
struct Balance {}

impl Aggregate for Balance {
    type Input<'a> = Value;
    type State = Total;
    type Output<'a> = Option<Total>;

    fn accumulate(&self, state: &mut Total, row: Value) -> Result<(), Reject> {
        if row.n < 0 {
            reject!("n is {}, below 0", row.n);
        }
        state.values += 1;
        state.total += row.n;
        Ok(())
    }

    fn merge(&self, state: &mut Total, later: Total) {
        state.values += later.values;
        state.total += later.total;
    }

    fn finish(&self, state: &Total, _window: Window) -> Option<Total> {
        (state.values > 0).then(|| state.clone())
    }
}

impl Retract for Balance {
    fn retract(&self, state: &mut Total, row: Value) -> Result<(), Reject> {
        if row.n < 0 {
            reject!("n is {}, below 0", row.n);
        }
        state.values -= 1;
        state.total -= row.n;
        Ok(())
    }
}

#[derive(Record, Clone)]
struct OwnKey {
    key: String,
}

#[derive(Record)]
struct Told<'a> {
    told: &'a str,
    values: i64,
}

/// How many values of `n` there are, and the key that it is told. Fails on negative numbers.
#[operator(retracts)]
struct Own {}

impl Aggregate<Group<OwnKey>> for Own {
    type Input<'a> = Value;
    type State = Total;
    type Output<'a> = Option<Told<'a>>;

    fn accumulate(&self, state: &mut Total, row: Value) -> Result<(), Reject> {
        assert!(row.n >= 0, "n is {}, below 0", row.n);
        Balance {}.accumulate(state, row)
    }

    fn merge(&self, state: &mut Total, later: Total) {
        Balance {}.merge(state, later);
    }

    fn finish<'a>(&'a self, state: &'a Total, group: &'a Group<OwnKey>) -> Option<Told<'a>> {
        let told = Told {
            told: &group.key.key,
            values: state.values,
        };
        (state.values > 0).then_some(told)
    }
}

impl Retract<Group<OwnKey>> for Own {
    fn retract(&self, state: &mut Total, row: Value) -> Result<(), Reject> {
        Balance {}.retract(state, row)
    }
}

#[derive(Record)]
struct Priced {
    price: Decimal<2>,
    discount: Option<Decimal<2>>,
}

#[derive(Record)]
struct PriceKey {
    unit: Decimal<2>,
}

#[derive(Record, Clone, Default)]
struct Bill {
    rows: i64,
    paid: Decimal<2>,
    discounts: Vec<Decimal<2>>,
}

#[derive(Record)]
struct Paid {
    paid: Decimal<2>,
    in_units: Option<Decimal<3>>,
    discounts: Vec<Decimal<2>>,
}

/// What is paid: prices without discounts, also in units of the key. The sum of prices has at
/// most 38 digits.
#[operator]
struct Pay {}

impl Aggregate<Group<PriceKey>> for Pay {
    type Input<'a> = Priced;
    type State = Bill;
    type Output<'a> = Paid;

    fn accumulate(&self, bill: &mut Bill, row: Priced) -> Result<(), Reject> {
        let discount = row.discount.unwrap_or_default();
        let paid = row.price.checked_sub(discount);
        let Some(paid) = paid.and_then(|paid| bill.paid.checked_add(paid)) else {
            reject!("{} is too much", row.price);
        };
        bill.rows += 1;
        bill.paid = paid;
        bill.discounts.extend(row.discount);
        Ok(())
    }

    fn merge(&self, bill: &mut Bill, later: Bill) {
        bill.rows += later.rows;
        bill.paid += later.paid;
        bill.discounts.extend(later.discounts);
    }

    fn finish(&self, bill: &Bill, group: &Group<PriceKey>) -> Paid {
        let unit = i64::try_from(group.key.unit.units()).ok();
        let quotient = unit.and_then(|unit| bill.paid.rescaled::<3>()?.checked_div(unit));
        let mut discounts = bill.discounts.clone();
        discounts.sort_unstable();
        Paid {
            paid: bill.paid,
            in_units: quotient,
            discounts,
        }
    }
}

#[derive(Record)]
struct Letter<'a> {
    letter: &'a str,
}

#[derive(Record, Clone, Default)]
struct Word {
    word: String,
}

/// The letters in the order of their rows.
#[operator]
struct Spell {}

impl Aggregate for Spell {
    type Input<'a> = Letter<'a>;
    type State = Word;
    type Output<'a> = Word;

    fn accumulate(&self, state: &mut Word, row: Letter<'_>) -> Result<(), Reject> {
        state.word.push_str(row.letter);
        Ok(())
    }

    fn merge(&self, state: &mut Word, later: Word) {
        state.word.push_str(&later.word);
    }

    fn finish(&self, state: &Word, _window: Window) -> Word {
        state.clone()
    }
}

#[derive(Record)]
struct Impulse {
    counter: i64,
}

#[derive(Record)]
struct Impulsive {
    user_id: i64,
    n: i64,
}

/// The user of an impulse: every tenth impulse is user 0's, each other one has
/// its own user.
#[operator]
fn user_of(impulse: Impulse) -> Impulsive {
    let n = impulse.counter;
    Impulsive {
        user_id: if n % 10 == 0 { 0 } else { n },
        n,
    }
}

/// Keeps even numbers.
#[operator]
fn even(row: Value) -> bool {
    row.n % 2 == 0
}

#[derive(Record)]
struct Line<'a> {
    line: &'a str,
}

#[derive(Record)]
struct Event<'a> {
    key: &'a str,
    n: i64,
    letter: &'a str,
    ts: Timestamp,
}

/// The event in a line of JSON that has no nested values.
#[operator]
fn parse(line: Line<'_>) -> Result<Event<'_>, Reject> {
    let (Some(key), Some(n), Some(letter), Some(ts)) = (
        value(line.line, "key"),
        number(line.line, "n"),
        value(line.line, "letter"),
        number(line.line, "ts"),
    ) else {
        reject!("it is not an event");
    };
    let ts = Timestamp(ts);
    Ok(Event { key, n, letter, ts })
}

/// An event a second, from a line of JSON on, as many as it says.
#[operator]
fn repeat(line: Line<'_>) -> Vec<Event<'_>> {
    let (Some(n), Some(ts)) = (number(line.line, "n"), number(line.line, "ts")) else {
        return Vec::new();
    };
    let key = value(line.line, "key").unwrap_or_default();
    let event = |n| Event {
        key,
        n,
        letter: "",
        ts: Timestamp(ts + n * 1000),
    };
    (0..n).map(event).collect()
}

#[derive(Record)]
struct Order<'a> {
    n: i64,
    /// What to do, separated by `;`.
    letter: &'a str,
}

#[derive(Record)]
struct ScriptKey<'a> {
    key: &'a str,
}

#[derive(Record, Clone, Default)]
struct Sum {
    sum: i64,
}

#[derive(Ports)]
enum ScriptOutput {
    Said(Said),
    Noted(Noted),
}

#[derive(Record)]
struct Said {
    key: String,
    what: String,
    sum: i64,
    at: Timestamp,
}

#[derive(Record)]
struct Noted {
    key: String,
    sum: i64,
}

/// Sums `n`, and does what its rows and timers say.
#[operator(process)]
struct Script {}

impl Script {
    fn obey<'a>(
        &self,
        order: &str,
        sum: &mut Option<Sum>,
        context: &mut Context<'a, Self>,
    ) -> Result<(), Reject> {
        let words: Vec<&str> = order.split_whitespace().collect();
        let at = |offset: &str| Timestamp(context.time().0 + offset.parse::<i64>().unwrap_or(0));
        match words[..] {
            ["set", name, offset] => context.set(name, at(offset)),
            ["clock", name, offset] => {
                let offset: i64 = offset.parse().unwrap_or(0);
                let time = Timestamp(context.now().0 + offset);
                context.set_in_processing_time(name, time);
            }
            ["cancel", name] => context.cancel(name),
            ["clear"] => *sum = None,
            ["note"] => context.emit(ScriptOutput::Noted(Noted {
                key: context.key().key.to_owned(),
                sum: sum.as_ref().map_or(0, |sum| sum.sum),
            })),
            ["reject"] => reject!("it is told to"),
            ["panic"] => panic!("it is told to"),
            _ => {}
        }
        Ok(())
    }

    fn say<'a>(&self, what: &str, sum: &Option<Sum>, context: &mut Context<'a, Self>) {
        context.emit(ScriptOutput::Said(Said {
            key: context.key().key.to_owned(),
            what: what.to_owned(),
            sum: sum.as_ref().map_or(-1, |sum| sum.sum),
            at: context.time(),
        }));
    }
}

impl Process for Script {
    type Input<'a> = Order<'a>;
    type Key<'a> = ScriptKey<'a>;
    type State = Sum;
    type Output<'a> = ScriptOutput;

    fn row<'a>(
        &self,
        sum: &mut Option<Sum>,
        row: Order<'a>,
        context: &mut Context<'a, Self>,
    ) -> Result<(), Reject> {
        sum.get_or_insert_default().sum += row.n;
        self.say("row", sum, context);
        let mut orders = row.letter.split(';');
        orders.try_for_each(|order| self.obey(order, sum, context))
    }

    /// A timer's name is what it says, and then does: `panic`, `reject`, `clear`, `again`
    /// (sets itself 10 ms later), `next` (sets `last` 5 ms later).
    fn timer<'a>(
        &self,
        sum: &mut Option<Sum>,
        timer: Timer<'_>,
        context: &mut Context<'a, Self>,
    ) -> Result<(), Reject> {
        self.say(timer.name, sum, context);
        match timer.name {
            "again" => context.set("again", Timestamp(timer.time.0 + 10)),
            "next" => context.set("last", Timestamp(timer.time.0 + 5)),
            other => self.obey(other, sum, context)?,
        }
        Ok(())
    }
}

/// The inputs of a [`Tally`].
#[derive(Ports)]
enum TallyInput<'a> {
    Questions(Order<'a>),
    Amounts(Value),
}

/// Sums amounts, and says the sum some time after a question.
#[operator(process)]
struct Tally {
    #[parameter(default = 1_000)]
    after_ms: i64,
}

impl Process for Tally {
    type Input<'a> = TallyInput<'a>;
    type Key<'a> = ScriptKey<'a>;
    type State = Sum;
    type Output<'a> = Noted;

    fn row<'a>(
        &self,
        sum: &mut Option<Sum>,
        row: TallyInput<'a>,
        context: &mut Context<'a, Self>,
    ) -> Result<(), Reject> {
        match row {
            TallyInput::Amounts(Value { n }) => sum.get_or_insert_default().sum += n,
            TallyInput::Questions(_) => {
                let answered = Timestamp(context.time().0 + self.after_ms);
                context.set("answer", answered);
            }
        }
        Ok(())
    }

    fn timer<'a>(
        &self,
        sum: &mut Option<Sum>,
        _timer: Timer<'_>,
        context: &mut Context<'a, Self>,
    ) -> Result<(), Reject> {
        context.emit(Noted {
            key: context.key().key.to_owned(),
            sum: sum.as_ref().map_or(0, |sum| sum.sum),
        });
        Ok(())
    }
}

#[derive(Record)]
struct UserKey<'a> {
    user: &'a str,
}

#[derive(Record)]
struct UserTotal {
    user: String,
    values: i64,
    total: i64,
}

/// Sums `n`, and puts out the sum after each row, whether it is added or taken back. Takes no
/// negative numbers.
#[operator(process, retracts)]
struct Ledger {}

impl Ledger {
    fn book<'a>(
        total: &mut Option<Total>,
        (values, n): (i64, i64),
        context: &mut Context<'a, Self>,
    ) -> Result<(), Reject> {
        if n < 0 {
            reject!("n is {n}, below 0");
        }
        let total = total.get_or_insert_default();
        total.values += values;
        total.total += values * n;
        context.emit(UserTotal {
            user: context.key().user.to_owned(),
            values: total.values,
            total: total.total,
        });
        Ok(())
    }
}

impl Process for Ledger {
    type Input<'a> = Value;
    type Key<'a> = UserKey<'a>;
    type State = Total;
    type Output<'a> = UserTotal;

    fn row<'a>(
        &self,
        total: &mut Option<Total>,
        row: Value,
        context: &mut Context<'a, Self>,
    ) -> Result<(), Reject> {
        Ledger::book(total, (1, row.n), context)
    }
}

impl TakeBack for Ledger {
    fn take_back<'a>(
        &self,
        total: &mut Option<Total>,
        row: Value,
        context: &mut Context<'a, Self>,
    ) -> Result<(), Reject> {
        Ledger::book(total, (-1, row.n), context)
    }
}

#[derive(Record, Clone)]
struct Basket {
    id: i64,
    items: Vec<String>,
}

#[derive(Record)]
struct ItemKey {
    item: String,
}

#[derive(Record, Clone)]
struct Cents {
    cents: i64,
}

#[derive(Record)]
struct Asked {
    id: i64,
    /// Of each item, and of none that has no price.
    cents: Vec<Option<i64>>,
}

/// What the items of a basket cost. Takes no basket with `bad` in it, and fails on `worse`.
#[operator(lookup)]
struct Prices {
    /// A basket with an item of this price is rejected.
    refused: Option<i64>,
}

impl Lookup for Prices {
    type Row = Basket;
    type Key = ItemKey;
    type Found = Cents;
    type Output = Asked;

    fn wanted(&self, basket: &Basket) -> Result<Vec<ItemKey>, Reject> {
        let key = |item: &String| match item.as_str() {
            "bad" => Err(Reject::new("bad")),
            "worse" => panic!("worse"),
            _ => Ok(ItemKey { item: item.clone() }),
        };
        basket.items.iter().map(key).collect()
    }

    fn found(&self, basket: Basket, found: Vec<Option<Cents>>) -> Result<Vec<Asked>, Reject> {
        let cents = found.iter().map(|found| found.as_ref().map(|it| it.cents));
        let cents: Vec<Option<i64>> = cents.collect();
        if self.refused.is_some() && cents.contains(&self.refused) {
            reject!("an item is not sold");
        }
        let id = basket.id;
        Ok(vec![Asked { id, cents }])
    }
}

/// The rows of a pair.
#[derive(Record)]
struct Pair<'a> {
    left: Option<Side<'a>>,
    right: Option<Side<'a>>,
}

#[derive(Record)]
struct Side<'a> {
    key: &'a str,
    n: i64,
    letter: Option<&'a str>,
}

#[derive(Record)]
struct Paired<'a> {
    key: &'a str,
    n: Option<i64>,
    letter: Option<&'a str>,
    m: Option<i64>,
    other: Option<&'a str>,
}

/// The numbers and letters of both sides.
#[operator]
fn pair(pair: Pair<'_>) -> Option<Paired<'_>> {
    let Pair { left, right } = &pair;
    let key = left.as_ref().or(right.as_ref())?.key;
    Some(Paired {
        key,
        n: left.as_ref().map(|left| left.n),
        letter: left.as_ref().and_then(|left| left.letter),
        m: right.as_ref().map(|right| right.n),
        other: right.as_ref().and_then(|right| right.letter),
    })
}

fn number(line: &str, name: &str) -> Option<i64> {
    value(line, name)?.parse().ok()
}

fn value<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(&format!("\"{name}\":"))?;
    let (value, _) = rest.split_once([',', '}'])?;
    Some(value.trim().trim_matches('"'))
}

export!(
    Count,
    CountBetter,
    CountWorse,
    Stats,
    Balance,
    Own,
    Pay,
    Spell,
    Script,
    Tally,
    Visits,
    VisitsBetter,
    Ledger,
    Prices,
    pair,
    user_of,
    even,
    parse,
    repeat
);
