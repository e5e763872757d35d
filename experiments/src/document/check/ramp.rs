use super::super::node::{Data, Node};
use super::super::ramp::find;
use super::Check;
use crate::faults::Fault;
use crate::ramp::{By, Level, MOST_STEPS, Ramp};
use crate::scope::Scope;

/// The keys that say where a ramp goes by itself.
const GROWING: [&str; 3] = ["from", "to", "by"];

impl Check {
    /// A `ramp:`. What its values are in themselves is the schema's business.
    pub(super) fn ramp(&mut self, root: &Node) {
        let Some(entry) = root.entry("ramp") else { return };
        let node = &entry.value;
        if !matches!(node.data, Data::Map(_)) {
            return;
        }
        if matches!(root.get("hypothesis").map(|node| &node.data), Some(Data::List(claims)) if claims.is_empty())
        {
            let what = "`ramp` finds where the hypothesis fails, and there is none";
            self.at(entry.key_span, "ramp", what, "claim something in `hypothesis`");
        }
        let Some(ramp) = self.shape(node) else { return };
        if !self.grows(node, &ramp) {
            return;
        }
        let most = ramp.most();
        if ramp.rungs().len() > MOST_STEPS || most > MOST_STEPS {
            let what = format!("this ramp may take more than {MOST_STEPS} steps");
            let help = "take a larger factor, or a wider `within`";
            return self.at(entry.key_span, "ramp", what, help);
        }
        self.fits(root, node, &ramp);
    }

    /// Either a list of values, or a way from one to another.
    fn shape(&mut self, node: &Node) -> Option<Ramp> {
        if let Some(levels) = node.entry("levels") {
            for key in GROWING {
                if let Some(entry) = node.entry(key) {
                    let what = format!("`{key}` has no meaning beside `levels`");
                    self.at(entry.key_span, &format!("ramp.{key}"), what, "leave one of them out");
                    return None;
                }
            }
            if levels.value.items().len() < 2 && matches!(levels.value.data, Data::List(_)) {
                let what = "a ramp has two levels at least";
                self.at(
                    levels.key_span,
                    "ramp.levels",
                    what,
                    "give it more, from the mildest to the hardest",
                );
                return None;
            }
        } else if let Some(missing) = GROWING.into_iter().find(|key| node.get(key).is_none()) {
            let help =
                "a ramp goes `from: 50ms`, `to: 2s`, `by: 2x` (or `bisection`), or through `levels: […]`";
            self.at(node.head(), "ramp", format!("this ramp has no `{missing}`"), help);
            return None;
        }
        let ramp: Ramp = node.decode()?;
        if ramp.by == Some(By::Bisection) && ramp.within.is_none() {
            let help = "write how exactly the value is wanted: `within: 50ms`";
            self.at(node.head(), "ramp", "a bisection does not end by itself", help);
            return None;
        }
        Some(ramp)
    }

    /// All values are alike, and each is harder than the one before: all more, or all less.
    fn grows(&mut self, node: &Node, ramp: &Ramp) -> bool {
        let listed = node.get("levels").map(Node::items).unwrap_or_default();
        let places: Vec<(&Node, String)> = match listed.is_empty() {
            false => {
                let at = |at: usize| format!("ramp.levels[{at}]");
                listed.iter().enumerate().map(|(number, node)| (node, at(number))).collect()
            }
            true => {
                let ends = ["from", "to"].into_iter();
                ends.filter_map(|key| Some((node.get(key)?, format!("ramp.{key}")))).collect()
            }
        };
        let levels: Vec<Level> = places.iter().filter_map(|(node, _)| node.decode()).collect();
        let (Some(first), Some(second)) = (levels.first(), levels.get(1)) else { return false };
        let more = second.exceeds(*first);
        for (pair, (node, path)) in levels.windows(2).zip(&places[1..]) {
            let (one, next) = (pair[0], pair[1]);
            let what = match () {
                () if !next.is_like(one) => format!("`{next}` is of another kind than `{one}`"),
                () if next == one => format!("`{next}` is no harder than the step before"),
                () if next.exceeds(one) != more => format!("`{next}` turns back: the steps go one way"),
                () => continue,
            };
            let help = format!("each step differs from the one before (`{one}`) in the same direction");
            self.at(node.span, path, what, help);
            return false;
        }
        if matches!(ramp.by, Some(By::Factor(_)))
            && let Some(at) = levels.iter().position(|level| level.is_zero())
        {
            let what = "no factor leads to zero, or away from it";
            self.at(
                places[at].0.span,
                &places[at].1,
                what,
                "begin with the least that matters, or list `levels`",
            );
            return false;
        }
        if let (Some(within), Some(entry)) = (ramp.within, node.entry("within"))
            && (!within.is_like(*first) || within.is_zero())
        {
            let what = format!("`{within}` is no distance between such values");
            self.at(entry.value.span, "ramp.within", what, format!("write it as `{first}` is written"));
            return false;
        }
        true
    }

    /// The fault takes its mildest and its hardest value.
    fn fits(&mut self, root: &Node, node: &Node, ramp: &Ramp) {
        // Where no parameter is found, that is said where the value is put.
        let Ok(place) = find(root, &ramp.parameter) else { return };
        let Some(step) = place.step(root) else { return };
        let scope: Option<Scope> = step.get("in").and_then(Node::decode);
        let rungs = ramp.rungs();
        let Some(entry) = node.entry("parameter") else { return };
        for level in rungs.first().into_iter().chain(rungs.last()) {
            let mut step = step.clone();
            let Some(parameter) = place.parameter(&mut step) else {
                let what = format!("`{}` is no parameter of this fault", ramp.parameter);
                return self.at(
                    entry.value.span,
                    "ramp.parameter",
                    what,
                    "`squall faults` lists all of them",
                );
            };
            parameter.data = super::super::parse::resolve(&level.to_string());
            let Some(fault) = step.get("fault") else { return };
            match serde_json::from_value::<Fault>(fault.value()) {
                Err(error) => {
                    let what = format!("the fault does not take `{level}` as `{}`: {error}", ramp.parameter);
                    let help = "`squall faults` lists the parameters of each fault, with their units";
                    return self.at(entry.value.span, "ramp.parameter", what, help);
                }
                Ok(fault) => {
                    if let Some(finding) = fault.check(scope.as_ref()).into_iter().next() {
                        let what = format!("with `{level}`: {}", finding.what);
                        return self.at(entry.value.span, "ramp.parameter", what, finding.help);
                    }
                }
            }
        }
    }
}
