//! `bandwidth`: a line carries what was asked, whoever sends and however; and `degrade`: several at once.

use std::time::Duration;

use squall_tests::traffic::bulk;
use squall_tests::traffic::numbered::Numbered;
use squall_tests::world::World;
use squall_tests::{needs, odds};

use super::{count, lasting, nothing_leaked, shaped};
use crate::trial::{Trial, calm};

/// A megabit.
const MEGABIT: f64 = 1e6;

/// A connection carries what the line does, less headers and what TCP sends twice; another port carries many times more.
fn thin(on: usize, whose: &str) {
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else { panic!("two hosts are needed") };
    let fault = format!("bandwidth: {{ rate: 20Mbit/s, {whose} }}");
    let mut trial = Trial::begin(&world, &world.hosts[on], &calm(&[&lasting(&fault)]));
    trial.injected();
    let stream = |address, port| {
        bulk::bits_per_second(&near.netns, &far.netns, (address, port).into(), Duration::from_secs(2))
    };
    for address in [far.v4, far.v6] {
        let seen = stream(address, 9) / MEGABIT;
        assert!((16.0..=20.0).contains(&seen), "{seen:.2} Mbit/s to {address}, of 20");
    }
    let other = stream(far.v4, 10) / MEGABIT;
    assert!(other > 100.0, "another port carries {other:.2} Mbit/s");
    let report = trial.halted();
    nothing_leaked(&report);
    assert!(count(&report, "delayed") > 1000, "{report:#}");
}

#[test]
fn what_enters_shares_a_thin_line() {
    needs!(Root, Nftables, Queue);
    thin(1, "from: [\"any:9\"], engine: queue");
}

#[test]
fn what_leaves_shares_a_thin_line() {
    needs!(Root, Nftables, Queue);
    thin(0, "to: [\"any:9\"], direction: egress, engine: queue");
}

#[test]
fn what_would_wait_too_long_is_lost_and_the_sender_is_not_told() {
    needs!(Root, Nftables, Queue);
    // 1,000 packets of 1,028 bytes a second are 8.2 Mbit/s.
    let plan =
        Numbered { count: 3000, rate: 1000, size: 1000, quiet: Duration::from_millis(500), urgent: false };
    let ways = [(1, "from: [\"any:9\"]"), (0, "to: [\"10.77.1.2:9\"], direction: egress")];
    for (on, whose) in ways {
        let world = World::new(2);
        let fault = format!("bandwidth: {{ rate: 4Mbit/s, burst: 16kB, buffer: 100ms, {whose} }}");
        let (outcome, report) = shaped(&world, &world.hosts[on], &fault, plan, &[]);
        assert!(outcome.errors.is_empty(), "the sender was told: {:?}", outcome.errors);
        let arrived = outcome.arrivals.len() as f64;
        // What the line carries while datagrams come and while its buffer empties, and one burst. A machine that stalls
        // makes the time longer, so it is taken from what arrived.
        let first = outcome.arrivals.first().expect("something arrives").at;
        let last = outcome.arrivals.last().expect("something arrives").at;
        let carried = (last - first).as_secs_f64() * 500_000.0 / 1028.0;
        let most = carried + 16_000.0 / 1028.0 + 2.0;
        assert!(arrived <= most * 1.02, "{arrived} arrived, {most:.0} would fit: {report:#}");
        assert!(arrived >= carried * 0.9, "{arrived} arrived, the line carries {carried:.0}: {report:#}");
        let crowded = f64::from(count(&report, "crowded"));
        assert!((crowded - outcome.lost().len() as f64).abs() < 100.0, "{crowded} crowded: {report:#}");
        assert_eq!(count(&report, "lost"), 0, "{report:#}");
        nothing_leaked(&report);
    }
}

#[test]
fn a_bad_network_is_bad_in_every_way_at_once() {
    needs!(Root, Nftables, Queue);
    let plan =
        Numbered { count: 4000, rate: 2000, size: 200, quiet: Duration::from_millis(500), urgent: false };
    let ways = [(1, "from: [\"any:9\"]"), (0, "to: [\"10.77.1.2:9\"], direction: egress")];
    for (on, whose) in ways {
        let world = World::new(2);
        let fault = format!(
            "degrade: {{ delay: 50ms, loss: 10%, duplicate: 10%, corrupt: 5%, rate: 50Mbit/s, {whose} }}"
        );
        let (outcome, report) = shaped(&world, &world.hosts[on], &fault, plan, &[]);
        let expect = |name: &str, seen: u32, share: f64| {
            let allowed = odds::binomial(plan.count, share, odds::ONE_IN_A_MILLION);
            assert!(allowed.contains(&seen), "{seen} {name}, {allowed:?} expected: {report:#}");
        };
        // A damaged packet that also comes twice arrives once, undamaged: the copy is made first.
        let missing = u32::try_from(outcome.lost().len()).expect("no more than were sent");
        expect("missing", missing, 0.1 + 0.9 * 0.05 * 0.9);
        expect("doubled", outcome.doubled(), 0.9 * 0.1 * 0.95);
        let early = outcome.arrivals.iter().find(|arrival| arrival.took < Duration::from_millis(50));
        assert!(early.is_none(), "{early:?} is early");
        nothing_leaked(&report);
    }
}
