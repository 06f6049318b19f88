//! Plugins and operators that cannot be run.

use expect_test::expect;

use super::support::check;

#[test]
fn no_file() {
    check(
        &[(r#"path = "cart.wasm""#, r#"path = "build/cart.wsm""#)],
        expect![[r#"
              x plugin `cart` is not there: no file /pipelines/build/cart.wsm
               ,-[cart.toml:5:8]
             5 | path = "build/cart.wsm"
               :        ^^^^^^^^^^^^^^^^
               `----
              help: `sluicebox build` makes a plugin's .wasm file; paths are relative to the pipeline's file
        "#]],
    );
}

#[test]
fn a_file_that_is_no_plugin() {
    check(
        &[(r#"path = "cart.wasm""#, r#"path = "text.wasm""#)],
        expect![[r#"
              x plugin `cart` cannot be loaded: it is not a WebAssembly component: build it for wasm32-wasip2
               ,-[cart.toml:5:8]
             5 | path = "text.wasm"
               :        ^^^^^^^^^^^
               `----
        "#]],
    );
}

#[test]
fn an_unknown_plugin() {
    check(
        &[(r#"plugin = "cart.clean""#, r#"plugin = "card.clean""#)],
        expect![[r#"
              x operator `clean` runs `card.clean`, and there is no plugin `card`
                ,-[cart.toml:24:10]
             24 | plugin = "card.clean"
                :          ^^^^^^^^^^^^
                `----
              help: did you mean `cart`?
        "#]],
    );
}

#[test]
fn an_unknown_operator() {
    check(
        &[
            (r#"plugin = "cart.clean""#, r#"plugin = "cart.claen""#),
            (r#"plugin = "cart.added""#, r#"plugin = "cart.sum""#),
        ],
        expect![[r#"
              x operator `clean` runs `cart.claen`, and plugin `cart` has no operator `claen`
                ,-[cart.toml:24:10]
             24 | plugin = "cart.claen"
                :          ^^^^^^^^^^^^
                `----
              help: did you mean `clean`? The operators of `cart` are: clean, priced, noted, twins, added, per_user, spans, alert, blind

              x operator `added` runs `cart.sum`, and plugin `cart` has no operator `sum`
                ,-[cart.toml:29:10]
             29 | plugin = "cart.sum"
                :          ^^^^^^^^^^
                `----
              help: the operators of `cart` are: clean, priced, noted, twins, added, per_user, spans, alert, blind
        "#]],
    );
}

#[test]
fn a_kind_of_a_later_version() {
    check(
        &[(r#"plugin = "cart.added""#, r#"plugin = "cart.alert""#)],
        expect![[r#"
              x operator `added`: `cart.alert` is a process operator, which this version cannot run
                ,-[cart.toml:29:10]
             29 | plugin = "cart.alert"
                :          ^^^^^^^^^^^^
                `----
              help: this version runs filters, transforms and aggregates
        "#]],
    );
}

#[test]
fn an_operator_that_describes_no_input() {
    check(
        &[(r#"plugin = "cart.added""#, r#"plugin = "cart.blind""#)],
        expect![[r#"
              x operator `added`: `cart.blind` describes 0 inputs; a filter has one
                ,-[cart.toml:29:10]
             29 | plugin = "cart.blind"
                :          ^^^^^^^^^^^^
                `----
              help: this is a mistake in the plugin: build it again with its SDK
        "#]],
    );
}

#[test]
fn no_plugins_at_all() {
    check(
        &[(
            r#"[plugins.cart]
path = "cart.wasm"
"#,
            "",
        )],
        expect![[r#"
              x operator `clean` runs `cart.clean`, and there is no plugin `cart`
                ,-[cart.toml:22:10]
             22 | plugin = "cart.clean"
                :          ^^^^^^^^^^^^
                `----
              help: add it: [plugins.cart] with the `path` of its .wasm file

              x operator `added` runs `cart.added`, and there is no plugin `cart`
                ,-[cart.toml:27:10]
             27 | plugin = "cart.added"
                :          ^^^^^^^^^^^^
                `----
              help: add it: [plugins.cart] with the `path` of its .wasm file
        "#]],
    );
}
