//! Functions of aggregates take calculations with fields, in the types of these.

use serde_json::{Value, json};

use crate::{collect, folder, plan_of, read_json_lines};

#[test]
fn functions_take_calculations() {
    let rows = [
        json!({"country": "DE", "price": "0.10", "quantity": 3, "weight": 0.5, "ts": 0}),
        json!({"country": "DE", "price": "1.25", "quantity": -2, "ts": 1}),
        json!({"country": "FR", "price": "99999999.99", "quantity": 7, "weight": 2.0, "ts": 2}),
        // Its square has no room, and it counts nowhere.
        json!({"country": "FR", "price": "1.00", "quantity": 4_000_000_000_i64, "ts": 3}),
    ];
    let folder = folder(&[("in.jsonl", &rows)]);
    let text = r#"
        name = "test"
        dead_letters = "dead.jsonl"
        [sources.rows]
        type = "file"
        path = "in.jsonl"
        event_time = "ts"
        [sources.rows.fields]
        country = "utf8"
        price = "decimal(10,2)"
        quantity = "int64"
        weight = "float64?"
        ts = "timestamp(s)"
        [operators.sums]
        input = "rows"
        key = "country"
        window = "global"
        [operators.sums.aggregate]
        revenue = "sum(price * quantity)"
        squares = "sum(quantity * quantity)"
        load = "max(weight * quantity)"
        rebated = "sum((price - 0.05) * 2)"
        [sinks.out]
        type = "blackhole"
        input = "sums"
        "#;
    for batch_rows in [1, 4_096] {
        let mut plan = plan_of(text, folder.path());
        plan.batch_rows = batch_rows;
        let (mut results, _) = collect(plan, "out");
        results.sort_by_key(|row| row["country"].to_string());
        let shown = |row: &Value| {
            let columns = ["country", "revenue", "squares", "load", "rebated"];
            columns
                .map(|column| row[column].to_string().replace('"', ""))
                .join(" ")
        };
        let shown: Vec<String> = results.iter().map(shown).collect();
        assert_eq!(
            shown,
            ["DE -2.2 13 1.5 2.5", "FR 699999999.93 49 14.0 199999999.88"],
            "{batch_rows}"
        );
        let letters = folder.path().join("dead.jsonl");
        let [letter] = &read_json_lines(&letters)[..] else {
            panic!("one letter");
        };
        let error = "`quantity * quantity`: a number is too large for its type";
        assert_eq!(letter["error"], error);
        std::fs::remove_file(letters).expect("it is writable");
    }
}
