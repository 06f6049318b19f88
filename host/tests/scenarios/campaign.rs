//! Tests what campaigns bring against a naive computation.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use fastrand::Rng;
use serde_json::{Value, json};

use crate::day::{
    DAY_MS, Day, MINUTE_MS, decoded, example, folder_of, in_order, json_time, number, read_file,
    sorted, text, time_of,
};
use crate::everywhere::{collect_all, run_everywhere};
use crate::pipeline::{assert_same, plan_of};

/// As in the example's pipeline.
const BOUND_MS: i64 = 2_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const EVERY_MS: i64 = 5 * MINUTE_MS;
const CLICK_MS: i64 = 30 * MINUTE_MS;

const FIELDS: &str = "user_id = \"utf8\"\nitem_id = \"utf8\"\naction = \"utf8\"\n\
                      quantity = \"int64\"\nts = \"timestamp\"";
const SINKS: [&str; 4] = [
    "by_campaign",
    "by_variant",
    "purchases_credited",
    "attributed_revenue",
];

fn actions(rng: &mut Rng, count: i64) -> Vec<String> {
    let mut day = Day::new(BOUND_MS);
    for i in 0..count {
        let action = match rng.u8(0..100) {
            0..55 => "view",
            55..75 => "add",
            75..80 => "remove",
            80 => "steal",
            _ => "checkout",
        };
        let is_good = i64::from(rng.u8(0..100) > 0);
        let row = json!({
            // Visits of some users at a time, so that they buy what they have seen.
            "user_id": format!("user-{}", (i / 200 * 7 + rng.i64(0..10)) % 150),
            "item_id": format!("item-{}", rng.u8(0..12)),
            "action": action,
            "quantity": is_good * rng.i64(1..4),
            "ts": time_of(rng, i, count, BOUND_MS),
        });
        day.add(rng, &row);
    }
    day.in_order_of_arrival()
}

fn promotions(rng: &mut Rng, count: i64) -> Vec<String> {
    let campaigns = ["spring", "sale", "gifts"];
    let mut day = Day::new(BOUND_MS);
    for i in 0..count {
        let is_good = i64::from(rng.u8(0..20) > 0);
        let mut row = json!({
            "item_id": format!("item-{}", rng.u8(0..12)),
            "campaign": campaigns[rng.usize(0..3)],
            "price": is_good * rng.i64(100..1_000),
            "ts": time_of(rng, i, count, BOUND_MS),
        });
        if rng.u8(0..5) == 0 {
            row["gone"] = true.into();
        }
        day.add(rng, &row);
    }
    day.in_order_of_arrival()
}

fn is_valid(row: &Value) -> bool {
    text(row, "action") != "steal" && number(row, "quantity") > 0
}

/// Whether a promotion can be.
fn is_possible(row: &Value) -> bool {
    number(row, "price") > 0
}

/// Valid rows in order, and without duplicates.
fn once(rows: &[Value]) -> Vec<&Value> {
    let (in_time, _) = in_order(rows, BOUND_MS);
    let mut seen = HashSet::new();
    let valid = in_time.into_iter().filter(|row| is_valid(row));
    let is_new = |row: &&Value| {
        seen.insert(["user_id", "item_id", "action", "ts"].map(|field| row[field].to_string()))
    };
    valid.filter(is_new).collect()
}

/// The campaign and price of an item at a time.
struct Offers<'a>(Vec<&'a Value>);

impl<'a> Offers<'a> {
    fn of(rows: &'a [Value]) -> Self {
        let (mut in_time, _) = in_order(rows, BOUND_MS);
        in_time.retain(|row| is_possible(row));
        Offers(in_time)
    }

    fn at(&self, item: &str, time_ms: i64) -> Option<(&'a str, i64)> {
        let is_before =
            |row: &&&Value| text(row, "item_id") == item && number(row, "ts") <= time_ms;
        let last = self.0.iter().rev().find(is_before)?;
        let is_gone = last["gone"] == true;
        (!is_gone).then(|| (text(last, "campaign"), number(last, "price")))
    }
}

/// Which variant a user sees: FNV-1a of both names.
fn variant(user: &str, campaign: &str) -> &'static str {
    let mut hash: u64 = 14_695_981_039_346_656_037;
    for byte in format!("{user}\0{campaign}").bytes() {
        hash ^= u64::from(byte);
        hash = hash.wrapping_mul(1_099_511_628_211);
    }
    if hash % 100 < 50 { "b" } else { "a" }
}

#[derive(Default)]
struct Sums<'a> {
    participants: BTreeSet<&'a str>,
    buyers: BTreeSet<&'a str>,
    units: i64,
    revenue: i64,
}

impl<'a> Sums<'a> {
    fn add(&mut self, row: &'a Value, price: i64) {
        self.participants.insert(text(row, "user_id"));
        if text(row, "action") == "checkout" {
            self.buyers.insert(text(row, "user_id"));
            self.units += number(row, "quantity");
            self.revenue += number(row, "quantity") * price;
        }
    }

    fn counts(&self) -> (f64, f64) {
        (self.participants.len() as f64, self.buyers.len() as f64)
    }
}

/// Results by campaign, and by variant.
fn results(rows: &[&Value], offers: &Offers<'_>) -> [Vec<Value>; 2] {
    let mut hours: BTreeMap<(&str, i64), Sums<'_>> = BTreeMap::new();
    let mut days: BTreeMap<(&str, i64), BTreeMap<&str, Sums<'_>>> = BTreeMap::new();
    for row in rows {
        let ts = number(row, "ts");
        let Some((campaign, price)) = offers.at(text(row, "item_id"), ts) else {
            continue;
        };
        if text(row, "action") == "remove" {
            continue;
        }
        let first_end_ms = ts.div_euclid(EVERY_MS) * EVERY_MS + EVERY_MS;
        for step in 0..HOUR_MS / EVERY_MS {
            let of_window = hours.entry((campaign, first_end_ms + step * EVERY_MS));
            of_window.or_default().add(row, price);
        }
        let of_day = days.entry((campaign, ts.div_euclid(DAY_MS) * DAY_MS));
        let variant = variant(text(row, "user_id"), campaign);
        let of_variant = of_day.or_default().entry(variant).or_default();
        of_variant.add(row, price);
    }
    let by_campaign = hours.iter().map(|((campaign, end_ms), sums)| {
        let (participants, buyers) = sums.counts();
        json!({
            "campaign": campaign,
            "window_start": json_time(end_ms - HOUR_MS), "window_end": json_time(*end_ms),
            "participants": sums.participants.len(), "buyers": sums.buyers.len(),
            "units": sums.units, "revenue": sums.revenue,
            "conversion": buyers / participants,
        })
    });
    let by_variant = days.iter().filter_map(|((campaign, day_ms), variants)| {
        let (na, xa) = variants.get("a")?.counts();
        let (nb, xb) = variants.get("b")?.counts();
        let (pa, pb) = (xa / na, xb / nb);
        let error = (pa * (1.0 - pa) / na + pb * (1.0 - pb) / nb).sqrt();
        let p = (xa + xb) / (na + nb);
        let pooled = (p * (1.0 - p) * (1.0 / na + 1.0 / nb)).sqrt();
        Some(json!({
            "campaign": campaign,
            "window_start": json_time(*day_ms), "window_end": json_time(day_ms + DAY_MS),
            "a_participants": na as i64, "a_conversion": pa,
            "b_participants": nb as i64, "b_conversion": pb,
            "difference": pb - pa, "low": pb - pa - 1.96 * error, "high": pb - pa + 1.96 * error,
            "z": (pb - pa) / pooled,
        }))
    });
    [by_campaign.collect(), by_variant.collect()]
}

/// Purchases with the campaign of their last click, and the sums of these.
fn attribution(rows: &[&Value], offers: &Offers<'_>) -> [Vec<Value>; 2] {
    let mut sums: BTreeMap<(&str, i64), [i64; 3]> = BTreeMap::new();
    let mut credited = Vec::new();
    let of_action = |action| rows.iter().filter(move |row| text(row, "action") == action);
    for purchase in of_action("checkout") {
        let (user, item) = (text(purchase, "user_id"), text(purchase, "item_id"));
        let bought_ms = number(purchase, "ts");
        let clicks = of_action("view").filter(|click| {
            let clicked_ms = number(click, "ts");
            (bought_ms - CLICK_MS..=bought_ms).contains(&clicked_ms)
                && text(click, "user_id") == user
                && text(click, "item_id") == item
        });
        let clicks = clicks.filter_map(|click| {
            let clicked_ms = number(click, "ts");
            let (campaign, price) = offers.at(item, clicked_ms)?;
            Some((clicked_ms, campaign, price))
        });
        let clicks: Vec<(i64, &str, i64)> = clicks.collect();
        let Some(&(clicked_ms, campaign, price)) = clicks.iter().max() else {
            continue;
        };
        let units = number(purchase, "quantity");
        credited.push(json!({
            "user_id": user, "item_id": item, "bought": json_time(bought_ms),
            "campaign": campaign, "clicked": json_time(clicked_ms), "clicks": clicks.len(),
            "units": units, "revenue": units * price,
        }));
        let hour = bought_ms.div_euclid(HOUR_MS) * HOUR_MS;
        let of_hour = sums.entry((campaign, hour)).or_default();
        for (sum, more) in of_hour.iter_mut().zip([1, units, units * price]) {
            *sum += more;
        }
    }
    let sums = sums.into_iter().map(|((campaign, hour_ms), sums)| {
        json!({
            "campaign": campaign,
            "window_start": json_time(hour_ms), "window_end": json_time(hour_ms + HOUR_MS),
            "purchases": sums[0], "units": sums[1], "revenue": sums[2],
        })
    });
    let sums = sums.collect();
    [credited, sums]
}

/// The last result of each campaign and window, which replaces those before it.
fn without_early_results(rows: &[Value]) -> Vec<Value> {
    let mut last: BTreeMap<(&str, &str), &Value> = BTreeMap::new();
    for row in rows {
        last.insert((text(row, "campaign"), text(row, "window_end")), row);
    }
    last.into_values().cloned().collect()
}

#[test]
fn campaigns_of_a_day_bring_what_the_naive_computation_says() {
    let mut rng = Rng::with_seed(9);
    let lines = actions(&mut rng, 6_000);
    let promotion_lines = promotions(&mut rng, 200);
    let files = [
        ("actions.jsonl", &lines[..]),
        ("promotions.jsonl", &promotion_lines[..]),
    ];
    let folder = folder_of(&files);
    let mut pipeline = example("campaign/pipeline.toml");
    read_file(&mut pipeline, "actions", FIELDS);
    let pipeline = pipeline.to_string();

    let (rows, promotions) = (decoded(&lines), decoded(&promotion_lines));
    let (once, offers) = (once(&rows), Offers::of(&promotions));
    let [by_campaign, by_variant] = results(&once, &offers);
    let [credited, sums] = attribution(&once, &offers);
    let expected = [by_campaign, by_variant, credited, sums].map(sorted);
    run_everywhere(&pipeline, folder.path(), SINKS, |when, mut found| {
        found[0] = without_early_results(&found[0]);
        let found = found.map(sorted);
        for ((found, expected), sink) in found.iter().zip(&expected).zip(SINKS) {
            assert!(expected.len() >= 3, "{sink} has only {}", expected.len());
            assert_same(expected, found, &format!("{sink}, {when}"));
        }
    });
    assert!(expected[2].len() > 100, "few purchases are due to a click");

    let (_, summary) = collect_all(plan_of(&pipeline, folder.path()), SINKS);
    let nodes = || summary.nodes.iter();
    let node = |name| nodes().find(|node| node.name == name).expect("a node");
    assert_eq!(node("actions").failed as usize, lines.len() - rows.len());
    let invalid = rows.iter().filter(|row| !is_valid(row)).count();
    assert_eq!(node("clean").rejected as usize, invalid);
    let late = |rows: &[Value], is_valid: fn(&Value) -> bool| {
        let (in_time, _) = in_order(rows, BOUND_MS);
        let valid = rows.iter().filter(|row| is_valid(row)).count();
        valid - in_time.into_iter().filter(|row| is_valid(row)).count()
    };
    let late_actions = late(&rows, is_valid);
    assert_eq!(node("in_order").late as usize, late_actions);
    assert!(late_actions > 10, "few rows are late: {late_actions}");
    let late_promotions = late(&promotions, is_possible);
    assert_eq!(node("in_turn").late as usize, late_promotions);
}
