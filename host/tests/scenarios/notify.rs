//! Tests notifications against a naive computation.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use fastrand::Rng;
use serde_json::{Value, json};

use crate::day::{
    Day, MINUTE_MS, decoded, example, folder_of, in_order, json_time, number, sorted, text, time_of,
};
use crate::everywhere::{collect_all, collect_all_everywhere};
use crate::pipeline::{assert_same, plan_of};

/// As in the example's pipeline.
const BOUND_MS: i64 = 5_000;
const WINDOW_MS: i64 = 10 * MINUTE_MS;
const HOUR_MS: i64 = 60 * MINUTE_MS;

/// CRC-32 bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = !0_u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xEDB8_8320 * (crc & 1));
        }
    }
    !crc
}

fn checksum(row: &Value) -> String {
    let at = json_time(number(row, "ts"));
    let of = ["actor", "kind", "author", "post_id"].map(|field| text(row, field));
    let at = at.as_str().unwrap_or_default();
    format!(
        "{:08x}",
        crc32(format!("{}\n{at}", of.join("\n")).as_bytes())
    )
}

fn actions(rng: &mut Rng, count: i64) -> Vec<String> {
    let mut day = Day::new(BOUND_MS);
    for i in 0..count {
        let user = |rng: &mut Rng| format!("user-{}", rng.u8(0..40));
        let (actor, other) = (user(rng), user(rng));
        let (kind, author, post) = match rng.u8(0..100) {
            0..20 => ("follow", other, String::new()),
            20..25 => ("unfollow", other, String::new()),
            25..40 => ("post", actor.clone(), format!("post-{i}")),
            kind => {
                let post = format!("post-{}", rng.i64((i - 200).max(0)..=i));
                let kind = if kind < 85 { "like" } else { "comment" };
                (kind, other, post)
            }
        };
        let mut row = json!({
            "actor": actor, "kind": kind, "author": author, "post_id": post,
            "ts": time_of(rng, i, count, BOUND_MS),
        });
        row["checksum"] = checksum(&row).into();
        if rng.u8(0..100) == 0 {
            row["author"] = user(rng).into();
        }
        day.add(rng, &row);
    }
    day.in_order_of_arrival()
}

/// What those who are followed did with a post in ten minutes: follower, end, kind, author
/// and post, and who did it.
type News<'a> = BTreeMap<(&'a str, i64, &'a str, &'a str, &'a str), BTreeSet<&'a str>>;

/// What a user may be told, by time, with the score.
type Suggestions = BTreeMap<i64, Vec<(i64, Value)>>;

/// What users hear of.
fn news<'a>(rows: &[&'a Value]) -> News<'a> {
    let mut follows: HashSet<(&str, &str)> = HashSet::new();
    let mut news = News::new();
    for at_once in rows.chunk_by(|row, next| row["ts"] == next["ts"]) {
        for row in at_once {
            let (actor, author) = (text(row, "actor"), text(row, "author"));
            match text(row, "kind") {
                "follow" => drop(follows.insert((actor, author))),
                "unfollow" => drop(follows.remove(&(actor, author))),
                _ => {}
            }
        }
        for row in at_once {
            let (kind, actor) = (text(row, "kind"), text(row, "actor"));
            if kind.ends_with("follow") {
                continue;
            }
            let end_ms = number(row, "ts").div_euclid(WINDOW_MS) * WINDOW_MS + WINDOW_MS;
            let (author, post) = (text(row, "author"), text(row, "post_id"));
            for (follower, _) in follows.iter().filter(|(_, followed)| *followed == actor) {
                let of_post = news.entry((follower, end_ms, kind, author, post));
                of_post.or_default().insert(actor);
            }
        }
    }
    news
}

fn weight(kind: &str) -> i64 {
    match kind {
        "post" => 3,
        "comment" => 2,
        _ => 1,
    }
}

fn notifications(rows: &[&Value]) -> Vec<Value> {
    // By user and author: when the user liked or commented a post, and what it weighs.
    let mut own: BTreeMap<(&str, &str), Vec<(i64, i64)>> = BTreeMap::new();
    for row in rows {
        if ["like", "comment"].contains(&text(row, "kind")) {
            let of_both = own.entry((text(row, "actor"), text(row, "author")));
            let weight = weight(text(row, "kind"));
            of_both.or_default().push((number(row, "ts"), weight));
        }
    }
    let mut of_users: BTreeMap<&str, Suggestions> = BTreeMap::new();
    for ((user, end_ms, kind, author, post), actors) in news(rows) {
        let at_ms = end_ms - 1;
        let own = own.get(&(user, author)).into_iter().flatten();
        let before = own.filter(|(own_ms, _)| *own_ms <= at_ms);
        let interest: i64 = before.map(|(_, weight)| weight).sum();
        let actors = actors.len() as i64;
        let score = weight(kind) * actors * (1 + interest);
        let suggestion = json!({
            "user_id": user, "kind": kind, "author": author, "post_id": post,
            "actors": actors, "score": score,
        });
        let of_user = of_users.entry(user).or_default();
        of_user.entry(at_ms).or_default().push((score, suggestion));
    }
    let mut told = Vec::new();
    for (_, suggestions) in of_users {
        let mut waiting: Vec<(i64, Value)> = Vec::new();
        let mut free_ms = i64::MIN;
        let times: Vec<i64> = suggestions.keys().copied().collect();
        for (at, &time_ms) in times.iter().enumerate() {
            waiting.extend(suggestions[&time_ms].iter().cloned());
            let tell_ms = free_ms.max(time_ms + 1);
            let is_next_later = times.get(at + 1).is_none_or(|next_ms| *next_ms >= tell_ms);
            if !is_next_later {
                continue;
            }
            let others = waiting.len() - 1;
            let rank = |row: &Value| {
                let kinds = ["post", "like", "comment"];
                let kind = kinds.iter().position(|kind| *kind == row["kind"]);
                (
                    kind,
                    text(row, "author").to_owned(),
                    text(row, "post_id").to_owned(),
                )
            };
            let best = waiting
                .drain(..)
                .max_by_key(|(score, row)| (*score, rank(row)));
            let (_, mut best) = best.expect("there is one");
            best["at"] = json_time(tell_ms);
            best["others"] = others.into();
            told.push(best);
            free_ms = tell_ms + HOUR_MS;
        }
    }
    told
}

#[test]
fn users_are_told_what_the_naive_computation_says() {
    let lines = actions(&mut Rng::with_seed(10), 6_000);
    let folder = folder_of(&[("actions.jsonl", &lines)]);
    let pipeline = example("notify/pipeline.toml").to_string();

    let rows = decoded(&lines);
    let is_right = |row: &&Value| text(row, "checksum") == checksum(row);
    let right: Vec<Value> = rows.iter().filter(is_right).cloned().collect();
    let (in_time, late) = in_order(&right, BOUND_MS);
    let expected = sorted(notifications(&in_time));
    let sinks = ["notifications", "late"];
    let [told, late_rows] = collect_all_everywhere(&pipeline, folder.path(), sinks);
    assert!(expected.len() > 300, "few are told: {}", expected.len());
    assert_same(&expected, &told, "notifications");
    assert_eq!(late_rows.len(), late);

    let (_, summary) = collect_all(plan_of(&pipeline, folder.path()), sinks);
    let failed = summary.nodes[0].failed as usize;
    assert_eq!(failed, lines.len() - right.len());
    assert!(rows.len() > right.len() + 30, "all checksums are right");
}
