//! What enters, by the kernel's own queueing disciplines: led through a device of ours, once, and only what is meant.

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

use super::{AWHILE, as_asked, free, late};

/// A line for what comes to the second host, by one word more or less.
fn line(more: &str) -> String {
    format!("{{ fault: {{ bandwidth: {{ rate: 20Mbit/s, engine: netem, {more} }} }}, for: 90s }}")
}

fn links(host: &Host) -> Vec<String> {
    let all = host.look(&["ip", "-brief", "link"]);
    all.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

/// The device of ours.
fn device(host: &Host) -> bool {
    links(host).contains(&"squall-in".to_owned())
}

/// Ends a run whose line was wide enough for everything: nothing had to wait.
fn stopped(mut trial: Trial) -> Value {
    trial.run.signal(Signal::INT);
    trial.finish().expect_exit(6).expect_told("SIGINT").json()
}

#[test]
fn a_line_carries_what_was_asked_of_both_families_and_other_traffic_passes_by() {
    needs!(Root, Nftables, Htb, Ifb);
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else { panic!("two hosts were asked for") };
    let speed = |address, port| bits_per_second(&near.netns, &far.netns, (address, port).into(), AWHILE);
    let before = (links(far), far.look(&["tc", "qdisc"]));
    let mut trial = Trial::begin(&world, far, &calm(&[&line("from: [\"any:9\"]")]));
    trial.injected();
    assert!(device(far), "{:?}", links(far));
    as_asked(speed(far.v4, 9));
    as_asked(speed(far.v6, 9));
    free(speed(far.v4, 10));
    let report = trial.halted();
    let engine = &evidence(&report)["engine"];
    assert_eq!(engine["name"], "htb", "{report:#}");
    assert!(engine["delayed"].as_u64() > Some(10), "{report:#}");
    assert_eq!(evidence(&report)["matched"], engine["seen"], "some passed by: {report:#}");
    let notes = report["parts"][0]["notes"].to_string();
    assert!(notes.contains("led through the device `squall-in`"), "{notes}");
    assert!(!notes.contains("inert root"), "no interface of the host was touched: {notes}");
    assert_eq!(before, (links(far), far.look(&["tc", "qdisc"])));
}

#[test]
fn each_packet_comes_back_once_and_whole() {
    needs!(Root, Nftables, Htb, Ifb);
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else { panic!("two hosts were asked for") };
    let mut trial = Trial::begin(&world, far, &calm(&[&line("direction: both, from: [\"any:9\"]")]));
    trial.injected();
    let plan = Numbered { count: 2000, rate: 1000, size: 200, ..Numbered::default() };
    for address in [far.v4, far.v6] {
        let outcome = plan.send(&near.netns, &far.netns, (address, 9).into());
        assert!(outcome.lost().is_empty() && outcome.doubled() == 0, "{outcome:?}");
    }
    let report = stopped(trial);
    let seen = evidence(&report)["engine"]["seen"].as_u64().expect("a count");
    // And what says that no more will come.
    assert!((4000..4400).contains(&seen), "{seen} packets passed, 4000 were sent: {report:#}");
    assert_eq!(evidence(&report)["matched"], seen, "{report:#}");
}

#[test]
fn what_enters_by_an_interface_that_comes_later_is_led_through_the_device_too() {
    needs!(Root, Nftables, Htb, Ifb);
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else { panic!("two hosts were asked for") };
    let mut trial = Trial::begin(&world, far, &calm(&[&line("from: [\"any:9\"]")]));
    trial.injected();
    late(&world);
    holds("the new interface to be met", PATIENCE, || {
        far.look(&["nft", "list", "table", "netdev", "squall"]).contains("late1")
    });
    let plan = Numbered { count: 500, rate: 1000, size: 200, ..Numbered::default() };
    for address in [far.v4, "10.98.0.2".parse().expect("an address")] {
        let outcome = plan.send(&near.netns, &far.netns, (address, 9).into());
        assert!(outcome.lost().is_empty(), "{outcome:?}");
    }
    near.look(&["ip", "link", "del", "late0"]);
    let report = stopped(trial);
    let seen = evidence(&report)["engine"]["seen"].as_u64().expect("a count");
    assert!((1000..1200).contains(&seen), "{seen} packets were met, 1000 were sent: {report:#}");
    assert_eq!(evidence(&report)["matched"], seen, "{report:#}");
    assert!(evidence(&report)["incidents"].to_string().contains("`late1` is led through"), "{report:#}");
}

#[test]
fn the_agents_death_frees_the_traffic_and_recovery_removes_the_device() {
    needs!(Root, Nftables, Htb, Ifb);
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else { panic!("two hosts were asked for") };
    let speed = || bits_per_second(&near.netns, &far.netns, (far.v4, 9).into(), AWHILE);
    let before = links(far);
    let mut trial = Trial::begin(&world, far, &calm(&[&line("from: [\"any:9\"]")]));
    trial.injected();
    as_asked(speed());
    far.kill_agents();
    holds("the tables' end", PATIENCE, || far.tables().is_empty());
    free(speed());
    trial.finish().expect_exit(6);
    far.agent(&["recover"]).run().expect_exit(0);
    assert_eq!(before, links(far));
}

#[test]
fn either_of_the_two_that_is_left_removes_the_device() {
    needs!(Root, Nftables, Htb, Ifb);
    for kills_the_guardian in [true, false] {
        let world = World::new(2);
        let far = &world.hosts[1];
        let mut trial = Trial::begin(&world, far, &calm(&[&line("from: [\"any:9\"]")]));
        trial.injected();
        assert!(device(far));
        let (guardian, worker) = far.agents();
        signal(if kills_the_guardian { &guardian } else { &worker }, Signal::KILL);
        holds("the device's end", PATIENCE, || !device(far) && far.tables().is_empty());
        trial.finish().expect_exit(6);
    }
}

#[test]
fn two_runs_share_the_device_and_the_last_one_removes_it() {
    needs!(Root, Nftables, Htb, Ifb);
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else { panic!("two hosts were asked for") };
    let speed = |port| bits_per_second(&near.netns, &far.netns, (far.v4, port).into(), AWHILE);
    let mut first = Trial::begin(&world, far, &calm(&[&line("from: [\"any:9\"]")]));
    first.injected();
    let again = run(&world, far, &calm(&[&line("from: [\"any:9\"]")]));
    again.expect_exit(4).expect_told("steers packets of the same traffic");
    let mut second = Trial::begin(&world, far, &calm(&[&line("from: [\"any:10\"]")]));
    second.injected();
    as_asked(speed(9));
    first.halted();
    as_asked(speed(10));
    free(speed(9));
    assert!(device(far));
    second.halted();
    assert!(!device(far));
}

#[test]
fn what_cannot_be_told_where_it_enters_is_refused() {
    needs!(Root, Nftables, Htb, Ifb, Bpf);
    let world = World::new(2);
    let far = &world.hosts[1];
    let scoped = "{ fault: { bandwidth: { rate: 20Mbit/s, engine: netem } }, in: { user: nobody }, for: 2s }";
    let refused = run(&world, far, &calm(&[scoped]));
    refused.expect_exit(4).expect_told("nobody knows yet whose socket");
    // A host that translates addresses for others: what is for them looks as if it were for this host.
    far.look(&["nft", "add", "table", "ip", "theirs"]);
    far.look(&["nft", "add chain ip theirs pre { type nat hook prerouting priority -100; }"]);
    let enters = line("from: [\"any:9\"]");
    far.look(&["sysctl", "-qw", "net.ipv4.ip_forward=1"]);
    let refused = run(&world, far, &calm(&[&enters]));
    refused.expect_exit(4).expect_told("translates their addresses");
    far.look(&["sysctl", "-qw", "net.ipv4.ip_forward=0"]);
    far.look(&["nft", "delete", "table", "ip", "theirs"]);
    // Somebody's device of that name is nobody's business.
    far.look(&["ip", "link", "add", "squall-in", "type", "ifb"]);
    run(&world, far, &calm(&[&enters]))
        .expect_exit(4)
        .expect_told("no journal knows of: the device `squall-in`");
    far.look(&["ip", "link", "del", "squall-in"]);
}

#[test]
fn what_a_host_only_forwards_is_not_led_through_the_device() {
    needs!(Root, Nftables, Htb, Ifb);
    let world = World::new(3);
    let [router, near, far] = &world.hosts[..] else { panic!("three hosts were asked for") };
    router.look(&["sysctl", "-qw", "net.ipv4.ip_forward=1"]);
    near.look(&["ip", "route", "add", "10.77.2.0/24", "via", "10.77.1.1"]);
    far.look(&["ip", "route", "add", "10.77.1.0/24", "via", "10.77.2.1"]);
    world.as_found();
    let mut trial = Trial::begin(&world, router, &calm(&[&line("from: [\"any:9\"]")]));
    trial.injected();
    let plan = Numbered { count: 500, rate: 1000, size: 200, ..Numbered::default() };
    for to in [far, router] {
        let outcome = plan.send(&near.netns, &to.netns, (to.v4, 9).into());
        assert!(outcome.lost().is_empty(), "{outcome:?}");
    }
    let report = stopped(trial);
    let seen = evidence(&report)["engine"]["seen"].as_u64().expect("a count");
    assert!((500..600).contains(&seen), "{seen} packets passed, 500 were for the host: {report:#}");
    assert_eq!(evidence(&report)["matched"], seen, "{report:#}");
}
