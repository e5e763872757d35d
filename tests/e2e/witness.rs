//! `verify: probe`: whether a fault is felt is asked from the target's side, by attempts of the agent's own and by what the
//! kernel knows of connections that were there.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use serde_json::Value;
use squall_tests::needs;
use squall_tests::world::World;

use crate::interface::{plug, unplug};
use crate::scope::{Client, KNOCK, STAY};
use crate::trial::{calm, evidence, run};

fn witness(report: &Value) -> &Value {
    let witness = &evidence(report)["witness"];
    assert!(witness.is_object(), "nobody has testified in {report:#}");
    witness
}

fn count(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("no count in {value}"))
}

#[test]
fn a_probe_is_late_or_lost_as_the_traffic_is() {
    needs!(Root, Nftables, Queue);
    let world = World::new(2);
    let (near, far) = (&world.hosts[0], &world.hosts[1]);
    world.nginx(1, 80);
    for (direction, address) in [("ingress", far.v4), ("both", far.v6)] {
        let peer = std::net::SocketAddr::new(address, 80);
        let fault = format!("delay: 60ms, direction: {direction}, to: [\"{peer}\"], verify: probe");
        let finished =
            run(&world, near, &calm(&[&format!("{{ fault: {{ latency: {{ {fault} }} }}, for: 2s }}")]));
        let report = finished.expect_exit(0).json();
        let said = witness(&report);
        assert_eq!(said["shown"], "yes", "{said}");
        assert_eq!(said["asked"][0], format!("TCP {peer}"));
        assert_eq!(said["before"]["answered"], 5, "{said}");
        let before = count(&said["before"]["median-us"]);
        let late = count(&said["during"]["median-us"]) - before;
        assert!((60_000..180_000).contains(&late), "{said}");
        assert!(said["why"].as_str().expect("words").starts_with("a probe connection took "), "{said}");
    }
    let fault = format!("percent: 40%, direction: egress, to: [\"{}\"], verify: probe", far.v4);
    let finished = run(&world, near, &calm(&[&format!("{{ fault: {{ loss: {{ {fault} }} }}, for: 3s }}")]));
    let said = witness(&finished.expect_exit(0).json()).clone();
    assert_eq!(
        (&said["shown"], &said["asked"][0]),
        (&"yes".into(), &format!("ping {}", far.v4).into()),
        "{said}"
    );
    // Lost with 40 % each, so the chance of none in 14 is below a thousandth.
    assert!(count(&said["during"]["tried"]) >= 14, "{said}");
    assert!(count(&said["during"]["answered"]) < count(&said["during"]["tried"]), "{said}");
}

#[test]
fn a_probe_is_taken_for_one_of_the_scope() {
    needs!(Root, Nftables, Cgroup2, Bpf, Redis);
    let world = World::new(2);
    world.redis(1, 6379);
    world.echo(1, 7);
    let (unit, path) = world.unit("shop.service", false);
    let inside = Client::start(&world, "inside", None, KNOCK, Some(&path));
    let process = Client::start(&world, "process", None, STAY, None);
    let spared = Client::start(&world, "spared", None, STAY, None);
    let far = world.hosts[1].v4;
    for (scope, fault) in [
        (
            format!("{{ process: {{ pid: {} }} }}", process.process.pid),
            format!("partition: {{ to: [\"{far}:6379\"]"),
        ),
        (format!("{{ unit: {unit} }}"), format!("refuse: {{ to: [\"{far}:7\"]")),
    ] {
        let step = format!("{{ fault: {{ {fault}, verify: probe }} }}, in: {scope}, for: 3s }}");
        let report = run(&world, &world.hosts[0], &calm(&[&step])).expect_exit(0).json();
        let said = witness(&report);
        assert_eq!((&said["shown"], &said["during"]["answered"]), (&"yes".into(), &0.into()), "{said}");
        assert!(count(&said["during"]["tried"]) >= 2, "{said}");
    }
    assert!(inside.count("bad") > 0);
    // Who is outside of both scopes has seen nothing: no answer is missing, and no error came.
    spared.more(5, "PONG");
    assert_eq!(spared.count("PONG"), spared.count(""));
}

#[test]
fn a_probe_is_made_in_the_network_of_the_target() {
    needs!(Root, Nftables, Queue);
    let world = World::new(2);
    let (agent, target) = (&world.hosts[0], &world.hosts[1]);
    // A connection from the agent's own network would be one over its loopback interface.
    world.echo(0, 7);
    let peer = "10.77.1.1:7";
    let fault = format!("{{ latency: {{ delay: 60ms, to: [\"{peer}\"], verify: probe }} }}");
    let step = format!("{{ fault: {fault}, in: {{ netns: \"{}\" }}, for: 2s }}", target.netns.name());
    let report = run(&world, agent, &calm(&[&step])).expect_exit(0).json();
    let said = witness(&report);
    assert_eq!((&said["shown"], &said["asked"][0]), (&"yes".into(), &format!("TCP {peer}").into()), "{said}");
    let late = count(&said["during"]["median-us"]) - count(&said["before"]["median-us"]);
    assert!((60_000..180_000).contains(&late), "{said}");
}

#[test]
fn a_fault_that_is_counted_and_not_felt_is_inconclusive() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let (near, far) = (&world.hosts[0], world.hosts[1].v4);
    plug(&world);
    // Somebody sends by the other link, where the fault stands; what the host itself sends does not go there.
    let other = near.netns.inside(|| UdpSocket::bind("0.0.0.0:0").expect("a socket"));
    setsockopt(&other, sockopt::BindToDevice, &"extra".into()).expect("there is such a link");
    let sending = Arc::new(AtomicBool::new(true));
    let goes_on = Arc::clone(&sending);
    let sender = std::thread::spawn(move || {
        // For two minutes at most, should this test fail.
        for _ in 0..600 {
            if !goes_on.load(Ordering::Relaxed) {
                return;
            }
            // What the fault drops is refused to its sender.
            let _ = other.send_to(b"x", (far, 9));
            std::thread::sleep(Duration::from_millis(200));
        }
    });
    for (verify, exit) in [("counters", 0), ("probe", 8)] {
        let fault = format!("{{ partition: {{ to: [\"{far}\"], direction: egress, verify: {verify} }} }}");
        let step = format!("{{ fault: {fault}, in: {{ interface: extra }}, for: 3s }}");
        let finished = run(&world, near, &calm(&[&step]));
        let report = finished.expect_exit(exit).json();
        assert!(count(&evidence(&report)["impaired"]) >= 3, "{report:#}");
        if verify == "probe" {
            assert_eq!(witness(&report)["shown"], "no", "{report:#}");
            let sentence = report["sentence"].as_str().expect("a sentence");
            assert!(sentence.contains("but probes do not show its effect: a probe ping took "), "{sentence}");
        }
    }
    sending.store(false, Ordering::Relaxed);
    sender.join().expect("it ends");
    unplug(&world);
}

#[test]
fn callers_are_asked_by_their_connections_alone() {
    needs!(Root, Nftables, Queue, Redis);
    let world = World::new(2);
    let far = &world.hosts[1];
    world.redis(1, 6379);
    let _caller = Client::start(&world, "caller", None, STAY, None);
    let step = "{ fault: { latency: { delay: 60ms, from: [\"any:6379\"], verify: probe } }, for: 4s }";
    let report = run(&world, far, &calm(&[step])).expect_exit(0).json();
    let said = witness(&report);
    assert_eq!((&said["shown"], &said["asked"]), (&"yes".into(), &Value::Null), "{said}");
    assert_eq!(said["connections"]["before"], 1, "{said}");
    let late = count(&said["connections"]["rtt-during-us"]) - count(&said["connections"]["rtt-before-us"]);
    assert!(late >= 30_000, "{said}");
}

#[test]
fn who_cannot_testify_is_told_before_or_after() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let near = &world.hosts[0];
    let nobody = "{ fault: { partition: { from: [\"any:9\"], verify: probe } }, for: 2s }";
    run(&world, near, &calm(&[nobody]))
        .expect_exit(4)
        .expect_told("nobody can be asked whether the fault is felt");
    // An address of the network that nobody has.
    let mute = "{ fault: { partition: { to: [\"10.77.1.99:7\"], verify: probe } }, for: 3s }";
    let report = run(&world, near, &calm(&[mute])).expect_exit(8).json();
    let told = report["sentence"].as_str().expect("a sentence");
    assert!(told.contains("10.77.1.99:7") && told.starts_with("inconclusive: "), "{told}");
}
