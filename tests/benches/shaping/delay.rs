//! How exact a delay is: one-way times of datagrams at a steady rate, beside the same without a fault.
//!
//! `p99 of a round` is the median over the rounds of each round's own: what a machine that stands still now and then does
//! not spoil. `p99 of all` is what it is with every such moment.

use std::time::Duration;

use serde_json::{Value, json};
use squall_tests::host::Host;
use squall_tests::traffic::numbered::Numbered;
use squall_tests::world::World;

use super::{Engine, entering, leaving};
use crate::rounds;
use crate::table::{head, milliseconds, percentile, row};

/// One second each: a hundredth of them is 5 datagrams.
const PLAN: Numbered =
    Numbered { count: 500, rate: 500, size: 64, quiet: Duration::from_millis(200), urgent: true };

/// So many of each, in turns: a machine that stands still for a moment hits all alike, and one round of each.
const ROUNDS: usize = 10;

const DELAYS: [u32; 4] = [1, 10, 50, 100];

/// What is measured: how late each datagram was, round by round.
struct Case {
    name: String,
    asked: f64,
    rounds: Vec<Vec<f64>>,
}

impl Case {
    fn new(name: String, asked: u32) -> Self {
        Case { name, asked: f64::from(asked), rounds: Vec::new() }
    }

    fn measure(&mut self, from: &Host, to: &Host) {
        let outcome = PLAN.send(&from.netns, &to.netns, (to.v4, 9).into());
        assert!(outcome.lost().is_empty(), "{} are lost", outcome.lost().len());
        let mut late = milliseconds(outcome.took());
        late.iter_mut().for_each(|took| *took -= self.asked);
        late.sort_by(f64::total_cmp);
        self.rounds.push(late);
    }

    fn print(self) {
        let mut tails: Vec<f64> = self.rounds.iter().map(|round| percentile(round, 99.0)).collect();
        tails.sort_by(f64::total_cmp);
        let mut all: Vec<f64> = self.rounds.into_iter().flatten().collect();
        all.sort_by(f64::total_cmp);
        let middle = percentile(&tails, 50.0);
        let figures = [percentile(&all, 50.0), middle, percentile(&all, 99.0), percentile(&all, 100.0)]
            .map(|ms| format!("{ms:.3}"));
        row([self.name].into_iter().chain(figures).chain([all.len().to_string()]));
    }
}

/// Delays of 1, 10, 50 and 100 ms inbound, with and without real-time priority, and one outbound: each a second, in turns,
/// with a control between. Every agent has a host of its own, so that all stand ready.
pub fn errors() {
    let world = World::new(3);
    let [near, urgent, humble] = &world.hosts[..] else { unreachable!("three hosts were asked for") };
    let mut engines = [Engine::on(urgent), Engine::humble(humble)];
    let mut sender = Engine::on(near);
    let mut control = Case::new("control: no fault".to_owned(), 0);
    let mut out = Case::new("10 ms out (stolen and sent on), real-time".to_owned(), 10);
    let mut cases: Vec<[Case; 2]> = DELAYS
        .iter()
        .map(|delay| {
            ["real-time", "usual priority"].map(|how| Case::new(format!("{delay} ms in, {how}"), *delay))
        })
        .collect();
    let rounds = rounds(ROUNDS);
    for round in 0..rounds {
        for (delay, cases) in DELAYS.iter().zip(&mut cases) {
            for turn in 0..2 {
                // Neither of the two is always the first.
                let at = (turn + round) % 2;
                control.measure(near, [urgent, humble][at]);
                let engine = &mut engines[at];
                engine.shape(delayed(*delay), entering("udp"), "ingress");
                cases[at].measure(near, [urgent, humble][at]);
                let evidence = engine.lift();
                assert!((at == 1) == noted(&evidence), "priority is not what was wanted: {evidence:#}");
            }
        }
        sender.shape(delayed(10), leaving("udp"), "egress");
        out.measure(near, urgent);
        sender.lift();
    }
    for engine in engines.into_iter().chain([sender]) {
        engine.end();
    }
    head(
        &format!(
            "delay: how much later than asked a datagram is (ms), {rounds} rounds of {} in turns",
            PLAN.count
        ),
        &["", "p50", "p99 of a round", "p99 of all", "most", "n"],
    );
    for case in [control].into_iter().chain(cases.into_iter().flatten()).chain([out]) {
        case.print();
    }
}

/// A constant delay, as a change spells it.
pub fn delayed(milliseconds: u32) -> Value {
    json!({ "delay": { "delay": format!("{milliseconds}ms") } })
}

/// Whether the evidence says that there was no real-time priority.
fn noted(evidence: &Value) -> bool {
    evidence["notes"].to_string().contains("priority")
}
