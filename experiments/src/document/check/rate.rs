use super::super::node::{Data, Node};
use super::Check;
use crate::probe::{ErrorsBound, QUANTILES, QuantileBound, When};
use crate::quantity::{Percent, Period};
use crate::verdict::IN_A_ROW;

/// Expectations of rates: every probe that is looked at often enough has one.
pub(super) const OF_RATES: [&str; 5] = ["errors", "p50", "p90", "p99", "p999"];
/// What only has a meaning for a rate.
const TERMS: [&str; 2] = ["mode", "confidence"];

impl Check {
    /// The bounds of a rate: each of them can be missed, and can be kept.
    pub(super) fn bounds(&mut self, claim: &Node, kind: &str, expect: &Node, path: &str) {
        let default = Period::from_secs(if kind == "process" { 10 } else { 2 });
        let timeout = claim.get(kind).and_then(|probe| probe.get("timeout"));
        let timeout = timeout.map_or(Some(default), Node::decode::<Period>);
        for (name, _) in QUANTILES {
            let Some(node) = expect.get(name) else { continue };
            let path = format!("{path}.{name}");
            let bound = match node.decode::<QuantileBound>() {
                Some(QuantileBound::Within(bound)) => bound,
                Some(compared @ QuantileBound::OfBaseline(_)) if kind != "load" => {
                    let what =
                        format!("`{name}: {compared}` needs hundreds of requests, which only a `load` sends");
                    self.at(node.span, &path, what, "write a limit of your own: `\"<= 300ms\"`");
                    continue;
                }
                _ => continue,
            };
            if bound.0.is_zero() {
                let help = "write for example `\"<= 300ms\"`";
                self.at(node.span, &path, format!("`{name}: {bound}` cannot be kept"), help);
            } else if let Some(timeout) = timeout.filter(|timeout| bound.0 > *timeout) {
                let what = format!("`{name}: {bound}` is longer than the probe's `timeout: {timeout}`");
                self.at(node.span, &path, what, format!("give `{kind}` a longer `timeout`"));
            }
        }
        let everything =
            expect.get("errors").and_then(|node| Some((node.decode::<ErrorsBound>()?, node.span)));
        let all = |bound: &ErrorsBound| matches!(bound, ErrorsBound::Share(most) if most.0.get() >= 100.0);
        if let Some((_, span)) = everything.filter(|(bound, _)| all(bound)) {
            let help = "write the share of requests that may fail: `\"<= 1%\"`";
            let what = "a claim that allows every error claims nothing";
            self.at(span, &format!("{path}.errors"), what, help);
        }
        if let (Some(entry), Some(_)) = (expect.entry("tolerate"), expect.get("errors"))
            && kind != "load"
        {
            let what =
                "`tolerate` counts single looks, and `errors` judges them as a rate: one of them decides";
            let help = "keep `errors` where there are hundreds of looks, else `tolerate`";
            self.at(entry.key_span, &format!("{path}.tolerate"), what, help);
        }
        let guard = path.starts_with("stop-when");
        for key in ["errors", "throughput", "latency", "p50", "p90", "p99", "p999"] {
            let Some(node) = expect.get(key) else { continue };
            let compared = matches!(&node.data, Data::Text(text) if text.contains("baseline") || text.contains("control"));
            if guard && compared {
                let what = format!("a guard has nothing that `{key}` could be compared with");
                let help = match key.starts_with('p') {
                    true => "give it a limit of its own: `\"<= 300ms\"`",
                    false => "give it a limit of its own, as in `errors: \"<= 10%\"`",
                };
                self.at(node.span, &format!("{path}.{key}"), what, help);
            }
        }
    }

    /// How sure a verdict must be, and in what; of a rate only.
    pub(super) fn terms(&mut self, claim: &Node, kind: &str, path: &str) {
        let expect = claim.get("expect");
        let rate = kind == "load"
            || expect.is_some_and(|expect| OF_RATES.iter().any(|key| expect.get(key).is_some()));
        for key in TERMS {
            if let Some(entry) = claim.entry(key).filter(|_| !rate) {
                let what = format!("`{key}` is of a rate, and single looks are counted");
                let help = "leave it out, or expect a rate: `errors: \"<= 1%\"`";
                self.at(entry.key_span, &format!("{path}.{key}"), what, help);
            }
        }
        let sure = claim.get("confidence").and_then(|node| Some((node.decode::<Percent>()?, node.span)));
        if let Some((share, span)) = sure.filter(|(share, _)| !(50.0..100.0).contains(&share.get())) {
            let what = format!("`confidence: {share}` is not at least 50% and less than 100%");
            self.at(span, &format!("{path}.confidence"), what, "write for example `95%` or `99.9%`");
        }
    }

    /// Three good looks in a row show that it holds again: `recovery` must have room for so many. Without a fault they are taken
    /// at once.
    fn too_few_looks(&mut self, root: &Node, claim: &Node, recovery: Period, path: &str) {
        fn is_fault(step: &Node) -> bool {
            step.get("fault").is_some()
                || step.get("parallel").is_some_and(|steps| steps.items().iter().any(is_fault))
        }
        let expect = claim.get("expect");
        let rate = claim.get("load").is_some()
            || expect.is_some_and(|expect| OF_RATES.iter().any(|key| expect.get(key).is_some()));
        let every = claim.get("every").map_or(Some(Period::from_secs(1)), Node::decode::<Period>);
        let late = claim.get("delay").map_or(Some(Period::ZERO), Node::decode::<Period>);
        let (Some(every), Some(late)) = (every, late) else { return };
        // Looks begin at multiples of `every`, and those within `delay` do not count.
        let before = late.get().as_nanos().div_ceil(every.get().as_nanos().max(1));
        let looks = u32::try_from(before).unwrap_or(u32::MAX).saturating_add(IN_A_ROW - 1);
        let needed = every.get().saturating_mul(looks);
        let faults = root.get("method").is_some_and(|steps| steps.items().iter().any(is_fault));
        // A `delay` that is longer than all of it has an error of its own.
        if rate || !faults || recovery.get() > needed || (late >= recovery && !late.is_zero()) {
            return;
        }
        let what = format!("`recovery: {recovery}` has no room for three looks `every: {every}`");
        let help = "three good ones in a row show that it holds again: give `recovery` more time, or look more often";
        let at = claim.entry("every").map(|entry| (entry.value.span, format!("{path}.every")));
        let (span, path) = at.unwrap_or_else(|| (claim.head(), path.to_owned()));
        self.at(span, &path, what, help);
    }

    /// `recovers-within`: watched only as long as `recovery` lasts, and not of a guard.
    pub(super) fn recoveries(&mut self, root: &Node) {
        let recovery = root.get("recovery").map_or(Some(Period::from_secs(30)), Node::decode::<Period>);
        for (key, guard) in [("hypothesis", false), ("stop-when", true)] {
            for (index, claim) in root.get(key).map(Node::items).unwrap_or_default().iter().enumerate() {
                let late = claim.get("delay").and_then(|node| Some((node.decode::<Period>()?, node.span)));
                let moments = claim.get("when").map(Node::items).unwrap_or_default();
                let afterwards = moments.is_empty()
                    || moments.iter().any(|moment| moment.decode::<When>() == Some(When::After));
                if let (Some((late, span)), Some(recovery)) = (late, recovery)
                    && late >= recovery
                    && afterwards
                    && !guard
                {
                    let what = format!("`delay: {late}` leaves nothing to look at of `recovery: {recovery}`");
                    let path = format!("{key}[{index}].delay");
                    self.at(span, &path, what, "give `recovery` more time, or the claim less");
                }
                if let Some(recovery) = recovery.filter(|_| afterwards && !guard) {
                    self.too_few_looks(root, claim, recovery, &format!("{key}[{index}]"));
                }
                let Some(entry) = claim.entry("recovers-within") else { continue };
                let path = format!("{key}[{index}].recovers-within");
                let within = entry.value.decode::<Period>();
                if guard {
                    let what = "a guard is not watched after the revert";
                    self.at(entry.key_span, &path, what, "claim it in `hypothesis`");
                } else if let (Some(within), Some(recovery)) = (within, recovery)
                    && within > recovery
                {
                    let what = format!("`recovers-within: {within}` is longer than `recovery: {recovery}`");
                    self.at(entry.value.span, &path, what, "give `recovery` at least that time");
                }
            }
        }
    }
}
