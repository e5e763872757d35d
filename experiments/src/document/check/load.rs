use super::super::node::Node;
use super::Check;
use crate::probe::QUANTILES;
use crate::quantity::{MostPercent, MostPeriod, Period};

impl Check {
    /// The bounds of a load: each of them can be missed, and can be kept.
    pub(super) fn bounds(&mut self, claim: &Node, expect: &Node, path: &str) {
        let timeout = claim.get("load").and_then(|load| load.get("timeout"));
        let timeout = timeout.map_or(Some(Period::from_secs(2)), Node::decode::<Period>);
        for (name, _) in QUANTILES {
            let Some(node) = expect.get(name) else { continue };
            let Some(bound) = node.decode::<MostPeriod>() else { continue };
            let path = format!("{path}.{name}");
            if bound.0.is_zero() {
                let help = "write for example `\"<= 300ms\"`";
                self.at(node.span, &path, format!("`{name}: {bound}` cannot be kept"), help);
            } else if let Some(timeout) = timeout.filter(|timeout| bound.0 > *timeout) {
                let what = format!("`{name}: {bound}` is longer than the probe's `timeout: {timeout}`");
                self.at(node.span, &path, what, "give `load` a longer `timeout`");
            }
        }
        let everything =
            expect.get("errors").and_then(|node| Some((node.decode::<MostPercent>()?, node.span)));
        if let Some((_, span)) = everything.filter(|(most, _)| most.0.get() >= 100.0) {
            let help = "write the share of requests that may fail: `\"<= 1%\"`";
            let what = "a claim that allows every error claims nothing";
            self.at(span, &format!("{path}.errors"), what, help);
        }
    }
}
