//! By which engines a host of a fleet could do what a plan asks of it, by what it has said works there.
//!
//! The agent looks again when it begins, at the interfaces, the addresses and the scope; its report says what it took.

use serde_json::Value;
use squall_experiments::change::{Change, Engine};
use squall_experiments::plan::{Plan, PlanStep};

/// A line for each fault that shapes, cuts or redirects traffic. `preflight` is the host's own word.
pub fn engines(plan: &Plan, preflight: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for fault in plan.faults() {
        let PlanStep::Fault { part, changes, .. } = fault else { continue };
        for change in changes.iter().filter(|change| change.flow().is_some()) {
            let line = format!("part {part}: {}", ways(change, preflight));
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
    }
    lines
}

fn ways(change: &Change, preflight: &Value) -> String {
    let (name, asked) = change.fault();
    let mut abilities = preflight["faults"].as_array().into_iter().flatten();
    let Some(ability) = abilities.find(|ability| ability["name"] == name) else {
        return "the host has not said yet what works there".to_owned();
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list =
        |value: &Value| value.as_array().into_iter().flatten().map(text).collect::<Vec<_>>().join("; ");
    let all: Vec<&Value> = ability["ways"].as_array().into_iter().flatten().collect();
    let wanted = all.iter().filter(|way| asked == Engine::Auto || way["by"] == asked.to_string().as_str());
    let works: Vec<String> = wanted
        .clone()
        .filter(|way| way["works"] == true)
        .map(|way| match list(&way["limits"]) {
            limits if limits.is_empty() => text(&way["by"]),
            limits => format!("{} ({limits})", text(&way["by"])),
        })
        .collect();
    if works.is_empty() {
        let missing = wanted.flat_map(|way| way["missing"].as_array().into_iter().flatten());
        let missing: Vec<String> =
            missing.map(|lack| format!("{}: {}", text(&lack["what"]), text(&lack["detail"]))).collect();
        return format!("no engine, the host would refuse it ({})", missing.join("; "));
    }
    format!("engine {}", works.join(", else "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plan(fault: Value) -> Plan {
        let experiment = json!({
            "squall": 1, "title": "t", "hypothesis": [], "method": [{ "fault": fault, "for": "1s" }],
        });
        let experiment = serde_json::from_value(experiment).unwrap();
        Plan::of(&experiment, 1, &["a".to_owned()], "none")
    }

    #[test]
    fn a_plan_says_of_each_host_what_could_do_it() {
        let preflight = json!({ "faults": [
            { "name": "latency", "works": true, "ways": [
                { "by": "netem", "works": false, "limits": [],
                  "missing": [{ "what": "queueing discipline `netem`", "detail": "load `sch_netem`" }] },
                { "by": "queue", "works": true, "limits": ["a few milliseconds late"], "missing": [] },
            ] },
            { "name": "partition", "works": true, "ways": [{ "by": "rules", "works": true, "limits": [], "missing": [] }] },
        ] });
        let said = |fault: Value| engines(&plan(fault), &preflight);
        let latency =
            |engine: &str| json!({ "latency": { "delay": "50ms", "to": ["10.0.0.1"], "engine": engine } });
        assert_eq!(said(latency("auto")), ["part 1: engine queue (a few milliseconds late)"]);
        assert_eq!(
            said(latency("netem")),
            ["part 1: no engine, the host would refuse it (queueing discipline `netem`: load `sch_netem`)"]
        );
        assert_eq!(said(json!({ "partition": { "to": ["10.0.0.1"] } })), ["part 1: engine rules"]);
        assert!(said(json!({ "loss": { "percent": "5%", "to": ["10.0.0.1"] } }))[0].contains("has not said"));
        assert!(said(json!({ "kill": {} })).is_empty());
    }
}
