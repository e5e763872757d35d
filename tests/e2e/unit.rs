//! Scopes by systemd unit and by control group: found by name, followed when they restart, exact about what is covered.
//! No systemd runs here: its units are control groups, and that is all the agent looks at.

use std::fs;
use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;
use squall_tests::netns::{self, Process};
use squall_tests::wait::{PATIENCE, holds};
use squall_tests::world::World;
use squall_tests::{cgroup, needs, skip};

use crate::scope::{Client, KNOCK, STAY, knocks, stays};
use crate::trial::{Trial, calm, evidence, run};

fn told(report: &Value, what: &str) -> String {
    evidence(report)[what].to_string()
}

/// Ends a client and takes its control group away, as systemd does when a unit ends.
pub fn stop(client: &Client, path: &Path) {
    assert!(netns::signal(&client.process, Signal::KILL));
    // Its children are in the group, too.
    holds("the unit's processes to end", PATIENCE, || {
        let left = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
        let pids = left.lines().filter_map(|pid| pid.parse().ok()).filter_map(Process::of);
        pids.for_each(|process| {
            let _ = netns::signal(&process, Signal::KILL);
        });
        left.trim().is_empty()
    });
    cgroup::remove(path).expect("an empty control group can be removed");
}

/// The agent has said something of what is live.
fn says(world: &World, what: &str) {
    holds(&format!("the agent to say `{what}`"), PATIENCE, || {
        world.hosts[0].squall(&["status", "--format", "json"]).run().stdout.contains(what)
    });
}

#[test]
fn a_unit_is_refused_and_its_sibling_is_not() {
    needs!(Root, Nftables, Cgroup2);
    let world = World::new(2);
    world.echo(1, 7);
    let (unit, path) = world.unit("shop.service", false);
    let (_, other) = world.unit("my-shop.service", false);
    let hit = Client::start(&world, "hit", None, KNOCK, Some(&path));
    let spared = Client::start(&world, "spared", None, KNOCK, Some(&other));
    knocks(&world, &format!("{{ unit: {unit} }}"), &hit, &spared);
}

#[test]
fn a_slice_holds_its_units() {
    needs!(Root, Nftables, Cgroup2, Redis);
    let world = World::new(2);
    world.redis(1, 6379);
    let (slice, path) = world.unit("shop.slice", false);
    let inner = path.join("inner@1.service");
    fs::create_dir(&inner).expect("a control group can be made");
    let hit = Client::start(&world, "hit", None, STAY, Some(&inner));
    let spared = Client::start(&world, "spared", None, STAY, None);
    stays(&world, &format!("{{ unit: {slice} }}"), &hit, &spared);
}

#[test]
fn a_unit_that_restarts_is_followed() {
    needs!(Root, Nftables, Cgroup2);
    let world = World::new(2);
    world.echo(1, 7);
    let (unit, path) = world.unit("shop.service", false);
    let first = Client::start(&world, "first", None, KNOCK, Some(&path));
    let spared = Client::start(&world, "spared", None, KNOCK, None);
    let far = world.hosts[1].v4;
    let step =
        format!("{{ fault: {{ refuse: {{ to: [\"{far}:7\"] }} }}, in: {{ unit: {unit} }}, for: 100s }}");
    let mut trial = Trial::begin(&world, &world.hosts[0], &calm(&[&step]));
    trial.injected();
    first.more(5, "bad");
    for round in ["second", "third"] {
        let before = world.hosts[0].squall(&["status", "--format", "json"]).run();
        let restarts = before.stdout.matches("has restarted").count();
        let client = if round == "second" {
            &first
        } else {
            &Client::start(&world, "again", None, KNOCK, Some(&path))
        };
        stop(client, &path);
        fs::create_dir(&path).expect("the unit's control group can be made again");
        let next = Client::start(&world, round, None, KNOCK, Some(&path));
        next.more(5, "bad");
        // As it was followed before it had a process, none of its connections was made.
        holds("the agent to say that it has restarted", PATIENCE, || {
            let now = world.hosts[0].squall(&["status", "--format", "json"]).run();
            now.stdout.matches("has restarted").count() == restarts + 1
        });
        stop(&next, &path);
        fs::create_dir(&path).expect("the unit's control group can be made again");
        holds("the agent to say that it has restarted again", PATIENCE, || {
            let now = world.hosts[0].squall(&["status", "--format", "json"]).run();
            now.stdout.matches("has restarted").count() == restarts + 2
        });
    }
    spared.more(5, "ok");
    let report = trial.halted();
    let told = told(&report, "incidents");
    assert!(told.contains(&format!("unit {unit} has restarted")), "{told}");
    assert_eq!(spared.count("bad"), 0);
}

#[test]
fn a_unit_that_ends_and_does_not_come_back_is_told() {
    needs!(Root, Nftables, Cgroup2);
    let world = World::new(2);
    world.echo(1, 7);
    let (unit, path) = world.unit("shop.service", false);
    let client = Client::start(&world, "client", None, KNOCK, Some(&path));
    let far = world.hosts[1].v4;
    let step =
        format!("{{ fault: {{ refuse: {{ to: [\"{far}:7\"] }} }}, in: {{ unit: {unit} }}, for: 100s }}");
    let mut trial = Trial::begin(&world, &world.hosts[0], &calm(&[&step]));
    trial.injected();
    client.more(5, "bad");
    stop(&client, &path);
    // The slice may go with its last unit.
    cgroup::remove(path.parent().expect("it is in a slice")).expect("an empty slice can be removed");
    says(&world, &format!("unit {unit} is gone"));
    fs::create_dir_all(&path).expect("the unit's control group can be made again");
    says(&world, &format!("unit {unit} has restarted"));
    cgroup::remove(&path).expect("an empty control group can be removed");
    holds("the agent to say that it is gone again", PATIENCE, || {
        let now = world.hosts[0].squall(&["status", "--format", "json"]).run();
        now.stdout.matches("is gone").count() == 2
    });
    let report = trial.halted();
    let told = told(&report, "incidents");
    assert!(told.contains("nothing of it is matched until it comes back"), "{told}");
}

#[test]
fn a_unit_that_is_killed_every_second_is_found_again_when_it_restarts() {
    needs!(Root, Cgroup2);
    let world = World::new(1);
    let (unit, path) = world.unit("shop.service", false);
    let start = || {
        let enter = format!("echo $$ >{}/cgroup.procs; exec sleep 600", path.display());
        world.program(0, None, &["bash", "-c", &enter])
    };
    let first = start();
    holds("the process to be in its unit", PATIENCE, || {
        Process::of(first.pid).is_some_and(|process| process.name == "sleep")
    });
    let spared = world.program(0, None, &["sleep", "600"]);
    let step = format!("{{ fault: {{ kill: {{ every: 500ms }} }}, in: {{ unit: {unit} }}, for: 60s }}");
    let mut trial = Trial::begin(&world, &world.hosts[0], &calm(&[&step]));
    trial.injected();
    let dead = |process: &Process| Process::of(process.pid).is_none_or(|now| now.state == 'Z');
    holds("the unit's process to be killed", PATIENCE, || dead(&first));
    cgroup::remove(&path).expect("an empty control group can be removed");
    says(&world, "found no target");
    fs::create_dir(&path).expect("the unit's control group can be made again");
    let second = start();
    holds("the process that came in its place to be killed", PATIENCE, || dead(&second));
    assert!(!dead(&spared), "a process outside of the unit was killed");
    trial.halted();
}

#[test]
fn a_unit_that_is_not_there_or_not_alone_or_empty_is_refused() {
    needs!(Root, Nftables, Cgroup2);
    let world = World::new(1);
    let host = &world.hosts[0];
    let (unit, path) = world.unit("shop.service", false);
    let cut =
        |scope: &str| calm(&[&format!("{{ fault: {{ partition: {{}} }}, in: {{ {scope} }}, for: 5s }}")]);
    let kill = |scope: &str| calm(&[&format!("{{ fault: {{ kill: {{}} }}, in: {{ {scope} }}, for: 5s }}")]);
    run(&world, host, &cut("unit: shop")).expect_exit(4).expect_told("such as `shop.service`");
    let slip = unit.replace("shop", "shpo");
    for text in [cut(&format!("unit: {slip}")), kill(&format!("unit: {slip}"))] {
        run(&world, host, &text).expect_exit(4).expect_told(&format!("did you mean `{unit}`?"));
    }
    run(&world, host, &cut(&format!("unit: {unit}")))
        .expect_exit(4)
        .expect_told("has no process and no socket");
    run(&world, host, &kill(&format!("unit: {unit}"))).expect_exit(4).expect_told("no process here");
    let twin = path.parent().and_then(Path::parent).expect("it has a tree").join(&unit);
    fs::create_dir(&twin).expect("a control group can be made");
    let finished = run(&world, host, &cut(&format!("unit: {unit}")));
    finished.expect_exit(4).expect_told("there are 2 units").expect_told(&twin.display().to_string());
}

#[test]
fn sockets_that_are_shared_or_have_left_are_told() {
    needs!(Root, Nftables, Cgroup2);
    let world = World::new(2);
    world.echo(1, 7);
    let (unit, path) = world.unit("shop.service", false);
    let (far, inside) = (world.hosts[1].v4, path.join("cgroup.procs").display().to_string());
    let outside = skip::cgroup_root().expect("it is mounted").join("cgroup.procs").display().to_string();
    let dial = format!("exec 3<>/dev/tcp/{far}/7");
    let child = format!("(echo $BASHPID >{inside}; exec sleep 600) &");
    let shares = format!("{dial}; {child} exec sleep 600");
    let leaves = format!("echo $$ >{inside}; {dial}; echo $$ >{outside}; exec sleep 600");
    for script in [shares, leaves] {
        let process = world.program(0, None, &["bash", "-c", &script]);
        holds("its connection to be made", PATIENCE, || {
            Process::of(process.pid).is_some_and(|process| process.name == "sleep")
        });
    }
    let members = || fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    holds("one process to be inside", PATIENCE, || {
        let members = members();
        let names = members.lines().filter_map(|pid| Process::of(pid.parse().ok()?)).map(|one| one.name);
        names.collect::<Vec<_>>() == ["sleep"]
    });
    let step = format!("{{ fault: {{ partition: {{}} }}, in: {{ unit: {unit} }}, for: 1s }}");
    run(&world, &world.hosts[0], &calm(&[&step]))
        .expect_exit(8)
        .expect_told("not covered: sockets made outside that are shared with processes outside (local ports ")
        .expect_told("covered too: sockets made inside that only processes outside hold now (local ports ");
}

#[test]
fn connections_of_a_unit_are_broken_and_others_are_not() {
    needs!(Root, Nftables, Cgroup2, Redis);
    let world = World::new(2);
    world.redis(1, 6379);
    let (unit, path) = world.unit("shop.service", false);
    let hit = Client::start(&world, "hit", None, STAY, Some(&path));
    let spared = Client::start(&world, "spared", None, STAY, None);
    let step = format!("{{ fault: {{ disconnect: {{}} }}, in: {{ unit: {unit} }}, for: 60s }}");
    let mut trial = Trial::begin(&world, &world.hosts[0], &calm(&[&step]));
    trial.injected();
    holds("the unit's client to lose its connection", PATIENCE, || hit.count("Error") > 0);
    spared.more(10, "PONG");
    trial.halted();
    assert_eq!(spared.count("Error"), 0);
}

#[test]
fn a_unit_that_only_version_1_knows_is_told_by_its_processes() {
    needs!(Root, Nftables, Cgroup1, Bpf);
    let world = World::new(2);
    world.echo(1, 7);
    let (unit, path) = world.unit("shop.service", true);
    let hit = Client::start(&world, "hit", None, KNOCK, Some(&path));
    let spared = Client::start(&world, "spared", None, KNOCK, None);
    knocks(&world, &format!("{{ unit: {unit} }}"), &hit, &spared);
    // What joins while the fault is live is found within a moment, and the report says how late.
    let far = world.hosts[1].v4;
    let step =
        format!("{{ fault: {{ refuse: {{ to: [\"{far}:7\"] }} }}, in: {{ unit: {unit} }}, for: 100s }}");
    let mut trial = Trial::begin(&world, &world.hosts[0], &calm(&[&step]));
    trial.injected();
    let late = Client::start(&world, "late", None, KNOCK, Some(&path));
    late.more(5, "bad");
    hit.more(3, "bad");
    spared.more(3, "ok");
    let report = trial.halted();
    let told = told(&report, "incidents");
    assert!(told.contains(&format!("joined unit {unit}")), "{told}");
    assert_eq!(spared.count("bad"), 0);
}

#[test]
fn an_open_connection_of_a_version_1_unit_hangs() {
    needs!(Root, Nftables, Cgroup1, Bpf, Redis);
    let world = World::new(2);
    world.redis(1, 6379);
    let (unit, path) = world.unit("shop.service", true);
    let hit = Client::start(&world, "hit", None, STAY, Some(&path));
    let spared = Client::start(&world, "spared", None, STAY, None);
    stays(&world, &format!("{{ unit: {unit} }}"), &hit, &spared);
}

#[test]
fn connections_of_a_unit_are_kept_met_or_reset() {
    needs!(Root, Nftables, Cgroup2, Redis);
    let world = World::new(2);
    let (unit, path) = world.unit("shop.service", false);
    kept_met_or_reset(&world, &format!("{{ unit: {unit} }}"), &path);
}

#[test]
fn connections_of_a_control_group_are_kept_met_or_reset() {
    needs!(Root, Nftables, Cgroup2, Redis);
    let world = World::new(2);
    let (name, path) = world.cgroup("clients");
    kept_met_or_reset(&world, &format!("{{ cgroup: {name} }}"), &path);
}

fn kept_met_or_reset(world: &World, scope: &str, path: &Path) {
    world.redis(1, 6379);
    world.echo(1, 7);
    let fresh = Client::start(world, "fresh", None, KNOCK, Some(path));
    // One that loses its connection ends, and another one begins.
    let again = "while :; do redis-cli -h $0 -r -1 -i 0.02 PING; sleep 0.05; done >>$1 2>&1";
    let held = Client::start(world, "held", None, again, Some(path));
    let spared = Client::start(world, "spared", None, STAY, None);
    let far = world.hosts[1].v4;
    for established in ["keep", "include", "reset"] {
        let fault = format!(
            "refuse: {{ to: [\"{far}:7\", \"{far}:6379\"], established: {established}, protocol: tcp }}"
        );
        let step = format!("{{ fault: {{ {fault} }}, in: {scope}, for: 80s }}");
        let mut trial = Trial::begin(world, &world.hosts[0], &calm(&[&step]));
        trial.injected();
        fresh.more(5, "bad");
        spared.more(5, "PONG");
        let at = held.count("PONG");
        if established == "keep" {
            held.more(10, "PONG");
        } else {
            // Broken, and nobody lets it connect again.
            spared.more(20, "PONG");
            assert!(held.count("PONG") <= at + 3, "a connection of the scope goes on with `{established}`");
        }
        let report = trial.halted();
        let (notes, incidents) = (report["parts"][0]["notes"].to_string(), told(&report, "incidents"));
        // The one that is held, and perhaps one of those that come and go.
        let counted = |words: &str, what: &str| {
            let some = ["1 connection that was established", "2 connections that were established"];
            some.iter().any(|some| words.contains(&format!("{what}: {some}")))
        };
        match established {
            "keep" => assert!(counted(&notes, "left alone"), "{notes}"),
            "reset" => assert!(counted(&incidents, "reset"), "{incidents}"),
            _ => assert!(counted(&notes, "included") && !incidents.contains("reset: "), "{report:#}"),
        }
        held.more(3, "PONG");
    }
    assert_eq!(spared.count("PONG"), spared.count(""), "somebody outside of the scope was hit");
}
