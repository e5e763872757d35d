//! The parameters of a fault, read from its JSON Schema: for the catalogue, and for the flags of `squall inject`.

use serde_json::Value;

use super::Entry;

/// One parameter. A group of parameters, such as `then:` of `kill`, is given as its members.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// The keys that lead to it: `["then", "signal"]`.
    pub path: Vec<String>,
    /// What it means.
    pub description: String,
    /// What its values are.
    pub kind: Kind,
    /// Whether it is a list of such values.
    pub list: bool,
    /// Whether it must be given, wherever its group is given.
    pub required: bool,
    /// What applies without it; `None` where it then does not apply at all.
    pub default: Option<String>,
}

/// What the values of a parameter are.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// A time with its unit.
    Period,
    /// A percentage.
    Percent,
    /// How much a line carries.
    Bandwidth,
    /// How many bytes.
    Size,
    /// How many: `all`, a number or a percentage.
    Pick,
    /// An address, a network or a name, with or without ports.
    Peer,
    /// A port or a range of ports.
    Ports,
    /// One of these words, each with its meaning.
    Word(Vec<(String, String)>),
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// Yes or no.
    Boolean,
    /// Any text.
    Text,
}

impl Parameter {
    /// As it is written in an explanation: `then.signal`.
    pub fn name(&self) -> String {
        self.path.join(".")
    }

    /// As a flag of the command line, without dashes in front: `then-signal`.
    pub fn flag(&self) -> String {
        self.path.join("-").replace('_', "-")
    }

    /// What its values are, in words, with their units.
    pub fn words(&self) -> String {
        let one = match &self.kind {
            Kind::Period => "time with a unit (`250ms`, `30s`, `1m30s`)".to_owned(),
            Kind::Percent => "percentage (`0.1%`)".to_owned(),
            Kind::Bandwidth => "bandwidth (`10Mbit/s`, `512kbit/s`, `1.5MB/s`)".to_owned(),
            Kind::Size => "size (`64kB`, `1500B`)".to_owned(),
            Kind::Pick => "`all`, a number, or a percentage (rounded down, at least one)".to_owned(),
            Kind::Peer => {
                "peer (`db.internal:5432`, `10.0.0.0/8`, `[2001:db8::7]:443`, `any:8000-8100`)".to_owned()
            }
            Kind::Ports => "port or range of ports (`8080`, `8000-8100`)".to_owned(),
            Kind::Word(words) => {
                words.iter().map(|(word, _)| format!("`{word}`")).collect::<Vec<_>>().join(", ")
            }
            Kind::Integer => "whole number".to_owned(),
            Kind::Number => "number".to_owned(),
            Kind::Boolean => "`true` or `false`".to_owned(),
            Kind::Text => "text".to_owned(),
        };
        if self.list { format!("list of: {one}") } else { one }
    }
}

impl Entry {
    /// What the fault does, from its own documentation; longer than the summary.
    pub fn description(&self) -> &str {
        self.schema.get("description").and_then(Value::as_str).unwrap_or(self.summary)
    }

    /// All parameters, in the order of the documentation.
    pub fn parameters(&self) -> Vec<Parameter> {
        let schema = self.schema.as_value();
        let mut found = Vec::new();
        collect(schema, schema, &[], &mut found);
        found
    }
}

fn collect(root: &Value, object: &Value, path: &[String], found: &mut Vec<Parameter>) {
    let required: Vec<&str> =
        object["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (key, schema) in object["properties"].as_object().into_iter().flatten() {
        let path = [path, std::slice::from_ref(key)].concat();
        let target = target(root, schema);
        let (list, item) = match target.get("items") {
            Some(items) => (true, self::target(root, items)),
            None => (false, target),
        };
        if item.get("properties").is_some() {
            collect(root, item, &path, found);
            continue;
        }
        let default = schema.get("default").or_else(|| target.get("default"));
        found.push(Parameter {
            description: text(schema, "description")
                .or_else(|| text(target, "description"))
                .unwrap_or_default(),
            kind: kind(item),
            list,
            required: required.contains(&key.as_str()),
            default: default.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned)),
            path,
        });
    }
}

/// Behind references and the `null` of an optional value.
fn target<'s>(root: &'s Value, schema: &'s Value) -> &'s Value {
    if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
        return &root["$defs"][name.trim_start_matches("#/$defs/")];
    }
    let options = schema.get("anyOf").and_then(Value::as_array);
    let chosen = options.and_then(|options| options.iter().find(|option| option["type"] != "null"));
    chosen.map_or(schema, |chosen| target(root, chosen))
}

fn kind(schema: &Value) -> Kind {
    let words = words(schema);
    if !words.is_empty() {
        return Kind::Word(words);
    }
    match schema["format"].as_str() {
        Some("period") => return Kind::Period,
        Some("percent") => return Kind::Percent,
        Some("bandwidth") => return Kind::Bandwidth,
        Some("size") => return Kind::Size,
        Some("pick") => return Kind::Pick,
        Some("peer") => return Kind::Peer,
        Some("ports") => return Kind::Ports,
        _ => {}
    }
    let is = |name: &str| match &schema["type"] {
        Value::String(kind) => kind == name,
        Value::Array(kinds) => kinds.iter().any(|kind| kind == name),
        _ => false,
    };
    match () {
        () if is("integer") => Kind::Integer,
        () if is("number") => Kind::Number,
        () if is("boolean") => Kind::Boolean,
        () => Kind::Text,
    }
}

/// The words of an enumeration: those with a description stand in `oneOf`, those without in `enum`.
fn words(schema: &Value) -> Vec<(String, String)> {
    let own = std::iter::once(schema);
    let variants = schema["oneOf"].as_array().into_iter().flatten();
    own.chain(variants)
        .flat_map(|variant| {
            let meaning = if std::ptr::eq(variant, schema) { None } else { text(variant, "description") };
            let several = variant["enum"].as_array().into_iter().flatten();
            let words = variant.get("const").into_iter().chain(several).filter_map(Value::as_str);
            words.map(move |word| (word.to_owned(), meaning.clone().unwrap_or_default())).collect::<Vec<_>>()
        })
        .collect()
}

fn text(schema: &Value, key: &str) -> Option<String> {
    schema.get(key).and_then(Value::as_str).map(|text| text.replace('\n', " "))
}

#[cfg(test)]
mod tests {
    use super::super::catalogue;
    use super::*;

    fn parameter(fault: &str, name: &str) -> Parameter {
        let entry = catalogue().into_iter().find(|entry| entry.name == fault).unwrap();
        entry.parameters().into_iter().find(|parameter| parameter.name() == name).unwrap()
    }

    #[test]
    fn parameters_have_their_kinds_and_defaults() {
        let to = parameter("partition", "to");
        assert_eq!((to.kind, to.list, to.default), (Kind::Peer, true, None));
        let pick = parameter("kill", "pick");
        assert_eq!((pick.kind, pick.list, pick.default.as_deref()), (Kind::Pick, false, Some("all")));
        let every = parameter("disconnect", "every");
        assert_eq!((every.kind, every.required, every.default), (Kind::Period, false, None));
        let Kind::Word(words) = parameter("refuse", "with").kind else { panic!() };
        assert_eq!(words[0].0, "reset");
        assert!(words[0].1.contains("connection refused"));
    }

    #[test]
    fn groups_are_given_as_their_members() {
        let signal = parameter("kill", "then.signal");
        assert_eq!((signal.flag().as_str(), signal.required), ("then-signal", true));
        assert_eq!(parameter("kill", "then.after").kind, Kind::Period);
    }

    #[test]
    fn every_parameter_of_the_catalogue_is_documented() {
        for entry in catalogue() {
            for parameter in entry.parameters() {
                assert!(!parameter.description.is_empty(), "{} {}", entry.name, parameter.name());
                assert!(!parameter.words().is_empty());
            }
        }
    }
}
