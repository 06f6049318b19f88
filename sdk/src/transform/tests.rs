use expect_test::{Expect, expect};

use super::*;
use crate::bindings::sluicebox::plugin::columns::{Column, Values};
use crate::operator::Operator;
use crate::prelude::*;
use crate::record::columns;

#[derive(Record, Clone)]
struct Row<'a> {
    id: &'a str,
    other: &'a str,
    maybe: Option<&'a str>,
    raw: &'a [u8],
    n: i64,
}

fn row<'a>(id: &'a str, other: &'a str, n: i64) -> Row<'a> {
    Row {
        id,
        other,
        maybe: Some(other),
        raw: id.as_bytes(),
        n,
    }
}

fn rows() -> [Row<'static>; 4] {
    [
        row("a", "one", 1),
        row("bee", "", 2),
        row("", "a text that is longer than any word", 3),
        row("delta", "four", 4),
    ]
}

/// The answer for these rows, in lines.
fn answer<O: Transform>(rows: &[Row<'_>], parameters: &O::Parameters) -> String {
    let Transformed { output, rejects } = O::transform(parameters, &columns(rows));
    let mut lines = Vec::new();
    match output {
        Output::Selection(rows) => lines.push(format!("selection {rows:?}")),
        Output::Rows(rows) => {
            lines.push(format!("parents {:?}", rows.parents));
            assert_eq!(rows.columns.rows as usize, rows.parents.len());
            lines.extend(rows.columns.columns.iter().map(shown));
        }
    }
    for reject in rejects {
        lines.push(format!("reject {} {}", reject.row, reject.reason));
    }
    lines.join("\n")
}

fn shown(column: &Column) -> String {
    let values = match &column.values {
        Values::Packed(packed) => {
            let mut start = 0;
            let texts = packed.ends.iter().map(|&end| {
                let text = &packed.data[start..end as usize];
                start = end as usize;
                String::from_utf8_lossy(text)
            });
            format!("{:?}", texts.collect::<Vec<_>>())
        }
        Values::Int64(values) => format!("{values:?}"),
        other => format!("{other:?}"),
    };
    match &column.validity {
        Some(validity) => format!("{values} where {validity:?}"),
        None => values,
    }
}

fn check<O: Transform + Operator<Parameters = ()>>(rows: &[Row<'_>], expected: Expect) {
    expected.assert_eq(&answer::<O>(rows, &()));
}

#[derive(Record)]
struct Id<'a> {
    id: &'a str,
}

#[test]
fn bool_selects() {
    #[operator]
    fn odd(row: Row<'_>) -> bool {
        row.n % 2 == 1
    }
    check::<odd>(&rows(), expect!["selection [0, 2]"]);
    check::<odd>(&[], expect!["selection []"]);
}

#[test]
fn nothing_keeps_all() {
    #[operator]
    fn watch(row: Row<'_>) {
        assert!(row.n > 0);
    }
    check::<watch>(&rows(), expect!["selection [0, 1, 2, 3]"]);
}

#[test]
fn rejects_are_told_apart_from_what_is_dropped() {
    #[operator]
    fn judge(row: Row<'_>) -> Result<bool, Reject> {
        if row.n == 2 {
            reject!("{} is not wanted", row.id);
        }
        Ok(row.n != 3)
    }
    check::<judge>(
        &rows(),
        expect![[r#"
            selection [0, 3]
            reject 1 bee is not wanted"#]],
    );
}

#[test]
fn a_record_maps() {
    #[derive(Record)]
    struct Twice {
        text: String,
        n: i64,
    }
    #[operator]
    fn twice(row: Row<'_>) -> Twice {
        Twice {
            text: row.id.repeat(2),
            n: 2 * row.n,
        }
    }
    check::<twice>(
        &rows(),
        expect![[r#"
            parents [0, 1, 2, 3]
            ["aa", "beebee", "", "deltadelta"]
            [2, 4, 6, 8]"#]],
    );
}

#[test]
fn option_maps_some() {
    #[operator]
    fn short(row: Row<'_>) -> Option<Id<'_>> {
        (row.other.len() < 4).then_some(Id { id: row.other })
    }
    check::<short>(
        &rows(),
        expect![[r#"
            parents [0, 1]
            Values::Input(1)"#]],
    );
}

#[test]
fn vec_array_and_iterator_give_several() {
    #[operator]
    fn letters(row: Row<'_>) -> impl Iterator<Item = Id<'_>> {
        row.id
            .split("")
            .filter(|id| !id.is_empty())
            .map(|id| Id { id })
    }
    let expected = "parents [0, 1, 1, 1, 3, 3, 3, 3, 3]\n\
        [\"a\", \"b\", \"e\", \"e\", \"d\", \"e\", \"l\", \"t\", \"a\"]";
    assert_eq!(answer::<letters>(&rows(), &()), expected);

    #[operator]
    fn letters_at_once(row: Row<'_>) -> Result<Vec<Id<'_>>, Reject> {
        Ok(letters(row).collect())
    }
    assert_eq!(answer::<letters_at_once>(&rows(), &()), expected);

    #[operator]
    fn both(row: Row<'_>) -> [Id<'_>; 2] {
        [Id { id: row.id }, Id { id: row.other }]
    }
    check::<both>(
        &rows()[..2],
        expect![[r#"
            parents [0, 0, 1, 1]
            ["a", "one", "bee", ""]"#]],
    );
}

#[test]
fn an_iterator_may_give_more_rows_than_there_is_room_for() {
    #[operator]
    fn count(row: Row<'_>) -> impl Iterator<Item = Id<'_>> {
        (0..row.n).map(move |_| Id { id: row.id })
    }
    let many = [row("id", "", 1), row("other", "", 1000)];
    let shown = answer::<count>(&many, &());
    assert!(shown.ends_with("\nValues::Input(0)"), "{shown}");
    assert_eq!(shown.matches(" 1,").count(), 999);
}

#[test]
fn columns_are_passed_on_under_any_name() {
    #[derive(Record)]
    struct Renamed<'a> {
        other: &'a str,
        was_id: &'a str,
        maybe: &'a str,
        raw: &'a [u8],
        bytes_of_id: &'a [u8],
    }
    #[operator]
    fn rename(row: Row<'_>) -> Option<Renamed<'_>> {
        (row.n != 2).then_some(Renamed {
            other: row.other,
            was_id: row.id,
            maybe: row.maybe?,
            raw: row.raw,
            bytes_of_id: row.id.as_bytes(),
        })
    }
    // Bytes are not text: `bytes_of_id` is copied.
    check::<rename>(
        &rows(),
        expect![[r#"
            parents [0, 2, 3]
            Values::Input(1)
            Values::Input(0)
            Values::Input(2)
            Values::Input(3)
            ["a", "", "delta"]"#]],
    );
}

#[test]
fn a_row_that_is_not_passed_on_has_the_others_copied() {
    // Each row in turn has another text, once an equal one.
    for changed in 0..4 {
        let parameters = Changed {
            changed,
            to: "bee".to_owned(),
        };
        let mut expected = ["a", "bee", "", "delta"];
        expected[changed as usize] = "bee";
        assert_eq!(
            answer::<change>(&rows(), &parameters),
            format!("parents [0, 1, 2, 3]\n{expected:?}")
        );
    }
    let unchanged = Changed {
        changed: 9,
        to: String::new(),
    };
    assert_eq!(
        answer::<change>(&rows(), &unchanged),
        "parents [0, 1, 2, 3]\nValues::Input(0)"
    );
}

#[derive(Parameters)]
struct Changed {
    changed: i64,
    to: String,
}

#[operator]
fn change(row: Row<'_>, parameters: &Changed) -> Id<'_> {
    match row.n == parameters.changed + 1 {
        true => Id { id: &parameters.to },
        false => Id { id: row.id },
    }
}

#[test]
fn another_rows_text_is_not_passed_on() {
    #[operator]
    fn start(row: Row<'_>) -> Id<'_> {
        // The start of the whole text at the same address, and a text of the
        // same length at another address.
        Id {
            id: row.id.get(..2).unwrap_or(row.id),
        }
    }
    check::<start>(
        &rows(),
        expect![[r#"
            parents [0, 1, 2, 3]
            ["a", "be", "", "de"]"#]],
    );
}

#[test]
fn a_column_with_gaps_is_copied() {
    #[derive(Record)]
    struct Maybe<'a> {
        maybe: Option<&'a str>,
    }
    #[derive(Record)]
    struct Given<'a> {
        maybe: &'a str,
    }
    #[operator]
    fn pass(row: Row<'_>) -> Maybe<'_> {
        Maybe { maybe: row.maybe }
    }
    #[operator]
    fn given(row: Row<'_>) -> Option<Given<'_>> {
        Some(Given { maybe: row.maybe? })
    }
    let mut rows = rows();
    rows[1].maybe = None;
    check::<pass>(
        &rows,
        expect![[r#"
            parents [0, 1, 2, 3]
            ["one", "", "a text that is longer than any word", "four"] where [13]"#]],
    );
    check::<given>(
        &rows,
        expect![[r#"
            parents [0, 2, 3]
            ["one", "a text that is longer than any word", "four"]"#]],
    );
}

#[test]
fn a_rejected_row_has_no_output() {
    #[operator]
    fn some(row: Row<'_>) -> Result<Option<Id<'_>>, Reject> {
        match row.n {
            1 => Err("first".into()),
            2 => Ok(None),
            _ => Ok(Some(Id { id: row.id })),
        }
    }
    check::<some>(
        &rows(),
        expect![[r#"
            parents [2, 3]
            Values::Input(0)
            reject 0 first"#]],
    );
}

#[test]
fn a_row_that_cannot_be_read_is_rejected() {
    #[derive(Symbol)]
    enum Count {
        One,
        Four,
    }
    #[derive(Record)]
    struct Counted {
        other: Count,
    }
    #[operator]
    fn count(row: Counted) -> bool {
        matches!(row.other, Count::One | Count::Four)
    }
    #[derive(Record)]
    struct Text<'a> {
        other: &'a str,
    }
    let rows = rows().map(|row| Text { other: row.other });
    let Transformed { output, rejects } = count::transform(&(), &columns(&rows[..2]));
    let Output::Selection(kept) = output else {
        panic!("not a filter");
    };
    assert_eq!(kept, [0]);
    assert_eq!(rejects[0].row, 1);
    assert_eq!(
        rejects[0].reason,
        "field `other`: expected `one` or `four`, found ``"
    );
}
