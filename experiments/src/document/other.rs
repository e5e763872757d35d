//! Documents that are no experiments (schedules, a controller's configuration), read as experiments are: one parser, one walk
//! over the schema, and every problem with its place.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::node::Node;
use super::problem::{Problem, Problems, Span};
use super::secret::Redactor;
use super::{as_text, parse, walk};

/// What is wrong with the meaning of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The keys that lead to the part, the number of an item being a key too: `["except", "0", "ics"]`.
    pub at: Vec<String>,
    /// A lowercase fragment with the object in backticks.
    pub what: String,
    /// What to do.
    pub help: String,
}

impl Finding {
    /// A finding at the part to which these keys lead, divided by dots.
    pub fn new(at: &str, what: impl Into<String>, help: impl Into<String>) -> Self {
        let at = at.split('.').map(str::to_owned).collect();
        Finding { at, what: what.into(), help: help.into() }
    }
}

/// Reads a document by the JSON Schema of its type. `whole` is what messages call it (`the schedule`); `check` says what is
/// wrong with its meaning, and is asked once everything has its form.
///
/// Never panics and never takes more than a bounded time, whatever the bytes are.
pub fn read_other<T: DeserializeOwned>(
    name: &str,
    bytes: &[u8],
    schema: &Value,
    whole: &'static str,
    check: impl FnOnce(&T) -> Vec<Finding>,
) -> Result<T, Problems> {
    let text = as_text(name, bytes)?;
    let refused = |problems| Problems::new(name, text, problems, &Redactor::default());
    let (root, mut problems) = parse::parse(text, "its keys stand in docs/, and in its JSON Schema");
    let Some(root) = root else { return Err(refused(problems)) };
    let mut walk = walk::Walk::new(schema);
    walk.document(&root, whole);
    problems.append(&mut walk.problems);
    if !problems.is_empty() {
        return Err(refused(problems));
    }
    let read: T = serde_json::from_value(root.value()).map_err(|error| {
        // What a comparison and the like mean is known to their own readers alone.
        let span = Some(root.head());
        refused(vec![Problem { span, path: String::new(), what: error.to_string(), help: None }])
    })?;
    let found: Vec<Problem> = check(&read).into_iter().map(|finding| placed(&root, finding)).collect();
    if found.is_empty() { Ok(read) } else { Err(refused(found)) }
}

/// A finding with the place of the part, or of the nearest one around it that is written down.
fn placed(root: &Node, finding: Finding) -> Problem {
    let (mut node, mut span) = (root, root.head());
    let mut path = String::new();
    for key in &finding.at {
        if let Some(item) = key.parse::<usize>().ok().and_then(|index| node.items().get(index)) {
            path.push_str(&format!("[{key}]"));
            (node, span) = (item, item.head());
            continue;
        }
        path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let Some(entry) = node.entry(key) else { break };
        (node, span) = (&entry.value, value_or_key(&entry.value, entry.key_span));
    }
    Problem { span: Some(span), path, what: finding.what, help: Some(finding.help) }
}

/// A scalar is pointed at itself, anything longer by its key.
fn value_or_key(value: &Node, key: Span) -> Span {
    value.scalar_text().filter(|text| !text.contains('\n')).map_or(key, |_| value.span)
}
