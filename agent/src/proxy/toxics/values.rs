//! The attributes of a toxic: read from JSON as a whole or not at all, so that a bad one changes nothing.

use std::borrow::Cow;

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Value};

use super::Kind;

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Attribute {
    /// A whole number, any of 64 bits.
    Whole(i64),
    /// A number, finite.
    Real(f64),
    /// Words.
    Text(Cow<'static, str>),
    /// Words that are never shown.
    Secret(Cow<'static, str>),
}

/// The values of all attributes of a kind, in its order.
#[derive(Clone, Debug, PartialEq)]
pub struct Values {
    kind: &'static Kind,
    attributes: Vec<Attribute>,
}

/// An attribute is not what it has to be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("json: cannot unmarshal {found} into Go struct field .attributes.{attribute} of type {wanted}")]
pub struct BadAttribute {
    found: String,
    attribute: &'static str,
    wanted: &'static str,
}

impl Values {
    /// The defaults.
    pub fn of(kind: &'static Kind) -> Self {
        Values { kind, attributes: kind.attributes.iter().map(|(_, value)| value.clone()).collect() }
    }

    /// These with those that an object names; keys are compared without regard to case, `null` changes nothing, and
    /// what the kind does not know is passed over.
    pub fn with(&self, object: &Map<String, Value>) -> Result<Self, BadAttribute> {
        let mut values = self.clone();
        for (key, value) in object {
            let known = self.kind.attributes.iter().position(|(name, _)| name.eq_ignore_ascii_case(key));
            let Some(at) = known.filter(|_| !value.is_null()) else { continue };
            let bad = |wanted| BadAttribute {
                found: describe(value),
                attribute: self.kind.attributes[at].0,
                wanted,
            };
            values.attributes[at] = match values.attributes[at] {
                Attribute::Whole(_) => Attribute::Whole(value.as_i64().ok_or_else(|| bad("int64"))?),
                Attribute::Real(_) => {
                    let real = value.as_f64().filter(|real| real.is_finite());
                    Attribute::Real(real.ok_or_else(|| bad("float64"))?)
                }
                Attribute::Text(_) => {
                    Attribute::Text(value.as_str().ok_or_else(|| bad("string"))?.to_owned().into())
                }
                Attribute::Secret(_) => {
                    Attribute::Secret(value.as_str().ok_or_else(|| bad("string"))?.to_owned().into())
                }
            };
        }
        Ok(values)
    }

    /// An attribute that counts something: what is negative is 0.
    pub fn count(&self, at: usize) -> u64 {
        match self.attributes[at] {
            Attribute::Whole(whole) => u64::try_from(whole).unwrap_or(0),
            Attribute::Real(real) => real as u64,
            Attribute::Text(_) | Attribute::Secret(_) => 0,
        }
    }

    /// An attribute that is a share: what is below 0 is 0, what is above 1 is 1.
    pub fn share(&self, at: usize) -> f64 {
        match self.attributes[at] {
            Attribute::Whole(whole) => (whole as f64).clamp(0.0, 1.0),
            Attribute::Real(real) => real.clamp(0.0, 1.0),
            Attribute::Text(_) | Attribute::Secret(_) => 0.0,
        }
    }

    /// An attribute of words; of a number, none.
    pub fn text(&self, at: usize) -> &str {
        match &self.attributes[at] {
            Attribute::Text(text) | Attribute::Secret(text) => text,
            _ => "",
        }
    }

    /// An attribute that counts something, where a negative number stands for none at all.
    pub fn optional_count(&self, at: usize) -> Option<u64> {
        match self.attributes[at] {
            Attribute::Whole(whole) => u64::try_from(whole).ok(),
            _ => None,
        }
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Attribute)> {
        self.kind.attributes.iter().zip(&self.attributes).map(|((name, _), value)| (*name, value))
    }
}

/// What a JSON value is, in the words of the reference's decoder.
pub fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "bool".to_owned(),
        Value::Number(number) => format!("number {number}"),
        Value::String(_) => "string".to_owned(),
        Value::Array(_) => "array".to_owned(),
        Value::Object(_) => "object".to_owned(),
    }
}

impl Serialize for Attribute {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Attribute::Whole(whole) => serializer.serialize_i64(*whole),
            Attribute::Real(real) if real.fract() == 0.0 && real.abs() < 1e15 => {
                serializer.serialize_i64(*real as i64)
            }
            Attribute::Real(real) => serializer.serialize_f64(*real),
            Attribute::Text(text) => serializer.serialize_str(text),
            Attribute::Secret(text) => serializer.serialize_str(if text.is_empty() { "" } else { "***" }),
        }
    }
}

impl Serialize for Values {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.attributes.len()))?;
        for (name, value) in self.iter() {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl PartialEq for Kind {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}
