//! Whose connections are led to the proxy, and that nobody else's are.

use std::fs;

use squall_tests::needs;
use squall_tests::world::World;

use super::{outage, ping, step};
use crate::scope::Client;
use crate::trial::{Trial, calm, evidence, impaired};
use crate::unit::stop;

/// Each line of its file is an answer (`ok`) or a failure (`bad`) over a new connection, all made by one process.
const ASK: &str = "while :; do if { exec 3<>/dev/tcp/$0/7 && echo hello >&3 && read -t 20 line <&3; } 2>/dev/null; then \
                   echo ok; else echo bad; fi; exec 3>&-; sleep 0.02; done >>$1";

/// Connections of the scope are reset and nobody else's, while the fault lasts and only then.
fn asks(world: &World, scope: &str, hit: &Client, spared: &Client) {
    assert_eq!(hit.count("bad"), 0, "reset before the fault");
    let trial = outage(world, 7, "reset", scope);
    hit.more(5, "bad");
    spared.more(5, "ok");
    let report = trial.halted();
    hit.more(5, "ok");
    assert!(impaired(&report) >= 5, "{report:#}");
    assert_eq!(spared.count("bad"), 0, "somebody outside of the scope was reset");
}

#[test]
fn a_process_is_hit_and_its_sibling_is_not() {
    needs!(Root, Cgroup2, Bpf);
    let world = World::new(2);
    world.echo(1, 7);
    let hit = Client::start(&world, "hit", None, ASK, None);
    let spared = Client::start(&world, "spared", None, ASK, None);
    asks(&world, &format!("{{ process: {{ pid: {} }} }}", hit.process.pid), &hit, &spared);
}

#[test]
fn a_user_is_hit_and_another_is_not() {
    needs!(Root, Cgroup2, Bpf);
    let world = World::new(2);
    world.echo(1, 7);
    let hit = Client::start(&world, "hit", Some(65533), ASK, None);
    let spared = Client::start(&world, "spared", Some(65532), ASK, None);
    asks(&world, "{ user: \"65533\" }", &hit, &spared);
}

#[test]
fn a_control_group_is_hit_and_what_is_outside_is_not() {
    needs!(Root, Cgroup2, Bpf);
    let world = World::new(2);
    world.echo(1, 7);
    let (name, path) = world.cgroup("clients");
    let hit = Client::start(&world, "hit", None, ASK, Some(&path));
    let spared = Client::start(&world, "spared", None, ASK, None);
    asks(&world, &format!("{{ cgroup: {name} }}"), &hit, &spared);
}

#[test]
fn a_unit_that_restarts_is_followed() {
    needs!(Root, Cgroup2, Bpf);
    let world = World::new(2);
    world.echo(1, 7);
    let (unit, path) = world.unit("shop.service", false);
    let first = Client::start(&world, "first", None, ASK, Some(&path));
    let spared = Client::start(&world, "spared", None, ASK, None);
    let trial = outage(&world, 7, "reset", &format!("{{ unit: {unit} }}"));
    first.more(5, "bad");
    // A control group of the same name and another number, as systemd makes it.
    stop(&first, &path);
    fs::create_dir(&path).expect("the unit's control group can be made again");
    let second = Client::start(&world, "second", None, ASK, Some(&path));
    second.more(5, "bad");
    spared.more(5, "ok");
    let report = trial.halted();
    second.more(5, "ok");
    let told = evidence(&report)["incidents"].to_string();
    assert!(told.contains(&format!("unit {unit} has restarted")), "{told}");
    assert_eq!(spared.count("bad"), 0, "somebody outside of the scope was reset");
}

#[test]
fn another_network_namespace_is_hit_and_the_agents_own_is_not() {
    needs!(Root, Cgroup2, Bpf, Redis);
    let world = World::new(3);
    world.redis(1, 6379);
    let [near, far, agent] = &world.hosts[..] else { panic!("three hosts are needed") };
    let scope = format!("{{ netns: {} }}", near.netns.name());
    let text = calm(&[&step(far.v4, 6379, "reset", &scope)]);
    let mut trial = Trial::begin(&world, agent, &text);
    trial.injected();
    ping(near, far.v4, 6379).expect_err("the answer must be a reset");
    assert_eq!(ping(far, far.v4, 6379).expect("another network is left alone"), "PONG");
    assert_eq!(impaired(&trial.halted()), 1);
    assert_eq!(ping(near, far.v4, 6379).expect("answered after the fault"), "PONG");
}
