//! Guards that a message that is no change of a row is nothing, or says what it is.

use super::*;

/// What comes from a connector beside changes.
fn others() -> Vec<String> {
    let message = |message: Value| message.to_string();
    let wrapped = |payload: Value| json!({"schema": {}, "payload": payload}).to_string();
    let heartbeat = || json!({"ts_ms": 1_700_000_000_000_i64, "ts_us": 1, "ts_ns": 1});
    let begin = || {
        json!({
            "status": "BEGIN", "id": "571:53195829", "ts_ms": 1, "event_count": null,
            "data_collections": null,
        })
    };
    let ddl = || {
        json!({
            "source": {"ts_ms": 1}, "databaseName": "shop", "ddl": "DROP TABLE t",
            "tableChanges": [], "ts_ms": 1,
        })
    };
    vec![
        "null".to_owned(),
        " null ".to_owned(),
        message(json!({"schema": null, "payload": null})),
        message(heartbeat()),
        wrapped(heartbeat()),
        message(begin()),
        wrapped(begin()),
        message(ddl()),
        wrapped(ddl()),
        message(json!({"id": 1, "ts_ms": 1})),
        message(json!({"id": 1, "payload": null})),
        message(json!({"specversion": "1.0", "data": {"payload": {"op": "c"}}})),
        "nul".to_owned(),
        "null null".to_owned(),
        message(change("c", Value::Null, "{\"_id\": 1}".into())),
        message(json!({"op": "d", "source": {"connector": "mongodb", "ts_ms": 1}})),
    ]
}

#[test]
fn what_tells_no_row_is_nothing_or_says_so() {
    let format = format(None, TextDecimals::Precise);
    expect![[r#"
        7: is a change of the database's schema, and of no row: those have a topic for each table
        8: is a change of the database's schema, and of no row: those have a topic for each table
        9: expected a change as Debezium tells it, found a record without `op` (rows that `ExtractNewRecordState` has unpacked are read by `format = "json"` with `upsert`)
        10: expected a change as Debezium tells it, found a record without `op` (rows that `ExtractNewRecordState` has unpacked are read by `format = "json"` with `upsert`)
        11: is a CloudEvent: have the connector write its changes by `JsonConverter`
        12: byte 0: expected a record, found `nul`
        13: byte 5: expected the end of the row, found `null`
        14: has documents as texts, as Debezium's connector for MongoDB writes them: have it unpack them by the transformation `ExtractNewDocumentState`, and read them by `format = "json"`
        15: has documents as texts, as Debezium's connector for MongoDB writes them: have it unpack them by the transformation `ExtractNewDocumentState`, and read them by `format = "json"`
    "#]].assert_eq(&decode(&format, &fields(), &others(), &[]));
}

#[test]
fn a_tombstone_as_a_text_takes_the_key_of_its_message_back() {
    let schema = Schema::new(fields());
    let by_key = format(Some(&["id"]), TextDecimals::Precise);
    let mut decoder = Decoder::new(&by_key, &schema);
    let data = b"nullnullnullnull";
    let spans = [(0, 4), (4, 8), (8, 12), (12, 16)];
    let keys: [Option<&[u8]>; 4] = [Some(b"{\"id\":1}"), None, Some(b"\xFF"), Some(b"7")];
    let beside = |message: usize| Beside {
        key: keys[message],
        ..Beside::default()
    };
    expect![[r#"
        0 -{"id":1,"name":null} no time
        1: is a tombstone, `null`, and which row is gone was told by its key, which is not here: nothing is lost without it if the deletion before it is there
        2: byte 0: expected UTF-8 text, found other bytes
        3: field `key`: byte 0: expected a record, found `7`
    "#]].assert_eq(&changes(
        decoder.decode_messages(data, &spans, beside),
        &schema,
    ));
}

#[test]
fn a_deletion_without_its_row_is_told_by_the_key_of_its_message() {
    let schema = Schema::new(fields());
    let deleted = change("d", Value::Null, Value::Null).to_string();
    let spans = [(0, deleted.len() as u32)];
    let shown = |key: Option<&[&str]>, of_message: Option<&str>| {
        let by_key = format(key, TextDecimals::Precise);
        let mut decoder = Decoder::new(&by_key, &schema);
        let beside = |_| Beside {
            key: of_message.map(str::as_bytes),
            ..Beside::default()
        };
        let decoded = decoder.decode_messages(deleted.as_bytes(), &spans, beside);
        changes(decoded, &schema)
    };
    let told = [
        shown(Some(&["id"]), Some("{\"id\":7}")),
        shown(Some(&["id"]), Some("{\"other\":7}")),
        shown(Some(&["id"]), None),
        shown(None, Some("{\"id\":7}")),
    ];
    expect![[r#"
        0 -{"id":7,"name":null} 1700000000000
        0: field `key.id` is missing
        0: has no `before`, which such a change needs
        0: has no `before`, the row that is gone: have the database tell it (in PostgreSQL `ALTER TABLE … REPLICA IDENTITY FULL`), or name the table's key: `debezium = { key = … }`
    "#]].assert_eq(&told.concat());
}
