//! Reads calls of functions as a pipeline's file has them: `top(3, amount)`.

use std::fmt;

use crate::suggest;

/// A function, and the field whose values it combines.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    pub function: Function,
    /// Absent for [`Function::CountRows`] alone. It may also be a calculation with fields, as
    /// it is written.
    pub field: Option<String>,
}

impl Call {
    /// `count()`.
    pub const ROWS: Call = Call {
        function: Function::CountRows,
        field: None,
    };
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Function {
    /// `count()`, of rows.
    CountRows,
    /// `count(field)`, of values.
    Count,
    CountDistinct,
    /// By a sketch.
    ApproxCountDistinct,
    Sum,
    Mean,
    Variance,
    Stddev,
    Min,
    Max,
    First,
    Last,
    /// The largest values, this many at most.
    Top(usize),
    Median,
    /// What this share of the values is not larger than, by a sketch.
    Quantile(f64),
}

/// Why a text is not a call, and what helps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallError {
    /// Goes on from "it …".
    pub problem: String,
    pub help: String,
}

/// The functions of one field: their names, and how they are called.
const OF_FIELD: &[(&str, Function)] = &[
    ("count", Function::Count),
    ("count_distinct", Function::CountDistinct),
    ("approx_count_distinct", Function::ApproxCountDistinct),
    ("sum", Function::Sum),
    ("mean", Function::Mean),
    ("variance", Function::Variance),
    ("stddev", Function::Stddev),
    ("min", Function::Min),
    ("max", Function::Max),
    ("first", Function::First),
    ("last", Function::Last),
    ("median", Function::Median),
];

const QUANTILE: &str = "quantile";
const TOP: &str = "top";
/// A result with more values is a mistake.
pub const TOP_MAX: usize = 1_000;

/// Names from other languages that no suggestion by spelling would find.
const ALIASES: &[(&str, &str)] = &[
    ("avg", "mean"),
    ("average", "mean"),
    ("var", "variance"),
    ("std", "stddev"),
    ("largest", TOP),
    ("unique", "count_distinct"),
    ("distinct", "count_distinct"),
    ("approx_distinct", "approx_count_distinct"),
    ("percentile", QUANTILE),
    ("approx_quantile", QUANTILE),
    ("approx_percentile", QUANTILE),
];

impl Call {
    pub fn parse(text: &str) -> Result<Call, CallError> {
        let written = text.trim();
        let (name, rest) = match written.split_once('(') {
            Some((name, rest)) => (name.trim(), rest.trim_end()),
            None => (written, ""),
        };
        let example = example(name);
        let Some(arguments) = rest.strip_suffix(')') else {
            return Err(CallError {
                problem: "is not a call of a function".to_owned(),
                help: format!("write a name and its arguments, such as \"{example}\""),
            });
        };
        let arguments: Vec<&str> = match arguments.trim() {
            "" => Vec::new(),
            arguments => split(arguments),
        };
        if let Some(bad) = arguments.iter().find(|argument| !is_argument(argument)) {
            return Err(CallError {
                problem: format!("has the argument `{bad}`, which is no name of a field"),
                help: format!(
                    "write the names of fields as they are, such as \"{example}\"; functions \
                     do not nest"
                ),
            });
        }
        let wrong_arguments = |takes: &str| CallError {
            problem: format!("gives `{name}` {}", counted(arguments.len())),
            help: format!("it takes {takes}, as in \"{example}\""),
        };
        let call = |function, field: &str| Call {
            function,
            field: Some(field.to_owned()),
        };
        match (name, arguments.as_slice()) {
            ("count", []) => Ok(Call::ROWS),
            (TOP, [number, field]) => match number.parse() {
                Ok(number) if (1..=TOP_MAX).contains(&number) => {
                    Ok(call(Function::Top(number), field))
                }
                _ => Err(CallError {
                    problem: format!("asks `{TOP}` for `{number}` values"),
                    help: format!(
                        "write a whole number from 1 to {TOP_MAX} before the field, as in \
                         \"{example}\""
                    ),
                }),
            },
            (TOP, _) => Err(wrong_arguments("a number and a field")),
            (QUANTILE, [field, share]) => match share.parse() {
                Ok(share) if (0.0..=1.0).contains(&share) => {
                    Ok(call(Function::Quantile(share), field))
                }
                _ => Err(CallError {
                    problem: format!("asks `{QUANTILE}` for the share `{share}`"),
                    help: format!(
                        "write a number from 0 to 1 behind the field, as in \"{example}\""
                    ),
                }),
            },
            (QUANTILE, _) => Err(wrong_arguments("a field and a number from 0 to 1")),
            (name, arguments) => match OF_FIELD.iter().find(|(known, _)| *known == name) {
                Some((_, function)) => match arguments {
                    [field] => Ok(call(*function, field)),
                    _ => Err(wrong_arguments("one field")),
                },
                None => Err(unknown(name)),
            },
        }
    }
}

/// The arguments, between commas that are in no brackets.
fn split(arguments: &str) -> Vec<&str> {
    let mut depth = 0_usize;
    let is_between = |character| {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        character == ',' && depth == 0
    };
    arguments.split(is_between).map(str::trim).collect()
}

fn is_argument(text: &str) -> bool {
    let name = text.split('(').next().unwrap_or_default().trim();
    let nests = name.len() < text.len() && OF_FIELD.iter().any(|(known, _)| *known == name);
    !(text.is_empty() || nests || text.contains(['"', '\'']))
}

fn counted(arguments: usize) -> String {
    match arguments {
        0 => "no argument".to_owned(),
        1 => "one argument".to_owned(),
        count => format!("{count} arguments"),
    }
}

fn example(name: &str) -> String {
    match name {
        TOP => "top(3, amount)".to_owned(),
        QUANTILE => "quantile(amount, 0.95)".to_owned(),
        name if OF_FIELD.iter().any(|(known, _)| *known == name) => format!("{name}(amount)"),
        _ => "sum(amount)".to_owned(),
    }
}

fn unknown(name: &str) -> CallError {
    let names = OF_FIELD
        .iter()
        .map(|(name, _)| *name)
        .chain([TOP, QUANTILE]);
    let meant = ALIASES.iter().find(|(alias, _)| *alias == name);
    let help = match meant {
        Some((_, meant)) => format!("did you mean `{meant}`?"),
        None => suggest::help(name, "functions", names),
    };
    CallError {
        problem: format!("calls `{name}`, which is not a function"),
        help,
    }
}

/// As in a pipeline's file, always spelt alike.
impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field = self.field.as_deref().unwrap_or_default();
        match self.function {
            Function::CountRows => f.write_str("count()"),
            Function::Top(number) => write!(f, "{TOP}({number}, {field})"),
            Function::Quantile(share) => write!(f, "{QUANTILE}({field}, {share})"),
            function => {
                let known = OF_FIELD.iter().find(|(_, known)| *known == function);
                write!(f, "{}({field})", known.map_or("", |(name, _)| name))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_read_and_shown() {
        let texts = [
            ("count()", "count()"),
            (" count ( ) ", "count()"),
            ("count(amount)", "count(amount)"),
            ("top( 3 ,amount )", "top(3, amount)"),
            ("stddev(x y-z)", "stddev(x y-z)"),
            ("quantile(x, .950)", "quantile(x, 0.95)"),
            ("sum( price * (a - b) )", "sum(price * (a - b))"),
            ("top(2, int(x) + 1)", "top(2, int(x) + 1)"),
        ];
        for (text, shown) in texts {
            let call = Call::parse(text).unwrap_or_else(|e| panic!("{text}: {e:?}"));
            assert_eq!(call.to_string(), shown);
            assert_eq!(Call::parse(shown), Ok(call));
        }
        for (name, function) in OF_FIELD {
            let call = Call::parse(&format!("{name}(x)")).map(|call| call.function);
            assert_eq!(call, Ok(*function));
        }
    }

    #[test]
    fn what_is_no_call_is_explained() {
        let said = |text: &str| match Call::parse(text) {
            Ok(call) => panic!("{text} is {call:?}"),
            Err(error) => format!("{}; {}", error.problem, error.help),
        };
        let texts = [
            "",
            "count",
            "sum(amount",
            "sum()",
            "sum(a, b)",
            "sum(count(a))",
            "top(amount)",
            "top(0, amount)",
            "top(amount, 3)",
            "quantile(amount)",
            "quantile(amount, 95)",
            "quantile(amount, NaN)",
            "summ(amount)",
            "avg(amount)",
        ];
        let said: Vec<String> = texts.iter().map(|text| said(text)).collect();
        expect_test::expect![[r#"
            is not a call of a function; write a name and its arguments, such as "sum(amount)"
            is not a call of a function; write a name and its arguments, such as "count(amount)"
            is not a call of a function; write a name and its arguments, such as "sum(amount)"
            gives `sum` no argument; it takes one field, as in "sum(amount)"
            gives `sum` 2 arguments; it takes one field, as in "sum(amount)"
            has the argument `count(a)`, which is no name of a field; write the names of fields as they are, such as "sum(amount)"; functions do not nest
            gives `top` one argument; it takes a number and a field, as in "top(3, amount)"
            asks `top` for `0` values; write a whole number from 1 to 1000 before the field, as in "top(3, amount)"
            asks `top` for `amount` values; write a whole number from 1 to 1000 before the field, as in "top(3, amount)"
            gives `quantile` one argument; it takes a field and a number from 0 to 1, as in "quantile(amount, 0.95)"
            asks `quantile` for the share `95`; write a number from 0 to 1 behind the field, as in "quantile(amount, 0.95)"
            asks `quantile` for the share `NaN`; write a number from 0 to 1 behind the field, as in "quantile(amount, 0.95)"
            calls `summ`, which is not a function; did you mean `sum`? The functions are: count, count_distinct, approx_count_distinct, sum, mean, variance, stddev, min, max, first, last, median, top, quantile
            calls `avg`, which is not a function; did you mean `mean`?"#]].assert_eq(&said.join("\n"));
    }
}
