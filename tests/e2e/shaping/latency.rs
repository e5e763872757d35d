//! `latency`: every round trip takes longer by what was asked, whoever speaks and however; nothing else does.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use squall_tests::client::{Datagrams, Steady, TIMEOUT, Talk};
use squall_tests::host::Host;
use squall_tests::needs;
use squall_tests::service::Service;
use squall_tests::traffic::ping::Ping;
use squall_tests::traffic::{bulk, round_trips};
use squall_tests::world::World;

use super::{DELAY, MANY, count, delayed, engine, lasting, nothing_leaked, unharmed};
use crate::trial::{Trial, calm, evidence, peer};

/// A service's answers are late over one address family: on a connection that was open and on new ones. The other
/// family and another port are as quick as before, in the same moments.
fn late(world: &World, service: &Service, v6: bool) {
    let [near, far] = &world.hosts[..] else { panic!("two hosts are needed") };
    let (address, spared) = if v6 { (far.v6, far.v4) } else { (far.v4, far.v6) };
    let other = world.echo(1, 7);
    let mut open = service.dial(near, address).expect("reached before the fault");
    let mut family = service.dial(near, spared).expect("reached over the other family");
    let mut port = other.dial(near, address).expect("another port is reached");
    let mut witness = service.dial(near, spared).expect("reached over the other family");
    let witness =
        Steady::start("the other address family", Duration::from_millis(20), move || witness.talk());
    let control = round_trips(&mut *open, MANY);

    let fault = format!("latency: {{ delay: 60ms, to: [\"{}\"] }}", peer(address, service.port));
    let mut trial = Trial::begin(world, near, &calm(&[&lasting(&fault)]));
    trial.injected();
    delayed(round_trips(&mut *open, MANY), control.clone(), DELAY);
    let new = |_| {
        let begun = Instant::now();
        let connected = service.dial(near, address);
        let took = begun.elapsed();
        connected.expect("reached during the fault").talk().expect("answers during the fault");
        took
    };
    let connecting: Vec<Duration> = (0..3).map(new).collect();
    assert!(connecting.iter().all(|took| *took >= DELAY), "new connections are early: {connecting:?}");
    unharmed(round_trips(&mut *family, MANY), control.clone());
    unharmed(round_trips(&mut *port, MANY), control.clone());
    let report = trial.halted();
    unharmed(round_trips(&mut *open, MANY), control);
    nothing_leaked(&report);
    assert_eq!(evidence(&report)["unit"], "packets");
    assert!(count(&report, "delayed") >= u32::try_from(MANY).expect("few"), "{report:#}");
    let held = engine(&report)["held"]["p50-us"].as_u64().expect("how long packets were held");
    assert!(u128::from(held) >= DELAY.as_micros() * 99 / 100, "held for {held} us: {report:#}");
    witness.saw_nothing(20);
}

#[test]
fn nginx_is_late_by_what_was_asked() {
    needs!(Root, Nftables, Queue, Nginx);
    let world = World::new(2);
    late(&world, &world.nginx(1, 80), false);
}

#[test]
fn nginx_is_late_over_ipv6_too() {
    needs!(Root, Nftables, Queue, Nginx);
    let world = World::new(2);
    late(&world, &world.nginx(1, 80), true);
}

#[test]
fn redis_is_late_by_what_was_asked() {
    needs!(Root, Nftables, Queue, Redis);
    let world = World::new(2);
    late(&world, &world.redis(1, 6379), false);
}

#[test]
fn redis_is_late_over_ipv6_too() {
    needs!(Root, Nftables, Queue, Redis);
    let world = World::new(2);
    late(&world, &world.redis(1, 6379), true);
}

#[test]
fn postgres_is_late_by_what_was_asked() {
    needs!(Root, Nftables, Queue, Postgres);
    let world = World::new(2);
    late(&world, &world.postgres(1, 5432), false);
}

#[test]
fn postgres_is_late_over_ipv6_too() {
    needs!(Root, Nftables, Queue, Postgres);
    let world = World::new(2);
    late(&world, &world.postgres(1, 5432), true);
}

/// Everything that asks and is answered over one address: TCP, UDP, ICMP.
fn talks(near: &Host, echo: &Service, address: IpAddr) -> Vec<(&'static str, Box<dyn Talk>)> {
    let datagrams = Datagrams::to(&near.netns, (address, echo.port).into(), TIMEOUT).expect("a socket");
    let ping = Ping::to(&near.netns, address, TIMEOUT).expect("root may open a raw socket");
    vec![
        ("TCP", echo.dial(near, address).expect("reached")),
        ("UDP", Box::new(datagrams)),
        ("ICMP", Box::new(ping)),
    ]
}

/// Over both families, every transport is late in this direction; with both directions each carries half.
fn every_transport(direction: &str) {
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else { panic!("two hosts were asked for") };
    let echo = world.echo(1, 7);
    let mut all = talks(near, &echo, far.v4);
    all.extend(talks(near, &echo, far.v6));
    let controls: Vec<Vec<Duration>> =
        all.iter_mut().map(|(_, talk)| round_trips(&mut **talk, MANY)).collect();
    let fault =
        format!("latency: {{ delay: 60ms, direction: {direction}, to: [\"{}\", \"{}\"] }}", far.v4, far.v6);
    let mut trial = Trial::begin(&world, near, &calm(&[&lasting(&fault)]));
    trial.injected();
    for ((name, talk), control) in all.iter_mut().zip(&controls) {
        eprintln!("{direction}: {name}");
        delayed(round_trips(&mut **talk, MANY), control.clone(), DELAY);
    }
    let report = trial.halted();
    for ((_, talk), control) in all.iter_mut().zip(controls) {
        unharmed(round_trips(&mut **talk, MANY), control);
    }
    nothing_leaked(&report);
    let changes = report["parts"][0]["evidence"].as_array().expect("evidence").len();
    assert_eq!(changes, if direction == "both" { 2 } else { 1 }, "{report:#}");
}

#[test]
fn what_enters_is_late_over_every_transport() {
    needs!(Root, Nftables, Queue);
    every_transport("ingress");
}

#[test]
fn what_leaves_is_late_over_every_transport() {
    needs!(Root, Nftables, Queue);
    every_transport("egress");
}

#[test]
fn both_directions_share_the_delay_over_every_transport() {
    needs!(Root, Nftables, Queue);
    every_transport("both");
}

/// Bits a second of one stream from the first host to the second while the fault is live, and before it.
fn stream(direction: &str, on: usize, port_of: &str) -> (f64, f64) {
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else { panic!("two hosts were asked for") };
    let rate = || bulk::bits_per_second(&near.netns, &far.netns, (far.v4, 9).into(), Duration::from_secs(1));
    let control = rate();
    let fault = format!("latency: {{ delay: 10ms, direction: {direction}, {port_of} }}");
    let mut trial = Trial::begin(&world, &world.hosts[on], &calm(&[&lasting(&fault)]));
    trial.injected();
    let seen = rate();
    let report = trial.halted();
    eprintln!("{:.0} Mbit/s, {:.0} without the fault; {:#}", seen / 1e6, control / 1e6, engine(&report));
    (seen, control)
}

#[test]
fn a_stream_that_is_late_on_its_way_out_does_not_collapse() {
    needs!(Root, Nftables, Queue);
    // Held in the kernel, a sender's own packets count against its socket: 4 Mbit/s at this delay. Twelve times that.
    let (seen, control) = stream("egress", 0, "to: [\"10.77.1.2:9\"]");
    assert!(seen >= 50e6, "{seen:.0} bit/s, {control:.0} without the fault");
}

#[test]
fn a_stream_that_is_late_on_its_way_in_does_not_collapse() {
    needs!(Root, Nftables, Queue);
    let (seen, control) = stream("ingress", 1, "from: [\"any:9\"]");
    assert!(seen >= 50e6, "{seen:.0} bit/s, {control:.0} without the fault");
}
