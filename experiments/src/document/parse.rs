//! Text to tree: YAML 1.2, and therefore JSON, with a limit on everything that a hostile file could grow.

use std::collections::{HashMap, HashSet};

use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, Tag};
use serde_json::Number;

use super::node::{Data, Entry, Node};
use super::problem::{Problem, Span};

/// The longest document, in bytes.
pub const LONGEST: usize = 1 << 20;
/// How many nodes a document may have once its aliases and variables are expanded.
pub(super) const MOST_NODES: usize = 200_000;
/// How deep it may be nested, aliases included.
pub(super) const DEEPEST: usize = 64;

/// A collection whose end has not been seen.
struct Open {
    node: Node,
    anchor: usize,
    /// A key that waits for its value.
    key: Option<(String, Span)>,
    /// Every key so far.
    seen: HashSet<String>,
    /// A key that cannot be used: its value is read and forgotten.
    skip: bool,
    nodes: usize,
    height: usize,
}

/// A complete anchored node.
struct Anchored {
    node: Node,
    nodes: usize,
    height: usize,
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, Anchored>,
    root: Option<Node>,
    nodes: usize,
    problems: Vec<Problem>,
}

/// Why nothing more is read.
struct Stop;

/// The tree, or `None` where the syntax is broken, with everything that is wrong so far. `begin` is what to do where there is
/// nothing.
pub(super) fn parse(text: &str, begin: &str) -> (Option<Node>, Vec<Problem>) {
    let mut builder = Builder::default();
    let whole = builder.read(text).is_ok();
    if whole && builder.root.is_none() && builder.problems.is_empty() {
        builder.report(Span::default(), "the document is empty", begin);
    }
    (builder.root.filter(|_| whole), builder.problems)
}

impl Builder {
    fn report(&mut self, span: Span, what: impl Into<String>, help: impl Into<String>) {
        self.problems.push(Problem {
            span: Some(span),
            path: String::new(),
            what: what.into(),
            help: Some(help.into()),
        });
    }

    fn too_deep(&mut self, span: Span) {
        self.report(span, format!("nested more than {DEEPEST} deep"), "an experiment needs fewer than 10");
    }

    fn read(&mut self, text: &str) -> Result<(), Stop> {
        let options = granit_parser::options! {
            emit_comments: false,
            emit_unresolved_aliases: true,
            flow_nesting_limit: DEEPEST,
            block_nesting_limit: DEEPEST,
        };
        let mut documents = 0;
        for event in Parser::new_from_str_with_options(text, options) {
            let (event, at) = event.map_err(|error| {
                let at = error.marker().byte_offset().unwrap_or(text.len()).min(text.len());
                let span = Span { start: at, end: at };
                if *error.kind() == ErrorKind::RecursionLimitExceeded {
                    self.too_deep(span);
                } else if line_at(text, at).contains("${") {
                    let help = "between `{ }` and `[ ]` a reference stands in quotes: `\"${name}\"`";
                    self.report(span, error.info().replace('\'', "`"), help);
                } else {
                    let help = "the file is not valid YAML from here on; the cause may be a line above";
                    self.report(span, error.info().replace('\'', "`"), help);
                }
                Stop
            })?;
            let offset = |marker: granit_parser::Marker| marker.byte_offset().unwrap_or(0);
            let span = Span { start: offset(at.start), end: offset(at.end) };
            match event {
                Event::DocumentStart(..) => {
                    documents += 1;
                    if documents > 1 {
                        self.report(span, "a second document begins here", "one file holds one experiment");
                        return Err(Stop);
                    }
                }
                Event::Scalar(text, style, anchor, tag) => {
                    let data = self.scalar(&text, style, tag.as_deref(), span);
                    self.count(1, span)?;
                    self.add(Node { span, data }, anchor, 1, 0);
                }
                Event::SequenceStart(_, anchor, _) => self.begin(span, Data::List(Vec::new()), anchor)?,
                Event::MappingStart(_, anchor, _) => self.begin(span, Data::Map(Vec::new()), anchor)?,
                Event::SequenceEnd | Event::MappingEnd => self.end(span),
                Event::Alias(anchor) => self.alias(anchor, span)?,
                Event::UnresolvedAlias(name) => {
                    let help = format!("put `&{name}` before the value that is meant, above this line");
                    self.report(span, format!("nothing is called `&{name}`"), help);
                    let data = Data::Unknown;
                    self.add(Node { span, data }, 0, 1, 0);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, tag: Option<&Tag>, span: Span) -> Data {
        let plain = style == ScalarStyle::Plain;
        match tag.map(|tag| tag.core_suffix()) {
            None if plain => resolve(text),
            None | Some(Some("str")) => Data::Text(text.to_owned()),
            Some(Some("int" | "float" | "bool" | "null")) => resolve(text),
            Some(_) => {
                self.report(span, "this tag has no meaning here", "leave the word that begins with `!` out");
                Data::Text(text.to_owned())
            }
        }
    }

    fn begin(&mut self, span: Span, data: Data, anchor: usize) -> Result<(), Stop> {
        if self.open.len() >= DEEPEST {
            self.too_deep(span);
            return Err(Stop);
        }
        self.count(1, span)?;
        let node = Node { span, data };
        self.open.push(Open {
            node,
            anchor,
            key: None,
            seen: HashSet::new(),
            skip: false,
            nodes: 1,
            height: 1,
        });
        Ok(())
    }

    fn end(&mut self, span: Span) {
        let Some(mut done) = self.open.pop() else { return };
        // The end of a block collection is where the next thing begins: `Node::head` is what problems point to.
        done.node.span.end = span.end.max(done.node.span.end);
        self.add(done.node, done.anchor, done.nodes, done.height);
    }

    fn count(&mut self, nodes: usize, span: Span) -> Result<(), Stop> {
        self.nodes += nodes;
        if self.nodes > MOST_NODES {
            self.report(span, format!("more than {MOST_NODES} values"), "split the experiment");
            return Err(Stop);
        }
        Ok(())
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Result<(), Stop> {
        let Some(known) = self.anchors.get(&anchor) else {
            self.report(span, "an alias stands inside of what it names", "write the value out");
            return Err(Stop);
        };
        let (nodes, height) = (known.nodes, known.height);
        if self.nodes + nodes > MOST_NODES || self.open.len() + height > DEEPEST {
            self.report(
                span,
                "the aliases of this document expand to more than an experiment can hold",
                format!("at most {MOST_NODES} values, {DEEPEST} deep"),
            );
            return Err(Stop);
        }
        let node = known.node.clone();
        self.count(nodes, span)?;
        self.add(node, 0, nodes, height);
        Ok(())
    }

    /// Puts a complete node where it belongs.
    fn add(&mut self, node: Node, anchor: usize, nodes: usize, height: usize) {
        if anchor != 0 {
            self.anchors.insert(anchor, Anchored { node: node.clone(), nodes, height });
        }
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return;
        };
        parent.nodes += nodes;
        parent.height = parent.height.max(height + 1);
        let skip = std::mem::take(&mut parent.skip);
        match (&mut parent.node.data, parent.key.take()) {
            (Data::List(items), _) => items.push(node),
            (Data::Map(_), None) => self.key(node),
            (Data::Map(entries), Some((key, key_span))) if !skip => {
                entries.push(Entry { key, key_span, value: node });
            }
            _ => {}
        }
    }

    fn key(&mut self, node: Node) {
        let key = match &node.data {
            Data::Text(text) | Data::Number(_, text) => text.clone(),
            Data::Bool(value) => value.to_string(),
            _ => {
                self.report(node.span, "a key must be a word", "put the key in quotes");
                if let Some(parent) = self.open.last_mut() {
                    parent.skip = true;
                    parent.key = Some((String::new(), node.span));
                }
                return;
            }
        };
        let Some(parent) = self.open.last_mut() else {
            return;
        };
        let twice = !parent.seen.insert(key.clone());
        parent.skip = twice;
        parent.key = Some((key.clone(), node.span));
        if twice {
            self.report(node.span, format!("the key `{key}` stands here a second time"), "keep one of them");
        }
    }
}

fn line_at(text: &str, at: usize) -> &str {
    let at = (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let start = text[..at].rfind('\n').map_or(0, |at| at + 1);
    text[start..].lines().next().unwrap_or("")
}

/// A plain scalar by the core schema of YAML 1.2 (section 10.3.2): `NO` and `1:30` are texts.
pub(super) fn resolve(text: &str) -> Data {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Data::Null,
        "true" | "True" | "TRUE" => return Data::Bool(true),
        "false" | "False" | "FALSE" => return Data::Bool(false),
        _ => {}
    }
    let number = integer(text).or_else(|| decimal(text));
    number.map_or_else(|| Data::Text(text.to_owned()), |number| Data::Number(number, text.to_owned()))
}

fn integer(text: &str) -> Option<Number> {
    let radix = |digits: &str, radix| {
        let plain = digits.chars().all(|c| c.is_digit(radix));
        plain.then(|| u64::from_str_radix(digits, radix).ok()).flatten().map(Number::from)
    };
    if let Some(digits) = text.strip_prefix("0x") {
        return radix(digits, 16);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return radix(digits, 8);
    }
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let unsigned = text.strip_prefix('+').unwrap_or(text);
    unsigned.parse::<u64>().map(Number::from).or_else(|_| unsigned.parse::<i64>().map(Number::from)).ok()
}

/// `.inf` and `.nan` stay texts: no experiment means them, and JSON cannot hold them.
fn decimal(text: &str) -> Option<Number> {
    let allowed = |c: char| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-');
    if !text.chars().all(allowed) || !text.contains(|c: char| c.is_ascii_digit()) {
        return None;
    }
    text.parse::<f64>().ok().and_then(Number::from_f64)
}
