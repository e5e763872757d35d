//! A document whose `ramp:` changes a parameter: the value of a step is put where the parameter stands.

use std::collections::BTreeMap;

use super::node::{Data, Entry, Node};
use super::problem::Problem;
use super::suggest;
use crate::experiment::Experiment;
use crate::quantity::Period;
use crate::ramp::{Level, Ramp, Step};

/// The value of a step where one is given, and the other variables. A step is chosen as variables are set, by the name of the
/// parameter: `latency.delay=400ms`.
pub(super) fn given(
    root: &Node,
    vars: &BTreeMap<String, String>,
) -> (Option<String>, BTreeMap<String, String>) {
    let mut vars = vars.clone();
    let parameter = root.get("ramp").and_then(|ramp| ramp.get("parameter")).and_then(Node::scalar_text);
    let level = parameter.and_then(|parameter| vars.remove(parameter));
    (level, vars)
}

/// Puts the value of the step, or the mildest of the ramp, where the parameter stands. What is not sound in the ramp otherwise
/// is the business of the check.
pub(super) fn apply(root: &mut Node, level: Option<&str>) -> Result<(), Problem> {
    let Some(ramp) = root.get("ramp").cloned() else { return Ok(()) };
    let first = || {
        let levels = ramp.get("levels").map(Node::items).unwrap_or_default();
        ramp.get("from").or(levels.first()).cloned()
    };
    let at_ramp = |what: String, help: &str| Problem {
        span: Some(ramp.head()),
        path: "ramp".to_owned(),
        what,
        help: Some(help.to_owned()),
    };
    let value = match level {
        None => first(),
        Some(text) => {
            let covered = match (text.parse::<Level>(), ramp.decode::<Ramp>()) {
                (Err(error), _) => {
                    return Err(at_ramp(error.what, error.help.as_deref().unwrap_or_default()));
                }
                (Ok(level), Some(ramp)) => ramp.covers(level),
                (Ok(_), None) => true,
            };
            if !covered {
                let what = format!("`{text}` does not lie between the ramp's mildest and hardest value");
                return Err(at_ramp(what, "take one between, or leave it out to run the whole ramp"));
            }
            let data = super::parse::resolve(text);
            Some(Node { span: ramp.head(), data })
        }
    };
    let Some(parameter) = ramp.get("parameter").filter(|node| node.scalar_text().is_some()) else {
        return Ok(());
    };
    let Some(value) = value else { return Ok(()) };
    let text = parameter.scalar_text().unwrap_or_default();
    let place = find(root, text).map_err(|(what, help)| Problem {
        span: Some(parameter.span),
        path: "ramp.parameter".to_owned(),
        what,
        help: Some(help),
    })?;
    if let Some(node) = place.step_mut(root).and_then(|step| place.parameter(step)) {
        *node = value;
    }
    Ok(())
}

/// Where the parameter of a ramp stands.
pub(super) struct Place {
    step: usize,
    child: Option<usize>,
    path: Vec<String>,
}

impl Place {
    /// The step of its fault.
    pub(super) fn step<'n>(&self, root: &'n Node) -> Option<&'n Node> {
        let step = root.get("method")?.items().get(self.step)?;
        match self.child {
            None => Some(step),
            Some(child) => step.get("parallel")?.items().get(child),
        }
    }

    fn step_mut<'n>(&self, root: &'n mut Node) -> Option<&'n mut Node> {
        let step = item(value(root, "method")?, self.step)?;
        match self.child {
            None => Some(step),
            Some(child) => item(value(step, "parallel")?, child),
        }
    }

    /// The parameter in its step; the last key is made where it is missing.
    pub(super) fn parameter<'n>(&self, step: &'n mut Node) -> Option<&'n mut Node> {
        let fault = value(step, "fault")?;
        let Data::Map(kinds) = &mut fault.data else { return None };
        let mut node = &mut kinds.first_mut()?.value;
        let (last, groups) = self.path.split_last()?;
        for key in groups {
            node = value(node, key)?;
        }
        let Data::Map(entries) = &mut node.data else { return None };
        if !entries.iter().any(|entry| entry.key == *last) {
            let value = Node { span: node.span, data: Data::Null };
            entries.push(Entry { key: last.clone(), key_span: node.span, value });
        }
        entries.iter_mut().find(|entry| entry.key == *last).map(|entry| &mut entry.value)
    }
}

fn value<'n>(node: &'n mut Node, key: &str) -> Option<&'n mut Node> {
    let Data::Map(entries) = &mut node.data else { return None };
    entries.iter_mut().find(|entry| entry.key == key).map(|entry| &mut entry.value)
}

fn item(node: &mut Node, at: usize) -> Option<&mut Node> {
    match &mut node.data {
        Data::List(items) => items.get_mut(at),
        _ => None,
    }
}

/// Finds the one fault that is meant, by kind or by the name of its step; else what is wrong, and what to do.
pub(super) fn find(root: &Node, parameter: &str) -> Result<Place, (String, String)> {
    let mut known = Vec::new();
    let mut found = Vec::new();
    let steps = root.get("method").map(Node::items).unwrap_or_default();
    for (at, step) in steps.iter().enumerate() {
        let children = step.get("parallel").map(Node::items).unwrap_or_default();
        let own = std::iter::once((None, step));
        let all = own.chain(children.iter().enumerate().map(|(child, step)| (Some(child), step)));
        for (child, step) in all {
            let Some(kind) = step.get("fault").and_then(|fault| fault.entries().first()) else { continue };
            let name = step.get("name").and_then(Node::scalar_text);
            for word in name.into_iter().chain([kind.key.as_str()]) {
                known.push(word.to_owned());
                let path = parameter.strip_prefix(word).and_then(|rest| rest.strip_prefix('.'));
                if let Some(path) = path {
                    let path = path.split('.').map(str::to_owned).collect();
                    found.push(Place { step: at, child, path });
                    break;
                }
            }
        }
    }
    match found.len() {
        1 => found.pop().ok_or_else(|| (String::new(), String::new())),
        0 => {
            let word = parameter.split('.').next().unwrap_or_default();
            let other = "write a fault of the method and its parameter: `latency.delay`";
            Err((
                format!("`{parameter}` is no parameter of a fault of the method"),
                suggest::one_of(word, &known, other),
            ))
        }
        several => Err((
            format!("`{parameter}` may mean any of {several} faults"),
            "give the step that is meant a `name`, and write `NAME.PARAMETER`".to_owned(),
        )),
    }
}

/// Makes an experiment with a ramp the step that its parameter was set to.
pub(super) fn step(experiment: &mut Experiment, level: &str) -> Option<Step> {
    let at = level.parse().ok()?;
    let ramp = experiment.ramp.take()?;
    ramp.share_error(experiment);
    Some(Step { ramp, at })
}

/// The steps of a ramp together are live no longer than one fault may be.
pub(super) fn too_long(root: &Node, experiment: &Experiment, longest: Period) -> Option<Problem> {
    let ramp = experiment.ramp.as_ref()?;
    let whole = ramp.injects(experiment);
    (whole > longest).then(|| Problem {
        span: root.entry("ramp").map(|entry| entry.key_span),
        path: "ramp".to_owned(),
        what: format!(
            "its {} steps inject for {whole} together, and here a fault may last `{longest}`",
            ramp.most()
        ),
        help: Some("shorten `for`, or take fewer steps".to_owned()),
    })
}
