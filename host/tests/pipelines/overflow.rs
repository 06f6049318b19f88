//! Rows with numbers that are too large for the arithmetic of the plugins in `plugins/`:
//! each is a dead letter, or counts as what the plugin says that it does, and no result
//! has a wrong number. The operators of `words` and `recommend` compute with no integers of
//! rows.

use std::path::Path;

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use crate::{collect, common, folder, plan_of, read_json_lines};

const MAX: i64 = i64::MAX;
const MIN: i64 = i64::MIN;

/// Runs rows through an operator of a plugin; shows its results, and then the dead letters:
/// which row it was, or what else, and the error without its place in the plugin.
fn check(operator: &str, fields: &str, settings: &str, rows: &[Value], expected: Expect) {
    let (plugin, _) = operator.split_once('.').expect("PLUGIN.OPERATOR");
    let timed: Vec<Value> = rows.iter().zip(1_i64..).map(timed).collect();
    let folder = folder(&[("in.jsonl", &timed)]);
    let text = format!(
        r#"
        name = "test"
        dead_letters = "dead.jsonl"
        plugins.{plugin}.path = {:?}
        [sources.rows]
        type = "file"
        path = "in.jsonl"
        format = "json"
        event_time = "ts"
        watermark = {{ out_of_orderness = "1m" }}
        fields = {{ ts = "timestamp(s)", {fields} }}
        [operators.result]
        plugin = "{operator}"
        {settings}
        [sinks.out]
        type = "blackhole"
        input = "result"
        "#,
        common::plugin_file(plugin)
    );
    let [one, many] = [1, 4096].map(|batch_rows| {
        let mut plan = plan_of(&text, folder.path());
        plan.batch_rows = batch_rows;
        let (results, _) = collect(plan, "out");
        let mut lines: Vec<String> = results.iter().map(Value::to_string).collect();
        lines.extend(dead_letters(&folder.path().join("dead.jsonl"), &timed));
        lines.join("\n")
    });
    assert_eq!(one, many);
    expected.assert_eq(&many);
}

/// The dead letters by their payloads, and an end to their file.
fn dead_letters(path: &Path, rows: &[Value]) -> Vec<String> {
    if !path.exists() {
        return Vec::new();
    }
    let shown = |letter: &Value| {
        let (payload, error) = (&letter["payload"], &letter["error"]);
        let (payload, error) = (payload.as_str()?, error.as_str()?);
        let row = rows
            .iter()
            .map(Value::to_string)
            .position(|row| row == payload);
        let row = row.map_or_else(|| payload.to_owned(), |at| format!("row {at}"));
        let error = error.find("attempt to").map_or(error, |at| &error[at..]);
        Some(format!("{row}: {error}"))
    };
    let letters = read_json_lines(path);
    let mut lines: Vec<String> = letters
        .iter()
        .map(|letter| shown(letter).unwrap_or_else(|| letter.to_string()))
        .collect();
    lines.sort();
    std::fs::remove_file(path).expect("it is writable");
    lines
}

/// The row, with the second of its place if it has no time.
fn timed((row, second): (&Value, i64)) -> Value {
    let mut row = row.clone();
    if row.get("ts").is_none() {
        row["ts"] = second.into();
    }
    row
}

#[test]
fn of_carts() {
    let event = |action: &str, quantity: i64| json!({"user_id": "ann", "item_id": "tea", "action": action, "quantity": quantity});
    let fields = r#"user_id = "utf8", item_id = "utf8", action = "utf8", quantity = "int64""#;
    check(
        "cart.changes",
        fields,
        r#"input = "rows""#,
        &[event("remove", MIN), event("remove", MAX)],
        expect![[r#"
            {"delta":-9223372036854775807,"item_id":"tea","user_id":"ann"}
            row 0: attempt to multiply with overflow"#]],
    );
    let adds = [event("add", MAX), event("add", 5), event("add", -3)];
    check(
        "cart.added",
        fields,
        r#"input = "rows"
        key = "user_id"
        window = { tumbling = "1m" }"#,
        &adds,
        expect![[r#"
            {"count":2,"sum":9223372036854775804,"user_id":"ann","window_end":"1970-01-01T00:01:00Z","window_start":"1970-01-01T00:00:00Z"}
            row 1: attempt to add with overflow"#]],
    );
    check(
        "cart.running_cart",
        fields,
        r#"input = "rows"
        key = ["user_id", "item_id"]
        window = "running""#,
        &adds,
        expect![[r#"
            {"item_id":"tea","quantity":9223372036854775807,"user_id":"ann"}
            {"item_id":"tea","quantity":9223372036854775804,"user_id":"ann"}
            row 1: attempt to add with overflow"#]],
    );
    // The last row makes one session of those of the others.
    let mut visits = adds;
    for (visit, second) in visits.iter_mut().zip([0, 50, 25]) {
        visit["ts"] = second.into();
    }
    check(
        "cart.session",
        fields,
        r#"input = "rows"
        key = "user_id"
        window = { session = "30s" }"#,
        &visits,
        expect![[r#"
            {"adds":1,"checkouts":0,"events":1,"removes":0,"sum":9223372036854775807,"user_id":"ann","views":0,"window_end":"1970-01-01T00:01:20Z","window_start":"1970-01-01T00:00:00Z"}
            {"user_id":"ann","window_start":"1970-01-01T00:00:00Z","window_end":"1970-01-01T00:01:20Z"}: attempt to add with overflow"#]],
    );
    let change = |delta: i64| json!({"user_id": "ann", "delta": delta});
    check(
        "cart.left_carts",
        r#"user_id = "utf8", delta = "int64""#,
        r#"input = "rows"
        key = "user_id""#,
        &[change(MAX), change(1), change(-1)],
        expect![[r#"
            {"items":9223372036854775806,"since":"1970-01-01T00:00:01Z","user_id":"ann"}
            row 1: attempt to add with overflow"#]],
    );
}

#[test]
fn of_campaigns() {
    let bought = |quantity: i64, price: i64| {
        json!({
            "campaign": "spring", "user_id": "ann", "action": "checkout",
            "quantity": quantity, "price": price, "clicked": 1,
        })
    };
    let fields = r#"campaign = "utf8", user_id = "utf8", action = "utf8", quantity = "int64", price = "int64", clicked = "timestamp(s)""#;
    let rows = [bought(MAX, 2), bought(3, 2)];
    check(
        "campaign.taken",
        fields,
        r#"input = "rows""#,
        &rows,
        expect![[r#"
            {"buyer":"ann","campaign":"spring","revenue":6,"units":3,"user_id":"ann","variant":"b"}
            row 0: 9223372036854775807 for 2 each is too much to count"#]],
    );
    check(
        "campaign.credit",
        fields,
        r#"input = "rows"
        parameters = { touch = "last" }
        key = "user_id"
        window = { tumbling = "1m" }"#,
        &rows,
        expect![[r#"
            {"campaign":"spring","clicked":"1970-01-01T00:00:01Z","clicks":1,"revenue":6,"units":3,"user_id":"ann","window_end":"1970-01-01T00:01:00Z","window_start":"1970-01-01T00:00:00Z"}
            row 0: 9223372036854775807 for 2 each is too much to count"#]],
    );
    let brought = |campaign: &str, variant: &str, buyers: i64| json!({"campaign": campaign, "variant": variant, "participants": MAX, "buyers": buyers});
    check(
        "campaign.compare",
        r#"campaign = "utf8", variant = "utf8", participants = "int64", buyers = "int64""#,
        r#"input = "rows"
        key = "campaign"
        window = { tumbling = "1m" }"#,
        &[
            brought("spring", "a", MAX),
            brought("spring", "b", MAX),
            brought("autumn", "a", 1),
            brought("autumn", "b", 1),
        ],
        expect![[r#"
            {"a_conversion":1.0842021724855044e-19,"a_participants":9223372036854775807,"b_conversion":1.0842021724855044e-19,"b_participants":9223372036854775807,"campaign":"autumn","difference":0.0,"high":3.005255096699413e-19,"low":-3.005255096699413e-19,"window_end":"1970-01-01T00:01:00Z","window_start":"1970-01-01T00:00:00Z","z":0.0}
            {"campaign":"spring","window_start":"1970-01-01T00:00:00Z","window_end":"1970-01-01T00:01:00Z"}: attempt to add with overflow"#]],
    );
}

#[test]
fn of_behaviour() {
    let counted = |start: i64, end: i64, actions: i64| json!({"user_id": "ann", "window_start": start, "window_end": end, "actions": actions});
    // All later rows come to a state with these.
    check(
        "behaviour.usual",
        r#"user_id = "utf8", window_start = "timestamp(ms)", window_end = "timestamp(ms)", actions = "int64""#,
        r#"input = "rows"
        parameters = { known = 2 }
        key = "user_id""#,
        &[
            counted(0, 1_000, MAX),
            counted(1_000, 2_000, MAX),
            counted(2_000, 3_000, 1),
            counted(MIN, MAX, MIN),
            counted(MAX, MIN, 1),
        ],
        expect![[r#"
            {"actions":1,"deviation":0.0,"user_id":"ann","usual":9.223372036854776e+18,"window_end":"1970-01-01T00:00:03Z","window_start":"1970-01-01T00:00:02Z"}
            {"actions":-9223372036854775808,"deviation":4.3479392751109274e+18,"user_id":"ann","usual":6.148914691236517e+18,"window_end":9223372036854775807,"window_start":-9223372036854775808}"#]],
    );
}

#[test]
fn of_notifications() {
    let news = |kind: &str, actors: i64| json!({"actor": "ann", "kind": kind, "author": "bob", "post_id": "p1", "actors": actors});
    check(
        "notify.suggest",
        r#"actor = "utf8", kind = "utf8", author = "utf8", post_id = "utf8", actors = "int64""#,
        r#"input = { own = "rows", news = "rows" }
        order = "event_time"
        key = "actor""#,
        &[news("post", MAX), news("post", MAX / 3), news("post", MIN)],
        expect![[r#"
            {"actors":3074457345618258602,"author":"bob","kind":"post","post_id":"p1","score":9223372036854775806,"user_id":"ann"}
            {"own.kind":null,"own.author":null,"news.kind":"post","news.author":"bob","news.post_id":"p1","news.actors":-9223372036854775808}: attempt to multiply with overflow
            {"own.kind":null,"own.author":null,"news.kind":"post","news.author":"bob","news.post_id":"p1","news.actors":9223372036854775807}: attempt to multiply with overflow"#]],
    );
}

#[test]
fn of_inventory() {
    let row = |action: &str, quantity: i64, change: i64| {
        json!({
            "item_id": "tea", "user_id": "ann", "action": action,
            "quantity": quantity, "change": change,
        })
    };
    check(
        "inventory.inventory",
        r#"item_id = "utf8", user_id = "utf8", action = "utf8", quantity = "int64", change = "int64""#,
        r#"input = { stock = "rows", requests = "rows" }
        order = "event_time"
        key = "item_id""#,
        &[
            row("view", 1, 10),
            row("view", 1, MAX),
            row("view", 1, MIN),
            row("return", MAX, 0),
            row("add", MAX, 0),
            row("add", 2, 0),
        ],
        expect![[r#"
            {"expires":"1970-01-01T00:15:06Z","item_id":"tea","left":8,"quantity":2,"user_id":"ann"}
            {"requests.user_id":"ann","requests.action":"return","requests.quantity":9223372036854775807,"stock.change":null}: the stock changes by 9223372036854775807, expected at most 1000000000 either way
            {"requests.user_id":null,"requests.action":null,"requests.quantity":null,"stock.change":-9223372036854775808}: the stock changes by -9223372036854775808, expected at most 1000000000 either way
            {"requests.user_id":null,"requests.action":null,"requests.quantity":null,"stock.change":9223372036854775807}: the stock changes by 9223372036854775807, expected at most 1000000000 either way"#]],
    );
}

#[test]
fn of_monitoring() {
    let event = |bytes: i64| json!({"source": "web", "action": "view", "bytes": bytes});
    check(
        "monitoring.flow",
        r#"source = "utf8", action = "utf8", bytes = "int64""#,
        r#"input = "rows"
        key = "source"
        window = { tumbling = "10s" }"#,
        &[event(MAX), event(MAX), event(MIN)],
        expect![[r#"
            {"error_share":0.0,"events":2,"order_rate":0.0,"rate":9.223372036854776e+17,"source":"web","window_end":"1970-01-01T00:00:10Z","window_start":"1970-01-01T00:00:00Z"}
            row 2: `bytes` is -9223372036854775808, expected at least 0"#]],
    );
}
