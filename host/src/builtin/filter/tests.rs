//! Checks expressions, and evaluates them.

use arrow_array::{
    ArrayRef, BinaryArray, BooleanArray, Decimal128Array, Float64Array, Int64Array, StringArray,
    TimestampMillisecondArray, UInt8Array,
};

use super::*;
use crate::schema::{DataType, Field};

/// Fields that are all read.
struct Known(Vec<Field>);

impl Fields for Known {
    fn number(&mut self, path: &str) -> Option<usize> {
        self.0.iter().position(|field| field.name == path)
    }

    fn field(&self, number: usize) -> &Field {
        &self.0[number]
    }
}

/// Three rows: the usual, large and odd values, and missing ones.
fn rows() -> (Known, Vec<ArrayRef>) {
    let times = TimestampMillisecondArray::from(vec![Some(0), Some(1_704_067_200_000), None]);
    let (fields, columns): (Vec<Field>, Vec<ArrayRef>) = [
        (
            "yes",
            DataType::Bool,
            Arc::new(BooleanArray::from(vec![Some(true), Some(false), None])) as ArrayRef,
        ),
        (
            "n",
            DataType::Int64,
            Arc::new(Int64Array::from(vec![Some(5), Some(i64::MAX), None])),
        ),
        (
            "u",
            DataType::UInt8,
            Arc::new(UInt8Array::from(vec![Some(5), Some(0), None])),
        ),
        (
            "x",
            DataType::Float64,
            Arc::new(Float64Array::from(vec![Some(5.5), Some(f64::NAN), None])),
        ),
        (
            "text",
            DataType::Utf8,
            Arc::new(StringArray::from(vec![
                Some("DE"),
                Some("Österreich"),
                None,
            ])),
        ),
        (
            "raw",
            DataType::Bytes,
            Arc::new(BinaryArray::from(vec![Some(&b"ab"[..]), Some(b""), None])),
        ),
        (
            "ts",
            DataType::Timestamp,
            Arc::new(times.with_timezone("UTC")),
        ),
        (
            "meta.user",
            DataType::Utf8,
            Arc::new(StringArray::from(vec![Some("ann"), Some("bob"), None])),
        ),
        (
            "price",
            DataType::Decimal {
                precision: 38,
                scale: 2,
            },
            Arc::new(decimals(2, [Some(550), Some(10_i128.pow(38) - 1), None])),
        ),
        (
            "rate",
            DataType::Decimal {
                precision: 38,
                scale: 37,
            },
            Arc::new(decimals(37, [Some(5 * 10_i128.pow(36)), Some(1), None])),
        ),
        (
            "tags",
            DataType::List(Arc::new(Field::new("item", DataType::Utf8, false))),
            Arc::new(Int64Array::from(vec![0; 3])),
        ),
    ]
    .into_iter()
    .map(|(name, data_type, column)| (Field::new(name, data_type, true), column))
    .unzip();
    (Known(fields), columns)
}

fn decimals(scale: i8, units: [Option<i128>; 3]) -> Decimal128Array {
    let units = Decimal128Array::from(units.to_vec());
    let digits = units.with_precision_and_scale(38, scale);
    digits.unwrap_or_else(|error| panic!("{error}"))
}

/// What becomes of each row: `+` kept, `-` not, or why it is rejected.
fn outcome(text: &str) -> String {
    let (mut fields, columns) = rows();
    let expression = match check(text, &mut fields) {
        Ok(expression) => expression,
        Err(CheckError::Said) => return "no such field".to_owned(),
        Err(CheckError::Wrong {
            part,
            problem,
            help,
        }) => {
            return format!("`{part}` {problem}; {help}");
        }
    };
    let selected = fields.0.iter().enumerate().map(|(column, field)| Selected {
        field: field.clone(),
        column,
        members: Vec::new(),
    });
    // Lists are not read.
    let selected = selected.take(columns.len() - 1).collect();
    let filter = Filter::new(Schema::new(fields.0.clone()), selected, expression);
    let instance = filter.instance().and_then(Instance::transform);
    let mut instance = instance.unwrap_or_else(|e| panic!("{e}"));
    let input = Columns {
        rows: 3,
        columns: &columns,
    };
    let transformed = instance.transform(input);
    let transformed = transformed.unwrap_or_else(|e| panic!("{e}"));
    let Output::Selection(kept) = transformed.output else {
        panic!("a filter selects rows");
    };
    let of_row = |row: u32| {
        let reject = transformed.rejects.iter().find(|reject| reject.row == row);
        match reject {
            Some(reject) => format!("({})", reject.reason),
            None if kept.contains(&row) => "+".to_owned(),
            None => "-".to_owned(),
        }
    };
    (0..3).map(of_row).collect::<Vec<_>>().join(" ")
}

#[test]
fn rows_are_kept_for_which_the_expression_is_true() {
    // `!` stands for a row that is rejected.
    let cases = [
        ("n > 4", "++!"),
        ("n > 4 && text == 'DE'", "+--"),
        ("n == 5", "+--"),
        ("n != 5", "-++"),
        ("n == null", "--+"),
        ("n != null && n < 6", "+--"),
        ("n == null || n < 6", "+-+"),
        ("yes", "+-!"),
        ("!yes", "-+!"),
        ("yes || true", "+++"),
        ("yes && false", "---"),
        ("u == 5", "+--"),
        ("u < n", "-+!"),
        ("x > 5", "+-!"),
        ("x < 5", "--!"),
        ("x == x", "+-+"),
        ("n < x", "+-!"),
        ("n + 1 > 0", "+!!"),
        ("-n < 0", "++!"),
        ("n * 2 > 0 || true", "+++"),
        ("u - 1u >= 0u", "+!!"),
        ("10 / int(u) == 2", "+!!"),
        ("10 % int(u) == 0", "+!!"),
        ("x / 0.0 > 0.0", "+-!"),
        ("int(x) == 5", "+!!"),
        ("double(n) > 5.0", "-+!"),
        ("uint(n) == 5u", "+-!"),
        ("text in ['DE', 'FR']", "+--"),
        ("!(text in ['DE', 'FR'])", "-++"),
        ("text.startsWith('Ö') || text.endsWith('E')", "++!"),
        ("text.contains('E')", "+-!"),
        ("size(text) == 10", "-+!"),
        ("text.size() == 2", "+-!"),
        ("size(raw) == 2", "+-!"),
        ("raw == b'ab'", "+--"),
        ("ts >= timestamp('2024-01-01T00:00:00Z')", "-+!"),
        ("ts == timestamp('2024-01-01T01:00:00+01:00')", "-+-"),
        ("has(meta.user)", "++-"),
        ("meta.user == 'ann'", "+--"),
        ("yes ? n > 4 : u == 0", "++!"),
        ("text > 'E'", "-+!"),
        ("price == 5.5", "+--"),
        ("price == 5.50 && 5.5 == price", "+--"),
        ("price > 5", "++!"),
        ("price >= -0.01", "++!"),
        ("price < n", "--!"),
        ("n <= price", "++!"),
        ("price in [1, 5.5]", "+--"),
        ("price > rate", "++!"),
        ("rate < price", "++!"),
        ("price == rate", "--+"),
        ("rate == 0.5", "+--"),
        ("price + 0.05 == 5.55", "+!!"),
        ("price - 5.5 == 0", "+-!"),
        ("5 - price < 0", "++!"),
        ("-price < 0.0", "++!"),
        ("price * 2 == 11", "+!!"),
        ("price * price == 30.25", "+!!"),
        ("price + rate == 6", "+!!"),
        ("price + decimal(n) == 10.5", "+!!"),
        ("double(price) == 5.5", "+-!"),
        ("int(price) == 5", "+!!"),
        ("int(-price) == -5", "+!!"),
        ("price == null", "--+"),
        ("true", "+++"),
    ];
    for (text, expected) in cases {
        let outcome = outcome(text);
        let rows = outcome.replace(' ', "");
        // Reasons have brackets around them.
        let mut short = String::new();
        let mut depth = 0;
        for character in rows.chars() {
            match character {
                '(' => {
                    depth += 1;
                    if depth == 1 {
                        short.push('!');
                    }
                }
                ')' => depth -= 1,
                other if depth == 0 => short.push(other),
                _ => {}
            }
        }
        assert_eq!(short, expected, "{text}: {outcome}");
    }
}

#[test]
fn a_rejected_row_says_what_is_wrong_with_it() {
    let cases = [
        (
            "n > 4",
            "`n` is missing: a filter that takes such rows says so, as in `n != null && …`",
        ),
        ("n + 1 > 0", "a number is too large for its type"),
        ("10 / int(u) == 2", "it divides by zero"),
        ("yes", "the expression has no value"),
    ];
    for (text, reason) in cases {
        let outcome = outcome(text);
        assert!(
            outcome.contains(&format!("({reason})")),
            "{text}: {outcome}"
        );
    }
}

#[test]
fn what_is_no_condition_is_explained() {
    let cases = [
        ("", "is not an expression"),
        ("n >", "is not an expression"),
        ("n > 4)", "is not an expression"),
        ("n", "is an int, which is neither true nor false"),
        ("n + 1", "is an int, which is neither true nor false"),
        ("nn > 4", "no such field"),
        ("n == 'DE'", "compares an int with a text"),
        ("n > null", "compares an int with a missing value"),
        ("text > 4", "compares a text with an int"),
        ("x * 2 > 4.0", "calculates with a double and an int"),
        ("x % 2.0 == 0.0", "calculates with a double and a double"),
        ("text + 'a' == 'DEa'", "calculates with a text and a text"),
        ("price > x", "compares a decimal with a double"),
        ("price == 'DE'", "compares a decimal with a text"),
        ("price + n > 5", "calculates with a decimal and an int"),
        ("price / 2 > 5", "calculates with a decimal and a decimal"),
        ("decimal(x) > 5", "is a double, which is no exact decimal"),
        ("-u < 0", "is a uint, which has no negative"),
        ("n && yes", "is an int, which is neither true nor false"),
        ("tags == null", "is a field of the type"),
        ("'DE' in tags", "is not a list"),
        ("text in ['DE', 5]", "compares a text with an int"),
        ("ts > '2024-01-01T00:00:00Z'", "compares a time with a text"),
        ("ts > timestamp('yesterday')", "is not a time"),
        ("size(n) > 4", "is an int, which has no size"),
        (
            "startWith(text, 'D')",
            "calls `startWith`, which is not a function of filters",
        ),
        ("text.startsWith('D', 'E')", "gives `startsWith` 3 of them"),
        ("text.startsWith(5)", "is an int, not a text"),
        ("[1, 2].exists(i, i == n)", "makes no sense of a row"),
        ("yes ? n : text", "is a text, not an int"),
        ("int(text) == 5", "is a text, not a number"),
    ];
    for (text, problem) in cases {
        let outcome = outcome(text);
        assert!(outcome.contains(problem), "{text}: {outcome}");
    }
}

/// Numbers of several types are compared by their exact values.
#[test]
fn numbers_are_compared_exactly() {
    let numbers = [
        "-1",
        "0",
        "9007199254740993",
        "9223372036854775807",
        "0u",
        "18446744073709551615u",
    ];
    let floats = [
        "-1.5",
        "-0.0",
        "0.5",
        "9007199254740992.0",
        "9223372036854775808.0",
        "1e300",
    ];
    let exact = |text: &str| match text.trim_end_matches('u').parse::<i128>() {
        Ok(integer) => (integer, 0.0),
        Err(_) => {
            let float: f64 = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            (float.floor() as i128, float - float.floor())
        }
    };
    for left in numbers.iter().chain(&floats) {
        for right in numbers.iter().chain(&floats) {
            let is_less = exact(left) < exact(right);
            let is_equal = exact(left) == exact(right);
            let tests = [
                (format!("{left} < {right}"), is_less),
                (format!("{left} == {right}"), is_equal),
                (format!("{left} >= {right}"), !is_less),
                (format!("{left} > {right}"), !is_less && !is_equal),
            ];
            for (text, holds) in tests {
                let expected = if holds { "+ + +" } else { "- - -" };
                assert_eq!(outcome(&text), expected, "{text}");
            }
        }
    }
}

/// Whatever is written, the parser comes back.
#[test]
fn odd_texts_are_refused() {
    let texts = [
        "(".repeat(10_000),
        format!("{}n{} > 0", "(".repeat(200), ")".repeat(200)),
        "!".repeat(10_000),
        "a.".repeat(5_000),
        "n > 4 && ".repeat(100),
        format!("{} > 0", vec!["n"; 1_000].join("+")),
        format!("{}n > 0", "yes ? yes : ".repeat(300)),
        "a.".repeat(2_000),
        "!".repeat(4_000),
        "-".repeat(4_000),
        "[".repeat(5_000),
        "'".to_owned(),
        "\u{0}".to_owned(),
        "💩 > 4".to_owned(),
        "n\n>\n'".to_owned(),
        "x".repeat(100_000),
    ];
    for text in texts {
        let outcome = outcome(&text);
        assert!(outcome != "+ + +", "{outcome}");
    }
    // What is not too much.
    let nested = format!("{}n == 5{}", "(".repeat(24), ")".repeat(24));
    assert_eq!(outcome(&nested), "+ - -");
    let many = vec!["n == 5"; 150].join(" || ");
    assert_eq!(outcome(&many), "+ - -");
    let sum = format!("{} > 0", vec!["u"; 150].join("+"));
    assert_eq!(
        outcome(&sum),
        "+ - (`u` is missing: a filter that takes such rows says so, as in `u != null && …`)"
    );
}
