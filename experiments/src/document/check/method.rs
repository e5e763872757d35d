use super::super::node::{Data, Node};
use super::Check;
use crate::faults::Fault;
use crate::quantity::Period;
use crate::scope::Scope;

/// The keys that say what a step is.
const KINDS: [&str; 4] = ["fault", "wait", "parallel", "action"];
/// Keys that only some kind of step has.
const COMPANIONS: [(&str, &[&str]); 4] =
    [("in", &["fault"]), ("on", &["fault", "action"]), ("for", &["fault"]), ("undo", &["action"])];

impl Check {
    /// One step of `method:`; `nested` inside of `parallel:`.
    pub(super) fn step(&mut self, step: &Node, path: &str, nested: bool) {
        if !matches!(step.data, Data::Map(_)) {
            return;
        }
        self.kind_of(step, path);
        self.fault(step, path);
        self.not_zero(step, "wait", path, "wait for a time, or leave the step out");
        if let Some(entry) = step.entry("parallel") {
            let path = format!("{path}.parallel");
            if nested {
                let help = "move its steps into the outer `parallel`";
                self.at(entry.key_span, &path, "`parallel` stands inside of `parallel`", help);
            } else if matches!(&entry.value.data, Data::List(steps) if steps.is_empty()) {
                self.at(entry.key_span, &path, "`parallel` is empty", "give it steps, or leave it out");
            }
            for (index, child) in entry.value.items().iter().enumerate() {
                self.step(child, &format!("{path}[{index}]"), true);
            }
        }
        for key in ["action", "undo"] {
            if let Some(action) = step.get(key) {
                self.probes(action, &format!("{path}.{key}"));
            }
        }
    }

    /// A step is one thing, with the keys that belong to it.
    fn kind_of(&mut self, step: &Node, path: &str) {
        let kinds: Vec<&str> = KINDS.into_iter().filter(|key| step.get(key).is_some()).collect();
        match kinds.as_slice() {
            [] => {
                let help = "give it one of `fault`, `wait`, `parallel` and `action`";
                // A misspelt kind is already reported as an unknown key.
                let known =
                    |key: &str| KINDS.contains(&key) || COMPANIONS.iter().any(|(name, _)| *name == key);
                if step.entries().iter().all(|entry| entry.key == "name" || known(&entry.key)) {
                    self.at(step.head(), path, "this step does nothing", help);
                }
            }
            [_] => {}
            [first, rest @ ..] => {
                let span =
                    rest.first().and_then(|key| step.entry(key)).map_or(step.head(), |entry| entry.key_span);
                let what =
                    format!("a step is one thing, and this one has `{first}` and `{}`", rest.join("` and `"));
                self.at(span, path, what, "give each a step of its own; `parallel:` runs steps together");
            }
        }
        if kinds.len() == 1 {
            for (key, own) in COMPANIONS.into_iter().filter(|(_, own)| !own.contains(&kinds[0])) {
                if let Some(entry) = step.entry(key) {
                    let what = format!("`{key}` has no meaning without `{}`", own.join("` or `"));
                    self.at(entry.key_span, &format!("{path}.{key}"), what, format!("leave `{key}` out"));
                }
            }
        }
        if let Some(on) = step.get("on") {
            self.hosts(on, &format!("{path}.on"));
        }
    }

    fn fault(&mut self, step: &Node, path: &str) {
        let Some(entry) = step.entry("fault") else { return };
        self.lasts(step, path);
        if let Some(scope) = step.get("in") {
            self.scope(scope, &format!("{path}.in"));
        }
        let Some(fault) = entry.value.decode::<Fault>() else {
            return;
        };
        let scope = match step.get("in") {
            None => None,
            Some(node) => match node.decode::<Scope>() {
                Some(scope) => Some(scope),
                None => return,
            },
        };
        let parameters = entry.value.get(fault.name());
        for finding in fault.check(scope.as_ref()) {
            let place = match finding.parameter {
                Some("in") => step.entry("in"),
                Some(name) => parameters.and_then(|node| node.entry(name)),
                None => None,
            };
            let span = place.map_or_else(|| entry.value.head(), |place| place.key_span);
            let path = match finding.parameter {
                Some("in") => format!("{path}.in"),
                Some(name) => format!("{path}.fault.{}.{name}", fault.name()),
                None => format!("{path}.fault.{}", fault.name()),
            };
            self.at(span, &path, finding.what, finding.help);
        }
    }

    /// A fault always says how long it lasts.
    fn lasts(&mut self, step: &Node, step_path: &str) {
        let path = format!("{step_path}.for");
        let Some(entry) = step.entry("for") else {
            let span = step.entry("fault").map_or(step.head(), |entry| entry.key_span);
            let help = "every fault ends: write `for: 30s` beside `fault:`";
            return self.at(span, &path, "this fault has no duration", help);
        };
        let Some(lasts) = entry.value.decode::<Period>() else {
            return;
        };
        if lasts.is_zero() {
            self.at(entry.value.span, &path, "a fault of no duration does nothing", "write `for: 30s`");
        } else if lasts > self.longest {
            let what = format!("`{lasts}` is longer than the `{}` that a fault may last here", self.longest);
            self.at(entry.value.span, &path, what, "shorten it, or repeat the step");
        }
        self.fits_into(lasts, step, step_path);
    }

    /// What a fault does later, it does before its end, or never.
    fn fits_into(&mut self, lasts: Period, step: &Node, path: &str) {
        let parameters = step.get("fault").and_then(|fault| fault.entries().first());
        let Some((kind, parameters)) = parameters.map(|entry| (&entry.key, &entry.value)) else { return };
        let group = |key: &str, node: Option<&Node>| node.and_then(|node| node.entry(key)).cloned();
        let then = parameters.get("then");
        for (name, entry) in
            [("every", group("every", Some(parameters))), ("then.after", group("after", then))]
        {
            let Some(entry) = entry else { continue };
            if entry.value.decode::<Period>().is_some_and(|period| period >= lasts && !lasts.is_zero()) {
                let what = format!("the fault ends after {lasts}, before its `{name}`");
                let path = format!("{path}.fault.{kind}.{name}");
                self.at(entry.value.span, &path, what, format!("make `{name}` shorter, or `for` longer"));
            }
        }
    }
}
