//! Reading a comparison, and saying what is wrong with one.

use std::borrow::Cow;

use regex::{Regex, RegexBuilder};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::{Comparison, Number, Order, Test};
use crate::document::suggest;

/// The words of a comparison, in the order of the documentation.
const WORDS: [&str; 13] = [
    "equals",
    "not",
    "between",
    "one-of",
    "none-of",
    "contains",
    "not-contains",
    "starts-with",
    "ends-with",
    "matches",
    "not-matches",
    "present",
    "count",
];
/// The most memory that a compiled regular expression may take, in bytes.
const LARGEST_REGEX: usize = 1 << 20;

/// Why a comparison makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct ComparisonError {
    /// What is wrong, a lowercase fragment.
    pub what: String,
    /// What to write instead.
    pub help: String,
    /// The word that it is about, where it is about one.
    pub word: Option<String>,
}

fn wrong<T>(what: impl Into<String>, help: impl Into<String>) -> Result<T, ComparisonError> {
    Err(ComparisonError { what: what.into(), help: help.into(), word: None })
}

impl TryFrom<Value> for Comparison {
    type Error = ComparisonError;

    fn try_from(written: Value) -> Result<Self, ComparisonError> {
        let tests = match &written {
            Value::Null => {
                return wrong("nothing to compare with", "for no value write `{ present: false }`");
            }
            Value::Array(_) => {
                return wrong(
                    "a list says not how it is compared",
                    "write `{ one-of: […] }` or `{ equals: […] }`",
                );
            }
            Value::Object(words) if words.is_empty() => {
                return wrong("a comparison without a word", format!("words: `{}`", WORDS.join("`, `")));
            }
            Value::Object(words) => {
                let read = |(word, value): (&String, &Value)| {
                    test(word, value).map_err(|error| ComparisonError { word: Some(word.clone()), ..error })
                };
                words.iter().map(read).collect::<Result<_, _>>()?
            }
            Value::String(text) => vec![bound(text)?],
            scalar => vec![Test::Equals(scalar.clone())],
        };
        Ok(Comparison { written, tests })
    }
}

/// `<= 300`, or the text itself.
fn bound(text: &str) -> Result<Test, ComparisonError> {
    let trimmed = text.trim_start();
    let signs = [
        ("<=", Some(Order::AtMost)),
        ("≤", Some(Order::AtMost)),
        (">=", Some(Order::AtLeast)),
        ("≥", Some(Order::AtLeast)),
        ("==", None),
        ("!=", None),
        ("≠", None),
        ("<", Some(Order::Less)),
        (">", Some(Order::More)),
    ];
    let Some((sign, order)) = signs.into_iter().find(|(sign, _)| trimmed.starts_with(sign)) else {
        return Ok(Test::Equals(text.into()));
    };
    let rest = trimmed[sign.len()..].trim();
    let number = rest.parse::<Number>().ok().filter(|number| number.is_finite());
    Ok(match (order, number) {
        (Some(order), Some(number)) => Test::Order(order, number),
        (Some(_), None) => {
            let what = format!("`{rest}` is not a number");
            return wrong(
                what,
                format!(
                    "write `\"{sign} 300\"`, without a unit; a text that begins so is `{{ equals: \"{text}\" }}`"
                ),
            );
        }
        (None, number) => {
            let value = match number {
                Some(_) => serde_json::from_str(rest).unwrap_or_else(|_| rest.into()),
                None => Value::from(rest.trim_matches('"')),
            };
            if rest.is_empty() {
                return wrong("nothing stands behind the comparison", format!("write `\"{sign} 300\"`"));
            }
            if sign == "==" { Test::Equals(value) } else { Test::Differs(value) }
        }
    })
}

fn test(word: &str, value: &Value) -> Result<Test, ComparisonError> {
    if value.is_null() {
        return wrong(format!("`{word}` has no value"), "for no value write `{ present: false }`");
    }
    Ok(match word {
        "equals" => Test::Equals(value.clone()),
        "not" => Test::Differs(value.clone()),
        "between" => {
            let numbers: Option<Vec<Number>> =
                value.as_array().and_then(|list| list.iter().map(Number::of).collect());
            match numbers.as_deref() {
                Some([least, most]) if least <= most => Test::Between(*least, *most),
                Some([least, most]) => {
                    return wrong(
                        format!("no number is between {least} and {most}"),
                        format!("write `between: [{most}, {least}]`"),
                    );
                }
                _ => {
                    return wrong(
                        "`between` takes two numbers",
                        "write `between: [1, 5]`; both belong to it",
                    );
                }
            }
        }
        "one-of" => Test::OneOf(list(word, value)?),
        "none-of" => Test::NoneOf(list(word, value)?),
        "contains" => Test::Contains(part(word, value)?),
        "not-contains" => Test::Excludes(part(word, value)?),
        "starts-with" => Test::Starts(text(word, value)?),
        "ends-with" => Test::Ends(text(word, value)?),
        "matches" => Test::Matches(regex(word, value)?),
        "not-matches" => Test::MatchesNot(regex(word, value)?),
        "present" => match value {
            Value::Bool(present) => Test::Present(*present),
            _ => return wrong("`present` is `true` or `false`", "write `present: false` for no value"),
        },
        "count" => Test::Count(value.clone().try_into()?),
        _ => {
            let what = format!("unknown word `{}` in a comparison", super::short(word));
            return wrong(what, suggest::one_of(word, &WORDS, ""));
        }
    })
}

fn list(word: &str, value: &Value) -> Result<Vec<Value>, ComparisonError> {
    match value {
        Value::Array(list) if list.is_empty() => {
            wrong(format!("`{word}` is empty"), "name at least one value")
        }
        Value::Array(list) if list.iter().any(Value::is_null) => {
            wrong(format!("a member of `{word}` has no value"), "leave it out")
        }
        Value::Array(list) => Ok(list.clone()),
        _ => wrong(format!("`{word}` takes a list"), format!("write `{word}: [200, 204]`")),
    }
}

fn part(word: &str, value: &Value) -> Result<Value, ComparisonError> {
    match value {
        Value::String(text) if text.is_empty() => {
            wrong(format!("every text contains the empty one of `{word}`"), "write the part that matters")
        }
        Value::String(_) | Value::Number(_) | Value::Bool(_) => Ok(value.clone()),
        _ => wrong(format!("`{word}` takes one text or number"), format!("write `{word}: \"ready\"`")),
    }
}

fn text(word: &str, value: &Value) -> Result<String, ComparisonError> {
    match value {
        Value::String(text) if !text.is_empty() => Ok(text.clone()),
        _ => wrong(format!("`{word}` takes a text"), format!("write `{word}: \"ready\"`, in quotes")),
    }
}

fn regex(word: &str, value: &Value) -> Result<Regex, ComparisonError> {
    let pattern = text(word, value)?;
    RegexBuilder::new(&pattern).size_limit(LARGEST_REGEX).build().or_else(|error| {
        let reason = match &error {
            regex::Error::CompiledTooBig(_) => "it is too big".to_owned(),
            other => {
                other.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
            }
        };
        wrong(
            format!("`{}` is not a regular expression: {reason}", super::short(&pattern)),
            "put a `\\` before a character that is meant literally",
        )
    })
}

impl PartialEq for Comparison {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written
    }
}

impl Serialize for Comparison {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.written.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Comparison {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer)?.try_into().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Comparison {
    fn schema_name() -> Cow<'static, str> {
        "Comparison".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let again = generator.subschema_for::<Comparison>();
        let values = json_schema!({ "type": "array", "minItems": 1 });
        let part = json_schema!({ "type": ["string", "number", "boolean"] });
        let text = json_schema!({ "type": "string", "minLength": 1 });
        json_schema!({
            "format": "comparison",
            "examples": ["<= 300", "ok", { "between": [1, 5] }],
            "anyOf": [
                { "type": ["string", "number", "boolean"] },
                {
                    "type": "object",
                    "minProperties": 1,
                    "additionalProperties": false,
                    "properties": {
                        "equals": { "description": "It is this value." },
                        "not": { "description": "It is another value." },
                        "between": { "type": "array", "items": { "type": "number" }, "minItems": 2, "maxItems": 2 },
                        "one-of": values,
                        "none-of": values,
                        "contains": part,
                        "not-contains": part,
                        "starts-with": text,
                        "ends-with": text,
                        "matches": text,
                        "not-matches": text,
                        "present": { "type": "boolean" },
                        "count": again,
                    },
                },
            ],
        })
    }
}
