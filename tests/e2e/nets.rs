//! Faults in other network namespaces than the agent's: `in: { netns: … }`.

use std::time::Duration;

use rustix::process::Signal;
use squall_tests::client::{Datagrams, Talk, connect};
use squall_tests::host::Host;
use squall_tests::needs;
use squall_tests::netns::{Netns, signal};
use squall_tests::traffic::round_trips;
use squall_tests::wait::{PATIENCE, holds, median};
use squall_tests::world::World;

use crate::trial::{SHORT, SOON, Trial, calm, evidence, run};

/// A fault of everything in a host's namespace, for longer than any test waits.
fn within(host: &Host, fault: &str) -> String {
    step(host.netns.name(), fault)
}

fn step(netns: &str, fault: &str) -> String {
    calm(&[&format!("{{ fault: {{ {fault} }}, in: {{ netns: \"{netns}\" }}, for: 60s }}")])
}

/// Echo servers on the agent's host, and a conversation with one from each of the others.
fn talks(world: &World) -> Vec<Box<dyn Talk>> {
    let echo = world.echo(0, 7);
    let [agent, others @ ..] = &world.hosts[..] else { panic!("there is a first host") };
    let talk = |(index, host): (usize, &Host)| {
        let address = format!("10.77.{}.1", index + 1).parse().expect("an address");
        assert_ne!(host.netns.name(), agent.netns.name());
        echo.dial_within(host, address, SHORT * 5).expect("the echo server can be reached")
    };
    others.iter().enumerate().map(talk).collect()
}

fn late(direction: &str) {
    let world = World::new(3);
    let [agent, target, other] = &world.hosts[..] else { panic!("three hosts were asked for") };
    let mut talks = talks(&world);
    let [inside, outside] = &mut talks[..] else { panic!("two conversations") };
    let mut datagrams = Datagrams::to(&target.netns, "10.77.1.1:7".parse().expect("an address"), SHORT * 5)
        .expect("a socket opens");
    let mut v6 = world.echo(0, 8).dial_within(target, "fd77:1::1".parse().expect("an address"), SHORT * 5);
    let v6 = v6.as_mut().expect("the echo server can be reached");
    let control = median(round_trips(&mut **inside, 9));
    let fault = format!("latency: {{ delay: 50ms, direction: {direction} }}");
    let mut trial = Trial::begin(&world, agent, &within(target, &fault));
    trial.injected();
    assert!(agent.tables().is_empty() && other.tables().is_empty(), "only the target has a table");
    assert_eq!(target.tables(), ["table inet squall"]);
    let delay = Duration::from_millis(50);
    let most = control + delay + (control + delay / 10 + Duration::from_millis(1)) * 3;
    for talk in [&mut **inside, &mut datagrams, &mut **v6] {
        let seen = median(round_trips(talk, 9));
        assert!((delay..=most).contains(&seen), "{seen:?} with {delay:?} added to {control:?}");
    }
    let beside = median(round_trips(&mut **outside, 9));
    assert!(beside < delay, "{beside:?} in a namespace that was not named");
    let report = trial.halted();
    let targets = &report["parts"][0]["targets"];
    assert!(targets.to_string().contains(&format!("network namespace {}", target.netns.name())), "{targets}");
    assert!(evidence(&report)["engine"]["delayed"].as_u64() >= Some(27), "{report:#}");
    world.restored(SOON);
}

#[test]
fn what_enters_another_namespace_is_late_and_nothing_else() {
    needs!(Root, Nftables, Queue);
    late("ingress");
}

#[test]
fn what_leaves_another_namespace_is_late_and_nothing_else() {
    needs!(Root, Nftables, Queue);
    late("egress");
}

#[test]
fn the_same_fault_in_two_namespaces_is_no_conflict_and_twice_in_one_is() {
    needs!(Root, Nftables);
    let world = World::new(3);
    let [agent, one, two] = &world.hosts[..] else { panic!("three hosts were asked for") };
    let mut talks = talks(&world);
    let cut = |host| within(host, "partition: {}");
    let mut first = Trial::begin(&world, agent, &cut(one));
    let name = first.event("started")["run"].as_str().expect("a run has a name").to_owned();
    first.injected();
    let mut second = Trial::begin(&world, agent, &cut(two));
    second.injected();
    assert!(talks.iter_mut().all(|talk| talk.talk().is_err()), "both are cut off");
    // By its file it is the same namespace.
    let third = run(&world, agent, &step(&one.netns.path().display().to_string(), "refuse: {}"));
    third.expect_exit(4).expect_told(&name);
    assert!(!first.has("lifted") && !second.has("lifted"), "the others must not be touched");
    first.halted();
    holds("the first to be free again", PATIENCE, || one.tables().is_empty());
    assert_eq!(two.tables(), ["table inet squall"], "the second is still live");
    second.halted();
    world.restored(SOON);
    let listed = agent.squall(&["status"]).run();
    listed.expect_exit(0);
}

#[test]
fn connections_in_another_namespace_are_destroyed_and_no_others() {
    needs!(Root, Nftables);
    let world = World::new(3);
    let mut talks = talks(&world);
    talks.iter_mut().for_each(|talk| talk.talk().expect("it answers"));
    let [agent, target, _] = &world.hosts[..] else { panic!("three hosts were asked for") };
    let report = run(&world, agent, &within(target, "disconnect: {}").replace("for: 60s", "for: 1s"));
    assert_eq!(evidence(&report.expect_exit(0).json())["impaired"], 1);
    assert!(talks[0].talk().is_err(), "its connection is gone");
    talks[1].talk().expect("the other one is still there");
}

#[test]
fn what_is_no_other_namespace_is_refused() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let agent = &world.hosts[0];
    let own = agent.netns.path().display().to_string();
    let file = world.file("plain", "no namespace");
    for (name, why) in [
        ("sqt-absent", "there is no network namespace `sqt-absent`"),
        (file.as_str(), "is no network namespace"),
        ("/proc/self/ns/uts", "is no network namespace"),
        ("../run/netns/x", "names no network namespace"),
        (agent.netns.name(), "is the agent's own network namespace"),
        (own.as_str(), "is the agent's own network namespace"),
    ] {
        run(&world, agent, &step(name, "partition: {}")).expect_exit(4).expect_told(why);
    }
}

#[test]
fn a_table_of_another_agent_in_the_target_is_refused() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let [agent, target] = &world.hosts[..] else { panic!("two hosts were asked for") };
    world.echo(0, 7);
    let cut = calm(&["{ fault: { partition: { to: [\"10.77.1.1:9\"] } }, for: 60s }"]);
    let mut theirs = Trial::begin(&world, target, &cut);
    theirs.injected();
    run(&world, agent, &within(target, "refuse: {}"))
        .expect_exit(4)
        .expect_told("`inet squall` is here already");
    assert!(!theirs.has("lifted"), "the other agent must not be touched");
    theirs.run.signal(Signal::INT);
    theirs.finish().expect_exit(6);
}

#[test]
fn a_login_that_listens_in_the_target_is_left_out() {
    needs!(Root, Nftables, Sshd);
    let world = World::new(2);
    let [agent, target] = &world.hosts[..] else { panic!("two hosts were asked for") };
    world.sshd(1, 2222);
    let mut talk = talks(&world).remove(0);
    let mut trial = Trial::begin(&world, agent, &within(target, "partition: {}"));
    trial.injected();
    assert!(talk.talk().is_err());
    connect(&agent.netns, (target.v4, 2222).into(), SHORT * 5).expect("a remote login can be reached");
    trial.halted();
}

#[test]
fn a_namespace_that_goes_and_comes_is_followed() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let [agent, target] = &world.hosts[..] else { panic!("two hosts were asked for") };
    let name = format!("{}-guest", agent.netns.name());
    let guest = Netns::create(&name).expect("a namespace can be made");
    let mut trial = Trial::begin(&world, agent, &step(&name, "partition: { to: [127.0.0.1] }"));
    trial.injected();
    let cut = |netns: &Netns| {
        let mut datagrams =
            Datagrams::to(netns, "127.0.0.1:9".parse().expect("an address"), SHORT).expect("a socket opens");
        netns.inside(|| drop(datagrams.talk()));
        squall_tests::netns::look(Some(netns), &["nft", "list", "table", "inet", "squall"])
            .is_ok_and(|rules| rules.contains("counter packets 1"))
    };
    holds("the fault in the guest", PATIENCE, || cut(&guest));
    guest.delete().expect("it can be deleted");
    let guest = Netns::create(&name).expect("a namespace can be made");
    holds("the fault in its successor", PATIENCE, || cut(&guest));
    for _ in 0..3 {
        cut(&guest);
    }
    let report = trial.halted();
    let incidents = evidence(&report)["incidents"].to_string();
    assert!(incidents.contains(&format!("network namespace {name} ended")), "{incidents}");
    assert!(incidents.contains("came back after"), "{incidents}");
    let left = squall_tests::netns::look(Some(&guest), &["nft", "list", "tables"]).expect("nft works");
    assert_eq!(left, "");
    guest.delete().expect("it can be deleted");
    assert!(target.tables().is_empty());
    world.restored(SOON);
}

#[test]
fn a_namespace_that_was_followed_is_clean_when_both_die() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let agent = &world.hosts[0];
    let name = format!("{}-guest", agent.netns.name());
    let guest = Netns::create(&name).expect("a namespace can be made");
    let mut trial = Trial::begin(&world, agent, &step(&name, "partition: { to: [127.0.0.1] }"));
    trial.injected();
    guest.delete().expect("it can be deleted");
    let guest = Netns::create(&name).expect("a namespace can be made");
    let tables = || squall_tests::netns::look(Some(&guest), &["nft", "list", "tables"]).expect("nft works");
    holds("the fault in its successor", PATIENCE, || tables() == "table inet squall\n");
    let (guardian, worker) = agent.agents();
    for process in [&worker, &guardian] {
        signal(process, Signal::STOP);
    }
    for process in [&worker, &guardian] {
        assert!(signal(process, Signal::KILL), "it is gone already");
    }
    holds("the successor to be as it was made", SOON, || tables().is_empty());
    holds("the command to end", PATIENCE, || trial.run.ended());
    trial.finish().expect_exit(6);
    agent.agent(&["recover"]).run().expect_exit(0);
    guest.delete().expect("it can be deleted");
    world.restored(SOON);
}

/// Who dies while packets are held in a foreign namespace.
fn crash(victims: &[usize]) {
    let world = World::new(2);
    let [agent, target] = &world.hosts[..] else { panic!("two hosts were asked for") };
    let mut talk = talks(&world).remove(0);
    let mut trial =
        Trial::begin(&world, agent, &within(target, "latency: { delay: 100ms, direction: both }"));
    trial.injected();
    let (guardian, worker) = agent.agents();
    let pair = [&worker, &guardian];
    talk.talk().expect("it answers late");
    assert_eq!(target.tables(), ["table inet squall"]);
    if victims.len() > 1 {
        for victim in victims {
            signal(pair[*victim], Signal::STOP);
        }
    }
    for victim in victims {
        assert!(signal(pair[*victim], Signal::KILL), "it is gone already");
    }
    holds("the namespace to be as before", SOON, || {
        target.tables().is_empty() && !guardian.lives() && !worker.lives()
    });
    holds("the command to end", PATIENCE, || trial.run.ended());
    trial.finish().expect_exit(6);
    agent.agent(&["recover"]).run().expect_exit(0);
    world.restored(SOON);
    talk.talk().expect("the connection has lived through it");
}

#[test]
fn the_worker_is_killed() {
    needs!(Root, Nftables, Queue);
    crash(&[0]);
}

#[test]
fn the_guardian_is_killed() {
    needs!(Root, Nftables, Queue);
    crash(&[1]);
}

#[test]
fn both_are_killed() {
    needs!(Root, Nftables, Queue);
    crash(&[0, 1]);
}
