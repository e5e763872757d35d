//! What leaves: a line of `htb` below an inert root, and the interface as it was afterwards.

use std::net::SocketAddr;

use rustix::process::Signal;
use serde_json::Value;
use squall_tests::host::Host;
use squall_tests::needs;
use squall_tests::netns::signal;
use squall_tests::traffic::bulk::bits_per_second;
use squall_tests::traffic::numbered::Numbered;
use squall_tests::trial::{Trial, calm, evidence, run};
use squall_tests::wait::{PATIENCE, holds};
use squall_tests::world::World;

use super::{AWHILE, LINE, as_asked, free, late};

/// The interface of the first host towards the second.
const LINK: &str = "to1";
/// What somebody has shaped: two classes, one with a leaf of its own choice.
const SHAPED: [&str; 5] = [
    "qdisc add dev to1 root handle 1: htb default 0x20 r2q 20",
    "class add dev to1 parent 1: classid 1:1 htb rate 900mbit burst 15k",
    "class add dev to1 parent 1:1 classid 1:10 htb rate 400mbit ceil 900mbit prio 1",
    "class add dev to1 parent 1:1 classid 1:20 htb rate 500mbit ceil 900mbit prio 2",
    "qdisc add dev to1 parent 1:20 handle 20: bfifo limit 3000000",
];

/// A line to a port of the second host.
fn line(port: u16, more: &str) -> String {
    format!(
        "{{ fault: {{ bandwidth: {{ rate: 20Mbit/s, to: [\"10.77.1.2:{port}\"], direction: egress{more} }} }}, for: 90s }}"
    )
}

fn shape(host: &Host, commands: &[&str]) {
    for command in commands {
        host.look(&[&["tc"], &command.split(' ').collect::<Vec<_>>()[..]].concat());
    }
}

/// Everything that stands at the interface, as `tc` tells it.
fn standing(host: &Host) -> String {
    host.look(&["tc", "qdisc", "show", "dev", LINK]) + &host.look(&["tc", "class", "show", "dev", LINK])
}

/// How many classes of ours stand there.
fn classes(host: &Host) -> usize {
    host.look(&["tc", "class", "show", "dev", LINK]).matches("class htb 5a17:").count()
}

/// Bits a second to a port of the second host.
fn speed(world: &World, port: u16) -> f64 {
    let [near, far] = &world.hosts[..] else { panic!("two hosts are needed") };
    bits_per_second(&near.netns, &far.netns, SocketAddr::new(far.v4, port), AWHILE)
}

fn notes(report: &Value) -> String {
    report["parts"][0]["notes"].to_string()
}

#[test]
fn a_line_carries_what_was_asked_and_other_traffic_passes_by() {
    needs!(Root, Nftables, Htb);
    let world = World::new(2);
    let host = &world.hosts[0];
    let before = standing(host);
    let mut trial = Trial::begin(&world, host, &calm(&[&line(9, ", engine: netem")]));
    trial.injected();
    as_asked(speed(&world, 9));
    free(speed(&world, 10));
    let report = trial.halted();
    let engine = &evidence(&report)["engine"];
    assert_eq!(engine["name"], "htb", "{report:#}");
    let (seen, matched) = (engine["seen"].as_u64(), evidence(&report)["matched"].as_u64());
    assert!(seen > Some(1000) && seen == matched, "{report:#}");
    assert!(engine["delayed"].as_u64() > Some(10), "{report:#}");
    assert!(
        notes(&report).contains("packets may be lost"),
        "the impact of the graft is not said: {report:#}"
    );
    assert_eq!(before, standing(host));
}

#[test]
fn the_agents_death_frees_the_traffic_at_once_and_recovery_clears_the_interface() {
    needs!(Root, Nftables, Htb);
    let world = World::new(2);
    let host = &world.hosts[0];
    let before = standing(host);
    let mut trial = Trial::begin(&world, host, &calm(&[&line(9, "")]));
    trial.injected();
    as_asked(speed(&world, 9));
    host.kill_agents();
    holds("the table's end", PATIENCE, || host.tables().is_empty());
    free(speed(&world, 9));
    trial.finish().expect_exit(6);
    host.agent(&["recover"]).run().expect_exit(0);
    assert_eq!(before, standing(host));
}

#[test]
fn either_of_the_two_that_is_left_clears_the_interface() {
    needs!(Root, Nftables, Htb);
    for kills_the_guardian in [true, false] {
        let world = World::new(2);
        let host = &world.hosts[0];
        let before = standing(host);
        let mut trial = Trial::begin(&world, host, &calm(&[&line(9, "")]));
        trial.injected();
        assert_eq!(classes(host), 1);
        let (guardian, worker) = host.agents();
        signal(if kills_the_guardian { &guardian } else { &worker }, Signal::KILL);
        holds("the interface to be as it was", PATIENCE, || standing(host) == before);
        trial.finish().expect_exit(6);
    }
}

#[test]
fn a_root_of_somebodys_is_refused_or_left_to_the_other_engine() {
    needs!(Root, Nftables, Htb, Queue);
    let world = World::new(2);
    let host = &world.hosts[0];
    shape(host, &SHAPED);
    let before = standing(host);
    let refused = run(&world, host, &calm(&[&line(9, ", engine: netem")]));
    refused.expect_exit(4).expect_told("root of their own").expect_told("`to1`").expect_told("root: borrow");
    let mut trial = Trial::begin(&world, host, &calm(&[&line(9, "")]));
    trial.injected();
    as_asked(speed(&world, 9));
    assert_eq!(before, standing(host));
    let report = trial.halted();
    assert_eq!(evidence(&report)["engine"]["name"], "queue", "{report:#}");
    assert!(notes(&report).contains("root of their own"), "{report:#}");
    shape(host, &["qdisc del dev to1 root"]);
}

#[test]
fn a_borrowed_root_is_put_back_as_it_was() {
    needs!(Root, Nftables, Htb);
    let world = World::new(2);
    let host = &world.hosts[0];
    shape(host, &SHAPED);
    let before = standing(host);
    let borrowed = line(9, ", engine: netem, root: borrow");
    let mut trial = Trial::begin(&world, host, &calm(&[&borrowed]));
    trial.injected();
    as_asked(speed(&world, 9));
    trial.halted();
    assert_eq!(before, standing(host));
    // Killed in the middle, the next command puts it back.
    let mut trial = Trial::begin(&world, host, &calm(&[&borrowed]));
    trial.injected();
    host.kill_agents();
    trial.finish().expect_exit(6);
    host.agent(&["recover"]).run().expect_exit(0);
    assert_eq!(before, standing(host));
    // What could not be put back exactly is not borrowed.
    shape(
        host,
        &["filter add dev to1 parent 1: protocol ip prio 1 u32 match ip dst 10.9.9.9/32 flowid 1:10"],
    );
    let before = standing(host);
    let refused = run(&world, host, &calm(&[&borrowed]));
    refused.expect_exit(4).expect_told("filters stand at 1:0");
    assert_eq!(before, standing(host));
    shape(host, &["qdisc del dev to1 root"]);
}

/// An interface with two queues, each with a discipline of its owner's below `mq`: all of it comes back, in its order.
#[test]
fn what_stands_at_each_queue_is_put_back_too() {
    needs!(Root, Nftables, Htb);
    let world = World::new(1);
    let host = &world.hosts[0];
    let pair = "link add many0 numtxqueues 2 type veth peer name many1 numtxqueues 2";
    host.look(&[&["ip"], &pair.split(' ').collect::<Vec<_>>()[..]].concat());
    host.look(&["ip", "address", "add", "10.99.0.1/24", "dev", "many0"]);
    for link in ["many0", "many1"] {
        host.look(&["ip", "link", "set", link, "up"]);
    }
    shape(
        host,
        &[
            "qdisc add dev many0 root handle 1: mq",
            "qdisc add dev many0 parent 1:1 handle 10: htb default 1",
            "class add dev many0 parent 10: classid 10:1 htb rate 900mbit burst 15k",
            "qdisc add dev many0 parent 10:1 handle 11: pfifo limit 300",
            "qdisc add dev many0 parent 1:2 handle 20: tbf rate 800mbit burst 64kb latency 20ms",
        ],
    );
    let all = || {
        let said = host.look(&["tc", "qdisc", "show", "dev", "many0"])
            + &host.look(&["tc", "class", "show", "dev", "many0"]);
        // What follows is a count.
        said.lines().map(|line| line.split(" direct_packets_stat").next().unwrap_or(line)).collect::<String>()
    };
    let before = all();
    let borrowed = line(9, ", engine: netem, root: borrow").replace("10.77.1.2", "10.99.0.2");
    let mut trial = Trial::begin(&world, host, &calm(&[&borrowed]));
    trial.injected();
    assert!(!all().contains(" mq "), "{}", all());
    trial.run.signal(Signal::INT);
    trial.finish().expect_exit(6).expect_told("SIGINT");
    assert_eq!(before, all());
    host.look(&["ip", "link", "del", "many0"]);
}

#[test]
fn two_runs_share_a_root_and_end_in_any_order() {
    needs!(Root, Nftables, Htb);
    let world = World::new(2);
    let host = &world.hosts[0];
    let before = standing(host);
    for first_ends_first in [true, false] {
        let mut first = Trial::begin(&world, host, &calm(&[&line(9, ", engine: netem")]));
        first.injected();
        let mut second = Trial::begin(&world, host, &calm(&[&line(10, ", engine: netem")]));
        second.injected();
        assert_eq!(classes(host), 2);
        as_asked(speed(&world, 9));
        as_asked(speed(&world, 10));
        let (ends, stays, port) = if first_ends_first { (first, second, 10) } else { (second, first, 9) };
        ends.halted();
        holds("the class's end", PATIENCE, || classes(host) == 1);
        as_asked(speed(&world, port));
        stays.halted();
        assert_eq!(before, standing(host));
    }
}

#[test]
fn the_same_packets_are_steered_once_and_queued_besides() {
    needs!(Root, Nftables, Htb, Queue);
    let world = World::new(2);
    let host = &world.hosts[0];
    let mut first = Trial::begin(&world, host, &calm(&[&line(9, ", engine: netem")]));
    first.injected();
    let refused = run(&world, host, &calm(&[&line(9, ", engine: netem")]));
    refused.expect_exit(4).expect_told("steers packets of the same traffic");
    let mut second = Trial::begin(&world, host, &calm(&[&line(9, "").replace("20Mbit", "10Mbit")]));
    second.injected();
    let seen = speed(&world, 9);
    assert!((0.8 * LINE / 2.0..=1.1 * LINE / 2.0).contains(&seen), "{:.1} Mbit/s on 10 and 20", seen / 1e6);
    let report = second.halted();
    assert_eq!(evidence(&report)["engine"]["name"], "queue", "{report:#}");
    as_asked(speed(&world, 9));
    first.halted();
}

#[test]
fn a_route_that_moves_takes_the_line_with_it() {
    needs!(Root, Nftables, Htb);
    let world = World::new(2);
    let host = &world.hosts[0];
    let mut trial = Trial::begin(&world, host, &calm(&[&line(9, ", engine: netem")]));
    trial.injected();
    as_asked(speed(&world, 9));
    late(&world);
    let before = host.look(&["tc", "qdisc", "show", "dev", "late0"]);
    host.look(&["ip", "route", "add", "10.77.1.2/32", "via", "10.98.0.2", "dev", "late0"]);
    holds("a class at the other interface", PATIENCE, || {
        host.look(&["tc", "class", "show", "dev", "late0"]).contains("class htb 5a17:")
            && host.look(&["nft", "list", "table", "inet", "squall"]).matches("oif").count() >= 2
    });
    as_asked(speed(&world, 9));
    free(speed(&world, 10));
    let report = trial.halted();
    assert_eq!(evidence(&report)["matched"], evidence(&report)["engine"]["seen"], "{report:#}");
    assert!(
        evidence(&report)["incidents"].to_string().contains("packets leave by `late0` now"),
        "{report:#}"
    );
    assert_eq!(before, host.look(&["tc", "qdisc", "show", "dev", "late0"]));
    host.look(&["ip", "link", "del", "late0"]);
}

#[test]
fn packets_that_leave_by_an_interface_of_somebodys_are_counted_and_nothing_is_said_of_them() {
    needs!(Root, Nftables, Htb);
    let world = World::new(2);
    let [host, far] = &world.hosts[..] else { panic!("two hosts are needed") };
    let mut trial = Trial::begin(&world, host, &calm(&[&line(9, ", engine: netem")]));
    trial.injected();
    late(&world);
    host.look(&["tc", "qdisc", "add", "dev", "late0", "root", "handle", "7:", "pfifo", "limit", "77"]);
    let before = host.look(&["tc", "qdisc", "show", "dev", "late0"]);
    host.look(&["ip", "route", "add", "10.77.1.2/32", "via", "10.98.0.2", "dev", "late0"]);
    let plan = Numbered { count: 300, rate: 1000, size: 200, ..Numbered::default() };
    let outcome = plan.send(&host.netns, &far.netns, (far.v4, 9).into());
    assert!(outcome.lost().is_empty(), "{outcome:?}");
    trial.run.signal(Signal::INT);
    let report = trial.finish().expect_exit(6).expect_told("SIGINT").json();
    assert_eq!(report["parts"][0]["measured"], false, "{report:#}");
    let said = evidence(&report).to_string();
    assert!(said.contains("root of their own"), "{report:#}");
    assert!(said.contains("packets left by another interface than the fault is on"), "{report:#}");
    assert_eq!(before, host.look(&["tc", "qdisc", "show", "dev", "late0"]));
    host.look(&["ip", "link", "del", "late0"]);
}

#[test]
fn a_vanished_interface_is_an_end_like_any_other() {
    needs!(Root, Nftables, Htb);
    let world = World::new(2);
    let host = &world.hosts[0];
    host.look(&["ip", "link", "add", "gone0", "type", "veth", "peer", "name", "gone1"]);
    host.look(&["ip", "address", "add", "10.99.0.1/24", "dev", "gone0"]);
    for link in ["gone0", "gone1"] {
        host.look(&["ip", "link", "set", link, "up"]);
    }
    let step = line(9, ", engine: netem").replace("10.77.1.2", "10.99.0.2");
    let mut trial = Trial::begin(&world, host, &calm(&[&step]));
    trial.injected();
    host.look(&["ip", "link", "del", "gone0"]);
    trial.run.signal(Signal::INT);
    let finished = trial.finish();
    let report = finished.expect_exit(6).json();
    assert!(evidence(&report)["incidents"].to_string().contains("`gone0` vanished"), "{report:#}");
}
