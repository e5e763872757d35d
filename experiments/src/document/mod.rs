//! From text to an [`Experiment`]: parse, replace references, walk the schema, check the meaning, decode. Every
//! problem of the document is found in one go, each with its place.
//!
//! Pure: whoever calls reads files and secrets.

mod check;
mod node;
mod other;
mod parse;
mod places;
mod problem;
mod ramp;
mod rules;
mod secret;
pub mod suggest;
mod vars;
mod walk;
mod write;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::Value;

pub use other::{Finding, read_other};
pub use parse::LONGEST;
pub use places::Places;
pub use problem::{Problem, Problems, Span};
pub use secret::{Redactor, SHORTEST_SECRET};
pub use vars::Lookup;
pub use write::yaml;

use crate::experiment::Experiment;
use crate::quantity::Period;
use crate::ramp::Step;

/// The longest time that a fault may last where no policy says otherwise.
pub const LONGEST_FAULT: Period = Period::from_secs(3600);

/// What a document may draw upon.
pub struct Sources<'a> {
    /// Variables of the command line; they replace those of the document.
    pub vars: BTreeMap<String, String>,
    /// Finds a secret by its name.
    pub secret: &'a Lookup<'a>,
    /// The longest time that a fault may last.
    pub longest: Period,
}

impl Default for Sources<'_> {
    /// No variables, no secrets, faults of at most [`LONGEST_FAULT`].
    fn default() -> Self {
        Sources { vars: BTreeMap::new(), secret: &|_| Ok(None), longest: LONGEST_FAULT }
    }
}

/// A document that passed every check.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// The experiment, with every reference replaced: it may hold secrets.
    pub experiment: Experiment,
    /// Of which ramp this is a step: the experiment has no ramp then, its value, and a step's share of the error.
    pub step: Option<Step>,
    /// Takes the secrets out of whatever is shown.
    pub redactor: Redactor,
    /// Where its parts stand in the text.
    pub places: Places,
    /// 32 hexadecimal digits over its text as it stands in the file, before any reference was replaced.
    pub hash: String,
}

impl Document {
    /// What the experiment does and claims, as a short hash: two files with the same one differ in words, seed or secrets
    /// only. Title, description, tags and weight are not covered, and variables count by where they are used.
    pub fn content(&self) -> String {
        let bare = Experiment {
            title: String::new(),
            description: None,
            tags: Vec::new(),
            vars: BTreeMap::new(),
            seed: None,
            weight: 1,
            ..self.experiment.clone()
        };
        // Secrets stay out of it: a hash of one that is easily guessed would tell it.
        let text = serde_json::to_string(&bare).unwrap_or_default();
        let hash = blake3::hash(self.redactor.redact(&text).as_bytes()).to_hex();
        hash.chars().take(16).collect()
    }
}

/// The JSON Schema of [`Experiment`]: what `squall schema` prints and what documents are checked by.
pub fn schema() -> &'static Value {
    static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
        let schema = schemars::SchemaGenerator::default().into_root_schema_for::<Experiment>();
        // Serialised, the schema has its keys in their documented order.
        serde_json::to_value(&schema).unwrap_or_else(|_| schema.to_value())
    });
    &SCHEMA
}

/// Reads a document; `name` is what problems call it.
///
/// Never panics and never takes more than a bounded time, whatever the bytes are.
pub fn read(name: &str, bytes: &[u8], sources: &Sources<'_>) -> Result<Document, Problems> {
    let text = as_text(name, bytes)?;
    let none = Redactor::default();
    let begin = "`squall init` writes a first experiment, `squall inject … --print` one for a single fault";
    let (root, problems) = parse::parse(text, begin);
    let Some(mut root) = root else {
        return Err(Problems::new(name, text, problems, &none));
    };
    if let Some(other) = check::Check::format(&root) {
        return Err(Problems::new(name, text, vec![other], &none));
    }

    let mut substitution = vars::Substitution::new(text, sources.secret);
    let (level, vars) = ramp::given(&root, &sources.vars);
    substitution.apply(&mut root, &vars);
    let stepped = ramp::apply(&mut root, level.as_deref());
    let mut walk = walk::Walk::new(schema());
    walk.document(&root, "the experiment");
    let mut check = check::Check::new(sources.longest);
    check.document(&root);

    let redactor = substitution.redactor;
    let own = [problems, substitution.problems, stepped.err().into_iter().collect()];
    let mut problems: Vec<Problem> =
        own.into_iter().chain([walk.problems, check.problems]).flatten().collect();
    let read: Result<Experiment, _> = serde_json::from_value(root.value());
    if let Ok(experiment) = &read
        && problems.is_empty()
    {
        problems.extend(ramp::too_long(&root, experiment, sources.longest));
    }
    if !problems.is_empty() {
        return Err(Problems::new(name, text, problems, &redactor));
    }
    match read {
        Ok(mut experiment) => {
            let step = level.and_then(|level| ramp::step(&mut experiment, &level));
            let hash = blake3::hash(bytes).to_hex().chars().take(32).collect();
            Ok(Document { experiment, step, redactor, places: Places::of(&root, text), hash })
        }
        // The schema and the types come from one source; where they part, the document is refused all the same.
        Err(error) => {
            let problem = Problem {
                span: Some(root.head()),
                path: String::new(),
                what: error.to_string(),
                help: Some("this is a bug in squall: the schema let it pass".to_owned()),
            };
            Err(Problems::new(name, text, vec![problem], &redactor))
        }
    }
}

/// Text, or the reason why these bytes are no document.
fn as_text<'b>(name: &str, bytes: &'b [u8]) -> Result<&'b str, Problems> {
    let refused = |what: &str, help: &str| Err(Problems::unreadable(name, what, help));
    let help = "an experiment is YAML or JSON in UTF-8";
    if bytes.len() > LONGEST {
        return refused(&format!("this is longer than an experiment may be ({LONGEST} bytes)"), TOO_LONG);
    }
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return refused("this is UTF-16 text", "save it as UTF-8");
    }
    if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
        return refused(&format!("this is a binary file: byte {at} is NUL"), help);
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(error) => {
            refused(&format!("this is not UTF-8 text: byte {} is wrong", error.valid_up_to()), help)
        }
    }
}

const TOO_LONG: &str = "name the experiment file itself; data belongs elsewhere";

/// A source that is longer than [`LONGEST`] bytes, for callers that know it before reading.
pub fn too_long(name: &str, bytes: u64) -> Problems {
    Problems::unreadable(
        name,
        format!("{bytes} bytes are more than an experiment may have ({LONGEST})"),
        TOO_LONG,
    )
}

#[cfg(test)]
mod tests;
