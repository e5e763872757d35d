use super::super::node::{Data, Node};
use super::Check;
use crate::probe::When;
use crate::quantity::Period;

impl Check {
    /// How many looks make a sample, and when samples are taken.
    pub(super) fn looks(&mut self, claim: &Node, kind: &str, path: &str) {
        if let Some(entry) = claim.entry("sample") {
            let path = format!("{path}.sample");
            let help =
                "`tolerate` says which share of samples may be bad, and `errors` which share of requests";
            if kind == "load" {
                self.at(
                    entry.key_span,
                    &path,
                    "a sample of `load` is many requests, and has no attempts",
                    help,
                );
            }
            if kind == "log" {
                self.at(
                    entry.key_span,
                    &path,
                    "a look at a `log` counts the lines since the last one, so a second look at once sees none of them",
                    "leave `sample` out, or say by `every` how many seconds of lines are one sample",
                );
            }
            let sample = &entry.value;
            self.not_zero(sample, "within", &path, "write for example `30s`");
            let given = |key: &str| sample.get(key).is_some();
            if given("attempts") && given("at-least") {
                let what = "`at-least` says how many looks there are, and so does `attempts`";
                self.at(entry.key_span, &path, what, "leave `attempts` out");
            }
            if matches!(sample.data, Data::Map(_))
                && !["attempts", "at-least", "within"].iter().any(|key| given(key))
            {
                let what = "nothing says when enough was looked at";
                self.at(entry.key_span, &path, what, "give it `attempts`, `at-least` or `within`");
            }
            let zero = sample.get("pause").and_then(Node::decode::<Period>).is_some_and(Period::is_zero);
            if zero && given("within") && !given("attempts") && !given("at-least") {
                let what = "without a pause it would look as often as it can until the time is over";
                self.at(entry.key_span, &format!("{path}.pause"), what, "write at least `pause: 100ms`");
            }
        }
        let moments = claim.get("when").map(Node::items).unwrap_or_default();
        for (index, moment) in moments.iter().enumerate() {
            let known = moment.decode::<When>();
            if known.is_some() && moments[..index].iter().any(|earlier| earlier.decode::<When>() == known) {
                let what = "it is said twice when to look";
                self.at(moment.span, &format!("{path}.when[{index}]"), what, "leave one out");
            }
        }
        if let Some(entry) = claim.entry("when")
            && matches!(entry.value.data, Data::List(_))
            && moments.is_empty()
        {
            let help = "name `before`, `during` or `after`, or leave `when` out to look throughout";
            self.at(entry.key_span, &format!("{path}.when"), "a claim that is never looked at", help);
        }
        for key in ["when", "delay"] {
            if let Some(entry) = claim.entry(key).filter(|_| path.starts_with("stop-when")) {
                let help = "leave it out: what may stop a run is always looked at";
                self.at(entry.key_span, &format!("{path}.{key}"), format!("a guard has no `{key}`"), help);
            }
        }
    }
}
