//! Tests the inventory: against a naive computation where one input decides, and what
//! must hold in every order of the two inputs.

use std::collections::{BTreeMap, HashMap, HashSet};

use fastrand::Rng;
use serde_json::{Value, json};

use crate::day::{
    DAY_MS, Day, MINUTE_MS, START_MS, decoded, example, folder_of, in_order, json_time, number,
    sorted, text, time_of,
};
use crate::everywhere::{collect_all, collect_all_everywhere, collect_interrupted, run_everywhere};
use crate::pipeline::{assert_same, plan_of};

/// As in the example's pipeline.
const BOUND_MS: i64 = 2_000;
const HOLD_MS: i64 = 15 * MINUTE_MS;
const LOW: i64 = 5;

const SINKS: [&str; 5] = ["reserved", "refused", "released", "sold", "low"];

/// What a row of `actions` has to be to be taken.
fn is_valid(row: &Value) -> bool {
    text(row, "action") == "view" || number(row, "quantity") > 0
}

/// The actions of a day. Where there are `returns`, they are the only stock.
fn actions(rng: &mut Rng, count: i64, returns: bool) -> Vec<String> {
    let mut day = Day::new(BOUND_MS);
    for i in 0..count {
        let action = match rng.u8(0..20) {
            0 if returns => "return",
            0..9 => "add",
            9..12 => "remove",
            12..16 => "checkout",
            16..18 => "failed",
            _ => "view",
        };
        let quantity = match (action, rng.u8(0..100)) {
            (_, 0) => -rng.i64(0..3),
            ("return", _) => rng.i64(1..20),
            _ => rng.i64(1..4),
        };
        let row = json!({
            "user_id": format!("user-{}", rng.u8(0..30)),
            "item_id": format!("item-{}", rng.u8(0..8)),
            "action": action,
            "quantity": quantity,
            "ts": time_of(rng, i, count, BOUND_MS),
        });
        day.add(rng, &row);
    }
    day.in_order_of_arrival()
}

/// What an item has, by the rows so far.
#[derive(Default)]
struct Shelf {
    left: i64,
    is_low: bool,
    /// In the order in which users came.
    reserved: Vec<Reservation>,
}

struct Reservation {
    user: String,
    quantity: i64,
    ends_ms: i64,
}

impl Shelf {
    fn of(&self, user: &str) -> Option<usize> {
        self.reserved.iter().position(|it| it.user == user)
    }
}

fn release(item: &str, reservation: &Reservation, quantity: i64, why: &str, at_ms: i64) -> Value {
    json!({
        "item_id": item, "user_id": reservation.user, "quantity": quantity,
        "why": why, "at": json_time(at_ms),
    })
}

/// What comes to each sink if actions and changes of the stock come in this order.
fn expected(rows: &[&Value], hold_ms: i64) -> [Vec<Value>; 5] {
    let mut shelves: BTreeMap<&str, Shelf> = BTreeMap::new();
    let [mut reserved, mut refused, mut released, mut sold, mut low] = [const { Vec::new() }; 5];
    for row in rows {
        let (item, ts) = (text(row, "item_id"), number(row, "ts"));
        let at = json_time(ts);
        let change = row["change"].as_i64();
        let action = row["action"].as_str().unwrap_or("change");
        if change.is_none() && (!is_valid(row) || action == "view") {
            continue;
        }
        let brings_stock = change.is_some() || action == "return";
        let mut unknown = Shelf::default();
        let is_known = shelves.contains_key(item) || brings_stock;
        let shelf = match is_known {
            true => shelves.entry(item).or_default(),
            false => &mut unknown,
        };
        let is_due = |it: &mut Reservation| it.ends_ms <= ts;
        for due in shelf.reserved.extract_if(.., is_due) {
            shelf.left += due.quantity;
            released.push(release(item, &due, due.quantity, "abandoned", due.ends_ms));
        }
        if shelf.left > LOW {
            shelf.is_low = false;
        }
        if let Some(change) = change {
            shelf.left += change;
            while shelf.left < 0
                && let Some(newest) = shelf.reserved.pop()
            {
                shelf.left += newest.quantity;
                released.push(release(item, &newest, newest.quantity, "written_off", ts));
            }
        } else {
            let (user, quantity) = (text(row, "user_id"), number(row, "quantity"));
            let place = shelf.of(user);
            let has = place.map_or(0, |place| shelf.reserved[place].quantity);
            let mut refuse = |left, reason| {
                refused.push(json!({
                    "item_id": item, "user_id": user, "action": action, "quantity": quantity,
                    "left": left, "reason": reason, "at": at,
                }));
            };
            match action {
                "add" if quantity > shelf.left => refuse(shelf.left, "sold_out"),
                "add" => {
                    shelf.left -= quantity;
                    let place = place.unwrap_or_else(|| {
                        let (user, ends_ms) = (user.to_owned(), i64::MIN);
                        shelf.reserved.push(Reservation {
                            user,
                            quantity: 0,
                            ends_ms,
                        });
                        shelf.reserved.len() - 1
                    });
                    let reservation = &mut shelf.reserved[place];
                    reservation.quantity += quantity;
                    reservation.ends_ms = reservation.ends_ms.max(ts + hold_ms);
                    reserved.push(json!({
                        "item_id": item, "user_id": user, "quantity": quantity,
                        "left": shelf.left, "expires": json_time(reservation.ends_ms),
                    }));
                }
                "checkout" if quantity > has => refuse(shelf.left, "not_reserved"),
                "checkout" => {
                    sold.push(json!({
                        "item_id": item, "user_id": user, "quantity": quantity, "at": at,
                    }));
                    shelf.reserved[place.expect("it has some")].quantity -= quantity;
                }
                "return" => shelf.left += quantity,
                given_up => {
                    if let Some(place) = place {
                        let quantity = quantity.min(has);
                        shelf.left += quantity;
                        let reservation = &mut shelf.reserved[place];
                        reservation.quantity -= quantity;
                        let why = match given_up {
                            "remove" => "removed",
                            _ => "failed",
                        };
                        released.push(release(item, reservation, quantity, why, ts));
                    }
                }
            }
        }
        shelf.reserved.retain(|it| it.quantity > 0);
        let was_low = std::mem::replace(&mut shelf.is_low, shelf.left <= LOW);
        if is_known && shelf.is_low && !was_low {
            low.push(json!({"item_id": item, "left": shelf.left, "at": at}));
        }
    }
    for (item, shelf) in &shelves {
        for it in &shelf.reserved {
            released.push(release(item, it, it.quantity, "abandoned", it.ends_ms));
        }
    }
    [reserved, refused, released, sold, low].map(sorted)
}

#[test]
fn one_input_decides_all_as_in_the_naive_computation() {
    let lines = actions(&mut Rng::with_seed(1), 8_000, true);
    let folder = folder_of(&[("actions.jsonl", &lines), ("stock.jsonl", &[])]);
    let mut pipeline = example("inventory/pipeline.toml");
    pipeline["operators"]["reserve"]["parameters"]["hold_ms"] = (2 * DAY_MS).into();
    let pipeline = pipeline.to_string();

    let rows = decoded(&lines);
    let found = collect_all_everywhere(&pipeline, folder.path(), SINKS);
    let expected = expected(&rows.iter().collect::<Vec<_>>(), 2 * DAY_MS);
    for ((found, expected), sink) in found.iter().zip(&expected).zip(SINKS) {
        assert!(expected.len() > 10, "{sink} has only {}", expected.len());
        assert_same(expected, found, sink);
    }

    let (_, summary) = collect_all(plan_of(&pipeline, folder.path()), SINKS);
    let nodes = || summary.nodes.iter();
    let node = |name| nodes().find(|node| node.name == name).expect("a node");
    assert_eq!(node("actions").failed as usize, lines.len() - rows.len());
    let invalid = rows.iter().filter(|row| !is_valid(row)).count();
    assert_eq!(node("reserve").rejected as usize, invalid);
    assert!(invalid > 0 && lines.len() > rows.len() + 50, "few are bad");
}

/// Deliveries of a day, with what is written off.
fn stock(rng: &mut Rng, count: i64) -> Vec<String> {
    let mut day = Day::new(BOUND_MS);
    for i in 0..count {
        let change = match rng.u8(0..4) {
            0 => -rng.i64(1..4),
            _ => rng.i64(0..3),
        };
        let row = json!({
            "item_id": format!("item-{}", rng.u8(0..8)),
            "change": change,
            "ts": time_of(rng, i, count, BOUND_MS),
        });
        day.add(rng, &row);
    }
    day.in_order_of_arrival()
}

/// With both inputs in order of event time, they do not race.
#[test]
fn two_inputs_in_order_are_as_in_the_naive_computation() {
    let mut rng = Rng::with_seed(12);
    let lines = actions(&mut rng, 6_000, true);
    let stock_lines = stock(&mut rng, 400);
    let files = [
        ("actions.jsonl", &lines[..]),
        ("stock.jsonl", &stock_lines[..]),
    ];
    let folder = folder_of(&files);
    let mut pipeline = example("inventory/pipeline.toml");
    let in_order_of = |input: &str| {
        toml::Table::from_iter([
            ("order".to_owned(), "event_time".into()),
            ("input".to_owned(), input.into()),
            ("key".to_owned(), "item_id".into()),
        ])
    };
    let operators = &mut pipeline["operators"];
    operators["reserve"]["input"]["requests"] = "requests".into();
    operators["reserve"]["input"]["stock"] = "changes".into();
    let operators = operators.as_table_mut().expect("a table");
    operators.insert("requests".to_owned(), in_order_of("actions").into());
    operators.insert("changes".to_owned(), in_order_of("stock").into());
    let reserve = operators["reserve"].as_table_mut().expect("a table");
    reserve.insert("order".to_owned(), "event_time".into());
    let pipeline = pipeline.to_string();

    let (rows, changes) = (decoded(&lines), decoded(&stock_lines));
    let (requests, late) = in_order(&rows, BOUND_MS);
    let (changes, _) = in_order(&changes, BOUND_MS);
    // Of rows of the same time, requests come first, as in the plugin.
    let mut both = [requests, changes].concat();
    both.sort_by_key(|row| number(row, "ts"));
    let expected = expected(&both, HOLD_MS);
    let found = collect_all_everywhere(&pipeline, folder.path(), SINKS);
    for ((found, expected), sink) in found.iter().zip(&expected).zip(SINKS) {
        assert!(expected.len() > 10, "{sink} has only {}", expected.len());
        assert_same(expected, found, sink);
    }
    for why in ["removed", "failed", "abandoned", "written_off"] {
        let is_why = |row: &&Value| text(row, "why") == why;
        assert!(
            expected[2].iter().any(|row| is_why(&row)),
            "nothing is {why}"
        );
    }
    assert!(late > 10, "few rows are late: {late}");
}

type Quantities<'a> = BTreeMap<(&'a str, &'a str, i64), usize>;

/// How often each user has which quantity of an item in the rows.
fn quantities<'a>(rows: impl Iterator<Item = &'a Value>) -> Quantities<'a> {
    let mut quantities = Quantities::new();
    for row in rows {
        let (item, user) = (text(row, "item_id"), text(row, "user_id"));
        *quantities
            .entry((item, user, number(row, "quantity")))
            .or_default() += 1;
    }
    quantities
}

/// How much of an item each user has in the rows.
fn totals<'a>(rows: impl Iterator<Item = &'a Value>) -> BTreeMap<(&'a str, &'a str), i64> {
    let mut totals = BTreeMap::new();
    for row in rows {
        let (item, user) = (text(row, "item_id"), text(row, "user_id"));
        *totals.entry((item, user)).or_default() += number(row, "quantity");
    }
    totals
}

#[test]
fn nothing_is_oversold_or_lost_in_any_order_of_the_inputs() {
    let mut rng = Rng::with_seed(2);
    let lines = actions(&mut rng, 8_000, false);
    let stock_lines = stock(&mut rng, 400);
    let files = [
        ("actions.jsonl", &lines[..]),
        ("stock.jsonl", &stock_lines[..]),
    ];
    let folder = folder_of(&files);
    let pipeline = example("inventory/pipeline.toml").to_string();

    let rows = decoded(&lines);
    let valid = || rows.iter().filter(|row| is_valid(row));
    let of = |action: &'static str| valid().filter(move |row| text(row, "action") == action);
    let ends: HashSet<(&str, &str, String)> = of("add")
        .map(|row| {
            let ends = json_time(number(row, "ts") + HOLD_MS).to_string();
            (text(row, "item_id"), text(row, "user_id"), ends)
        })
        .collect();
    let mut delivered: HashMap<&str, i64> = HashMap::new();
    let changes = decoded(&stock_lines);
    for row in &changes {
        *delivered.entry(text(row, "item_id")).or_default() += number(row, "change").max(0);
    }

    run_everywhere(&pipeline, folder.path(), SINKS, |when, rows| {
        let [reserved, refused, released, sold, _] = &rows;
        let refused_of = |action| {
            let of_action = move |row: &&Value| text(row, "action") == action;
            refused.iter().filter(of_action)
        };
        assert_eq!(
            quantities(reserved.iter().chain(refused_of("add"))),
            quantities(of("add")),
            "each request has one answer, {when}"
        );
        assert_eq!(
            quantities(sold.iter().chain(refused_of("checkout"))),
            quantities(of("checkout")),
            "each checkout has one answer, {when}"
        );
        assert_eq!(
            totals(reserved.iter()),
            totals(sold.iter().chain(released)),
            "what is reserved is sold or released, {when}"
        );
        let mut sold_of: HashMap<&str, i64> = HashMap::new();
        for row in sold {
            *sold_of.entry(text(row, "item_id")).or_default() += number(row, "quantity");
        }
        for (item, sold) in &sold_of {
            assert!(*sold <= delivered[item], "{item} is oversold, {when}");
        }
        for row in reserved {
            assert!(number(row, "left") >= 0, "{row} is oversold, {when}");
        }
        for row in refused_of("add") {
            let is_too_much = number(row, "quantity") > number(row, "left");
            assert!(is_too_much, "{row} should not be refused, {when}");
        }
        assert!(refused_of("add").count() > 100, "all have stock, {when}");
        let mut whys: HashMap<&str, usize> = HashMap::new();
        for row in released {
            let why = text(row, "why");
            *whys.entry(why).or_default() += 1;
            let end = (
                text(row, "item_id"),
                text(row, "user_id"),
                row["at"].to_string(),
            );
            let is_in_time = why != "abandoned" || ends.contains(&end);
            assert!(is_in_time, "{row} is at no reservation's end, {when}");
        }
        // Whether stock is written off that is reserved depends on the order.
        for why in ["removed", "failed", "abandoned"] {
            assert!(whys.contains_key(why), "nothing is {why}, {when}");
        }
    });
}

/// `SLUICEBOX_REQUESTS` makes it more, or fewer.
#[test]
fn scarce_items_are_sold_exactly_through_kills() {
    let requests = std::env::var("SLUICEBOX_REQUESTS").ok();
    let requests = requests.map_or(200_000, |count| count.parse().expect("a number"));
    let items = 100;
    let stock_of = |item: usize| 20 + (item % 30) as i64;
    let mut rng = Rng::with_seed(3);
    // Each user asks for one of an item. The first half leave it; the others come when
    // that is abandoned, and buy what they get a minute later.
    let leaving = requests / 2;
    let mut lines: Vec<(i64, String)> = Vec::with_capacity(2 * requests);
    for user in 0..requests {
        let item = rng.usize(0..items);
        let is_leaving = user < leaving;
        let begins_ms = START_MS + if is_leaving { 0 } else { 4 * HOLD_MS };
        let asks_ms = begins_ms + user as i64;
        let asks = [("add", asks_ms), ("checkout", asks_ms + MINUTE_MS)];
        for (action, ts) in asks.into_iter().take(if is_leaving { 1 } else { 2 }) {
            let line = format!(
                r#"{{"user_id":"u{user}","item_id":"i{item}","action":"{action}","quantity":1,"ts":{ts}}}"#
            );
            lines.push((ts + rng.i64(0..BOUND_MS), line));
        }
    }
    lines.sort_by_key(|(comes_ms, _)| *comes_ms);
    let lines: Vec<String> = lines.into_iter().map(|(_, line)| line).collect();
    let stock = (0..items).map(|item| {
        let change = stock_of(item);
        json!({"item_id": format!("i{item}"), "change": change, "ts": START_MS}).to_string()
    });
    let stock: Vec<String> = stock.collect();
    let folder = folder_of(&[("actions.jsonl", &lines), ("stock.jsonl", &stock)]);
    let pipeline = example("inventory/pipeline.toml").to_string();

    let parallelisms = [1, 4, 2, 4, 1, 2];
    let [reserved, refused, released, sold, _] =
        collect_interrupted(&pipeline, folder.path(), SINKS, 4096, &parallelisms);
    let answers = reserved.len() + sold.len() + refused.len();
    assert_eq!(answers, 2 * requests - leaving, "each row has one answer");
    assert!(!released.is_empty(), "nothing is abandoned");
    assert!(released.iter().all(|row| text(row, "why") == "abandoned"));
    let mut sold_of: HashMap<&str, i64> = HashMap::new();
    for row in &sold {
        *sold_of.entry(text(row, "item_id")).or_default() += number(row, "quantity");
    }
    for item in 0..items {
        let name = format!("i{item}");
        assert_eq!(sold_of[&*name], stock_of(item), "sold of {name}");
    }
    let gone = sold.iter().chain(&released);
    assert_eq!(totals(gone), totals(reserved.iter()));
}
