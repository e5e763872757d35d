//! Bad networks on real services and real packets: delayed, lost, doubled, damaged and reordered as asked, seen from
//! both ends, and said in the report.

mod bandwidth;
mod latency;
mod losses;
mod measured;
mod refused;
mod scope;

use std::net::IpAddr;
use std::time::Duration;

use serde_json::Value;
use squall_tests::host::Host;
use squall_tests::traffic::numbered::{Numbered, Outcome};
use squall_tests::wait::median;
use squall_tests::world::World;

use crate::trial::{Trial, calm, evidence};

/// The delay of most tests: several times what a busy machine adds by itself.
const DELAY: Duration = Duration::from_millis(60);

/// How many round trips make a median.
const MANY: usize = 15;

/// A step that shapes until the test has seen enough.
fn lasting(fault: &str) -> String {
    step(fault, 80)
}

/// A step that shapes for so many seconds.
fn step(fault: &str, seconds: u32) -> String {
    format!("{{ fault: {{ {fault} }}, for: {seconds}s }}")
}

/// Round trips with an added delay: none is early, and the median is late by no more than three times what is promised
/// (a tenth of the delay or a millisecond), beside what the same takes without the fault.
#[track_caller]
fn delayed(seen: Vec<Duration>, control: Vec<Duration>, delay: Duration) {
    let (least, middle, control) = (seen.iter().min().copied(), median(seen), median(control));
    assert!(least >= Some(delay), "a round trip of {least:?} is early: the delay is {delay:?}");
    let slack = 3 * (delay / 10).max(Duration::from_millis(1));
    assert!(
        middle <= control + delay + slack,
        "a median of {middle:?} is late: the delay is {delay:?}, and without it a round trip takes {control:?}"
    );
}

/// Round trips that the fault does not mean: no slower than before, as far as a busy machine allows.
#[track_caller]
fn unharmed(seen: Vec<Duration>, control: Vec<Duration>) {
    let (seen, control) = (median(seen), median(control));
    assert!(
        seen <= control * 3 + DELAY / 4,
        "a median of {seen:?} where a round trip takes {control:?} without the fault"
    );
}

/// What an engine says of itself, by a report.
#[track_caller]
fn engine(report: &Value) -> &Value {
    let engine = &evidence(report)["engine"];
    assert!(engine.is_object(), "no engine in {report:#}");
    engine
}

/// A number of an engine.
#[track_caller]
fn count(report: &Value, name: &str) -> u32 {
    let count = engine(report)[name].as_u64().and_then(|count| u32::try_from(count).ok());
    count.unwrap_or_else(|| panic!("no `{name}` in {report:#}"))
}

/// The engine saw what the kernel counted before it, and nothing went another way.
#[track_caller]
fn nothing_leaked(report: &Value) {
    let matched = evidence(report)["matched"].as_u64().unwrap_or_default();
    assert_eq!(matched, u64::from(count(report, "seen")), "matched and seen differ: {report:#}");
    for what in ["overflowed", "overrun", "oversized", "mislaid"] {
        assert_eq!(count(report, what), 0, "{what}: {report:#}");
    }
}

/// Sends numbered datagrams from the first host to the second while a fault is live on one of them; gives what became
/// of them, and the report.
fn shaped(world: &World, on: &Host, fault: &str, plan: Numbered, more: &[&str]) -> (Outcome, Value) {
    shaped_to(world, on, world.hosts[1].v4, fault, plan, more)
}

/// [`shaped`] to one of the second host's addresses.
fn shaped_to(
    world: &World,
    on: &Host,
    address: IpAddr,
    fault: &str,
    plan: Numbered,
    more: &[&str],
) -> (Outcome, Value) {
    let [near, far] = &world.hosts[..] else { panic!("two hosts are needed") };
    let mut trial = Trial::with(world, on, &calm(&[&lasting(fault)]), more);
    trial.injected();
    let outcome = plan.send(&near.netns, &far.netns, (address, 9).into());
    (outcome, trial.halted())
}
