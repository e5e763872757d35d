//! How exact a delay is: one-way times of datagrams at a steady rate, beside the same without a fault.

use std::time::Duration;

use serde_json::{Value, json};
use squall_tests::traffic::numbered::Numbered;
use squall_tests::world::World;

use super::{Engine, entering, leaving};
use crate::table::{head, milliseconds, percentile, row};

/// Five seconds each: a hundredth of them is 25 datagrams.
const PLAN: Numbered =
    Numbered { count: 2500, rate: 500, size: 64, quiet: Duration::from_millis(200), urgent: true };

/// Delays of 1, 10, 50 and 100 ms, with and without real-time priority; inbound, and outbound for one of them.
pub fn errors() {
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else { unreachable!("two hosts were asked for") };
    let took = || {
        let outcome = PLAN.send(&near.netns, &far.netns, (far.v4, 9).into());
        assert!(outcome.lost().is_empty(), "{} are lost", outcome.lost().len());
        milliseconds(outcome.took())
    };
    head("delay: how much later than asked a datagram is (ms)", &["", "p50", "p99", "most", "n"]);
    let print = |what: String, mut took: Vec<f64>, asked: f64| {
        took.sort_by(f64::total_cmp);
        let [p50, p99, most] = [50.0, 99.0, 100.0].map(|p| format!("{:.3}", percentile(&took, p) - asked));
        row([what, p50, p99, most, took.len().to_string()]);
    };
    print("control: no fault, no table".to_owned(), took(), 0.0);
    for (priority, humble) in [("real-time", false), ("usual priority", true)] {
        let mut engine = if humble { Engine::humble(far) } else { Engine::on(far) };
        for delay in [1, 10, 50, 100] {
            engine.shape(delayed(delay), entering("udp"), "ingress");
            print(format!("{delay} ms in, {priority}"), took(), f64::from(delay));
            let evidence = engine.lift();
            assert!(humble == noted(&evidence), "priority is not what was wanted: {evidence:#}");
        }
        engine.end();
    }
    let mut engine = Engine::on(near);
    engine.shape(delayed(10), leaving("udp"), "egress");
    print("10 ms out (stolen and sent on), real-time".to_owned(), took(), 10.0);
    engine.end();
    print("control: no fault, no table".to_owned(), took(), 0.0);
}

/// A constant delay, as a change spells it.
pub fn delayed(milliseconds: u32) -> Value {
    json!({ "delay": { "delay": format!("{milliseconds}ms") } })
}

/// Whether the evidence says that there was no real-time priority.
fn noted(evidence: &Value) -> bool {
    evidence["notes"].to_string().contains("priority")
}
