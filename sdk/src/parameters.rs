//! Parameters: what a pipeline can set for an operator, and how its arguments
//! are checked.

use crate::bindings::exports::sluicebox::plugin::operators::Argument;
use crate::bindings::sluicebox::plugin::description::{Parameter, Value, ValueType};
use crate::record::{Alternatives, Symbol};
use crate::{Decimal, NotDecimal};

/// What a pipeline can set for an operator.
///
/// Derive it for a struct; a transform takes it by reference after the row. A
/// field may be `bool`, any integer or float, a [`Decimal`](crate::Decimal), `String`,
/// `Vec<String>`, an enum with `#[derive(Symbol)]`, or an `Option` of these, which may be
/// left out. A pipeline gives a decimal as a text, `"19.99"`, so that it is exact.
/// Any other field without a default must be given. Doc comments are shown to
/// authors of pipelines.
///
/// ```
/// use sluicebox_sdk::prelude::*;
///
/// #[derive(Parameters)]
/// struct Limits {
///     /// The most of an item in one go.
///     #[parameter(default = 100)]
///     max_quantity: u32,
///     /// Users whose rows are left out.
///     #[parameter(default = [])]
///     ignored_users: Vec<String>,
///     note: Option<String>,
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a set of parameters",
    label = "not parameters",
    note = "what a pipeline sets is given as a reference to a struct with `#[derive(Parameters)]`"
)]
pub trait Parameters: Sized + Send + Sync + 'static {
    #[doc(hidden)]
    fn describe() -> Vec<Parameter>;

    #[doc(hidden)]
    fn from_arguments(arguments: &mut Arguments) -> Result<Self, String>;
}

impl Parameters for () {
    fn describe() -> Vec<Parameter> {
        Vec::new()
    }

    fn from_arguments(_arguments: &mut Arguments) -> Result<Self, String> {
        Ok(())
    }
}

/// The types that a field of [`Parameters`] can have.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a parameter",
    label = "not a type that pipelines can set",
    note = "parameters are `bool`, integers, floats, `Decimal`, `String`, `Vec<String>`, enums \
            with `#[derive(Symbol)]`, and `Option` of these"
)]
pub trait ParameterType: Sized {
    #[doc(hidden)]
    const TYPE: ValueType;
    #[doc(hidden)]
    const OPTIONAL: bool = false;

    /// `Err` says what was expected.
    #[doc(hidden)]
    fn from_value(value: Value) -> Result<Self, String>;

    #[doc(hidden)]
    fn into_value(self) -> Option<Value>;

    /// The value if the pipeline sets none.
    #[doc(hidden)]
    fn absent() -> Option<Self> {
        None
    }
}

/// Describes one parameter; `default` comes from the derive.
#[doc(hidden)]
pub fn describe<T: ParameterType>(name: &str, doc: &str, default: Option<T>) -> Parameter {
    Parameter {
        name: name.to_owned(),
        type_: T::TYPE,
        default: default.and_then(T::into_value),
        optional: T::OPTIONAL,
        doc: doc.to_owned(),
    }
}

/// Arguments from the pipeline that no field has taken yet.
#[doc(hidden)]
pub struct Arguments(Vec<Argument>);

impl Arguments {
    /// Reads the parameters of an operator, and refuses other arguments.
    pub(crate) fn read<P: Parameters>(arguments: Vec<Argument>) -> Result<P, String> {
        let mut arguments = Arguments(arguments);
        let parameters = P::from_arguments(&mut arguments)?;
        let Some(unknown) = arguments.0.first() else {
            return Ok(parameters);
        };
        let known: Vec<String> = P::describe()
            .into_iter()
            .map(|parameter| format!("`{}`", parameter.name))
            .collect();
        let known = match known.as_slice() {
            [] => "it has none".to_owned(),
            known => format!("it has {}", known.join(", ")),
        };
        Err(format!(
            "the operator has no parameter `{}`; {known}",
            unknown.name
        ))
    }

    pub fn take<T: ParameterType>(&mut self, name: &str, default: Option<T>) -> Result<T, String> {
        match self.0.iter().position(|argument| argument.name == name) {
            Some(index) => T::from_value(self.0.swap_remove(index).value)
                .map_err(|expected| format!("parameter `{name}`: {expected}")),
            None => default
                .or_else(T::absent)
                .ok_or_else(|| format!("parameter `{name}` is missing and has no default")),
        }
    }
}

fn mismatch<T>(expected: &str, found: &Value) -> Result<T, String> {
    let found = match found {
        Value::Boolean(value) => value.to_string(),
        Value::Integer(value) => value.to_string(),
        Value::Number(value) => value.to_string(),
        Value::Text(value) => format!("{value:?}"),
        Value::Texts(value) => format!("{value:?}"),
    };
    Err(format!("expected {expected}, found {found}"))
}

/// Reads a parameter that is an enum.
#[doc(hidden)]
pub fn symbol<S: Symbol>(value: Value) -> Result<S, String> {
    let expected = || Alternatives(S::TEXTS).to_string();
    match &value {
        Value::Text(text) => S::from_text(text).map_or_else(|| mismatch(&expected(), &value), Ok),
        other => mismatch(&expected(), other),
    }
}

impl ParameterType for bool {
    const TYPE: ValueType = ValueType::Boolean;

    fn from_value(value: Value) -> Result<Self, String> {
        match value {
            Value::Boolean(value) => Ok(value),
            other => mismatch("true or false", &other),
        }
    }

    fn into_value(self) -> Option<Value> {
        Some(Value::Boolean(self))
    }
}

macro_rules! integers {
    ($($integer:ty),*) => {$(
        impl ParameterType for $integer {
            const TYPE: ValueType = ValueType::Integer;

            fn from_value(value: Value) -> Result<Self, String> {
                let expected = || format!("an integer from {} to {}", Self::MIN, Self::MAX);
                match value {
                    Value::Integer(integer) => Self::try_from(integer)
                        .or_else(|_| mismatch(&expected(), &value)),
                    other => mismatch(&expected(), &other),
                }
            }

            fn into_value(self) -> Option<Value> {
                i64::try_from(self).ok().map(Value::Integer)
            }
        }
    )*};
}

integers!(i8, i16, i32, i64, u8, u16, u32, u64, usize);

macro_rules! floats {
    ($($float:ty),*) => {$(
        impl ParameterType for $float {
            const TYPE: ValueType = ValueType::Number;

            fn from_value(value: Value) -> Result<Self, String> {
                match value {
                    Value::Number(number) => Ok(number as $float),
                    Value::Integer(integer) => Ok(integer as $float),
                    other => mismatch("a number", &other),
                }
            }

            fn into_value(self) -> Option<Value> {
                Some(Value::Number(f64::from(self)))
            }
        }
    )*};
}

floats!(f32, f64);

impl ParameterType for String {
    const TYPE: ValueType = ValueType::Text;

    fn from_value(value: Value) -> Result<Self, String> {
        match value {
            Value::Text(text) => Ok(text),
            other => mismatch("a text", &other),
        }
    }

    fn into_value(self) -> Option<Value> {
        Some(Value::Text(self))
    }
}

impl<const SCALE: u8> ParameterType for Decimal<SCALE> {
    // A number would be a float on its way here.
    const TYPE: ValueType = ValueType::Text;

    fn from_value(value: Value) -> Result<Self, String> {
        match &value {
            Value::Text(text) => text.parse().map_err(|error: NotDecimal| error.to_string()),
            other => mismatch("a decimal in quotes", other),
        }
    }

    fn into_value(self) -> Option<Value> {
        Some(Value::Text(self.to_string()))
    }
}

impl ParameterType for Vec<String> {
    const TYPE: ValueType = ValueType::Texts;

    fn from_value(value: Value) -> Result<Self, String> {
        match value {
            Value::Texts(texts) => Ok(texts),
            other => mismatch("a list of texts", &other),
        }
    }

    fn into_value(self) -> Option<Value> {
        Some(Value::Texts(self))
    }
}

impl<T: ParameterType> ParameterType for Option<T> {
    const TYPE: ValueType = T::TYPE;
    const OPTIONAL: bool = true;

    fn from_value(value: Value) -> Result<Self, String> {
        T::from_value(value).map(Some)
    }

    fn into_value(self) -> Option<Value> {
        self.and_then(T::into_value)
    }

    fn absent() -> Option<Self> {
        Some(None)
    }
}
