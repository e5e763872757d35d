//! Comparing a value with what is expected of it: numbers, texts, lists. A comparison that makes no sense for a value is
//! neither true nor false: it is said to be unclear, with the value.

use std::fmt;

use regex::Regex;
use serde_json::Value;

pub use number::{NotANumber, Number};
pub use read::ComparisonError;

mod number;
mod read;

/// What a value is compared with; all of it must hold. It is written as
///
/// * a value, which it must equal: `ok`, `200`, `true`;
/// * a bound: `"<= 300"`, `"> 0"`, `"!= 5"`;
/// * words: `{ between: [1, 5] }`, `{ contains: "ready", not-contains: "error" }`.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// As it stands in the file.
    written: Value,
    tests: Vec<Test>,
}

/// One condition.
#[derive(Clone, Debug)]
enum Test {
    Equals(Value),
    Differs(Value),
    Order(Order, Number),
    Between(Number, Number),
    OneOf(Vec<Value>),
    NoneOf(Vec<Value>),
    Contains(Value),
    Excludes(Value),
    Starts(String),
    Ends(String),
    Matches(Regex),
    MatchesNot(Regex),
    Present(bool),
    Count(Comparison),
}

/// How two numbers are to stand to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Less,
    AtMost,
    AtLeast,
    More,
}

/// What a probe found.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// A text of a source that knows no types: a number in it is a number where one is expected.
    Text(String),
    /// A value that carries its type: the text `"5"` is not the number 5.
    Typed(Value),
    /// No value at all.
    Nothing,
}

/// What a comparison came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compared {
    /// All of it holds.
    Holds,
    /// It does not: `7 (expected <= 5)`.
    Fails(String),
    /// The value is of a kind that cannot be compared so: `` `n/a` is not a number (expected <= 5) ``.
    Unclear(String),
}

impl Comparison {
    /// Compares a value.
    pub fn judge(&self, found: &Found) -> Compared {
        let count = || match found {
            Found::Typed(Value::Array(items)) => Ok(items.len()),
            Found::Nothing | Found::Typed(Value::Null) => Ok(0),
            _ => Err(format!("{found} is not a list, and has no count")),
        };
        self.judge_with(found, &count)
    }

    /// Compares what a JSONPath found: `count` is about the number of values, everything else about the first.
    pub fn judge_nodes(&self, nodes: &[&Value]) -> Compared {
        let first = nodes.first().map_or(Found::Nothing, |first| Found::Typed((*first).clone()));
        self.judge_with(&first, &|| Ok(nodes.len()))
    }

    /// Whether it is about how many values there are.
    pub fn counts(&self) -> bool {
        self.tests.iter().any(|test| matches!(test, Test::Count(_)))
    }

    /// Whether nothing is a value that can be expected: `present` or `count`.
    pub fn expects_nothing(&self) -> bool {
        self.tests.iter().any(|test| matches!(test, Test::Present(_) | Test::Count(_)))
    }

    fn judge_with(&self, found: &Found, count: &dyn Fn() -> Result<usize, String>) -> Compared {
        for test in &self.tests {
            match test.holds(found, count) {
                Ok(true) => {}
                Ok(false) => return Compared::Fails(test.missed(found, count)),
                Err(why) => return Compared::Unclear(format!("{why} (expected {test})")),
            }
        }
        Compared::Holds
    }
}

impl Test {
    /// An error says why neither answer would be true.
    fn holds(&self, found: &Found, count: &dyn Fn() -> Result<usize, String>) -> Result<bool, String> {
        Ok(match self {
            Test::Equals(expected) => found.equals(expected)?,
            Test::Differs(other) => !found.equals(other)?,
            Test::Order(order, bound) => {
                let number = found.number()?;
                match order {
                    Order::Less => number < *bound,
                    Order::AtMost => number <= *bound,
                    Order::AtLeast => number >= *bound,
                    Order::More => number > *bound,
                }
            }
            Test::Between(least, most) => {
                let number = found.number()?;
                *least <= number && number <= *most
            }
            Test::OneOf(list) => found.is_one_of(list)?,
            Test::NoneOf(list) => !found.is_one_of(list)?,
            Test::Contains(part) => found.contains(part)?,
            Test::Excludes(part) => !found.contains(part)?,
            Test::Starts(start) => found.text()?.starts_with(start),
            Test::Ends(end) => found.text()?.ends_with(end),
            Test::Matches(regex) => regex.is_match(&found.text()?),
            Test::MatchesNot(regex) => !regex.is_match(&found.text()?),
            Test::Present(present) => *present != found.is_nothing(),
            Test::Count(comparison) => {
                let count = Found::Typed(count()?.into());
                comparison.judge(&count) == Compared::Holds
            }
        })
    }

    fn missed(&self, found: &Found, count: &dyn Fn() -> Result<usize, String>) -> String {
        match (self, count()) {
            (Test::Count(comparison), Ok(count)) => format!("{count} found (expected {comparison})"),
            _ => format!("{found} (expected {self})"),
        }
    }
}

impl Found {
    fn is_nothing(&self) -> bool {
        matches!(self, Found::Nothing | Found::Typed(Value::Null))
    }

    fn number(&self) -> Result<Number, String> {
        match self {
            Found::Text(text) | Found::Typed(Value::String(text)) => {
                text.parse().map_err(|why: NotANumber| why.to_string())
            }
            Found::Typed(value) => match Number::of(value) {
                Some(number) => Ok(number),
                None if self.is_nothing() => Err("there is no value".to_owned()),
                None => Err(format!("{self} is not a number")),
            },
            Found::Nothing => Err("there is no value".to_owned()),
        }
    }

    /// The text of a scalar.
    fn text(&self) -> Result<String, String> {
        match self {
            Found::Text(text) | Found::Typed(Value::String(text)) => Ok(text.clone()),
            Found::Typed(value @ (Value::Number(_) | Value::Bool(_))) => Ok(value.to_string()),
            _ if self.is_nothing() => Err("there is no value".to_owned()),
            _ => Err(format!("{self} is not a text")),
        }
    }

    fn equals(&self, expected: &Value) -> Result<bool, String> {
        Ok(match (self, expected) {
            (Found::Nothing, _) => false,
            (Found::Typed(value), _) => same(value, expected),
            (Found::Text(_), Value::Number(_)) => Some(self.number()?) == Number::of(expected),
            (Found::Text(text), Value::String(expected)) => text == expected,
            (Found::Text(text), Value::Bool(expected)) => match text.trim() {
                "true" | "t" => *expected,
                "false" | "f" => !*expected,
                _ => return Err(format!("`{}` is neither `true` nor `false`", short(text))),
            },
            (Found::Text(_), _) => return Err(format!("{self} is a text, and a list or group is expected")),
        })
    }

    /// A member of another kind is passed over where some other member decides.
    fn is_one_of(&self, list: &[Value]) -> Result<bool, String> {
        let mut unclear = None;
        for member in list {
            match self.equals(member) {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(why) => unclear = Some(why),
            }
        }
        let texts = list.iter().any(Value::is_string);
        unclear.filter(|_| !texts).map_or(Ok(false), Err)
    }

    /// A part of a text, or a member of a list.
    fn contains(&self, part: &Value) -> Result<bool, String> {
        match (self, part) {
            (Found::Typed(Value::Array(items)), _) => Ok(items.iter().any(|item| same(item, part))),
            (_, Value::String(part)) => Ok(self.text()?.contains(part)),
            (_, part) => Ok(self.text()?.contains(&part.to_string())),
        }
    }
}

/// JSON equality, in which 1 and 1.0 are the same number.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(_), Value::Number(_)) => Number::of(a) == Number::of(b),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

/// At most 120 characters, on one line.
fn short(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(121).collect();
    match line.char_indices().nth(120) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Found::Text(text) => write!(f, "`{}`", short(text)),
            Found::Typed(value) => f.write_str(&short(&value.to_string())),
            Found::Nothing => f.write_str("nothing"),
        }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tests: Vec<String> = self.tests.iter().map(Test::to_string).collect();
        f.write_str(&tests.join(" and "))
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |list: &[Value]| list.iter().map(Value::to_string).collect::<Vec<_>>().join(", ");
        match self {
            Test::Equals(value) => write!(f, "{value}"),
            Test::Differs(value) => write!(f, "not {value}"),
            Test::Order(order, bound) => write!(f, "{} {bound}", order.sign()),
            Test::Between(least, most) => write!(f, "between {least} and {most}"),
            Test::OneOf(values) => write!(f, "one of {}", list(values)),
            Test::NoneOf(values) => write!(f, "none of {}", list(values)),
            Test::Contains(part) => write!(f, "something that contains {part}"),
            Test::Excludes(part) => write!(f, "something without {part}"),
            Test::Starts(start) => write!(f, "something that starts with `{start}`"),
            Test::Ends(end) => write!(f, "something that ends with `{end}`"),
            Test::Matches(regex) => write!(f, "a match of `{regex}`"),
            Test::MatchesNot(regex) => write!(f, "no match of `{regex}`"),
            Test::Present(true) => f.write_str("a value"),
            Test::Present(false) => f.write_str("nothing"),
            Test::Count(comparison) => write!(f, "a count of {comparison}"),
        }
    }
}

impl Order {
    fn sign(self) -> &'static str {
        match self {
            Order::Less => "<",
            Order::AtMost => "<=",
            Order::AtLeast => ">=",
            Order::More => ">",
        }
    }
}

#[cfg(test)]
mod tests;
