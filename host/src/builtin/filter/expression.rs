//! A typed expression, and its value for a row.
//!
//! The rules are those of CEL: numbers are compared across their types, and calculated
//! with only within them; what leaves its type is an error; a missing value (`null`) equals
//! only another one, and everything else with it is an error; `&&` and `||` have a value
//! where one side decides it, although the other is an error.

use std::borrow::Cow;
use std::cmp::Ordering;

use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMillisecondType;
use arrow_array::{Array, ArrayRef, BinaryArray, BooleanArray, StringArray};
use arrow_buffer::NullBuffer;
use arrow_schema::DataType as ArrowType;

use crate::builtin::values::{floats, integers, naturals, units};
use crate::decimal::{self, PRECISION_MAX};

#[derive(Clone, Debug, PartialEq)]
pub enum Expression {
    Literal(Literal),
    /// The field with this number.
    Field(usize),
    Not(Box<Expression>),
    Negative(Box<Expression>),
    And(Box<[Expression; 2]>),
    Or(Box<[Expression; 2]>),
    /// `condition ? one : other`.
    Either(Box<[Expression; 3]>),
    Equal(Box<[Expression; 2]>),
    /// Whether the first one is one of these.
    In(Box<Expression>, Vec<Expression>),
    Compare(Comparison, Box<[Expression; 2]>),
    Calculate(Calculation, Box<[Expression; 2]>),
    Text(TextTest, Box<[Expression; 2]>),
    Size(Box<Expression>),
    Convert(Number, Box<Expression>),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    /// In a box, since it is larger than all others.
    Decimal(Box<Decimal>),
    Text(String),
    Bytes(Vec<u8>),
    /// In ms since 1970.
    Time(i64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calculation {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextTest {
    StartsWith,
    EndsWith,
    Contains,
}

/// Types of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Number {
    Int,
    Uint,
    Double,
    Decimal,
}

/// A decimal: its units, and how many digits are behind its point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decimal {
    pub units: i128,
    pub scale: u8,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Decimal(Decimal),
    Text(&'a str),
    Bytes(&'a [u8]),
    Time(i64),
}

/// Why there is no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoValue {
    /// Of the field with this number, if it is one.
    Missing(Option<usize>),
    Overflow,
    DivisionByZero,
    /// The checker lets no such expression pass.
    WrongType,
}

impl NoValue {
    pub fn in_words<'a>(self, name: impl Fn(usize) -> &'a str) -> String {
        match self {
            NoValue::Missing(Some(field)) => format!(
                "`{0}` is missing: a filter that takes such rows says so, as in \
                 `{0} != null && …`",
                name(field)
            ),
            NoValue::Missing(None) => "a value that it needs is missing".to_owned(),
            NoValue::Overflow => "a number is too large for its type".to_owned(),
            NoValue::DivisionByZero => "it divides by zero".to_owned(),
            NoValue::WrongType => "a value has another type than it needs".to_owned(),
        }
    }
}

/// A column of a field.
pub enum View<'a> {
    Bools(&'a BooleanArray),
    Ints(Cow<'a, [i64]>, Option<&'a NullBuffer>),
    Uints(Cow<'a, [u64]>, Option<&'a NullBuffer>),
    Doubles(Cow<'a, [f64]>, Option<&'a NullBuffer>),
    Decimals(&'a [i128], u8, Option<&'a NullBuffer>),
    Texts(&'a StringArray),
    Bytes(&'a BinaryArray),
    Times(&'a [i64], Option<&'a NullBuffer>),
}

impl<'a> View<'a> {
    /// Of a column of a type that the checker lets pass.
    pub fn of(column: &'a ArrayRef) -> Self {
        let nulls = column.nulls();
        match column.data_type() {
            ArrowType::Boolean => View::Bools(column.as_boolean()),
            ArrowType::Utf8 => View::Texts(column.as_string::<i32>()),
            ArrowType::Binary => View::Bytes(column.as_binary::<i32>()),
            ArrowType::Float32 | ArrowType::Float64 => View::Doubles(floats(column), nulls),
            ArrowType::UInt8 | ArrowType::UInt16 | ArrowType::UInt32 | ArrowType::UInt64 => {
                View::Uints(naturals(column), nulls)
            }
            ArrowType::Decimal128(_, scale) => {
                View::Decimals(units(column), scale.unsigned_abs(), nulls)
            }
            ArrowType::Timestamp(_, _) => {
                let times = column.as_primitive::<TimestampMillisecondType>();
                View::Times(times.values(), nulls)
            }
            _ => View::Ints(integers(column), nulls),
        }
    }

    fn value(&self, row: usize) -> Value<'_> {
        let is_null = match self {
            View::Bools(column) => column.is_null(row),
            View::Texts(column) => column.is_null(row),
            View::Bytes(column) => column.is_null(row),
            View::Ints(_, nulls)
            | View::Uints(_, nulls)
            | View::Doubles(_, nulls)
            | View::Decimals(_, _, nulls)
            | View::Times(_, nulls) => nulls.is_some_and(|nulls| nulls.is_null(row)),
        };
        if is_null {
            return Value::Null;
        }
        match self {
            View::Bools(column) => Value::Bool(column.value(row)),
            View::Ints(values, _) => Value::Int(values[row]),
            View::Uints(values, _) => Value::Uint(values[row]),
            View::Doubles(values, _) => Value::Double(values[row]),
            View::Decimals(values, scale, _) => Value::Decimal(Decimal {
                units: values[row],
                scale: *scale,
            }),
            View::Texts(column) => Value::Text(column.value(row)),
            View::Bytes(column) => Value::Bytes(column.value(row)),
            View::Times(values, _) => Value::Time(values[row]),
        }
    }
}

type Found<'a> = Result<Value<'a>, NoValue>;

impl Expression {
    /// Its value for a row of the fields.
    pub fn value<'a>(&'a self, fields: &'a [View<'_>], row: usize) -> Found<'a> {
        match self {
            Expression::Literal(literal) => Ok(literal.value()),
            Expression::Field(field) => Ok(fields[*field].value(row)),
            Expression::Not(of) => Ok(Value::Bool(!of.bool(fields, row)?)),
            Expression::Negative(of) => match of.known(fields, row)? {
                Value::Int(int) => int.checked_neg().map(Value::Int).ok_or(NoValue::Overflow),
                Value::Double(double) => Ok(Value::Double(-double)),
                Value::Decimal(Decimal { units, scale }) => Ok(Value::Decimal(Decimal {
                    units: -units,
                    scale,
                })),
                _ => Err(NoValue::WrongType),
            },
            Expression::And(both) => decided(both, false, fields, row),
            Expression::Or(both) => decided(both, true, fields, row),
            Expression::Either(parts) => {
                let [condition, one, other] = &**parts;
                match condition.bool(fields, row)? {
                    true => one.value(fields, row),
                    false => other.value(fields, row),
                }
            }
            Expression::Equal(both) => {
                let [left, right] = &**both;
                let (left, right) = (left.value(fields, row)?, right.value(fields, row)?);
                Ok(Value::Bool(left.equals(right)))
            }
            Expression::In(of, list) => {
                let value = of.value(fields, row)?;
                let mut found = Ok(false);
                for element in list {
                    match element.value(fields, row) {
                        Ok(element) if value.equals(element) => return Ok(Value::Bool(true)),
                        Ok(_) => {}
                        Err(error) => found = Err(error),
                    }
                }
                found.map(Value::Bool)
            }
            Expression::Compare(comparison, both) => {
                let [left, right] = &**both;
                let (left, right) = (left.known(fields, row)?, right.known(fields, row)?);
                Ok(Value::Bool(comparison.holds(left.compare(right)?)))
            }
            Expression::Calculate(calculation, both) => {
                let [left, right] = &**both;
                calculation.result(left.known(fields, row)?, right.known(fields, row)?)
            }
            Expression::Text(test, both) => {
                let [text, part] = &**both;
                match (text.known(fields, row)?, part.known(fields, row)?) {
                    (Value::Text(text), Value::Text(part)) => Ok(Value::Bool(match test {
                        TextTest::StartsWith => text.starts_with(part),
                        TextTest::EndsWith => text.ends_with(part),
                        TextTest::Contains => text.contains(part),
                    })),
                    _ => Err(NoValue::WrongType),
                }
            }
            Expression::Size(of) => match of.known(fields, row)? {
                Value::Text(text) => Ok(Value::Int(text.chars().count() as i64)),
                Value::Bytes(bytes) => Ok(Value::Int(bytes.len() as i64)),
                _ => Err(NoValue::WrongType),
            },
            Expression::Convert(number, of) => number.of(of.known(fields, row)?),
        }
    }

    /// How many digits its decimals have behind the point; `of_field` knows those of fields.
    pub fn scale(&self, of_field: &impl Fn(usize) -> u8) -> u8 {
        let scales = |both: &[Expression; 2]| both.each_ref().map(|of| of.scale(of_field));
        match self {
            Expression::Literal(Literal::Decimal(decimal)) => decimal.scale,
            Expression::Field(field) => of_field(*field),
            Expression::Negative(of) | Expression::Convert(_, of) => of.scale(of_field),
            Expression::Calculate(Calculation::Multiply, both) => {
                let [left, right] = scales(both);
                left.saturating_add(right)
            }
            Expression::Calculate(_, both) => {
                let [left, right] = scales(both);
                left.max(right)
            }
            Expression::Either(parts) => {
                let [_, one, other] = parts.each_ref().map(|of| of.scale(of_field));
                one.max(other)
            }
            _ => 0,
        }
    }

    /// Its value, if it is not missing.
    fn known<'a>(&'a self, fields: &'a [View<'_>], row: usize) -> Found<'a> {
        match self.value(fields, row)? {
            Value::Null => Err(NoValue::Missing(match self {
                Expression::Field(field) => Some(*field),
                _ => None,
            })),
            value => Ok(value),
        }
    }

    fn bool(&self, fields: &[View<'_>], row: usize) -> Result<bool, NoValue> {
        match self.known(fields, row)? {
            Value::Bool(bool) => Ok(bool),
            _ => Err(NoValue::WrongType),
        }
    }
}

/// `&&`, which is false if one side is, or `||`, which is true if one side is.
fn decided<'a>(
    both: &'a [Expression; 2],
    by: bool,
    fields: &'a [View<'_>],
    row: usize,
) -> Found<'a> {
    let [left, right] = both;
    let left = left.bool(fields, row);
    if left == Ok(by) {
        return Ok(Value::Bool(by));
    }
    let right = right.bool(fields, row);
    if right == Ok(by) {
        return Ok(Value::Bool(by));
    }
    left.and(right).map(Value::Bool)
}

impl Literal {
    fn value(&self) -> Value<'_> {
        match self {
            Literal::Null => Value::Null,
            Literal::Bool(bool) => Value::Bool(*bool),
            Literal::Int(int) => Value::Int(*int),
            Literal::Uint(uint) => Value::Uint(*uint),
            Literal::Double(double) => Value::Double(*double),
            Literal::Decimal(decimal) => Value::Decimal(**decimal),
            Literal::Text(text) => Value::Text(text),
            Literal::Bytes(bytes) => Value::Bytes(bytes),
            Literal::Time(ms) => Value::Time(*ms),
        }
    }
}

impl Value<'_> {
    fn equals(self, other: Value<'_>) -> bool {
        match (self, other) {
            (Value::Null, Value::Null) => true,
            (Value::Null, _) | (_, Value::Null) => false,
            _ => self.compare(other) == Ok(Some(Ordering::Equal)),
        }
    }

    /// How two values compare; not at all if one is NaN.
    fn compare(self, other: Value<'_>) -> Result<Option<Ordering>, NoValue> {
        use Value::{Bool, Bytes, Decimal, Double, Int, Text, Time, Uint};
        Ok(match (self, other) {
            (Decimal(left), right) => Some(left.cmp(&right.as_decimal()?)),
            (left, Decimal(right)) => Some(left.as_decimal()?.cmp(&right)),
            (Bool(left), Bool(right)) => Some(left.cmp(&right)),
            (Text(left), Text(right)) => Some(left.cmp(right)),
            (Bytes(left), Bytes(right)) => Some(left.cmp(right)),
            (Time(left), Time(right)) | (Int(left), Int(right)) => Some(left.cmp(&right)),
            (Uint(left), Uint(right)) => Some(left.cmp(&right)),
            (Double(left), Double(right)) => left.partial_cmp(&right),
            (Int(left), Uint(right)) => Some(i128::from(left).cmp(&right.into())),
            (Uint(left), Int(right)) => Some(i128::from(left).cmp(&right.into())),
            (Int(left), Double(right)) => compare_with_float(left.into(), right),
            (Uint(left), Double(right)) => compare_with_float(left.into(), right),
            (Double(left), Int(right)) => {
                compare_with_float(right.into(), left).map(Ordering::reverse)
            }
            (Double(left), Uint(right)) => {
                compare_with_float(right.into(), left).map(Ordering::reverse)
            }
            _ => return Err(NoValue::WrongType),
        })
    }
}

impl Value<'_> {
    /// A decimal, or a whole number as one.
    fn as_decimal(self) -> Result<Decimal, NoValue> {
        let units = match self {
            Value::Decimal(decimal) => return Ok(decimal),
            Value::Int(int) => int.into(),
            Value::Uint(uint) => uint.into(),
            _ => return Err(NoValue::WrongType),
        };
        Ok(Decimal { units, scale: 0 })
    }
}

impl Decimal {
    /// The number as a literal has it.
    pub fn of_literal(text: &str) -> Option<Decimal> {
        // A text has fewer digits behind its point than bytes.
        let scales = 0..=PRECISION_MAX;
        let mut found = scales.filter_map(|scale| {
            let units = decimal::parse(text.as_bytes(), PRECISION_MAX, scale).ok()?;
            Some(Decimal { units, scale })
        });
        found.next()
    }

    /// Its units at a scale that is not less, if they fit into 128 bits.
    pub fn at_scale(self, scale: u8) -> Option<i128> {
        self.units.checked_mul(decimal::limit(scale - self.scale))
    }

    fn cmp(&self, other: &Decimal) -> Ordering {
        let scale = self.scale.max(other.scale);
        match (self.at_scale(scale), other.at_scale(scale)) {
            (Some(left), Some(right)) => left.cmp(&right),
            // What does not fit is further from 0 than any other number.
            (None, _) => self.units.cmp(&0),
            (_, None) => 0.cmp(&other.units),
        }
    }

    fn calculate(self, calculation: Calculation, other: Decimal) -> Result<Decimal, NoValue> {
        let scale = match calculation {
            Calculation::Multiply => self.scale + other.scale,
            _ => self.scale.max(other.scale),
        };
        let both = || self.at_scale(scale).zip(other.at_scale(scale));
        let units = match calculation {
            Calculation::Add => both().and_then(|(left, right)| left.checked_add(right)),
            Calculation::Subtract => both().and_then(|(left, right)| left.checked_sub(right)),
            Calculation::Multiply => self.units.checked_mul(other.units),
            Calculation::Divide | Calculation::Remainder => return Err(NoValue::WrongType),
        };
        let fits = |units: &i128| scale <= PRECISION_MAX && decimal::fits(*units, PRECISION_MAX);
        let units = units.filter(fits).ok_or(NoValue::Overflow)?;
        Ok(Decimal { units, scale })
    }
}

/// Compares an integer with a float by their exact values.
fn compare_with_float(integer: i128, float: f64) -> Option<Ordering> {
    if float.is_nan() {
        return None;
    }
    // Beyond all integers of 64 bits, the conversion stays beyond them.
    let whole = integer.cmp(&(float.trunc() as i128));
    Some(whole.then_with(|| 0.0_f64.total_cmp(&(float.fract() + 0.0))))
}

impl Comparison {
    fn holds(self, ordering: Option<Ordering>) -> bool {
        ordering.is_some_and(|ordering| match self {
            Comparison::Less => ordering.is_lt(),
            Comparison::LessOrEqual => ordering.is_le(),
            Comparison::Greater => ordering.is_gt(),
            Comparison::GreaterOrEqual => ordering.is_ge(),
        })
    }
}

impl Calculation {
    fn result<'a>(self, left: Value<'_>, right: Value<'_>) -> Found<'a> {
        let by_zero = matches!(right, Value::Int(0) | Value::Uint(0));
        if by_zero && matches!(self, Calculation::Divide | Calculation::Remainder) {
            return Err(NoValue::DivisionByZero);
        }
        match (left, right) {
            (Value::Int(left), Value::Int(right)) => {
                let result = match self {
                    Calculation::Add => left.checked_add(right),
                    Calculation::Subtract => left.checked_sub(right),
                    Calculation::Multiply => left.checked_mul(right),
                    Calculation::Divide => left.checked_div(right),
                    Calculation::Remainder => left.checked_rem(right),
                };
                result.map(Value::Int).ok_or(NoValue::Overflow)
            }
            (Value::Uint(left), Value::Uint(right)) => {
                let result = match self {
                    Calculation::Add => left.checked_add(right),
                    Calculation::Subtract => left.checked_sub(right),
                    Calculation::Multiply => left.checked_mul(right),
                    Calculation::Divide => left.checked_div(right),
                    Calculation::Remainder => left.checked_rem(right),
                };
                result.map(Value::Uint).ok_or(NoValue::Overflow)
            }
            (Value::Double(left), Value::Double(right)) => match self {
                Calculation::Add => Ok(Value::Double(left + right)),
                Calculation::Subtract => Ok(Value::Double(left - right)),
                Calculation::Multiply => Ok(Value::Double(left * right)),
                Calculation::Divide => Ok(Value::Double(left / right)),
                Calculation::Remainder => Err(NoValue::WrongType),
            },
            (Value::Decimal(left), Value::Decimal(right)) => {
                left.calculate(self, right).map(Value::Decimal)
            }
            _ => Err(NoValue::WrongType),
        }
    }
}

impl Number {
    fn of<'a>(self, value: Value<'_>) -> Found<'a> {
        let exact = match value {
            Value::Int(int) => i128::from(int),
            Value::Uint(uint) => i128::from(uint),
            // Towards 0. NaN is no integer, which is what `i128::MAX` says here.
            Value::Double(double) if double.is_nan() => i128::MAX,
            Value::Double(double) => double as i128,
            Value::Decimal(decimal) => decimal.units / decimal::limit(decimal.scale),
            _ => return Err(NoValue::WrongType),
        };
        let converted = match (self, value) {
            (Number::Double, Value::Double(double)) => Some(Value::Double(double)),
            (Number::Double, Value::Decimal(Decimal { units, scale })) => {
                Some(Value::Double(decimal::to_float(units, scale)))
            }
            (Number::Decimal, value) => Some(Value::Decimal(value.as_decimal()?)),
            (Number::Double, _) => Some(Value::Double(exact as f64)),
            (Number::Int, _) => i64::try_from(exact).ok().map(Value::Int),
            (Number::Uint, _) => u64::try_from(exact).ok().map(Value::Uint),
        };
        converted.ok_or(NoValue::Overflow)
    }
}
