//! What good pipelines become.

use expect_test::expect;

use super::support::{check, check_plan};

#[test]
fn the_base_is_planned() {
    check(&[], expect![[""]]);
    check_plan(
        &[],
        expect![[r#"
        cart   2 tasks a keyed operator · batches of at most 4096 rows
        dead letters go to /pipelines/cart.dead.jsonl

        actions   source, file, json · 1 task
        │   /pipelines/events.jsonl
        │   event time ts, rows up to 2s out of order
        │   bad rows: dead letter
        │ : user_id: utf8, item_id: utf8, action: add|remove|view, quantity: int64, price: float64,
        │   note: utf8?, tags: list<utf8>, ts: timestamp
        ▼
        clean   filter cart.clean · 1 task
        │   max_quantity = 100, strict = false, share = 0.5, actions = []
        │   on error: dead letter · a call has 256MiB of memory, 5s, 256MiB of output
        │ : rows as they came
        ▼
        added   aggregate cart.added · 2 tasks
        │   key user_id · tumbling window of 1m, event time · corrected for 10s more
        │   on error: dead letter · a call has 256MiB of memory, 5s, 256MiB of output
        │ : user_id: utf8, window_start: timestamp, window_end: timestamp, items: int64
        ├─▶ out   sink, file, json · 1 task
        │       /pipelines/out.jsonl
        └─▶ late rows to too_late   sink, console · 1 task
              : user_id: utf8, item_id: utf8, action: add|remove|view, quantity: int64, price: float64,
                note: utf8?, tags: list<utf8>, ts: timestamp
    "#]],
    );
}
