//! What one object of the schema says, in words and as a parser.

use std::net::IpAddr;

use serde_json::{Map, Value};

use super::suggest;
use crate::name::Name;
use crate::peer::{Peer, Ports};
use crate::probe::{Budget, ErrorsBound, LatencyBound, QuantileBound, Quota, ThroughputBound};
use crate::quantity::{Bandwidth, MostPercent, MostPeriod, Percent, Period, Pick, QuantityError, Rate, Size};
use crate::ramp::{By, Factor, Level};
use crate::schedule::{Cron, Day, Moment, TimeOfDay, Zone};

/// Reads a text, or says why it cannot.
pub(super) type Parse = fn(&str) -> Result<(), QuantityError>;

/// The parser behind a format of the schema.
pub(super) fn parser(format: &str) -> Option<Parse> {
    fn read<T: std::str::FromStr<Err = QuantityError>>(text: &str) -> Result<(), QuantityError> {
        text.parse::<T>().map(drop)
    }
    fn address(text: &str) -> Result<(), QuantityError> {
        let wrong = |_| {
            QuantityError::new(
                format!("`{text}` is not an address"),
                "write it as `10.0.0.7` or `2001:db8::7`",
            )
        };
        text.parse::<IpAddr>().map(drop).map_err(wrong)
    }
    Some(match format {
        "ip" => address,
        "period" => read::<Period>,
        "percent" => read::<Percent>,
        "pick" => read::<Pick>,
        "peer" => read::<Peer>,
        "ports" => read::<Ports>,
        "quota" => read::<Quota>,
        "rate" => read::<Rate>,
        "bandwidth" => read::<Bandwidth>,
        "size" => read::<Size>,
        "budget" => read::<Budget>,
        "percent-bound" => read::<MostPercent>,
        "errors-bound" => read::<ErrorsBound>,
        "throughput-bound" => read::<ThroughputBound>,
        "latency-bound" => read::<LatencyBound>,
        "period-bound" => read::<MostPeriod>,
        "quantile-bound" => read::<QuantileBound>,
        "cron" => read::<Cron>,
        "zone" => read::<Zone>,
        "moment" => read::<Moment>,
        "day" => read::<Day>,
        "time-of-day" => read::<TimeOfDay>,
        "name" => read::<Name>,
        "level" => read::<Level>,
        "ramp-by" => read::<By>,
        "factor" => read::<Factor>,
        _ => return None,
    })
}

/// The one type besides `null`.
pub(super) fn kind(rules: &Map<String, Value>) -> Option<&str> {
    match rules.get("type")? {
        Value::String(kind) => Some(kind),
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).find(|kind| *kind != "null"),
        _ => None,
    }
}

/// What a value of these rules is called.
pub(super) fn noun(rules: &Map<String, Value>) -> &'static str {
    match kind(rules) {
        Some("object") => "a group of keys",
        Some("array") => "a list",
        Some("integer") => "a whole number",
        Some("number") => "a number",
        Some("boolean") => "`true` or `false`",
        _ => "a text",
    }
}

/// What to write where nothing, or the wrong thing, stands.
pub(super) fn wanted(rules: &Map<String, Value>, key: &str) -> String {
    if let Some(example) = rules.get("examples").and_then(Value::as_array).and_then(|list| list.first()) {
        return format!(
            "write `{key}: {}`",
            example.as_str().map_or_else(|| example.to_string(), str::to_owned)
        );
    }
    let properties = rules.get("properties").and_then(Value::as_object);
    let known: Vec<&str> = properties.iter().flat_map(|map| map.keys().map(String::as_str)).collect();
    match kind(rules) {
        Some("object") if rules.get("required").is_none() && !known.is_empty() => {
            format!("write `{key}: {{}}`, or give it keys: {}", suggest::list(&known))
        }
        Some("object") if !known.is_empty() => format!("keys: {}", suggest::list(&known)),
        Some("array") => format!("write a list, one item per line, each after a `-`, or leave `{key}` out"),
        _ => "give it a value, or leave the key out".to_owned(),
    }
}

/// The key of a variant that is written as one key with its value.
pub(super) fn tag_of(kind: &Value) -> Option<&str> {
    kind.get("required")?.as_array()?.first()?.as_str()
}

/// The words of a variant that is written as a word.
pub(super) fn words_of(kind: &Value) -> Vec<&str> {
    let several = kind.get("enum").and_then(Value::as_array).into_iter().flatten();
    kind.get("const").into_iter().chain(several).filter_map(Value::as_str).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn formats(schema: &Value, found: &mut BTreeSet<String>) {
        match schema {
            Value::Object(rules) => {
                found.extend(rules.get("format").and_then(Value::as_str).map(str::to_owned));
                rules.values().for_each(|inner| formats(inner, found));
            }
            Value::Array(list) => list.iter().for_each(|inner| formats(inner, found)),
            _ => {}
        }
    }

    #[test]
    fn every_format_of_the_schema_is_read_where_it_stands() {
        let mut found = BTreeSet::new();
        formats(crate::document::schema(), &mut found);
        // Numbers are looked at by their kind, and a comparison where its value is known.
        let others = [
            "comparison",
            "double",
            "float",
            "uint",
            "uint8",
            "uint16",
            "uint32",
            "uint64",
            "int32",
            "int64",
        ];
        let unread: Vec<&String> = found
            .iter()
            .filter(|format| parser(format).is_none() && !others.contains(&format.as_str()))
            .collect();
        assert!(unread.is_empty() && found.contains("bandwidth"), "nobody reads {unread:?} of {found:?}");
    }
}
