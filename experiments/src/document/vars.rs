//! `${name}` and `${secret:NAME}`: what stands for something else, and what it stands for.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::node::{Data, Entry, Node};
use super::parse::{DEEPEST, LONGEST, MOST_NODES, resolve};
use super::problem::{Problem, Span};
use super::secret::{Redactor, SHORTEST_SECRET};
use super::suggest;

/// Finds a secret by its name: `Ok(None)` where there is none, `Err` with the reason where it cannot be read.
pub type Lookup<'a> = dyn Fn(&str) -> Result<Option<String>, String> + 'a;

/// How many names are compared with one that is not known.
const MOST_SUGGESTED: usize = 100;

/// Replaces every reference of a document.
pub(super) struct Substitution<'a> {
    source: &'a str,
    lookup: &'a Lookup<'a>,
    vars: BTreeMap<String, Rc<Node>>,
    /// How much all references together may still add.
    nodes_left: usize,
    bytes_left: usize,
    exhausted: bool,
    pub(super) redactor: Redactor,
    pub(super) problems: Vec<Problem>,
}

/// A part of a text.
enum Part<'t> {
    Plain(&'t str),
    Reference(&'t str),
    Unfinished,
}

impl<'a> Substitution<'a> {
    pub(super) fn new(source: &'a str, lookup: &'a Lookup<'a>) -> Self {
        Substitution {
            source,
            lookup,
            vars: BTreeMap::new(),
            nodes_left: MOST_NODES,
            bytes_left: LONGEST,
            exhausted: false,
            redactor: Redactor::default(),
            problems: Vec::new(),
        }
    }

    /// Replaces the references of `root`: first those in `vars:`, each of which may use the variables above it, then
    /// all others. `given` are the values of the command line.
    pub(super) fn apply(&mut self, root: &mut Node, given: &BTreeMap<String, String>) {
        let Data::Map(entries) = &mut root.data else {
            return;
        };
        let declared: Vec<String> = entries
            .iter()
            .filter(|entry| entry.key == "vars")
            .flat_map(|entry| entry.value.entries().iter().map(|entry| entry.key.clone()))
            .collect();
        for name in given.keys().filter(|name| !declared.contains(name)) {
            self.problems.push(Problem {
                span: None,
                path: "vars".to_owned(),
                what: format!("the variable `{name}` of the command line is not used by this document"),
                help: Some(suggest::one_of(name, &declared, "the document has no `vars:`")),
            });
        }
        for entry in entries.iter_mut().filter(|entry| entry.key == "vars") {
            let Data::Map(variables) = &mut entry.value.data else {
                continue;
            };
            for variable in variables {
                self.define(variable, given.get(&variable.key));
            }
        }
        for entry in entries.iter_mut().filter(|entry| entry.key != "vars") {
            self.replace(&mut entry.value);
        }
    }

    /// One variable: its value is that of the command line where one is given.
    fn define(&mut self, variable: &mut Entry, given: Option<&String>) {
        let name = &variable.key;
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if name.is_empty() || !name.chars().all(allowed) {
            let help = "use letters, digits, `_` and `-`".to_owned();
            self.report(variable.key_span, format!("`{name}` cannot name a variable"), help);
        }
        match given {
            Some(text) => variable.value.data = typed_like(&variable.value.data, text),
            None if variable.value.data == Data::Null => {
                let help = format!("give it one here or with `--var {name}=…`");
                self.report(variable.key_span, format!("the variable `{name}` has no value"), help);
                variable.value.data = Data::Unknown;
            }
            None => self.replace(&mut variable.value),
        }
        if height(&variable.value) > DEEPEST {
            let what = format!("the variable `{name}` is nested more than {DEEPEST} deep");
            self.report(variable.key_span, what, "an experiment needs fewer than 10".to_owned());
            variable.value.data = Data::Unknown;
        }
        self.vars.insert(name.clone(), Rc::new(variable.value.clone()));
    }

    fn report(&mut self, span: Span, what: String, help: String) {
        self.problems.push(Problem { span: Some(span), path: String::new(), what, help: Some(help) });
    }

    fn replace(&mut self, node: &mut Node) {
        match &mut node.data {
            Data::Text(text) if text.contains("${") => {
                let text = std::mem::take(text);
                node.data = self.expand(&text, node.span);
            }
            Data::List(items) => items.iter_mut().for_each(|item| self.replace(item)),
            Data::Map(entries) => entries.iter_mut().for_each(|entry| self.replace(&mut entry.value)),
            _ => {}
        }
    }

    fn expand(&mut self, text: &str, span: Span) -> Data {
        let parts = split(text);
        if let [Part::Reference(name)] = parts.as_slice() {
            return self.resolve(name, span).unwrap_or(Data::Unknown);
        }
        // Every part is looked at, so that each reference that is wrong is reported.
        let parts: Vec<Option<String>> = parts.into_iter().map(|part| self.part(part, span)).collect();
        parts.into_iter().collect::<Option<String>>().map_or(Data::Unknown, Data::Text)
    }

    fn part(&mut self, part: Part<'_>, span: Span) -> Option<String> {
        match part {
            Part::Plain(plain) => Some(plain.to_owned()),
            Part::Unfinished => {
                self.report(
                    span,
                    "`${` without `}`".to_owned(),
                    "to mean it literally write `$${`".to_owned(),
                );
                None
            }
            Part::Reference(name) => match self.resolve(name, span)? {
                Data::Text(text) | Data::Number(_, text) => Some(text),
                Data::Bool(value) => Some(value.to_string()),
                Data::Unknown => None,
                Data::Null | Data::List(_) | Data::Map(_) => {
                    let what =
                        format!("`${{{name}}}` is not a single value and cannot stand inside of a text");
                    self.report(self.place(name, span), what, "let it stand alone".to_owned());
                    None
                }
            },
        }
    }

    /// The value behind a reference, or `None` after a report.
    fn resolve(&mut self, name: &str, span: Span) -> Option<Data> {
        let place = self.place(name, span);
        if self.exhausted {
            return None;
        }
        if let Some(secret) = name.strip_prefix("secret:") {
            let value = Data::Text(self.secret(secret, place)?);
            return self.afford(&value, place).then_some(value);
        }
        let Some(node) = self.vars.get(name).cloned() else {
            let known: Vec<&str> = self.vars.keys().take(MOST_SUGGESTED).map(String::as_str).collect();
            let none = "put it into `vars:`; a secret is spelt `${secret:NAME}`, a literal `${` is `$${`";
            let help = suggest::one_of(name, &known, none);
            self.report(place, format!("nothing is known of the variable `{name}`"), help);
            return None;
        };
        if !self.afford(&node.data, place) {
            return None;
        }
        let mut node = (*node).clone();
        move_to(&mut node, span);
        Some(node.data)
    }

    /// Whether a value still fits; says so once when it does not.
    fn afford(&mut self, data: &Data, place: Span) -> bool {
        let (nodes, bytes) = size(data);
        let left = (self.nodes_left.checked_sub(nodes), self.bytes_left.checked_sub(bytes));
        if let (Some(nodes_left), Some(bytes_left)) = left {
            (self.nodes_left, self.bytes_left) = (nodes_left, bytes_left);
            return true;
        }
        let help = format!("at most {LONGEST} bytes and {MOST_NODES} values");
        self.report(place, "the references of this document add too much to it".to_owned(), help);
        self.exhausted = true;
        false
    }

    fn secret(&mut self, name: &str, place: Span) -> Option<String> {
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            let help = "use letters, digits and `_`".to_owned();
            self.report(place, format!("`{name}` cannot name a secret"), help);
            return None;
        }
        let what = match (self.lookup)(name) {
            Ok(Some(value)) if value.len() < SHORTEST_SECRET => format!(
                "the secret `{name}` is shorter than {SHORTEST_SECRET} bytes and cannot be kept out of reports"
            ),
            Ok(Some(value)) => {
                self.redactor.learn(name, &value);
                return Some(value);
            }
            Ok(None) => format!("the secret `{name}` is not set"),
            Err(why) => format!("the secret `{name}` cannot be read: {why}"),
        };
        let variable = format!("SQUALL_SECRET_{name}");
        let help =
            format!("set the environment variable `{variable}`, or `{variable}_FILE` to the path of a file");
        self.report(place, what, help);
        None
    }

    /// The reference itself where it stands as it is in the source, else the whole value.
    fn place(&self, name: &str, span: Span) -> Span {
        let reference = format!("${{{name}}}");
        let found = self.source.get(span.start..span.end).and_then(|text| text.find(&reference));
        found.map_or(span, |at| Span { start: span.start + at, end: span.start + at + reference.len() })
    }
}

/// A value of the command line has the type of the declared one: a text stays a text, anything else is read as YAML.
fn typed_like(declared: &Data, text: &str) -> Data {
    match declared {
        Data::Text(_) => Data::Text(text.to_owned()),
        _ => resolve(text),
    }
}

fn split(text: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            parts.push(Part::Plain(&rest[..at - 1]));
            parts.push(Part::Plain("${"));
            rest = &rest[at + 2..];
            continue;
        }
        if at > 0 {
            parts.push(Part::Plain(&rest[..at]));
        }
        let Some(end) = rest[at..].find('}') else {
            parts.push(Part::Unfinished);
            return parts;
        };
        parts.push(Part::Reference(&rest[at + 2..at + end]));
        rest = &rest[at + end + 1..];
    }
    if !rest.is_empty() {
        parts.push(Part::Plain(rest));
    }
    parts
}

/// Problems with a replaced value are shown where the reference stands.
fn move_to(node: &mut Node, span: Span) {
    node.span = span;
    match &mut node.data {
        Data::List(items) => items.iter_mut().for_each(|item| move_to(item, span)),
        Data::Map(entries) => {
            for entry in entries {
                entry.key_span = span;
                move_to(&mut entry.value, span);
            }
        }
        _ => {}
    }
}

fn height(node: &Node) -> usize {
    match &node.data {
        Data::List(items) => 1 + items.iter().map(height).max().unwrap_or(0),
        Data::Map(entries) => 1 + entries.iter().map(|entry| height(&entry.value)).max().unwrap_or(0),
        _ => 1,
    }
}

fn size(data: &Data) -> (usize, usize) {
    match data {
        Data::Text(text) | Data::Number(_, text) => (1, text.len()),
        Data::List(items) => sum(items.iter()),
        Data::Map(entries) => sum(entries.iter().map(|entry| &entry.value)),
        Data::Null | Data::Bool(_) | Data::Unknown => (1, 0),
    }
}

fn sum<'n>(nodes: impl Iterator<Item = &'n Node>) -> (usize, usize) {
    nodes.map(|node| size(&node.data)).fold((1, 0), |a, b| (a.0 + b.0, a.1 + b.1))
}
