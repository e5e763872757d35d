//! What the host's policy protects: units, users, ports.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use squall_tests::client::connect;
use squall_tests::wait::{PATIENCE, holds};
use squall_tests::world::World;
use squall_tests::{needs, skip};

use crate::refusal::{told_under_policy, verb_under_policy};
use crate::trial::SOON;

/// Cuts the first host off from the second.
const CUT: &str = "{ fault: { partition: { to: [\"10.77.1.2:7\"] } }, for: 2s }";

#[test]
fn what_the_hosts_policy_protects_is_not_touched_and_the_plan_says_so() {
    needs!(Root, Nftables);
    let world = World::new(2);
    world.echo(0, 7);
    world.echo(1, 7);
    world.program(0, Some(65533), &["sleep", "600"]);
    let sleepers = "{ fault: { kill: { signal: USR1 } }, in: { process: { name: sleep, exe: /usr/bin/sleep } }, for: 1s }";
    let come = "{ fault: { partition: { from: [\"10.77.1.0/24:7\"] } }, for: 2s }";
    let of = |scope: &str| {
        format!("{{ fault: {{ partition: {{ to: [\"10.77.1.2:7\"] }} }}, in: {scope}, for: 2s }}")
    };
    let cases = [
        ("{ \"protect-ports\": [7] }", come.to_owned(), "protects the local port 7"),
        ("{ \"protect-ports\": [\"5-9\"] }", of("{ port: 7 }"), "protects the local port 5-9"),
        ("{ \"protect-users\": [\"nobody\"] }", of("{ user: \"65534\" }"), "protects the user `nobody`"),
        ("{ \"protect-users\": [\"nobody\"] }", CUT.to_owned(), "`in:` must say whose processes"),
        (
            "{ \"protect-units\": [\"db.service\"] }",
            of("{ unit: db.service }"),
            "protects the unit `db.service`",
        ),
        ("{ \"protect-units\": [\"db.service\"] }", CUT.to_owned(), "`in:` must say whose processes"),
        // What nobody sees by the words alone: who is there now.
        ("{ \"protect-users\": [\"65533\"] }", sleepers.to_owned(), "protects the user 65533"),
        ("{ \"protect-processes\": [\"sleep\"] }", of("{ user: \"65533\" }"), "is among them"),
    ];
    for (policy, step, word) in cases {
        let Some(finished) = verb_under_policy(&world, policy, "run", &step) else {
            skip!("overlay file systems cannot be mounted here, and /etc is not ours to change");
        };
        assert_eq!(finished.status.code(), Some(4), "policy {policy}: {}", finished.story());
        finished.expect_told(word);
        if let Some(planned) = verb_under_policy(&world, policy, "plan", &step) {
            planned.expect_exit(0).expect_told("would be refused").expect_told(word);
        }
    }
}

#[test]
fn a_connection_of_the_host_to_its_own_protected_port_is_left_alone() {
    needs!(Root, Nftables);
    let world = World::new(2);
    [7, 8].into_iter().for_each(|port| drop(world.echo(0, port)));
    let near = &world.hosts[0];
    let open = |port| connect(&near.netns, SocketAddr::new(near.v4, port), PATIENCE).expect("it answers");
    let (mut kept, mut lost) = (open(7), open(8));
    let answers = |stream: &mut TcpStream| {
        let mut said = [0];
        stream.write_all(b"?").and_then(|()| stream.read_exact(&mut said)).is_ok()
    };
    assert!(answers(&mut kept) && answers(&mut lost));
    let step = "{ fault: { disconnect: { to: [\"10.77.1.1:7\", \"10.77.1.1:8\"] } }, for: 1s }";
    let Some(finished) = verb_under_policy(&world, "{ \"protect-ports\": [7] }", "run", step) else {
        skip!("overlay file systems cannot be mounted here, and /etc is not ours to change");
    };
    finished.expect_exit(0);
    assert!(!answers(&mut lost), "nothing was cut");
    assert!(answers(&mut kept), "a connection to a protected port was cut");
    world.restored(SOON);
}

#[test]
fn traffic_at_a_protected_port_goes_on_while_everybodys_is_cut() {
    needs!(Root, Nftables);
    let world = World::new(2);
    [7, 8].into_iter().for_each(|port| drop(world.echo(0, port)));
    let [near, far] = &world.hosts[..] else { panic!("two hosts were asked for") };
    let answers = |from: &squall_tests::host::Host, to: std::net::IpAddr, port: u16| {
        connect(&from.netns, SocketAddr::new(to, port), Duration::from_millis(300)).is_ok()
    };
    let loopback = "127.0.0.1".parse().expect("an address");
    assert!(answers(far, near.v4, 7) && answers(far, near.v4, 8) && answers(near, loopback, 8));
    let step = "{ fault: { partition: { from: [\"10.77.1.2\", \"127.0.0.1\"], to: [\"10.77.1.2\", \"127.0.0.1\"] } }, for: 60s }";
    let run = told_under_policy(&world, "{ \"protect-ports\": [7] }", "run", step);
    let mut run = run.start();
    let mut ended = false;
    holds("the fault", PATIENCE, || {
        ended = run.ended();
        ended || !near.tables().is_empty() && !answers(far, near.v4, 8)
    });
    if ended {
        let finished = run.finish();
        assert_eq!(finished.status.code(), Some(99), "{}", finished.story());
        skip!("overlay file systems cannot be mounted here, and /etc is not ours to change");
    }
    assert!(answers(far, near.v4, 7), "a protected port is cut off: {}", run.story());
    assert!(!answers(near, loopback, 8), "loopback was named");
    assert!(answers(near, loopback, 7), "a protected port is cut off on its own host: {}", run.story());
    run.signal(rustix::process::Signal::INT);
    let ended = run.finish();
    ended.expect_told("the local port 7 (this host's policy)");
    world.restored(SOON);
}
