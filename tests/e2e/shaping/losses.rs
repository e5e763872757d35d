//! `loss`, `duplicate`, `corrupt`, `reorder`: as often as asked, by what arrives at a real socket.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::Value;
use squall_tests::host::Host;
use squall_tests::traffic::counted;
use squall_tests::traffic::numbered::{Numbered, Outcome};
use squall_tests::world::World;
use squall_tests::{needs, odds};

use super::{count, nothing_leaked, shaped, shaped_to};
use crate::trial::{impaired, peer};

/// Enough for a share of a fifth to be known to within a tenth of it.
const PLAN: Numbered =
    Numbered { count: 6000, rate: 4000, size: 64, quiet: Duration::from_millis(300), urgent: false };

/// Where the packets of these tests are met: as they enter the second host, or as they leave the first.
const WAYS: [usize; 2] = [1, 0];

/// A fault on the datagrams of one address family, each way in a world of its own: what became of them, the report, and
/// the receiver.
fn each_way(family: fn(&Host) -> IpAddr, fault: &str, look: impl Fn(&Outcome, &Value, &Host)) {
    for on in WAYS {
        let world = World::new(2);
        let far = &world.hosts[1];
        let address = family(far);
        let whose = if on == 1 {
            "from: [\"any:9\"], direction: ingress".to_owned()
        } else {
            format!("to: [\"{}\"], direction: egress", peer(address, 9))
        };
        let fault = fault.replace("WHOSE", &whose);
        let (outcome, report) = shaped_to(&world, &world.hosts[on], address, &fault, PLAN, &[]);
        silent(&outcome);
        nothing_leaked(&report);
        look(&outcome, &report, far);
    }
}

fn v4(host: &Host) -> IpAddr {
    host.v4
}

fn v6(host: &Host) -> IpAddr {
    host.v6
}

#[track_caller]
fn expect(name: &str, seen: u32, share: f64, report: &Value) {
    let allowed = odds::binomial(PLAN.count, share, odds::ONE_IN_A_MILLION);
    assert!(allowed.contains(&seen), "{seen} of {} {name}, {allowed:?} expected: {report:#}", PLAN.count);
}

/// No numbers that were not sent, none refused: a network tells nobody what it does.
#[track_caller]
fn silent(outcome: &Outcome) {
    assert!(outcome.errors.is_empty(), "the sender was told: {:?}", outcome.errors);
}

fn lost(family: fn(&Host) -> IpAddr) {
    each_way(family, "loss: { percent: 20%, WHOSE }", |outcome, report, _| {
        let lost = u32::try_from(outcome.lost().len()).expect("no more than were sent");
        expect("lost", lost, 0.2, report);
        assert_eq!((outcome.doubled(), outcome.overtaken()), (0, 0));
        // The instrument's own last words may be lost too.
        assert!((lost..lost + 100).contains(&count(report, "lost")), "{lost} are missing: {report:#}");
        assert_eq!(impaired(report), u64::from(count(report, "lost")), "{report:#}");
    });
}

#[test]
fn so_many_are_lost_and_the_sender_is_not_told() {
    needs!(Root, Nftables, Queue);
    lost(v4);
}

#[test]
fn so_many_are_lost_over_ipv6() {
    needs!(Root, Nftables, Queue);
    lost(v6);
}

fn doubled(family: fn(&Host) -> IpAddr) {
    each_way(family, "duplicate: { percent: 20%, WHOSE }", |outcome, report, _| {
        assert_eq!(outcome.lost(), [] as [u32; 0]);
        // A copy comes behind what it is a copy of, and before the next: a later one may not be in between.
        assert_eq!(outcome.overtaken(), 0, "{report:#}");
        expect("doubled", outcome.doubled(), 0.2, report);
    });
}

#[test]
fn so_many_arrive_twice() {
    needs!(Root, Nftables, Queue);
    doubled(v4);
}

#[test]
fn so_many_arrive_twice_over_ipv6() {
    needs!(Root, Nftables, Queue);
    doubled(v6);
}

fn damaged(family: fn(&Host) -> IpAddr, errors: fn(&Host) -> [u64; 2]) {
    each_way(family, "corrupt: { percent: 20%, WHOSE }", |outcome, report, far| {
        let damaged = u32::try_from(outcome.lost().len()).expect("no more than were sent");
        expect("damaged", damaged, 0.2, report);
        let [errors, sums] = errors(far);
        // What is damaged in its length is wrong before its checksum is looked at: 16 of 576 bits.
        assert_eq!(errors, u64::from(count(report, "corrupted")), "{report:#}");
        assert!(sums * 10 >= errors * 9, "{sums} wrong checksums, {errors} errors in all");
    });
}

#[test]
fn so_many_are_damaged_and_the_receiver_finds_out() {
    needs!(Root, Nftables, Queue);
    damaged(v4, |far| ["InErrors", "InCsumErrors"].map(|name| counted::v4(&far.netns, "Udp", name)));
}

#[test]
fn so_many_are_damaged_over_ipv6() {
    needs!(Root, Nftables, Queue);
    damaged(v6, |far| ["Udp6InErrors", "Udp6InCsumErrors"].map(|name| counted::v6(&far.netns, name)));
}

fn overtaken(family: fn(&Host) -> IpAddr) {
    each_way(family, "reorder: { percent: 20%, late: 20ms, WHOSE }", |outcome, report, _| {
        assert_eq!((outcome.lost().len(), outcome.doubled()), (0, 0), "{report:#}");
        expect("overtaken", outcome.overtaken(), 0.2, report);
    });
}

#[test]
fn so_many_are_overtaken() {
    needs!(Root, Nftables, Queue);
    overtaken(v4);
}

#[test]
fn so_many_are_overtaken_over_ipv6() {
    needs!(Root, Nftables, Queue);
    overtaken(v6);
}

/// The mean length of the bursts in which packets were lost.
fn mean(bursts: &[u32]) -> f64 {
    f64::from(bursts.iter().sum::<u32>()) / bursts.len() as f64
}

#[test]
fn bursts_are_longer_and_lose_the_same_share() {
    needs!(Root, Nftables, Queue);
    let world = World::new(2);
    let far = &world.hosts[1];
    let lose = |how: &str| {
        let fault = format!("loss: {{ percent: 20%, {how}from: [\"any:9\"] }}");
        shaped(&world, far, &fault, PLAN, &[]).0
    };
    let (random, bursty) = (lose(""), lose("burst: 8, "));
    // 20 % in bursts of 8: a bad network turns good with a chance of 1/8, a good one bad with 1/32.
    let lost = u32::try_from(bursty.lost().len()).expect("no more than were sent");
    let allowed = odds::bursty(PLAN.count, 1.0 / 32.0, 1.0 / 8.0, odds::ONE_IN_A_MILLION);
    assert!(allowed.contains(&lost), "{lost} lost in bursts, {allowed:?} expected");
    let (random, bursty) = (mean(&random.bursts()), mean(&bursty.bursts()));
    // Random losses have 1.25 neighbours on average. Some 150 bursts: their mean of 8 is known to within 0.6.
    assert!((1.1..1.5).contains(&random), "random losses come {random} at a time");
    assert!((4.5..12.0).contains(&bursty), "bursts of 8 are {bursty} long");
}

#[test]
fn the_same_seed_loses_the_same_packets() {
    needs!(Root, Nftables, Queue);
    let world = World::new(2);
    let far = &world.hosts[1];
    let plan = Numbered { count: 2000, ..PLAN };
    let lose = |seed: &str| {
        let fault = "loss: { percent: 20%, protocol: udp, from: [\"any:9\"] }";
        let (outcome, report) = shaped(&world, far, fault, plan, &["--seed", seed]);
        assert_eq!(report["seed"].to_string(), seed, "{report:#}");
        outcome.lost()
    };
    let (first, again, other) = (lose("4711"), lose("4711"), lose("4712"));
    assert_eq!(first, again, "the same seed");
    assert_ne!(first, other, "another seed");
}
