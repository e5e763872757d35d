//! The engine queue behind the kernel's own `queue` expression, which the machine of the tests may lack.

use std::time::Duration;

use squall_tests::host::Host;
use squall_tests::traffic::numbered::{Numbered, Outcome};
use squall_tests::trial::{Trial, evidence, impaired};
use squall_tests::wait::median;
use squall_tests::world::World;

use super::quiet;
use squall_tests::{needs, odds};

super::cases![what_leaves_is_late_and_lost_as_asked, what_enters_is_late_and_lost_as_asked];

/// Few and slow: everything here is emulated.
const PLAN: Numbered =
    Numbered { count: 600, rate: 200, size: 64, quiet: Duration::from_millis(500), urgent: true };
const DELAY: Duration = Duration::from_millis(50);

/// The rule that hands packets over, as `nft` shows it.
fn rule(host: &Host) -> String {
    let rules = host.look(&["nft", "list", "table", "inet", "squall"]);
    let found = rules.lines().find(|line| line.contains("queue"));
    found.unwrap_or_else(|| panic!("no rule queues: {rules}")).trim().to_owned()
}

fn bad_as_asked(direction: &str) {
    needs!(Root, Nftables, Queue);
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else { panic!("two hosts were asked for") };
    let send = |plan: Numbered| plan.send(&near.netns, &far.netns, (far.v4, 9).into());
    let control = send(Numbered { count: 100, ..PLAN });
    let (number, peers) =
        if direction == "egress" { (0, "to: [\"10.77.1.2:9\"]") } else { (1, "from: [\"any:9\"]") };
    let on = &world.hosts[number];
    let step = format!(
        "{{ fault: {{ degrade: {{ delay: 50ms, loss: 10%, direction: {direction}, engine: queue, {peers} }} }}, \
         for: 70s }}"
    );
    let mut trial = Trial::begin(&world, on, &quiet(&world, number, &step));
    trial.injected();
    let rule = rule(on);
    assert!(rule.contains("queue flags bypass"), "not the kernel's own expression: {rule}");
    let outcome = send(PLAN);
    let report = trial.halted();
    late(&outcome, &control);
    let lost = u32::try_from(outcome.lost().len()).expect("no more than were sent");
    let allowed = odds::binomial(PLAN.count, 0.1, odds::ONE_IN_A_MILLION);
    println!("{lost} of {} lost; {rule}", PLAN.count);
    assert!(allowed.contains(&lost), "{lost} lost, {allowed:?} expected: {report:#}");
    assert!(impaired(&report) >= u64::from(PLAN.count), "{report:#}");
    assert_eq!(evidence(&report)["engine"]["overflowed"], 0, "{report:#}");
}

/// None is early, and the median is late by no more than three times what is promised, beside the control.
fn late(outcome: &Outcome, control: &Outcome) {
    let least = outcome.took().into_iter().min();
    let (middle, without) = (median(outcome.took()), median(control.took()));
    println!("a median of {middle:?}, {without:?} without the fault");
    assert!(least >= Some(DELAY), "{least:?} is early");
    assert!(
        middle <= without + DELAY + DELAY * 3 / 10,
        "a median of {middle:?} is late; {without:?} without the fault"
    );
}

fn what_leaves_is_late_and_lost_as_asked() {
    bad_as_asked("egress");
}

fn what_enters_is_late_and_lost_as_asked() {
    bad_as_asked("ingress");
}
