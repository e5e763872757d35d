//! Partition, refuse and disconnect on real services: they hit what was named, and nothing else.

use std::io;
use std::time::{Duration, Instant};

use squall_tests::client::{Steady, TIMEOUT, Talk};
use squall_tests::needs;
use squall_tests::service::Service;
use squall_tests::wait::{holds, median};
use squall_tests::world::World;

use crate::trial::{SHORT, Trial, calm, evidence, impaired, peer, run, timed_out};

/// Starts a service on host 1 and a client of it that must see nothing: over the family that the fault does not name.
fn witness(world: &World, service: &Service) -> Steady {
    let mut talk = service.dial(&world.hosts[0], world.hosts[1].v6).expect("reached over IPv6");
    Steady::start("the other address family", Duration::from_millis(20), move || talk.talk())
}

fn partition(world: &World, service: &Service) {
    let [near, far] = &world.hosts[..] else { panic!("two hosts are needed") };
    let other = world.echo(1, 7);
    let mut other = other.dial(near, far.v4).expect("the untargeted port is reached");
    let other = Steady::start("an untargeted port", Duration::from_millis(20), move || other.talk());
    let witness = witness(world, service);
    let mut idle = service.dial(near, far.v4).expect("reached before the fault");
    let mut busy = service.dial_within(near, far.v4, SHORT).expect("reached before the fault");
    busy.talk().expect("answers before the fault");

    let to = peer(far.v4, service.port);
    let step = format!("{{ fault: {{ partition: {{ to: [\"{to}\"] }} }}, for: 5s }}");
    let mut trial = Trial::begin(world, near, &calm(&[&step]));
    trial.injected();
    let error = busy.talk().expect_err("an open connection must hang");
    assert!(timed_out(&error), "it must hang, not fail with {error}");
    let error = service.dial_within(near, far.v4, SHORT).err().expect("a new connection must hang");
    assert!(timed_out(&error), "it must hang, not fail with {error}");
    assert!(!trial.has("lifted"), "the fault was over before it was looked at");

    trial.lifted();
    service.dial(near, far.v4).expect("reached after the fault").talk().expect("answers after the fault");
    idle.talk().expect("a connection that was idle meanwhile has survived");
    let finished = trial.finish();
    let report = finished.expect_exit(0).json();
    assert!(impaired(&report) >= 3, "{report:#}");
    assert_eq!(evidence(&report)["unit"], "packets");
    witness.saw_nothing(20);
    other.saw_nothing(20);
}

#[test]
fn a_partition_stops_nginx_and_its_revert_restores_it() {
    needs!(Root, Nftables, Nginx);
    let world = World::new(2);
    partition(&world, &world.nginx(1, 80));
}

#[test]
fn a_partition_stops_redis_and_its_revert_restores_it() {
    needs!(Root, Nftables, Redis);
    let world = World::new(2);
    partition(&world, &world.redis(1, 6379));
}

#[test]
fn a_partition_stops_postgres_and_its_revert_restores_it() {
    needs!(Root, Nftables, Postgres);
    let world = World::new(2);
    partition(&world, &world.postgres(1, 5432));
}

/// How long it takes to be refused, each time on a new connection.
fn refusals(world: &World, port: u16) -> Vec<Duration> {
    let [near, far] = &world.hosts[..] else { panic!("two hosts are needed") };
    near.netns.inside(|| {
        let refused = |_| {
            let begun = Instant::now();
            let error = std::net::TcpStream::connect_timeout(&(far.v4, port).into(), TIMEOUT)
                .expect_err("the connection must be refused");
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{error}");
            begun.elapsed()
        };
        (0..15).map(refused).collect()
    })
}

fn refuse(world: &World, service: &Service) {
    let [near, far] = &world.hosts[..] else { panic!("two hosts are needed") };
    let witness = witness(world, service);
    let mut open = service.dial(near, far.v4).expect("reached before the fault");
    open.talk().expect("answers before the fault");
    let to = peer(far.v4, service.port);
    let step = format!("{{ fault: {{ refuse: {{ to: [\"{to}\"] }} }}, for: 4s }}");
    let mut trial = Trial::begin(world, near, &calm(&[&step]));
    trial.injected();

    // The control: a port where nothing listens, refused by the far kernel in the same moments.
    let (figure, control) = (median(refusals(world, service.port)), median(refusals(world, 9)));
    assert!(
        figure <= control * 3 + Duration::from_millis(5),
        "refused in {figure:?}, where nothing listens in {control:?}"
    );
    let error = open.talk().expect_err("an open connection must break at its next packet");
    let broken =
        [io::ErrorKind::ConnectionReset, io::ErrorKind::ConnectionRefused, io::ErrorKind::BrokenPipe];
    assert!(broken.contains(&error.kind()), "it must be reset, not fail with {error}");
    assert!(!trial.has("lifted"), "the fault was over before it was looked at");

    trial.lifted();
    service.dial(near, far.v4).expect("reached after the fault").talk().expect("answers after the fault");
    let finished = trial.finish();
    let report = finished.expect_exit(0).json();
    assert!(impaired(&report) >= 15, "{report:#}");
    witness.saw_nothing(20);
}

#[test]
fn refused_nginx_is_refused_at_once() {
    needs!(Root, Nftables, Nginx);
    let world = World::new(2);
    refuse(&world, &world.nginx(1, 80));
}

#[test]
fn refused_redis_is_refused_at_once() {
    needs!(Root, Nftables, Redis);
    let world = World::new(2);
    refuse(&world, &world.redis(1, 6379));
}

#[test]
fn refused_postgres_is_refused_at_once() {
    needs!(Root, Nftables, Postgres);
    let world = World::new(2);
    refuse(&world, &world.postgres(1, 5432));
}

/// Seven connections to a service and three to another: the report must say seven.
fn disconnect(world: &World, service: &Service) {
    let [near, far] = &world.hosts[..] else { panic!("two hosts are needed") };
    let echo = world.echo(1, 7);
    let dial = |service: &Service| service.dial(near, far.v4).expect("reached before the fault");
    let mut hit: Vec<Box<dyn Talk>> = (0..7).map(|_| dial(service)).collect();
    let mut spared: Vec<Box<dyn Talk>> = (0..3).map(|_| dial(&echo)).collect();
    for talk in hit.iter_mut().chain(&mut spared) {
        talk.talk().expect("answers before the fault");
    }
    let to = peer(far.v4, service.port);
    let step = format!("{{ fault: {{ disconnect: {{ to: [\"{to}\"] }} }}, for: 1s }}");
    let finished = run(world, near, &calm(&[&step]));
    let report = finished.expect_exit(0).json();
    assert_eq!(impaired(&report), 7, "{report:#}");
    assert_eq!(evidence(&report)["matched"], 7, "{report:#}");
    assert_eq!(evidence(&report)["unit"], "sockets", "{report:#}");
    for (number, talk) in hit.iter_mut().enumerate() {
        let error = talk.talk().expect_err("a destroyed connection must not answer");
        assert!(!timed_out(&error), "connection {number} must break, not hang: {error}");
    }
    for talk in &mut spared {
        talk.talk().expect("a connection to another port is not touched");
    }
    dial(service).talk().expect("a new connection works");
}

#[test]
fn destroyed_connections_to_nginx_are_counted_right() {
    needs!(Root, Nftables, Nginx);
    let world = World::new(2);
    disconnect(&world, &world.nginx(1, 80));
}

#[test]
fn destroyed_connections_to_redis_are_counted_right() {
    needs!(Root, Nftables, Redis);
    let world = World::new(2);
    disconnect(&world, &world.redis(1, 6379));
}

#[test]
fn destroyed_connections_to_postgres_are_counted_right() {
    needs!(Root, Nftables, Postgres);
    let world = World::new(2);
    disconnect(&world, &world.postgres(1, 5432));
}

#[test]
fn disconnect_again_and_again_hits_connections_that_come_later() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else { panic!("two hosts were asked for") };
    let echo = world.echo(1, 7);
    let mut first = echo.dial(near, far.v4).expect("reached");
    first.talk().expect("answers");
    let to = peer(far.v4, 7);
    let step = format!("{{ fault: {{ disconnect: {{ to: [\"{to}\"], every: 300ms }} }}, for: 3s }}");
    let mut trial = Trial::begin(&world, near, &calm(&[&step]));
    trial.injected();
    let mut later = echo.dial(near, far.v4).expect("a new connection works");
    let begun = Instant::now();
    holds("a later connection to break too", Duration::from_secs(3), || later.talk().is_err());
    assert!(begun.elapsed() < Duration::from_secs(3));
    let finished = trial.finish();
    assert!(impaired(&finished.expect_exit(0).json()) >= 2, "{}", finished.story());
}
