//! Rejected rows.

use std::fmt;

/// Rejects a row, with the reason.
///
/// A rejected row has no output and does not change states. The pipeline's
/// `on_error` decides whether it ends the run, is skipped and counted, or
/// becomes a dead letter with its reason.
///
/// ```
/// use sluicebox_sdk::Reject;
///
/// fn positive(quantity: i64) -> Result<i64, Reject> {
///     match quantity {
///         1.. => Ok(quantity),
///         _ => Err(Reject::new(format_args!("quantity is {quantity}"))),
///     }
/// }
///
/// assert_eq!(positive(0), Err(Reject::from("quantity is 0")));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    reason: String,
}

impl Reject {
    /// Rejects for a reason that can be displayed: a text, or another error.
    #[cold]
    pub fn new(reason: impl fmt::Display) -> Self {
        Reject {
            reason: reason.to_string(),
        }
    }

    /// The reason.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    pub(crate) fn into_reason(self) -> String {
        self.reason
    }
}

impl From<&str> for Reject {
    #[cold]
    fn from(reason: &str) -> Self {
        Reject::new(reason)
    }
}

impl From<String> for Reject {
    #[cold]
    fn from(reason: String) -> Self {
        Reject { reason }
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Reject {}

/// Returns a [`Reject`] whose reason is formatted as by `format!`.
///
/// ```
/// use sluicebox_sdk::{Reject, reject};
///
/// fn check(quantity: i64, most: i64) -> Result<(), Reject> {
///     if quantity > most {
///         reject!("quantity {quantity} is above {most}");
///     }
///     Ok(())
/// }
///
/// assert_eq!(check(7, 5).unwrap_err().reason(), "quantity 7 is above 5");
/// ```
#[macro_export]
macro_rules! reject {
    ($($reason:tt)+) => {
        return ::core::result::Result::Err($crate::Reject::new(::core::format_args!($($reason)+)))
    };
}
