//! What the schema cannot say: meaning, part by part, so that one wrong part does not hide the next.

mod comparison;
mod hosts;
mod load;
mod looks;
mod method;
mod probe;
mod ramp;
mod rate;
mod selector;
mod service;
mod stages;

use super::node::{Data, Node};
use super::problem::{Problem, Span};
use crate::experiment::FORMAT;
use crate::quantity::Period;

/// Finds what is wrong in the meaning of a document.
pub(super) struct Check {
    longest: Period,
    pub(super) problems: Vec<Problem>,
}

impl Check {
    /// `longest` is the longest time that a fault may last.
    pub(super) fn new(longest: Period) -> Self {
        Check { longest, problems: Vec::new() }
    }

    /// Whether a document is of a format that this build reads; anything else about another format would mislead.
    pub(super) fn format(root: &Node) -> Option<Problem> {
        let entry = root.entry("squall")?;
        match &entry.value.data {
            Data::Number(number, text) if number.as_u64() != Some(FORMAT.into()) => Some(Problem {
                span: Some(entry.value.span),
                path: "squall".to_owned(),
                what: format!("format version {text} is not known to this squall"),
                help: Some(format!("this build reads `squall: {FORMAT}`")),
            }),
            _ => None,
        }
    }

    /// Finds everything about a document that the schema lets pass.
    pub(super) fn document(&mut self, root: &Node) {
        if let Some(entry) = root.entry("title")
            && matches!(&entry.value.data, Data::Text(text) if text.trim().is_empty())
        {
            let help = "say in one sentence what this experiment shows";
            self.at(entry.value.span, "title", "`title` is empty", help);
        }
        self.claims(root);
        self.recoveries(root);
        let claims = root.get("hypothesis").map(|node| &node.data);
        if let (Some(Data::List(claims)), Some(entry)) = (claims, root.entry("baseline"))
            && claims.is_empty()
        {
            let what = "`baseline` has no meaning without a claim in `hypothesis`";
            self.at(entry.key_span, "baseline", what, "leave `baseline` out, or claim something");
        }
        self.fleet(root);
        if let Some(entry) = root.entry("method") {
            if matches!(&entry.value.data, Data::List(steps) if steps.is_empty()) {
                let help = "give it one step: `- fault: …` with `for:`, `- wait: …` or `- action: …`";
                self.at(entry.key_span, "method", "`method` is empty: nothing would be done", help);
            }
            for (index, step) in entry.value.items().iter().enumerate() {
                self.step(step, &format!("method[{index}]"), false);
            }
        }
        self.ramp(root);
        self.stages(root);
    }

    fn at(&mut self, span: Span, path: &str, what: impl Into<String>, help: impl Into<String>) {
        self.problems.push(Problem {
            span: Some(span),
            path: path.to_owned(),
            what: what.into(),
            help: Some(help.into()),
        });
    }

    /// A period that must not be zero.
    fn not_zero(&mut self, parent: &Node, key: &str, path: &str, help: &str) {
        let Some(node) = parent.get(key) else { return };
        if node.decode::<Period>().is_some_and(Period::is_zero) {
            self.at(node.span, &format!("{path}.{key}"), format!("`{key}` is zero"), help);
        }
    }
}
