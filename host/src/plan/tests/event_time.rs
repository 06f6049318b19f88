//! Where a row's time is.

use expect_test::expect;

use super::support::check;

#[test]
fn an_unknown_field() {
    check(
        &[(r#"event_time = "ts""#, r#"event_time = "tss""#)],
        expect![[r#"
              x source `actions` takes its event time from `tss`, which is not one of its fields
                ,-[cart.toml:10:14]
             10 | event_time = "tss"
                :              ^^^^^
                `----
              help: did you mean `ts`? The fields that can be a time are: quantity, ts
        "#]],
    );
}

#[test]
fn a_field_that_is_no_time() {
    check(
        &[(r#"event_time = "ts""#, r#"event_time = "price""#)],
        expect![[r#"
              x source `actions` cannot take its event time from `price: float64`: a time is a timestamp, or an int64 in ms
                ,-[cart.toml:10:14]
             10 | event_time = "price"
                :              ^^^^^^^
                `----
                ,-[cart.toml:18:1]
             18 | price = "float64"
                : ^^|^^
                :   `-- `price: float64` is from here
                `----
              help: declare it as `price = "timestamp"`
        "#]],
    );
}

#[test]
fn a_field_that_may_be_missing() {
    check(
        &[(r#"ts = "timestamp""#, r#"ts = "timestamp?""#)],
        expect![[r#"
              x source `actions` cannot take its event time from `ts: timestamp?`: a row without a time belongs nowhere
                ,-[cart.toml:10:14]
             10 | event_time = "ts"
                :              ^^^^
                `----
                ,-[cart.toml:21:1]
             21 | ts = "timestamp?"
                : ^|
                :  `-- `ts: timestamp?` is from here
                `----
              help: declare it as `ts = "timestamp"`
        "#]],
    );
}

#[test]
fn a_number_of_milliseconds_is_a_time() {
    check(
        &[(r#"event_time = "ts""#, r#"event_time = "quantity""#)],
        expect![[""]],
    );
}
