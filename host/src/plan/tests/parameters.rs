//! Parameters that the operator does not take.

use expect_test::expect;

use super::support::check;

#[test]
fn an_unknown_one_instead_of_the_required_one() {
    check(
        &[("max_quantity = 100", "max_quantiti = 100")],
        expect![[r#"
              x operator `clean`: `cart.clean` has no parameter `max_quantiti`
                ,-[cart.toml:26:16]
             26 | parameters = { max_quantiti = 100 }
                :                ^^^^^^^^^^^^
                `----
              help: did you mean `max_quantity`? The parameters of `cart.clean` are: max_quantity, strict, share, actions, label
        "#]],
    );
}

#[test]
fn an_unknown_one() {
    check(
        &[(
            "max_quantity = 100",
            r#"max_quantity = 100, colour = "red""#,
        )],
        expect![[r#"
              x operator `clean`: `cart.clean` has no parameter `colour`
                ,-[cart.toml:26:36]
             26 | parameters = { max_quantity = 100, colour = "red" }
                :                                    ^^^^^^
                `----
              help: the parameters of `cart.clean` are: max_quantity, strict, share, actions, label
        "#]],
    );
}

#[test]
fn a_required_one_is_missing() {
    check(
        &[("parameters = { max_quantity = 100 }\n", "")],
        expect![[r#"
              x operator `clean`: `cart.clean` needs the parameter `max_quantity`, a whole number (The max_quantity of a row)
                ,-[cart.toml:23:12]
             23 | [operators.clean]
                :            ^^|^^
                :              `-- not given here
                `----
              help: add it: parameters = { max_quantity = 100 }
        "#]],
    );
}

#[test]
fn wrong_types() {
    check(
        &[(
            "max_quantity = 100",
            r#"max_quantity = "100", strict = 1, share = "half", actions = "add", label = ["x"]"#,
        )],
        expect![[r#"
              x operator `clean`: the parameter `max_quantity` must be a whole number; this is a text
                ,-[cart.toml:26:31]
             26 | parameters = { max_quantity = "100", strict = 1, share = "half", actions = "add", label = ["x"] }
                :                               ^^^^^
                `----
              help: write it as in `max_quantity = 100`

              x operator `clean`: the parameter `strict` must be true or false; this is a whole number
                ,-[cart.toml:26:47]
             26 | parameters = { max_quantity = "100", strict = 1, share = "half", actions = "add", label = ["x"] }
                :                                               ^
                `----
              help: write it as in `strict = true`

              x operator `clean`: the parameter `share` must be a number; this is a text
                ,-[cart.toml:26:58]
             26 | parameters = { max_quantity = "100", strict = 1, share = "half", actions = "add", label = ["x"] }
                :                                                          ^^^^^^
                `----
              help: write it as in `share = 0.5`

              x operator `clean`: the parameter `actions` must be a list of texts; this is a text
                ,-[cart.toml:26:76]
             26 | parameters = { max_quantity = "100", strict = 1, share = "half", actions = "add", label = ["x"] }
                :                                                                            ^^^^^
                `----
              help: write it as in `actions = ["text"]`

              x operator `clean`: the parameter `label` must be a text; this is a list of texts
                ,-[cart.toml:26:91]
             26 | parameters = { max_quantity = "100", strict = 1, share = "half", actions = "add", label = ["x"] }
                :                                                                                           ^^^^^
                `----
              help: write it as in `label = "text"`
        "#]],
    );
}

#[test]
fn a_whole_number_for_a_number() {
    check(
        &[("max_quantity = 100", "max_quantity = 100, share = 1")],
        expect![[""]],
    );
}

#[test]
fn the_plugin_refuses_one() {
    check(
        &[("max_quantity = 100", "max_quantity = -5")],
        expect![[r#"
              x operator `clean`: `cart.clean` does not start: max_quantity must not be negative
                ,-[cart.toml:26:1]
             26 | parameters = { max_quantity = -5 }
                : ^^^^^|^^^^
                :      `-- with these settings
                `----
        "#]],
    );
}
