//! Values with units, as they stand in an experiment file.
//!
//! Each is one string with a unit; a bare number is an error that names the unit which was probably meant.

mod bandwidth;
mod bound;
mod percent;
mod period;
mod pick;
mod rate;
mod size;

use std::fmt;

use serde::{Deserialize, Deserializer, de};

pub use bandwidth::Bandwidth;
pub use bound::{AtMost, MostPercent, MostPeriod};
pub use percent::Percent;
pub use period::Period;
pub use pick::Pick;
pub use rate::Rate;
pub use size::Size;

/// Why a text is not the quantity that it should be: a lowercase fragment, with what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct QuantityError {
    /// What is wrong.
    pub what: String,
    /// What to write instead.
    pub help: Option<String>,
}

impl QuantityError {
    /// An error with a suggestion.
    pub fn new(what: impl Into<String>, help: impl Into<String>) -> Self {
        QuantityError { what: what.into(), help: Some(help.into()) }
    }
}

/// The number of a text and the unit behind it; `kind` says what the text is to be, as in `a size`, and a bare number
/// probably means `usual`.
fn number_and_unit<'t>(
    text: &'t str,
    kind: &str,
    usual: &str,
    help: &str,
) -> Result<(f64, &'t str), QuantityError> {
    let trimmed = text.trim();
    let split = trimmed.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(split);
    let number = number.trim().parse::<f64>().ok().filter(|number| number.is_finite());
    let number = number.ok_or_else(|| QuantityError::new(format!("`{text}` is not {kind}"), help))?;
    if unit.is_empty() {
        let meant = format!("did you mean `{trimmed}{usual}`?");
        return Err(QuantityError::new(format!("`{text}` has no unit"), meant));
    }
    Ok((number, unit.trim()))
}

/// Reads and writes a type through its `FromStr` and `Display`, and names its format in the schema, so that
/// one parser serves the file, the command line and the editor.
macro_rules! as_text {
    ($type:ty, $format:literal, $json:expr, $examples:expr) => {
        impl ::serde::Serialize for $type {
            fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> ::serde::Deserialize<'de> for $type {
            fn deserialize<D: ::serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <crate::quantity::Text as ::serde::Deserialize>::deserialize(deserializer)?;
                text.0.parse().map_err(::serde::de::Error::custom)
            }
        }

        impl ::schemars::JsonSchema for $type {
            fn schema_name() -> ::std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut ::schemars::SchemaGenerator) -> ::schemars::Schema {
                ::schemars::json_schema!({ "type": $json, "format": $format, "examples": $examples })
            }
        }
    };
}
pub(crate) use as_text;

/// A scalar as text, whether it was written as a string or as a number.
pub(crate) struct Text(pub(crate) String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Scalar;
        impl de::Visitor<'_> for Scalar {
            type Value = Text;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a number")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Text, E> {
                Ok(Text(text.to_owned()))
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Text, E> {
                Ok(Text(number.to_string()))
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Text, E> {
                Ok(Text(number.to_string()))
            }
            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Text, E> {
                Ok(Text(number.to_string()))
            }
        }
        deserializer.deserialize_any(Scalar)
    }
}
