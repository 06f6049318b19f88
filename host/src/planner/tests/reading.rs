//! Files that are not a pipeline's text at all.

use expect_test::{Expect, expect};

use super::support::folder;
use crate::config::{Config, Look};

fn check(bytes: Option<&[u8]>, expected: Expect) {
    let folder = folder();
    let path = folder.path().join("shop.toml");
    if let Some(bytes) = bytes {
        std::fs::write(&path, bytes).expect("a file");
    }
    let mistakes = Config::read(&path).expect_err("no pipeline");
    let said = mistakes.render(Look::Plain);
    let said = said.replace(&folder.path().display().to_string(), "/pipelines");
    expected.assert_eq(said.trim());
}

#[test]
fn no_file() {
    check(
        None,
        expect![[r#"
        x cannot read the pipeline /pipelines/shop.toml: No such file or directory (os error 2)
          help: give the path of a pipeline's TOML file; `sluicebox new pipeline NAME` makes one"#]],
    );
}

#[test]
fn not_text() {
    check(
        Some(b"name = 'x'\n\xff\xfe"),
        expect![[r#"
        x /pipelines/shop.toml is not text: line 2 has bytes that are not UTF-8
          help: a pipeline's file is TOML in UTF-8: save it in that encoding"#]],
    );
}

#[test]
fn far_too_large() {
    check(
        Some(&vec![b'\n'; 5 << 20]),
        expect![[r#"
        x /pipelines/shop.toml is larger than 4MiB: it cannot be a pipeline's file
          help: give the path of a pipeline's TOML file; `sluicebox new pipeline NAME` makes one"#]],
    );
}

#[test]
fn an_empty_file() {
    check(
        Some(b""),
        expect![[r#"
        x the pipeline has no `name`
           ,-[/pipelines/shop.toml:1:1]
           `----
          help: add `name = …`: it identifies the pipeline's checkpoints and dead letters"#]],
    );
}

#[test]
fn too_many_mistakes_to_show() {
    let folder = folder();
    let path = folder.path().join("shop.toml");
    let keys: Vec<String> = (0..60).map(|i| format!("key_{i} = 1")).collect();
    std::fs::write(&path, keys.join("\n")).expect("a file");
    let said = Config::read(&path)
        .expect_err("no pipeline")
        .render(Look::Plain);
    assert!(said.ends_with("\n  and 11 more\n"), "{said}");
}

/// One line may have all mistakes, and may be that of a generated file.
#[test]
fn long_lines_are_quoted_around_the_mistakes() {
    let keys: Vec<String> = (0..10_000)
        .map(|number| format!("a_key_that_is_not_known_{number} = 1"))
        .collect();
    let text = format!("restart = {{ {}, delay = 1 }}\n", keys.join(", "));
    let mistakes = Config::parse("shop.toml", &text).expect_err("no pipeline");
    for look in [Look::Plain, Look::Terminal { width: 100 }] {
        let said = mistakes.render(look);
        assert!(said.len() < 100_000, "{} bytes", said.len());
        assert!(said.contains("a_key_that_is_not_known_7 = 1"), "{said}");
    }
}

#[test]
fn a_place_in_a_long_line_is_marked_where_it_is() {
    let rest = "é".repeat(2_000);
    let key = "long".repeat(100);
    let text =
        format!("name = \"x\"\n[restart]\n'{rest}' = 1\nfactor = [\"{rest}\", 1]\n{key} = 2\n");
    let said = Config::parse("shop.toml", &text).expect_err("no pipeline");
    let said = said.render(Look::Plain);
    let shortened = said
        .replace(&key, "KEY")
        .replace(&key[..200], "KEY")
        .replace(&format!("{}…", "é".repeat(100)), "REST…");
    let shortened = shortened
        .replace(&"é".repeat(49), "ééé")
        .replace(&"^".repeat(50), "^^^");
    expect![[r#"
        said:
          x [restart] has an unknown key `REST…`
           ,-[shop.toml:3:1]
         3 | 'ééééééééééé
           : ^^^|^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
           :                                                   `-- unknown key
           `----
          help: the keys here are: strategy, delay, max_delay, factor, failures, within

          x `factor` of [restart] must be a number above 0
           ,-[shop.toml:4:10]
         4 | factor = ["ééééééééééé
           :          ^^^|^^^
           :                                                            `-- this is a list
           `----

          x [restart] has an unknown key `KEY…`
           ,-[shop.toml:5:1]
         5 | KEY = 2
           : ^^^^^^|^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
           :                                                                                                     `-- unknown key
           `----
          help: the keys here are: strategy, delay, max_delay, factor, failures, within
    "#]].assert_eq(&format!("said:\n{shortened}"));
}
