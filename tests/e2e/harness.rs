//! The harness tests itself: a fingerprint that notices nothing would make every other test worthless.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use squall_tests::client::{Datagrams, Steady, Talk};
use squall_tests::host::Host;
use squall_tests::netns::{self, Process};
use squall_tests::service::Service;
use squall_tests::world::World;
use squall_tests::{needs, wait};

/// The difference once there is one: what was planted shows at once or not at all, but the kernel may be busy.
#[track_caller]
fn noticed(world: &World, words: &[&str]) {
    let difference = world.difference().expect("something was planted, and the fingerprint is the same");
    for word in words {
        assert!(difference.contains(word), "`{word}` is not in:\n{difference}");
    }
}

#[test]
fn a_quiet_world_is_as_it_was_found() {
    needs!(Root, Nftables);
    let world = World::new(2);
    assert_eq!(world.difference(), None);
}

#[test]
fn a_planted_table_is_noticed() {
    needs!(Root, Nftables);
    let world = World::new(1);
    let host = &world.hosts[0];
    host.look(&["nft", "add", "table", "inet", "planted"]);
    noticed(&world, &["nftables", "planted"]);
    host.look(&["nft", "delete", "table", "inet", "planted"]);
}

#[test]
fn a_counter_that_moves_and_an_element_that_comes_are_not_differences() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let host = &world.hosts[0];
    host.has_a_firewall();
    world.as_found();
    host.look(&["nft", "add", "element", "inet", "own", "seen", "{ 10.0.0.1 timeout 60s }"]);
    let echo = world.echo(1, 7);
    echo.dial(host, world.hosts[1].v4).expect("the echo server can be reached").talk().expect("it answers");
    assert!(
        !host.look(&["nft", "list", "table", "inet", "own"]).contains("packets 0 "),
        "nothing was counted"
    );
    assert_eq!(world.difference(), None);
    host.look(&["nft", "add", "rule", "inet", "own", "in", "tcp", "dport", "1", "drop"]);
    noticed(&world, &["drop"]);
    host.look(&["nft", "flush", "ruleset"]);
    world.as_found();
}

#[test]
fn a_planted_qdisc_route_rule_and_link_are_noticed() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let host = &world.hosts[0];
    host.look(&["tc", "qdisc", "add", "dev", "to1", "root", "pfifo", "limit", "7"]);
    noticed(&world, &["qdiscs", "pfifo"]);
    host.look(&["tc", "qdisc", "del", "dev", "to1", "root"]);
    host.look(&["ip", "route", "add", "blackhole", "10.99.0.0/16", "table", "77"]);
    noticed(&world, &["routes", "blackhole 10.99.0.0/16"]);
    host.look(&["ip", "route", "del", "blackhole", "10.99.0.0/16", "table", "77"]);
    host.look(&["ip", "rule", "add", "fwmark", "7", "lookup", "77"]);
    noticed(&world, &["rules", "fwmark 0x7"]);
    host.look(&["ip", "rule", "del", "fwmark", "7", "lookup", "77"]);
    host.look(&["ip", "link", "add", "planted", "type", "veth", "peer", "name", "other"]);
    noticed(&world, &["links", "planted"]);
    host.look(&["ip", "link", "del", "planted"]);
}

#[test]
fn a_stopped_process_is_noticed_until_it_runs_again() {
    needs!(Root, Nftables);
    let world = World::new(1);
    let sleeper = world.program(0, None, &["sleep", "600"]);
    assert_eq!(world.difference(), None);
    assert!(netns::signal(&sleeper, Signal::STOP));
    wait::holds("the sleeper to stop", wait::PATIENCE, || {
        Process::of(sleeper.pid).is_some_and(|process| process.state == 'T')
    });
    noticed(&world, &["sleep stopped"]);
    assert!(netns::signal(&sleeper, Signal::CONT));
    world.restored(wait::PATIENCE);
}

#[test]
fn a_mount_a_file_and_a_control_group_value_are_noticed() {
    needs!(Root, Nftables, Cgroup2);
    let world = World::new(1);
    let state = world.hosts[0].state.clone();
    fs::write(state.join("planted.journal"), "an injection").expect("the state directory can be written");
    noticed(&world, &["planted.journal 12 bytes"]);
    fs::remove_file(state.join("planted.journal")).expect("the planted file can be removed");
    let point = world.place("planted-mount");
    nix::mount::mount(Some("tmpfs"), &point, Some("tmpfs"), nix::mount::MsFlags::empty(), None::<&str>)
        .expect("a tmpfs can be mounted");
    noticed(&world, &["mounts", "planted-mount tmpfs"]);
    nix::mount::umount(&point).expect("it can be unmounted");
    let (_, group) = world.cgroup("frozen");
    fs::write(group.join("cgroup.freeze"), "1").expect("a control group can be frozen");
    noticed(&world, &["cgroup.freeze = 1"]);
    fs::write(group.join("cgroup.freeze"), "0").expect("a control group can be thawed");
}

#[test]
fn a_marked_socket_is_noticed() {
    needs!(Root, Nftables);
    let world = World::new(1);
    let socket = world.hosts[0].netns.inside(|| {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("loopback can be bound");
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::Mark, &0x77).expect("root may mark");
        socket
    });
    noticed(&world, &["sockets with a mark", "fwmark:0x77"]);
    drop(socket);
}

#[test]
fn a_world_that_was_changed_fails_its_test() {
    needs!(Root, Nftables);
    let caught = std::panic::catch_unwind(|| {
        let world = World::new(1);
        world.hosts[0].look(&["nft", "add", "table", "inet", "planted"]);
    });
    let panic = caught.expect_err("a changed host must fail the test");
    let story = panic.downcast_ref::<String>().expect("the panic carries a text");
    assert!(story.contains("+ ") && story.contains("planted"), "{story}");
}

#[test]
fn a_failing_test_removes_its_world() {
    needs!(Root, Nftables);
    let mut name = String::new();
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let world = World::new(1);
        name = world.hosts[0].netns.name().to_owned();
        world.program(0, None, &["sleep", "600"]);
        panic!("on purpose");
    }));
    assert!(caught.is_err());
    assert!(!std::path::Path::new("/run/netns").join(&name).exists(), "`{name}` is still there");
    let directory = std::env::temp_dir().join(name.trim_end_matches("-0"));
    assert!(!directory.exists(), "`{}` is still there", directory.display());
}

fn answers(service: &Service, from: &Host, server: &Host) {
    for address in [server.v4, server.v6] {
        let mut talk = service.dial(from, address).expect("the service can be reached");
        for _ in 0..3 {
            talk.talk().expect("the service answers");
        }
    }
}

#[test]
fn every_service_answers_over_both_families() {
    needs!(Root, Nftables, Nginx, Redis, Postgres);
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else { panic!("two hosts were asked for") };
    for service in [world.nginx(1, 80), world.redis(1, 6379), world.postgres(1, 5432), world.echo(1, 7)] {
        answers(&service, near, far);
    }
    for address in [far.v4, far.v6] {
        let mut datagrams =
            Datagrams::to(&near.netns, (address, 7).into(), Duration::from_secs(2)).expect("a socket opens");
        datagrams.talk().expect("datagrams come back");
    }
}

#[test]
fn a_steady_client_notices_an_outage() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let echo = world.echo(1, 7);
    let mut talk =
        echo.dial_within(&world.hosts[0], world.hosts[1].v4, Duration::from_millis(200)).expect("reached");
    let steady = Steady::start("echo", Duration::from_millis(5), move || talk.talk());
    let far = &world.hosts[1];
    far.look(&["ip", "link", "set", "to0", "down"]);
    let down = Instant::now();
    wait::holds("the client to ask while the link is down", wait::PATIENCE, || {
        down.elapsed() > Duration::from_millis(500)
    });
    let glances = steady.finish();
    assert!(
        glances.iter().any(|glance| glance.outcome.is_err()),
        "nothing was noticed in {} looks",
        glances.len()
    );
    far.look(&["ip", "link", "set", "to0", "up"]);
    // An IPv6 address goes with its link, and its routes with it.
    far.look(&["ip", "address", "replace", &format!("{}/64", far.v6), "dev", "to0", "nodad"]);
}
