use expect_test::{Expect, expect};

use super::*;
use crate::testing::{Difference, Order, Variant};

fn failure(batch_rows: usize, order: Order, kind: CaseFailureKind) -> CaseFailure {
    CaseFailure {
        variant: Variant {
            batch_rows,
            parallelism: 1,
            order,
            crashes: None,
        },
        kind,
        dead_letters: vec!["clean: reject: no user: {}".to_owned()],
    }
}

fn rows(sink: &str) -> CaseFailureKind {
    CaseFailureKind::Rows {
        sink: sink.to_owned(),
        difference: Difference {
            missing: vec![r#"{"n":1}"#.to_owned()],
            ..Difference::default()
        },
    }
}

fn check(failures: Vec<CaseFailure>, shown: Expect) {
    let outcome = Outcome {
        runs: 18,
        rows: 43,
        compared: 2,
        notes: vec!["not compared: out".to_owned()],
        failures,
    };
    shown.assert_eq(&report("small", &outcome));
}

#[test]
fn a_case_that_passes_is_a_line() {
    check(
        Vec::new(),
        expect![[r#"
            ok     small: 43 rows, 2 sinks compared, 18 runs
              not compared: out
        "#]],
    );
}

#[test]
fn a_failure_is_shown_once_with_how_often_it_came() {
    check(
        vec![
            failure(7, Order::Given, rows("added")),
            failure(1, Order::Given, rows("added")),
            failure(1, Order::Shuffled { seed: 3 }, rows("top")),
        ],
        expect![[r#"
            FAILED small: 43 rows, 2 sinks compared, 18 runs
              not compared: out
              sink `added` did not get the expected rows (batch_rows = 7, parallelism = 1, rows as given; failed in 2 of 18 runs)
                rows: 1 missing
                  - {"n":1}
              sink `top` did not get the expected rows (batch_rows = 1, parallelism = 1, rows shuffled with seed 3; failed in 1 of 18 runs)
                rows: 1 missing
                  - {"n":1}
              1 rows became dead letters, such as
                clean: reject: no user: {}
              SLUICEBOX_LOG=info shows what the host and its plugins log meanwhile
        "#]],
    );
}
