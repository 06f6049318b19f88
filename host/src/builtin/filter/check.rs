//! Makes a typed expression of what was written, by the types of the fields that it reads.

use cel::common::ast::operators;
use cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue, SelectExpr};
use cel::{ParseErrors, Program};

use super::expression::{Calculation, Comparison, Decimal, Expression, Literal, Number, TextTest};
use crate::decimal::PRECISION_MAX;
use crate::schema::{DataType, Field};
use crate::suggest;
use crate::text::cut;
use crate::timestamp;

/// Why there is no expression.
#[derive(Debug, PartialEq, Eq)]
pub enum CheckError {
    /// A part of the text, what is wrong with it (it goes on from the part), and what helps.
    Wrong {
        part: String,
        problem: String,
        help: String,
    },
    /// The reader of fields has said it.
    Said,
}

/// Finds a field by its name, or a member by its path, and numbers those that are read.
pub trait Fields {
    /// `None` after it has told the user why there is none.
    fn number(&mut self, path: &str) -> Option<usize>;
    /// The field with this number.
    fn field(&self, number: usize) -> &Field;
}

/// Types of values, as far as expressions tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Null,
    Bool,
    Number(Number),
    Text,
    Bytes,
    Time,
}

type Typed = (Expression, Type);
type Checked = Result<Typed, CheckError>;

/// What is longer or nested deeper is a mistake, and would take the parser long, or more
/// stack than there is.
const TEXT_BYTES_MAX: usize = 4 << 10;
const NESTED_MAX: usize = 24;
/// How deep an expression is, with operators that follow each other.
const DEPTH_MAX: usize = 200;

/// Reads what is not too much for the parser.
fn compile(text: &str) -> Result<Program, CheckError> {
    let too_much = |problem: String| CheckError::Wrong {
        part: shortened(text),
        problem,
        help: "write a plugin for what takes so much to say".to_owned(),
    };
    if text.len() > TEXT_BYTES_MAX {
        return Err(too_much(format!("is longer than {TEXT_BYTES_MAX} bytes")));
    }
    if nested(text) > NESTED_MAX {
        return Err(too_much(format!("is nested more than {NESTED_MAX} times")));
    }
    Program::compile(text).map_err(|errors| not_parsed(text, &errors))
}

/// The condition of a filter.
pub fn check(text: &str, fields: &mut dyn Fields) -> Result<Expression, CheckError> {
    let program = compile(text)?;
    let mut checker = Checker {
        text,
        program: &program,
        fields,
        depth: 0,
        converts: false,
    };
    let whole = program.expression();
    let (expression, found) = checker.expression(whole)?;
    if found != Type::Bool {
        return Err(checker.wrong(
            whole,
            format!("is {}, which is neither true nor false", found.name()),
            "write what is true of the rows to keep, such as \"amount > 100\"",
        ));
    }
    Ok(expression)
}

/// A calculation with numbers, and the type of its results. A whole number beside a decimal
/// or a double is one, too.
pub fn check_number(
    text: &str,
    fields: &mut dyn Fields,
) -> Result<(Expression, DataType), CheckError> {
    let program = compile(text)?;
    let mut checker = Checker {
        text,
        program: &program,
        fields,
        depth: 0,
        converts: true,
    };
    let whole = program.expression();
    let (expression, found) = checker.expression(whole)?;
    let data_type = match found {
        Type::Number(Number::Int) => DataType::Int64,
        Type::Number(Number::Uint) => DataType::UInt64,
        Type::Number(Number::Double) => DataType::Float64,
        Type::Number(Number::Decimal) => {
            let scale = expression.scale(&|field| match checker.fields.field(field).data_type {
                DataType::Decimal { scale, .. } => scale,
                _ => 0,
            });
            if scale > PRECISION_MAX {
                let problem = format!("has {scale} digits behind its point");
                let help = format!("a decimal has {PRECISION_MAX} digits at most");
                return Err(checker.wrong(whole, problem, help));
            }
            let precision = PRECISION_MAX;
            DataType::Decimal { precision, scale }
        }
        found => {
            return Err(checker.wrong(
                whole,
                format!("is {}, which is no number", found.name()),
                "calculate with numbers, as in \"sum(price * quantity)\"",
            ));
        }
    };
    Ok((expression, data_type))
}

fn not_parsed(text: &str, errors: &ParseErrors) -> CheckError {
    let first = errors.errors.first();
    let reason = first.map(|error| error.msg.as_str()).unwrap_or_default();
    let column = first.map_or(0, |error| error.pos.1);
    CheckError::Wrong {
        part: shortened(text),
        problem: format!("is not an expression: at character {column}, {reason}"),
        help: "write an expression of CEL, such as \"amount > 100 && country == 'DE'\"".to_owned(),
    }
}

/// How deep brackets are nested, and `? :` within each other.
fn nested(text: &str) -> usize {
    let (mut depth, mut most) = (0_usize, 0);
    for character in text.chars() {
        match character {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        most = most.max(depth);
    }
    most + text.matches('?').count()
}

fn shortened(text: &str) -> String {
    const SHOWN_MAX: usize = 80;
    cut(text, SHOWN_MAX).into_owned()
}

struct Checker<'a> {
    text: &'a str,
    program: &'a Program,
    fields: &'a mut dyn Fields,
    depth: usize,
    /// Whether whole numbers are converted beside others, which CEL does not do.
    converts: bool,
}

const FUNCTIONS: [&str; 10] = [
    "size",
    "startsWith",
    "endsWith",
    "contains",
    "has",
    "int",
    "uint",
    "double",
    "decimal",
    "timestamp",
];

impl Checker<'_> {
    fn wrong(
        &self,
        at: &IdedExpr,
        problem: impl Into<String>,
        help: impl Into<String>,
    ) -> CheckError {
        let place = self.program.source_info().offset_for(at.id);
        let part: String = match place {
            Some((start, stop)) => {
                let length = stop.saturating_sub(start) as usize + 1;
                self.text
                    .chars()
                    .skip(start as usize)
                    .take(length)
                    .collect()
            }
            None => self.text.to_owned(),
        };
        CheckError::Wrong {
            part: shortened(&part),
            problem: problem.into(),
            help: help.into(),
        }
    }

    fn expression(&mut self, written: &IdedExpr) -> Checked {
        if self.depth == DEPTH_MAX {
            return Err(self.wrong(
                written,
                format!("is behind {DEPTH_MAX} others"),
                "write a plugin for what takes so much to say",
            ));
        }
        self.depth += 1;
        let checked = self.part(written);
        self.depth -= 1;
        checked
    }

    fn part(&mut self, written: &IdedExpr) -> Checked {
        match &written.expr {
            Expr::Literal(literal) => Ok(literal_of(literal)),
            Expr::Ident(name) => self.field(name),
            Expr::Select(select) => self.select(written, select),
            Expr::Call(call) => self.call(written, call),
            Expr::List(_) => Err(self.wrong(
                written,
                "is a list",
                "lists come behind `in`, as in \"country in ['DE', 'FR']\"",
            )),
            Expr::Comprehension(_) | Expr::Map(_) | Expr::Struct(_) | Expr::Unspecified => {
                Err(self.wrong(
                    written,
                    "makes no sense of a row",
                    "filters have no macros (but `has`), maps and structs",
                ))
            }
        }
    }

    fn field(&mut self, path: &str) -> Checked {
        let number = self.fields.number(path).ok_or(CheckError::Said)?;
        let field = self.fields.field(number);
        let found = Type::of(&field.data_type).ok_or_else(|| CheckError::Wrong {
            part: path.to_owned(),
            problem: format!("is a field of the type {}", field.data_type),
            help: "a filter reads no lists, and records by their members, as in \"meta.user\""
                .to_owned(),
        })?;
        Ok((Expression::Field(number), found))
    }

    /// `meta.user`, or `has(meta.user)`.
    fn select(&mut self, written: &IdedExpr, select: &SelectExpr) -> Checked {
        let Some(path) = path_of(&select.operand) else {
            return Err(self.wrong(
                written,
                "reads a member of what is no field",
                "write the names of a record and its members, as in \"meta.user\"",
            ));
        };
        let (field, found) = self.field(&format!("{path}.{}", select.field))?;
        if !select.test {
            return Ok((field, found));
        }
        let missing = Expression::Equal(both(field, Expression::Literal(Literal::Null)));
        Ok((Expression::Not(missing.into()), Type::Bool))
    }

    fn call(&mut self, written: &IdedExpr, call: &CallExpr) -> Checked {
        let target = call.target.as_deref().into_iter();
        let arguments: Vec<&IdedExpr> = target.chain(&call.args).collect();
        let name = call.func_name.as_str();
        match (name, arguments.as_slice()) {
            (operators::LOGICAL_NOT, [of]) => {
                let of = self.condition(of)?;
                Ok((Expression::Not(of.into()), Type::Bool))
            }
            (operators::LOGICAL_AND, [left, right]) => {
                let both = both(self.condition(left)?, self.condition(right)?);
                Ok((Expression::And(both), Type::Bool))
            }
            (operators::LOGICAL_OR, [left, right]) => {
                let both = both(self.condition(left)?, self.condition(right)?);
                Ok((Expression::Or(both), Type::Bool))
            }
            (operators::CONDITIONAL, [condition, one, other]) => {
                let condition = self.condition(condition)?;
                let (one, found) = self.expression(one)?;
                let (other_expression, other_found) = self.expression(other)?;
                let result = match (found, other_found) {
                    (Type::Null, other) => other,
                    (one, other) if one == other || other == Type::Null => one,
                    (one, other_found) => {
                        let problem = format!("is {}, not {}", other_found.name(), one.name());
                        let help = "both results of `? :` have the same type";
                        return Err(self.wrong(other, problem, help));
                    }
                };
                let parts = Box::new([condition, one, other_expression]);
                Ok((Expression::Either(parts), result))
            }
            (operators::EQUALS, [left, right]) => self.equal(written, left, right),
            (operators::NOT_EQUALS, [left, right]) => {
                let (equal, found) = self.equal(written, left, right)?;
                Ok((Expression::Not(equal.into()), found))
            }
            (operators::IN, [of, list]) => self.is_in(of, list),
            (operators::LESS, [left, right]) => {
                self.compare(written, Comparison::Less, left, right)
            }
            (operators::LESS_EQUALS, [left, right]) => {
                self.compare(written, Comparison::LessOrEqual, left, right)
            }
            (operators::GREATER, [left, right]) => {
                self.compare(written, Comparison::Greater, left, right)
            }
            (operators::GREATER_EQUALS, [left, right]) => {
                self.compare(written, Comparison::GreaterOrEqual, left, right)
            }
            (operators::ADD, [left, right]) => {
                self.calculate(written, Calculation::Add, left, right)
            }
            (operators::SUBSTRACT, [left, right]) => {
                self.calculate(written, Calculation::Subtract, left, right)
            }
            (operators::MULTIPLY, [left, right]) => {
                self.calculate(written, Calculation::Multiply, left, right)
            }
            (operators::DIVIDE, [left, right]) => {
                self.calculate(written, Calculation::Divide, left, right)
            }
            (operators::MODULO, [left, right]) => {
                self.calculate(written, Calculation::Remainder, left, right)
            }
            (operators::NEGATE, [of]) => match self.expression(of)? {
                (expression, found @ Type::Number(number)) if number != Number::Uint => {
                    Ok((Expression::Negative(expression.into()), found))
                }
                (_, found) => {
                    let problem = format!("is {}, which has no negative", found.name());
                    Err(self.wrong(of, problem, "only `int`, `double` and `decimal` have one"))
                }
            },
            ("size", [of]) => match self.expression(of)? {
                (expression, Type::Text | Type::Bytes) => Ok((
                    Expression::Size(expression.into()),
                    Type::Number(Number::Int),
                )),
                (_, found) => {
                    let problem = format!("is {}, which has no size", found.name());
                    Err(self.wrong(of, problem, "`size` is of texts and bytes"))
                }
            },
            ("startsWith", [text, part]) => self.text(TextTest::StartsWith, text, part),
            ("endsWith", [text, part]) => self.text(TextTest::EndsWith, text, part),
            ("contains", [text, part]) => self.text(TextTest::Contains, text, part),
            ("int", [of]) => self.convert(Number::Int, of),
            ("uint", [of]) => self.convert(Number::Uint, of),
            ("double", [of]) => self.convert(Number::Double, of),
            ("decimal", [of]) => self.convert(Number::Decimal, of),
            ("timestamp", [of]) => self.timestamp(of),
            (name, arguments) => {
                let help = match FUNCTIONS.contains(&name) {
                    true => format!("`{name}` takes another number of arguments"),
                    false => suggest::help(name, "functions", FUNCTIONS),
                };
                let problem = match FUNCTIONS.contains(&name) {
                    true => format!("gives `{name}` {} of them", arguments.len()),
                    false => format!("calls `{name}`, which is not a function of filters"),
                };
                Err(self.wrong(written, problem, help))
            }
        }
    }

    fn condition(&mut self, written: &IdedExpr) -> Result<Expression, CheckError> {
        match self.expression(written)? {
            (expression, Type::Bool) => Ok(expression),
            (_, found) => Err(self.wrong(
                written,
                format!("is {}, which is neither true nor false", found.name()),
                "`&&`, `||`, `!` and `? :` take conditions",
            )),
        }
    }

    fn equal(&mut self, written: &IdedExpr, left: &IdedExpr, right: &IdedExpr) -> Checked {
        let sides = [self.expression(left)?, self.expression(right)?];
        let [(left, one), (right, other)] = alike(sides);
        if !one.may_equal(other) {
            return Err(self.never_equal(written, one, other));
        }
        Ok((Expression::Equal(both(left, right)), Type::Bool))
    }

    fn never_equal(&self, written: &IdedExpr, one: Type, other: Type) -> CheckError {
        let problem = format!("compares {} with {}", one.name(), other.name());
        self.wrong(written, problem, help_to_compare(one, other))
    }

    fn is_in(&mut self, of: &IdedExpr, list: &IdedExpr) -> Checked {
        let (of, found) = self.expression(of)?;
        let Expr::List(elements) = &list.expr else {
            return Err(self.wrong(
                list,
                "is not a list",
                "write the values, as in \"country in ['DE', 'FR']\"",
            ));
        };
        let mut list = Vec::with_capacity(elements.elements.len());
        for element in &elements.elements {
            let (expression, other) = as_decimal_beside(found, self.expression(element)?);
            if !found.may_equal(other) {
                return Err(self.never_equal(element, found, other));
            }
            list.push(expression);
        }
        Ok((Expression::In(of.into(), list), Type::Bool))
    }

    fn compare(
        &mut self,
        written: &IdedExpr,
        comparison: Comparison,
        left: &IdedExpr,
        right: &IdedExpr,
    ) -> Checked {
        let sides = [self.expression(left)?, self.expression(right)?];
        let [(left, one), (right, other)] = alike(sides);
        if !one.may_equal(other) || one == Type::Null || other == Type::Null {
            return Err(self.never_equal(written, one, other));
        }
        let compare = Expression::Compare(comparison, both(left, right));
        Ok((compare, Type::Bool))
    }

    fn calculate(
        &mut self,
        written: &IdedExpr,
        calculation: Calculation,
        left: &IdedExpr,
        right: &IdedExpr,
    ) -> Checked {
        let sides = [self.expression(left)?, self.expression(right)?];
        let [left, right] = alike(sides);
        let [(left, one), (right, other)] = match self.converts {
            true => [
                converted_beside(right.1, left.clone()),
                converted_beside(left.1, right),
            ],
            false => [left, right],
        };
        let has_result = match one {
            Type::Number(Number::Decimal) => {
                !matches!(calculation, Calculation::Divide | Calculation::Remainder)
            }
            Type::Number(Number::Double) => calculation != Calculation::Remainder,
            Type::Number(_) => true,
            _ => false,
        };
        if one != other || !has_result {
            let problem = format!("calculates with {} and {}", one.name(), other.name());
            return Err(self.wrong(
                written,
                problem,
                "both have the same type of number (`5` is an int, `5u` a uint, `5.0` a double); \
                 `int()`, `uint()`, `double()` and `decimal()` convert; `%` is of integers, and \
                 decimals are not divided",
            ));
        }
        Ok((Expression::Calculate(calculation, both(left, right)), one))
    }

    fn text(&mut self, test: TextTest, text: &IdedExpr, part: &IdedExpr) -> Checked {
        let mut of = |written: &IdedExpr| match self.expression(written)? {
            (expression, Type::Text) => Ok(expression),
            (_, found) => {
                let problem = format!("is {}, not a text", found.name());
                let help = "it is called on a text with a text: \"name.startsWith('A')\"";
                Err(self.wrong(written, problem, help))
            }
        };
        let both = both(of(text)?, of(part)?);
        Ok((Expression::Text(test, both), Type::Bool))
    }

    fn convert(&mut self, number: Number, of: &IdedExpr) -> Checked {
        match self.expression(of)? {
            (_, Type::Number(Number::Double)) if number == Number::Decimal => Err(self.wrong(
                of,
                "is a double, which is no exact decimal",
                "only whole numbers are made decimals; numbers beside decimals are decimals",
            )),
            (expression, Type::Number(_)) => Ok((
                Expression::Convert(number, expression.into()),
                Type::Number(number),
            )),
            (_, found) => Err(self.wrong(
                of,
                format!("is {}, not a number", found.name()),
                "only numbers are converted",
            )),
        }
    }

    /// `timestamp('2024-01-01T00:00:00Z')`.
    fn timestamp(&mut self, of: &IdedExpr) -> Checked {
        let text = match &of.expr {
            Expr::Literal(LiteralValue::String(text)) => text.inner(),
            _ => "",
        };
        match timestamp::from_rfc3339(text.as_bytes()) {
            Some(ms) => Ok((Expression::Literal(Literal::Time(ms)), Type::Time)),
            None => Err(self.wrong(
                of,
                "is not a time",
                "write it with its zone, as in \"timestamp('2024-01-01T00:00:00Z')\"",
            )),
        }
    }
}

/// Two sides of an operator: a number beside a decimal is one, too.
fn alike([left, right]: [Typed; 2]) -> [Typed; 2] {
    let (one, other) = (left.1, right.1);
    [
        as_decimal_beside(other, left),
        as_decimal_beside(one, right),
    ]
}

/// A number that is written beside a decimal means the decimal number that it shows, which
/// a double can only be near to.
fn as_decimal_beside(other: Type, side: Typed) -> Typed {
    let decimal = match &side.0 {
        _ if other != Type::Number(Number::Decimal) => None,
        Expression::Literal(literal) => decimal_of(literal),
        Expression::Negative(of) => match &**of {
            Expression::Literal(literal) => decimal_of(literal).map(|decimal| Decimal {
                units: -decimal.units,
                ..decimal
            }),
            _ => None,
        },
        _ => None,
    };
    match decimal {
        Some(decimal) => (
            Expression::Literal(Literal::Decimal(decimal.into())),
            Type::Number(Number::Decimal),
        ),
        None => side,
    }
}

/// A whole number beside one of another type.
fn converted_beside(other: Type, side: Typed) -> Typed {
    match (side.1, other) {
        (
            Type::Number(Number::Int | Number::Uint),
            Type::Number(wanted @ (Number::Decimal | Number::Double)),
        ) => (
            Expression::Convert(wanted, side.0.into()),
            Type::Number(wanted),
        ),
        _ => side,
    }
}

fn decimal_of(literal: &Literal) -> Option<Decimal> {
    match literal {
        Literal::Int(int) => Decimal::of_literal(&int.to_string()),
        Literal::Uint(uint) => Decimal::of_literal(&uint.to_string()),
        // The shortest text that reads as this double is what was written.
        Literal::Double(double) => Decimal::of_literal(&double.to_string()),
        _ => None,
    }
}

fn both(left: Expression, right: Expression) -> Box<[Expression; 2]> {
    Box::new([left, right])
}

fn literal_of(literal: &LiteralValue) -> (Expression, Type) {
    let (literal, found) = match literal {
        LiteralValue::Null => (Literal::Null, Type::Null),
        LiteralValue::Boolean(bool) => (Literal::Bool(*bool.inner()), Type::Bool),
        LiteralValue::Int(int) => (Literal::Int(*int.inner()), Type::Number(Number::Int)),
        LiteralValue::UInt(uint) => (Literal::Uint(*uint.inner()), Type::Number(Number::Uint)),
        LiteralValue::Double(double) => (
            Literal::Double(*double.inner()),
            Type::Number(Number::Double),
        ),
        LiteralValue::String(text) => (Literal::Text(text.inner().to_owned()), Type::Text),
        LiteralValue::Bytes(bytes) => (Literal::Bytes(bytes.inner().to_vec()), Type::Bytes),
    };
    (Expression::Literal(literal), found)
}

/// The path of a field or member: `meta.user`.
fn path_of(written: &IdedExpr) -> Option<String> {
    match &written.expr {
        Expr::Ident(name) => Some(name.clone()),
        Expr::Select(select) if !select.test => {
            let path = path_of(&select.operand)?;
            Some(format!("{path}.{}", select.field))
        }
        _ => None,
    }
}

fn help_to_compare(one: Type, other: Type) -> &'static str {
    match (one, other) {
        (Type::Time, Type::Text) | (Type::Text, Type::Time) => {
            "write the time as in \"ts > timestamp('2024-01-01T00:00:00Z')\""
        }
        (Type::Number(Number::Decimal), _) | (_, Type::Number(Number::Decimal)) => {
            "decimals are compared with decimals and whole numbers; `double()` makes a double of one"
        }
        (Type::Null, _) | (_, Type::Null) => "a missing value is only compared by `==` and `!=`",
        _ => "values of one type are compared, and numbers of all types",
    }
}

impl Type {
    fn of(data_type: &DataType) -> Option<Type> {
        use DataType::{
            Bool, Bytes, Decimal, Float32, Float64, Int8, Int16, Int32, Int64, List, Record,
            Symbol, Timestamp, UInt8, UInt16, UInt32, UInt64, Utf8,
        };
        Some(match data_type {
            Bool => Type::Bool,
            Int8 | Int16 | Int32 | Int64 => Type::Number(Number::Int),
            UInt8 | UInt16 | UInt32 | UInt64 => Type::Number(Number::Uint),
            Float32 | Float64 => Type::Number(Number::Double),
            Decimal { .. } => Type::Number(Number::Decimal),
            Utf8 | Symbol(_) => Type::Text,
            Bytes => Type::Bytes,
            Timestamp => Type::Time,
            List(_) | Record(_) => return None,
        })
    }

    fn may_equal(self, other: Type) -> bool {
        let are_numbers = match (self, other) {
            (Type::Number(one), Type::Number(other)) => {
                // A decimal of many digits and a double can only be near to each other.
                let [decimal, double] = [Number::Decimal, Number::Double];
                (one, other) != (decimal, double) && (one, other) != (double, decimal)
            }
            _ => false,
        };
        self == other || are_numbers || self == Type::Null || other == Type::Null
    }

    /// As in messages.
    fn name(self) -> &'static str {
        match self {
            Type::Null => "a missing value",
            Type::Bool => "a bool",
            Type::Number(Number::Int) => "an int",
            Type::Number(Number::Uint) => "a uint",
            Type::Number(Number::Double) => "a double",
            Type::Number(Number::Decimal) => "a decimal",
            Type::Text => "a text",
            Type::Bytes => "bytes",
            Type::Time => "a time",
        }
    }
}
