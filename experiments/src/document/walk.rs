//! The schema that editors use, walked over a document: every unknown key, missing key and wrong value at once.
//!
//! It understands what schemars makes of this crate's types; a text with a format is read by the format's own parser,
//! so that its message reaches the user.

use serde_json::{Map, Value};

use super::node::{Data, Node, short};
use super::problem::{Problem, Span};
use super::rules::{Parse, kind, noun, parser, tag_of, wanted, words_of};
use super::suggest;

/// Walks a document by a schema.
pub(super) struct Walk<'s> {
    root: &'s Value,
    pub(super) problems: Vec<Problem>,
}

/// Where the walk is.
struct Place {
    /// The last part, for messages: `method[0]`; empty for the document as a whole.
    name: String,
    /// What the document is called.
    whole: &'static str,
    path: String,
    /// The key that leads here.
    key: Option<Span>,
}

impl Place {
    fn under(&self, key: &str, span: Span) -> Place {
        let path = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        Place { name: key.to_owned(), whole: self.whole, path, key: Some(span) }
    }

    fn item(&self, index: usize) -> Place {
        let (name, path) = (format!("{}[{index}]", self.name), format!("{}[{index}]", self.path));
        Place { name, whole: self.whole, path, key: None }
    }

    fn words(&self) -> String {
        if self.name.is_empty() { self.whole.to_owned() } else { format!("`{}`", self.name) }
    }
}

impl<'s> Walk<'s> {
    /// `root` is a complete schema with its `$defs`.
    pub(super) fn new(root: &'s Value) -> Self {
        Walk { root, problems: Vec::new() }
    }

    /// Finds everything about a document that its schema forbids; `whole` is what it is called, such as `the experiment`.
    pub(super) fn document(&mut self, node: &Node, whole: &'static str) {
        let place = Place { name: String::new(), whole, path: String::new(), key: None };
        self.walk(self.root, node, &place);
    }

    fn report(&mut self, span: Span, place: &Place, what: impl Into<String>, help: impl Into<String>) {
        self.problems.push(Problem {
            span: Some(span),
            path: place.path.clone(),
            what: what.into(),
            help: Some(help.into()).filter(|help: &String| !help.is_empty()),
        });
    }

    /// The schema behind references and `null` alternatives, with the name of its type.
    fn target(&self, schema: &'s Value) -> (&'s Value, Option<&'s str>) {
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            let name = reference.trim_start_matches("#/$defs/");
            return (&self.root["$defs"][name], Some(name));
        }
        // What has a format of its own, and no parser here, is read by the check of its meaning.
        let own = schema.get("format").is_some();
        if let Some(options) = schema.get("anyOf").and_then(Value::as_array).filter(|_| !own) {
            let chosen = options.iter().find(|option| option.get("type") != Some(&Value::from("null")));
            return chosen.map_or((schema, None), |chosen| self.target(chosen));
        }
        (schema, None)
    }

    fn walk(&mut self, schema: &'s Value, node: &Node, place: &Place) {
        let (schema, type_name) = self.target(schema);
        let Some(rules) = schema.as_object() else { return };
        if node.data == Data::Unknown || rules.is_empty() {
            return;
        }
        if node.data == Data::Null && (rules.contains_key("type") || rules.contains_key("oneOf")) {
            let span = place.key.unwrap_or(node.span);
            return self.report(
                span,
                place,
                format!("{} has no value", place.words()),
                wanted(rules, &place.name),
            );
        }
        if let Some(format) = rules.get("format").and_then(Value::as_str)
            && let Some(parse) = parser(format)
        {
            return self.formatted(parse, format, node, place);
        }
        if let Some(kinds) = rules.get("oneOf").and_then(Value::as_array) {
            return self.one_of(kinds, type_name, node, place);
        }
        match kind(rules) {
            Some("object") => self.object(rules, node, place),
            Some("array") => self.array(rules, node, place),
            Some("string") => match &node.data {
                Data::Text(text) => self.text(rules, text, node, place),
                Data::Number(_, text) => {
                    let help = format!("put it in quotes: `\"{text}\"`");
                    self.wrong(rules, node, place, help);
                }
                Data::Bool(value) => {
                    let help = format!("put it in quotes: `\"{value}\"`");
                    self.wrong(rules, node, place, help);
                }
                _ => self.wrong(rules, node, place, String::new()),
            },
            Some("integer") => self.integer(rules, node, place),
            Some("number") if !matches!(node.data, Data::Number(..)) => {
                self.wrong(rules, node, place, String::new());
            }
            Some("boolean") if !matches!(node.data, Data::Bool(_)) => {
                self.wrong(rules, node, place, "write `true` or `false`".to_owned());
            }
            _ => {}
        }
    }

    fn wrong(&mut self, rules: &Map<String, Value>, node: &Node, place: &Place, help: String) {
        let what = format!("{} must be {}, not {}", place.words(), noun(rules), node.words());
        let help = if help.is_empty() { wanted(rules, &place.name) } else { help };
        let span = if matches!(node.data, Data::List(_) | Data::Map(_)) {
            place.key.unwrap_or_else(|| node.head())
        } else {
            node.span
        };
        self.report(span, place, what, help);
    }

    fn formatted(&mut self, parse: Parse, format: &str, node: &Node, place: &Place) {
        let Some(text) = node.scalar_text() else {
            let what = format!("{} must be a {format}, not {}", place.words(), node.words());
            let error = parse("").err().and_then(|error| error.help);
            let span = place.key.unwrap_or_else(|| node.head());
            return self.report(span, place, what, error.unwrap_or_default());
        };
        if let Err(error) = parse(text) {
            self.report(node.span, place, error.what, error.help.unwrap_or_default());
        }
    }

    fn text(&mut self, rules: &Map<String, Value>, text: &str, node: &Node, place: &Place) {
        if let Some(words) = rules.get("enum").and_then(Value::as_array) {
            let words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
            if !words.contains(&text) {
                self.unknown_word(&words, text, node, place);
            }
        }
    }

    fn unknown_word(&mut self, words: &[&str], text: &str, node: &Node, place: &Place) {
        let what = format!("{} cannot be `{}`", place.words(), short(text));
        self.report(node.span, place, what, suggest::one_of(text, words, ""));
    }

    fn integer(&mut self, rules: &Map<String, Value>, node: &Node, place: &Place) {
        let Data::Number(number, text) = &node.data else {
            return self.wrong(rules, node, place, "write a whole number, without quotes".to_owned());
        };
        let bound = |name: &str| rules.get(name).and_then(Value::as_i64).map(i128::from);
        let unsigned =
            rules.get("format").and_then(Value::as_str).is_some_and(|format| format.starts_with("uint"));
        let least = bound("minimum").or(unsigned.then_some(0));
        let most = bound("maximum").or(match rules.get("format").and_then(Value::as_str) {
            Some("uint32") => Some(u32::MAX.into()),
            Some("int32") => Some(i32::MAX.into()),
            _ => None,
        });
        let value = number.as_u64().map(i128::from).or_else(|| number.as_i64().map(i128::from));
        let Some(value) = value else {
            return self.wrong(rules, node, place, "write a whole number".to_owned());
        };
        if least.is_some_and(|least| value < least) || most.is_some_and(|most| value > most) {
            let what = format!("{} cannot be `{text}`", place.words());
            let help = match (least, most) {
                (Some(least), Some(most)) => format!("it goes from {least} to {most}"),
                (Some(least), None) => format!("it is at least {least}"),
                (None, Some(most)) => format!("it is at most {most}"),
                (None, None) => String::new(),
            };
            self.report(node.span, place, what, help);
        }
    }

    fn array(&mut self, rules: &'s Map<String, Value>, node: &Node, place: &Place) {
        let Data::List(items) = &node.data else {
            let help = match node.scalar_text() {
                Some(text) => format!("write it as a list: `[\"{}\"]`", short(text)),
                None => String::new(),
            };
            return self.wrong(rules, node, place, help);
        };
        if items.is_empty() && rules.get("minItems").is_some_and(|least| *least != 0) {
            let help = format!("name at least one, or leave {} out", place.words());
            self.report(place.key.unwrap_or(node.span), place, format!("{} is empty", place.words()), help);
        }
        if let Some(schema) = rules.get("items") {
            for (index, item) in items.iter().enumerate() {
                self.walk(schema, item, &place.item(index));
            }
        }
    }

    fn object(&mut self, rules: &'s Map<String, Value>, node: &Node, place: &Place) {
        let Data::Map(entries) = &node.data else {
            return self.wrong(rules, node, place, String::new());
        };
        let properties = rules.get("properties").and_then(Value::as_object);
        let known: Vec<&str> = properties.iter().flat_map(|map| map.keys().map(String::as_str)).collect();
        let others = rules.get("additionalProperties");
        if entries.is_empty() && rules.get("minProperties").is_some_and(|least| *least != 0) {
            let help = format!("give at least one of {}", suggest::list(&known));
            self.report(place.key.unwrap_or(node.span), place, format!("{} is empty", place.words()), help);
        }
        for entry in entries {
            let below = place.under(&entry.key, entry.key_span);
            match properties.and_then(|map| map.get(&entry.key)).or(others) {
                Some(Value::Bool(false)) => {
                    let what = format!("unknown key `{}` in {}", short(&entry.key), place.words());
                    let help = if entry.key == "<<" {
                        "merge keys are YAML 1.1; repeat the keys, or use `vars:`".to_owned()
                    } else {
                        suggest::one_of(&entry.key, &known, "no keys are known here")
                    };
                    self.report(entry.key_span, &below, what, help);
                }
                Some(schema) => self.walk(schema, &entry.value, &below),
                None => {}
            }
        }
        for key in
            rules.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
        {
            if node.get(key).is_none() {
                let words = properties
                    .and_then(|map| map.get(key))
                    .map_or(String::new(), |schema| self.describe(key, schema));
                let span = place.key.unwrap_or_else(|| node.head());
                self.report(span, place, format!("{} has no `{key}`", place.words()), words);
            }
        }
    }

    /// One of several words, or exactly one of several keys.
    fn one_of(&mut self, kinds: &'s [Value], type_name: Option<&str>, node: &Node, place: &Place) {
        let words: Vec<&str> = kinds.iter().flat_map(words_of).collect();
        if !words.is_empty() {
            return match &node.data {
                Data::Text(text) if words.contains(&text.as_str()) => {}
                Data::Text(text) => self.unknown_word(&words, text, node, place),
                _ => {
                    let what = format!("{} must be a word, not {}", place.words(), node.words());
                    self.report(node.span, place, what, format!("one of {}", suggest::list(&words)));
                }
            };
        }
        let kind_noun = type_name.unwrap_or("kind").to_lowercase();
        let names: Vec<&str> = kinds.iter().filter_map(tag_of).collect();
        let known = match kind_noun.as_str() {
            "fault" => format!("faults: {}; `squall faults` explains them", suggest::list(&names)),
            _ => format!("one of {}", suggest::list(&names)),
        };
        match node.entries() {
            [entry] => {
                let below = place.under(&entry.key, entry.key_span);
                let kind = kinds.iter().find(|kind| tag_of(kind) == Some(entry.key.as_str()));
                if let Some(schema) = kind.and_then(|kind| kind["properties"].get(&entry.key)) {
                    return self.walk(schema, &entry.value, &below);
                }
                let near = suggest::nearest(&entry.key, names.iter().copied());
                let help = near.map_or(known, |near| format!("did you mean `{near}`?"));
                self.report(
                    entry.key_span,
                    &below,
                    format!("unknown {kind_noun} `{}`", short(&entry.key)),
                    help,
                );
            }
            [_, second, ..] => {
                let what = format!("{} has more than one {kind_noun}", place.words());
                let help = match kind_noun.as_str() {
                    "fault" => "give each fault a step of its own; `parallel:` runs them together",
                    _ => "choose one",
                };
                self.report(second.key_span, place, what, help);
            }
            [] => {
                let text = node.scalar_text();
                let bare = text.filter(|text| names.contains(text));
                let what = match text {
                    Some(text) if bare.is_none() => format!("unknown {kind_noun} `{}`", short(text)),
                    Some(text) => format!("`{text}` has no parameters"),
                    None => format!("{} must name one {kind_noun}", place.words()),
                };
                let help = bare.map_or(known, |name| format!("write `{{ {name}: {{}} }}`"));
                let span = if text.is_some() { node.span } else { place.key.unwrap_or_else(|| node.head()) };
                self.report(span, place, what, help);
            }
        }
    }

    /// `key: what it is`, by the first sentence of its documentation.
    fn describe(&self, key: &str, schema: &'s Value) -> String {
        let own = schema.get("description").or_else(|| self.target(schema).0.get("description"));
        let text = own.and_then(Value::as_str).unwrap_or_default().replace('\n', " ");
        let sentence = text.split(". ").next().unwrap_or_default().trim_end_matches('.');
        let mut letters = sentence.chars();
        let first = letters.next().map(|first| first.to_lowercase().to_string()).unwrap_or_default();
        format!("`{key}`: {first}{}", letters.as_str())
    }
}
