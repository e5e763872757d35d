//! The attributes of a toxic: read from JSON as a whole or not at all, so that a bad one changes nothing.

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Value};

use super::Kind;

/// The value of an attribute.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// A whole number, any of 64 bits.
    Whole(i64),
    /// A number, finite.
    Real(f64),
}

/// The values of all attributes of a kind, in its order.
#[derive(Clone, Debug, PartialEq)]
pub struct Values {
    kind: &'static Kind,
    numbers: Vec<Number>,
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
        Values { kind, numbers: kind.attributes.iter().map(|(_, number)| *number).collect() }
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
            values.numbers[at] = match values.numbers[at] {
                Number::Whole(_) => Number::Whole(value.as_i64().ok_or_else(|| bad("int64"))?),
                Number::Real(_) => {
                    let real = value.as_f64().filter(|real| real.is_finite());
                    Number::Real(real.ok_or_else(|| bad("float64"))?)
                }
            };
        }
        Ok(values)
    }

    /// An attribute that counts something: what is negative is 0.
    pub fn count(&self, at: usize) -> u64 {
        match self.numbers[at] {
            Number::Whole(whole) => u64::try_from(whole).unwrap_or(0),
            Number::Real(real) => real as u64,
        }
    }

    /// An attribute that is a share: what is below 0 is 0, what is above 1 is 1.
    pub fn share(&self, at: usize) -> f64 {
        match self.numbers[at] {
            Number::Whole(whole) => (whole as f64).clamp(0.0, 1.0),
            Number::Real(real) => real.clamp(0.0, 1.0),
        }
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, Number)> {
        self.kind.attributes.iter().zip(&self.numbers).map(|((name, _), number)| (*name, *number))
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

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match *self {
            Number::Whole(whole) => serializer.serialize_i64(whole),
            Number::Real(real) if real.fract() == 0.0 && real.abs() < 1e15 => {
                serializer.serialize_i64(real as i64)
            }
            Number::Real(real) => serializer.serialize_f64(real),
        }
    }
}

impl Serialize for Values {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.numbers.len()))?;
        for (name, number) in self.iter() {
            map.serialize_entry(name, &number)?;
        }
        map.end()
    }
}

impl PartialEq for Kind {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}
