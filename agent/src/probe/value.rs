//! What a probe found, against what is expected of it.

use std::time::Duration;

use serde_json::Value;
use serde_json_path::JsonPath;
use squall_experiments::probe::compare::{Compared, Found, Number};
use squall_experiments::probe::{Comparison, Expect, Take};
use squall_experiments::quantity::Period;

use super::expect::{Seen, in_time};

/// Expectations of a value.
pub(super) struct ExpectValue {
    value: Option<Comparison>,
    json: ExpectJson,
    within: Option<Period>,
}

/// Expectations of a JSON document.
pub(super) struct ExpectJson(Vec<(JsonPath, Comparison)>);

/// What is not as expected.
pub(super) enum Objection {
    /// It is another value.
    Bad(String),
    /// It is nothing that can be compared.
    Unclear(String),
}

impl Objection {
    pub(super) fn text(self) -> String {
        match self {
            Objection::Bad(text) | Objection::Unclear(text) => text,
        }
    }

    /// What a comparison says against a value; nothing where it holds.
    pub(super) fn of(compared: Compared, what: &str) -> Option<Objection> {
        match compared {
            Compared::Holds => None,
            Compared::Fails(why) => Some(Objection::Bad(format!("{what}{why}"))),
            Compared::Unclear(why) => Some(Objection::Unclear(format!("{what}{why}"))),
        }
    }
}

impl Objection {
    /// The first one by which it is bad; where there is none, the first that says nothing.
    fn worst(mut all: impl Iterator<Item = Objection>) -> Option<Objection> {
        let first = all.next()?;
        if matches!(first, Objection::Bad(_)) {
            return Some(first);
        }
        Some(all.find(|objection| matches!(objection, Objection::Bad(_))).unwrap_or(first))
    }
}

impl From<Objection> for Seen {
    fn from(objection: Objection) -> Self {
        match objection {
            Objection::Bad(text) => Seen::bad(text),
            Objection::Unclear(text) => Seen::unclear(text),
        }
    }
}

impl ExpectJson {
    /// Compiles the paths; an error says which of them makes no sense, and why.
    pub(super) fn new(expect: &Expect) -> Result<Self, String> {
        let path = |(path, comparison): (&String, &Comparison)| {
            let parsed = JsonPath::parse(path).map_err(|why| format!("`{path}` is not a JSONPath: {why}"))?;
            Ok((parsed, comparison.clone()))
        };
        Ok(ExpectJson(expect.json.iter().map(path).collect::<Result<_, String>>()?))
    }

    /// Whether nothing is expected.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is not as expected of a document that `name` names.
    pub(super) fn objection(&self, document: &[u8], name: &str) -> Option<Objection> {
        if self.is_empty() {
            return None;
        }
        let Ok(document) = serde_json::from_slice::<Value>(document) else {
            return Some(Objection::Bad(format!("{name} is not JSON")));
        };
        Objection::worst(self.0.iter().filter_map(|(path, comparison)| {
            let nodes = path.query(&document).all();
            if nodes.is_empty() && !comparison.expects_nothing() {
                return Some(Objection::Bad(format!("`{path}` finds nothing (expected {comparison})")));
            }
            Objection::of(comparison.judge_nodes(&nodes), &format!("`{path}` is "))
        }))
    }
}

impl ExpectValue {
    /// Compiles them; an error says which of them makes no sense, and why.
    pub(super) fn new(expect: &Expect) -> Result<Self, String> {
        Ok(ExpectValue { value: expect.value.clone(), json: ExpectJson::new(expect)?, within: expect.within })
    }

    /// The same, with something to compare with where the file says nothing.
    pub(super) fn or(mut self, comparison: Value) -> Result<Self, String> {
        if self.value.is_none() {
            self.value = Some(comparison.try_into().map_err(|why| format!("{why}"))?);
        }
        Ok(self)
    }

    /// Whether nothing is a value that can be expected.
    pub(super) fn expects_nothing(&self) -> bool {
        self.value.as_ref().is_some_and(Comparison::expects_nothing)
    }

    /// Judges a value.
    pub(super) fn judge(&self, found: &Found, took: Duration) -> Seen {
        let value = self.value.as_ref().and_then(|value| Objection::of(value.judge(found), ""));
        let json = || match found {
            _ if self.json.is_empty() => None,
            Found::Text(text) => self.json.objection(text.as_bytes(), "the value"),
            Found::Typed(value) => self.json.objection(value.to_string().as_bytes(), "the value"),
            Found::Nothing => Some(Objection::Bad("there is no value, and JSON is expected".to_owned())),
        };
        match Objection::worst(value.into_iter().chain(json())) {
            Some(objection) => objection.into(),
            None => in_time(found, took, self.within),
        }
    }

    /// Judges several values, each of them a text with the name of what it belongs to.
    pub(super) fn judge_all(&self, values: &[(String, String)], take: Take, took: Duration) -> Seen {
        let Some(comparison) = &self.value else { return Seen::unclear("nothing is expected") };
        let one = |found: &Found| Objection::of(comparison.judge(found), "");
        if values.is_empty() {
            let none = Found::Typed(Value::Array(Vec::new()));
            return match comparison.expects_nothing() {
                true => one(&if comparison.counts() { none } else { Found::Nothing })
                    .map_or_else(|| in_time("no data", took, self.within), Seen::from),
                false => Seen::unclear(format!("no data (expected {comparison})")),
            };
        }
        match objection_to_all(comparison, values, take) {
            Some(objection) => objection.into(),
            None => in_time(shown(values, take), took, self.within),
        }
    }
}

/// What is not as expected of several values, each of them a text with the name of what it belongs to. There is at least one.
pub(super) fn objection_to_all(
    comparison: &Comparison,
    values: &[(String, String)],
    take: Take,
) -> Option<Objection> {
    if comparison.counts() {
        let all = values.iter().map(|(_, value)| Value::from(value.as_str())).collect();
        return Objection::of(comparison.judge(&Found::Typed(Value::Array(all))), "");
    }
    let judge = |value: &String| Objection::of(comparison.judge(&Found::Text(value.clone())), "");
    match take {
        Take::One if values.len() > 1 => Some(Objection::Unclear(format!(
            "{} values, and one is compared: aggregate them in the query",
            values.len()
        ))),
        Take::One | Take::All => {
            // What is unclear of one value leaves open whether all are as expected, unless another one is not.
            let mut unclear = None;
            for (name, value) in values {
                let text = |why: String| if values.len() == 1 { why } else { format!("{name}: {why}") };
                match judge(value) {
                    None => {}
                    Some(Objection::Bad(why)) => return Some(Objection::Bad(text(why))),
                    Some(Objection::Unclear(why)) => {
                        unclear = unclear.or_else(|| Some(Objection::Unclear(text(why))));
                    }
                }
            }
            unclear
        }
        Take::Any => {
            let mut last = None;
            for (_, value) in values {
                match judge(value)? {
                    unclear @ Objection::Unclear(_) => last = Some(unclear),
                    bad @ Objection::Bad(_) => last = last.or(Some(bad)),
                }
            }
            last
        }
        Take::Min | Take::Max | Take::Mean | Take::Sum => match aggregate(values, take) {
            Ok(number) => judge(&number.to_string()),
            Err(why) => Some(Objection::Unclear(why)),
        },
    }
}

/// One number of several; an error says which of them is none.
fn aggregate(values: &[(String, String)], take: Take) -> Result<f64, String> {
    let mut numbers = Vec::with_capacity(values.len());
    for (name, value) in values {
        let number: Number = value.parse().map_err(|why| format!("{name}: {why}"))?;
        numbers.push(number.real());
    }
    let sum: f64 = numbers.iter().sum();
    Ok(match take {
        Take::Min => numbers.iter().copied().fold(f64::INFINITY, f64::min),
        Take::Max => numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        Take::Mean => sum / numbers.len() as f64,
        _ => sum,
    })
}

/// What was compared, in a few words.
pub(super) fn shown(values: &[(String, String)], take: Take) -> String {
    let one = matches!(take, Take::Min | Take::Max | Take::Mean | Take::Sum);
    match values {
        [(_, value)] => format!("`{value}`"),
        _ if one && let Ok(number) = aggregate(values, take) => format!("`{number}`"),
        _ => format!("{} values", values.len()),
    }
}
