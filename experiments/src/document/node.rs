//! The tree of a document, each node with its place.

use serde::de::DeserializeOwned;
use serde_json::{Number, Value};

use super::problem::Span;

/// A value and its place.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) span: Span,
    pub(super) data: Data,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Data {
    Null,
    Bool(bool),
    /// The number, and how it was written.
    Number(Number, String),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
    /// A reference that could not be resolved and was reported: nothing more is said about it.
    Unknown,
}

/// One key of a map with its value.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_span: Span,
    pub(super) value: Node,
}

impl Node {
    /// A scalar as it was written, for formats that read both texts and numbers.
    pub(super) fn scalar_text(&self) -> Option<&str> {
        match &self.data {
            Data::Text(text) | Data::Number(_, text) => Some(text),
            _ => None,
        }
    }

    /// The value of a key; `None` also where this is no map.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// The entry of a key.
    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    /// The entries of a map; none where this is no map.
    pub(super) fn entries(&self) -> &[Entry] {
        match &self.data {
            Data::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The items of a list; none where this is no list.
    pub(super) fn items(&self) -> &[Node] {
        match &self.data {
            Data::List(items) => items,
            _ => &[],
        }
    }

    /// What it is, in words.
    pub(super) fn words(&self) -> String {
        match &self.data {
            Data::Null | Data::Unknown => "nothing".to_owned(),
            Data::Bool(value) => format!("`{value}`"),
            Data::Number(_, text) => format!("the number `{text}`"),
            Data::Text(text) => format!("the text `{}`", short(text)),
            Data::List(_) => "a list".to_owned(),
            Data::Map(_) => "a group of keys".to_owned(),
        }
    }

    /// Where to point when something is missing in it: its first key, or all of it.
    pub(super) fn head(&self) -> Span {
        self.entries().first().map_or(self.span, |entry| entry.key_span)
    }

    /// The same value without places.
    pub(super) fn value(&self) -> Value {
        match &self.data {
            Data::Null | Data::Unknown => Value::Null,
            Data::Bool(value) => Value::Bool(*value),
            Data::Number(number, _) => Value::Number(number.clone()),
            Data::Text(text) => Value::String(text.clone()),
            Data::List(items) => Value::Array(items.iter().map(Node::value).collect()),
            Data::Map(entries) => {
                Value::Object(entries.iter().map(|entry| (entry.key.clone(), entry.value.value())).collect())
            }
        }
    }

    /// As a type of the model; `None` where the schema has something to say about it, which the walk reports.
    pub(super) fn decode<T: DeserializeOwned>(&self) -> Option<T> {
        self.known().then(|| serde_json::from_value(self.value()).ok()).flatten()
    }

    /// Whether every reference in it was resolved.
    pub(super) fn known(&self) -> bool {
        match &self.data {
            Data::Unknown => false,
            Data::List(items) => items.iter().all(Node::known),
            Data::Map(entries) => entries.iter().all(|entry| entry.value.known()),
            _ => true,
        }
    }
}

/// A text that fits into a message.
pub(super) fn short(text: &str) -> String {
    if text.chars().count() <= 60 {
        return text.to_owned();
    }
    text.chars().take(57).chain("...".chars()).collect()
}
