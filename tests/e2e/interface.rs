//! Scopes by network interface: what leaves and enters by it, while it is there.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::Value;
use squall_tests::needs;
use squall_tests::service::Service;
use squall_tests::wait::{PATIENCE, holds};
use squall_tests::world::World;

use crate::trial::{SHORT, Trial, calm, evidence, run};

/// A second link between the two hosts, which a test may take away.
const FAR: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 78, 0, 2));

pub fn plug(world: &World) {
    let [near, far] = &world.hosts[..] else { panic!("two hosts are needed") };
    let there = far.netns.name();
    near.look(&["ip", "link", "add", "extra", "type", "veth", "peer", "name", "extra0", "netns", there]);
    for (host, link, address) in [(near, "extra", "10.78.0.1/24"), (far, "extra0", "10.78.0.2/24")] {
        host.look(&["ip", "link", "set", link, "addrgenmode", "none"]);
        host.look(&["ip", "address", "add", address, "dev", link]);
        host.look(&["ip", "link", "set", link, "up"]);
    }
}

pub fn unplug(world: &World) {
    world.hosts[0].look(&["ip", "link", "del", "extra"]);
}

/// Whether a new connection is answered.
fn reaches(world: &World, service: &Service, address: IpAddr) -> bool {
    let connected = service.dial_within(&world.hosts[0], address, SHORT);
    connected.is_ok_and(|mut talk| talk.talk().is_ok())
}

fn incidents(report: &Value) -> String {
    evidence(report)["incidents"].to_string()
}

#[test]
fn only_what_passes_by_the_interface_is_cut_each_way() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let (near, far) = (&world.hosts[0], world.hosts[1].v4);
    let echo = world.echo(1, 7);
    plug(&world);
    for direction in ["both", "ingress", "egress"] {
        let fault = format!("{{ partition: {{ direction: {direction} }} }}");
        let step = format!("{{ fault: {fault}, in: {{ interface: extra }}, for: 60s }}");
        let mut trial = Trial::begin(&world, near, &calm(&[&step]));
        trial.injected();
        for _ in 0..3 {
            assert!(!reaches(&world, &echo, FAR), "what passes by the interface must be cut: {direction}");
            assert!(reaches(&world, &echo, far), "another interface must not be: {direction}");
        }
        trial.halted();
        assert!(reaches(&world, &echo, FAR));
    }
    unplug(&world);
}

#[test]
fn latency_is_felt_on_the_interface_alone() {
    needs!(Root, Nftables, Queue);
    let world = World::new(2);
    let (near, far) = (&world.hosts[0], world.hosts[1].v4);
    let echo = world.echo(1, 7);
    plug(&world);
    for direction in ["ingress", "egress"] {
        let fault = format!("{{ latency: {{ delay: 800ms, direction: {direction} }} }}");
        let step = format!("{{ fault: {fault}, in: {{ interface: extra }}, for: 60s }}");
        let mut trial = Trial::begin(&world, near, &calm(&[&step]));
        trial.injected();
        for _ in 0..3 {
            assert!(!reaches(&world, &echo, FAR), "it must be later than the time-out: {direction}");
            assert!(reaches(&world, &echo, far), "another interface must not be late: {direction}");
        }
        trial.halted();
    }
    unplug(&world);
}

#[test]
fn loopback_is_cut_where_it_is_named() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let near = &world.hosts[0];
    let (here, there) = (world.echo(0, 7), world.echo(1, 7));
    let step = "{ fault: { partition: {} }, in: { interface: lo }, for: 60s }";
    let mut trial = Trial::begin(&world, near, &calm(&[step]));
    trial.injected();
    for _ in 0..3 {
        assert!(!reaches(&world, &here, Ipv4Addr::LOCALHOST.into()), "loopback must be cut");
        assert!(reaches(&world, &there, world.hosts[1].v4), "what leaves the host must not be");
    }
    trial.halted();
    assert!(reaches(&world, &here, Ipv4Addr::LOCALHOST.into()));
}

#[test]
fn an_interface_that_vanishes_is_told_and_hit_again_when_it_is_back() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let near = &world.hosts[0];
    let echo = world.echo(1, 7);
    plug(&world);
    let step = "{ fault: { partition: {} }, in: { interface: extra }, for: 60s }";
    let mut trial = Trial::begin(&world, near, &calm(&[step]));
    trial.injected();
    for _ in 0..2 {
        assert!(!reaches(&world, &echo, FAR), "it must be cut");
        unplug(&world);
        plug(&world);
    }
    assert!(!reaches(&world, &echo, FAR), "one that is back must be cut again");
    unplug(&world);
    holds("the agent to see that it is gone", PATIENCE, || {
        near.squall(&["status", "--format", "json"]).run().stdout.contains("is gone")
    });
    let report = trial.halted();
    let told = incidents(&report);
    assert!(told.contains("interface extra is gone: nothing is matched until it comes back"), "{told}");
}

#[test]
fn what_is_no_interface_and_what_has_none_is_refused() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let near = &world.hosts[0];
    let step = "{ fault: { partition: {} }, in: { interface: eth9 }, for: 5s }";
    run(&world, near, &calm(&[step])).expect_exit(4).expect_told("no interface `eth9`").expect_told("`to1`");
    let step = "{ fault: { disconnect: {} }, in: { interface: to1 }, for: 5s }";
    run(&world, near, &calm(&[step])).expect_exit(4).expect_told("a connection belongs to none");
}
