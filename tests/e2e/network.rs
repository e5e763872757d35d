//! Partition, refuse and disconnect on real services: they hit what was named, and nothing else.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use squall_tests::client::{Datagrams, Steady, TIMEOUT, Talk, connect};
use squall_tests::service::Service;
use squall_tests::wait::{PATIENCE, holds, median};
use squall_tests::world::World;
use squall_tests::{needs, skip};

use crate::trial::{SHORT, Trial, calm, evidence, impaired, run};

fn timed_out(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
}

/// A peer as an experiment writes it.
fn peer(address: IpAddr, port: u16) -> String {
    SocketAddr::new(address, port).to_string()
}

/// Starts a service on host 1 and a client of it that must see nothing: over the family that the fault does not name.
fn witness(world: &World, service: &Service) -> Steady {
    let mut talk = service
        .dial(&world.hosts[0], world.hosts[1].v6)
        .expect("reached over IPv6");
    Steady::start("the other address family", Duration::from_millis(20), move || {
        talk.talk()
    })
}

fn partition(world: &World, service: &Service) {
    let [near, far] = &world.hosts[..] else {
        panic!("two hosts are needed")
    };
    let other = world.echo(1, 7);
    let mut other = other.dial(near, far.v4).expect("the untargeted port is reached");
    let other = Steady::start("an untargeted port", Duration::from_millis(20), move || {
        other.talk()
    });
    let witness = witness(world, service);
    let mut idle = service.dial(near, far.v4).expect("reached before the fault");
    let mut busy = service
        .dial_within(near, far.v4, SHORT)
        .expect("reached before the fault");
    busy.talk().expect("answers before the fault");

    let to = peer(far.v4, service.port);
    let step = format!("{{ fault: {{ partition: {{ to: [\"{to}\"] }} }}, for: 5s }}");
    let mut trial = Trial::begin(world, near, &calm(&[&step]));
    trial.injected();
    let error = busy.talk().expect_err("an open connection must hang");
    assert!(timed_out(&error), "it must hang, not fail with {error}");
    let error = service
        .dial_within(near, far.v4, SHORT)
        .err()
        .expect("a new connection must hang");
    assert!(timed_out(&error), "it must hang, not fail with {error}");
    assert!(!trial.has("lifted"), "the fault was over before it was looked at");

    trial.lifted();
    service
        .dial(near, far.v4)
        .expect("reached after the fault")
        .talk()
        .expect("answers after the fault");
    idle.talk()
        .expect("a connection that was idle meanwhile has survived");
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
    let [near, far] = &world.hosts[..] else {
        panic!("two hosts are needed")
    };
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
    let [near, far] = &world.hosts[..] else {
        panic!("two hosts are needed")
    };
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
    let error = open
        .talk()
        .expect_err("an open connection must break at its next packet");
    let broken = [
        io::ErrorKind::ConnectionReset,
        io::ErrorKind::ConnectionRefused,
        io::ErrorKind::BrokenPipe,
    ];
    assert!(
        broken.contains(&error.kind()),
        "it must be reset, not fail with {error}"
    );
    assert!(!trial.has("lifted"), "the fault was over before it was looked at");

    trial.lifted();
    service
        .dial(near, far.v4)
        .expect("reached after the fault")
        .talk()
        .expect("answers after the fault");
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
    let [near, far] = &world.hosts[..] else {
        panic!("two hosts are needed")
    };
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
        assert!(
            !timed_out(&error),
            "connection {number} must break, not hang: {error}"
        );
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
    let [near, far] = &world.hosts[..] else {
        panic!("two hosts were asked for")
    };
    let echo = world.echo(1, 7);
    let mut first = echo.dial(near, far.v4).expect("reached");
    first.talk().expect("answers");
    let to = peer(far.v4, 7);
    let step = format!("{{ fault: {{ disconnect: {{ to: [\"{to}\"], every: 300ms }} }}, for: 3s }}");
    let mut trial = Trial::begin(&world, near, &calm(&[&step]));
    trial.injected();
    let mut later = echo.dial(near, far.v4).expect("a new connection works");
    let begun = Instant::now();
    holds("a later connection to break too", Duration::from_secs(3), || {
        later.talk().is_err()
    });
    assert!(begun.elapsed() < Duration::from_secs(3));
    let finished = trial.finish();
    assert!(
        impaired(&finished.expect_exit(0).json()) >= 2,
        "{}",
        finished.story()
    );
}

#[test]
fn a_partition_of_one_family_leaves_the_other() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else {
        panic!("two hosts were asked for")
    };
    let echo = world.echo(1, 7);
    let mut v4 = echo.dial(near, far.v4).expect("reached over IPv4");
    let v4 = Steady::start("IPv4", Duration::from_millis(20), move || v4.talk());
    let mut v6 = echo.dial_within(near, far.v6, SHORT).expect("reached over IPv6");
    let step = format!(
        "{{ fault: {{ partition: {{ to: [\"{}\"] }} }}, for: 3s }}",
        peer(far.v6, 7)
    );
    let mut trial = Trial::begin(&world, near, &calm(&[&step]));
    trial.injected();
    assert!(timed_out(&v6.talk().expect_err("IPv6 must hang")));
    trial.lifted();
    echo.dial(near, far.v6)
        .expect("reached after the fault")
        .talk()
        .expect("answers after the fault");
    trial.finish().expect_exit(0);
    v4.saw_nothing(20);
}

#[test]
fn refuse_answers_over_ipv6_too() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else {
        panic!("two hosts were asked for")
    };
    let echo = world.echo(1, 7);
    let step = format!(
        "{{ fault: {{ refuse: {{ to: [\"{}\"] }} }}, for: 2s }}",
        peer(far.v6, 7)
    );
    let mut trial = Trial::begin(&world, near, &calm(&[&step]));
    trial.injected();
    for _ in 0..4 {
        let error = connect(&near.netns, (far.v6, 7).into(), TIMEOUT).expect_err("IPv6 must be refused");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{error}");
    }
    echo.dial(near, far.v4).expect("IPv4 is not refused");
    trial.finish().expect_exit(0);
}

/// Datagrams that a host's sockets have received so far, by the kernel's own count.
fn received(world: &World, host: usize) -> u64 {
    world.hosts[host].netns.inside(|| {
        let table = fs::read_to_string("/proc/thread-self/net/snmp").expect("the kernel counts datagrams");
        let mut lines = table.lines().filter_map(|line| line.strip_prefix("Udp: "));
        let names: Vec<&str> = lines.next().expect("a line of names").split(' ').collect();
        let values: Vec<&str> = lines.next().expect("a line of values").split(' ').collect();
        let at = names
            .iter()
            .position(|name| *name == "InDatagrams")
            .expect("a count of datagrams");
        values[at].parse().expect("a number")
    })
}

#[test]
fn each_direction_can_be_cut_alone() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else {
        panic!("two hosts were asked for")
    };
    world.echo(1, 7);
    let mut datagrams =
        Datagrams::to(&near.netns, (far.v4, 7).into(), Duration::from_millis(200)).expect("a socket");
    datagrams.talk().expect("answers before the fault");
    for (direction, arrives) in [("egress", 0), ("ingress", 4)] {
        let step = format!(
            "{{ fault: {{ partition: {{ to: [\"{}\"], direction: {direction} }} }}, for: 2s }}",
            peer(far.v4, 7)
        );
        let mut trial = Trial::begin(&world, near, &calm(&[&step]));
        trial.injected();
        let before = received(&world, 1);
        for _ in 0..4 {
            // Cut on its way out, a datagram is refused by the own kernel; cut on the way in, the answer is awaited.
            datagrams.talk().expect_err("no answer may come");
        }
        assert_eq!(
            received(&world, 1) - before,
            arrives,
            "datagrams that arrived with {direction} cut"
        );
        let finished = trial.finish();
        assert!(
            impaired(&finished.expect_exit(0).json()) >= 4,
            "{}",
            finished.story()
        );
        datagrams.talk().expect("answers after the fault");
    }
}

#[test]
fn a_partition_of_udp_leaves_tcp() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else {
        panic!("two hosts were asked for")
    };
    let echo = world.echo(1, 7);
    let mut tcp = echo.dial(near, far.v4).expect("reached");
    let tcp = Steady::start("TCP", Duration::from_millis(20), move || tcp.talk());
    let mut udp =
        Datagrams::to(&near.netns, (far.v4, 7).into(), Duration::from_millis(200)).expect("a socket");
    udp.talk().expect("answers before the fault");
    let step = format!(
        "{{ fault: {{ partition: {{ to: [\"{}\"], protocol: udp }} }}, for: 2s }}",
        peer(far.v4, 7)
    );
    let mut trial = Trial::begin(&world, near, &calm(&[&step]));
    trial.injected();
    for _ in 0..4 {
        udp.talk().expect_err("no answer may come");
    }
    trial.lifted();
    udp.talk().expect("answers after the fault");
    trial.finish().expect_exit(0);
    tcp.saw_nothing(20);
}

#[test]
fn refused_datagrams_are_refused_at_once() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else {
        panic!("two hosts were asked for")
    };
    world.echo(1, 7);
    let mut udp = Datagrams::to(&near.netns, (far.v4, 7).into(), TIMEOUT).expect("a socket");
    let step = format!(
        "{{ fault: {{ refuse: {{ to: [\"{}\"] }} }}, for: 2s }}",
        peer(far.v4, 7)
    );
    let mut trial = Trial::begin(&world, near, &calm(&[&step]));
    trial.injected();
    for _ in 0..4 {
        let error = udp.talk().expect_err("it must be refused");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{error}");
    }
    trial.finish().expect_exit(0);
    udp.talk().expect("answers after the fault");
}

#[test]
fn a_server_can_be_cut_from_its_callers_by_its_own_port() {
    needs!(Root, Nftables, Nginx, Redis);
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else {
        panic!("two hosts were asked for")
    };
    let (nginx, redis) = (world.nginx(1, 80), world.redis(1, 6379));
    let mut other = redis.dial(near, far.v4).expect("reached");
    let other = Steady::start(
        "another server of the host",
        Duration::from_millis(20),
        move || other.talk(),
    );
    for (fault, refused) in [
        ("partition: { from: [\"any:80\"] }", false),
        ("refuse: { from: [\"any:80\"] }", true),
    ] {
        let step = format!("{{ fault: {{ {fault} }}, for: 3s }}");
        let mut trial = Trial::begin(&world, far, &calm(&[&step]));
        trial.injected();
        for _ in 0..3 {
            let error = connect(&near.netns, (far.v4, 80).into(), SHORT).expect_err("it must not be reached");
            let right = if refused {
                error.kind() == io::ErrorKind::ConnectionRefused
            } else {
                timed_out(&error)
            };
            assert!(right, "{fault}: {error}");
        }
        trial.lifted();
        nginx
            .dial(near, far.v4)
            .expect("reached after the fault")
            .talk()
            .expect("answers after the fault");
        trial.finish().expect_exit(0);
    }
    other.saw_nothing(20);
}

#[test]
fn a_scope_by_local_port_hits_that_port_alone() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else {
        panic!("two hosts were asked for")
    };
    let (hit, spared) = (world.echo(1, 7), world.echo(1, 8));
    let mut talk = spared.dial(near, far.v4).expect("reached");
    let witness = Steady::start("another port", Duration::from_millis(20), move || talk.talk());
    let mut trial = Trial::begin(
        &world,
        far,
        &calm(&["{ fault: { partition: {} }, in: { port: \"7\" }, for: 3s }"]),
    );
    trial.injected();
    let error = hit
        .dial_within(near, far.v4, SHORT)
        .err()
        .expect("it must not be reached");
    assert!(timed_out(&error), "{error}");
    trial.finish().expect_exit(0);
    hit.dial(near, far.v4)
        .expect("reached after the fault")
        .talk()
        .expect("answers after the fault");
    witness.saw_nothing(20);
}

#[test]
fn loopback_is_left_alone_unless_it_is_named() {
    needs!(Root, Nftables);
    let world = World::new(1);
    let host = &world.hosts[0];
    let echo = world.echo(0, 7);
    let loopback: IpAddr = [127, 0, 0, 1].into();
    let mut talk = echo.dial(host, loopback).expect("reached");
    let witness = Steady::start("loopback", Duration::from_millis(20), move || talk.talk());
    // Nothing else is there to hit, so the run must say that it saw no effect.
    run(
        &world,
        host,
        &calm(&["{ fault: { partition: { to: [\"any:7\"] } }, for: 1s }"]),
    )
    .expect_exit(8);
    witness.saw_nothing(10);
    let mut trial = Trial::begin(
        &world,
        host,
        &calm(&["{ fault: { partition: { to: [\"127.0.0.1:7\"] } }, for: 3s }"]),
    );
    trial.injected();
    let error = echo
        .dial_within(host, loopback, SHORT)
        .err()
        .expect("named, it is hit");
    assert!(timed_out(&error), "{error}");
    trial.finish().expect_exit(0);
}

#[test]
fn the_port_of_a_remote_login_is_carved_out() {
    needs!(Root, Nftables, Sshd);
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else {
        panic!("two hosts were asked for")
    };
    world.sshd(1, 2222);
    let echo = world.echo(1, 7);
    let mut trial = Trial::begin(
        &world,
        far,
        &calm(&["{ fault: { partition: { from: [\"any\"] } }, for: 4s }"]),
    );
    trial.injected();
    let error = echo
        .dial_within(near, far.v4, SHORT)
        .err()
        .expect("everything else is cut");
    assert!(timed_out(&error), "{error}");
    connect(&near.netns, (far.v4, 2222).into(), TIMEOUT).expect("the way in for people stays open");
    trial.finish().expect_exit(0);
}

#[test]
fn a_name_that_does_not_resolve_injects_nothing() {
    needs!(Root, Nftables);
    let world = World::new(1);
    let host = &world.hosts[0];
    let step = "{ fault: { partition: { to: [\"no-such-host.invalid:80\"] } }, for: 1s }";
    let mut trial = Trial::begin(&world, host, &calm(&[step]));
    holds("the run to end", PATIENCE, || trial.run.ended());
    assert!(!trial.has("injected"), "something was injected");
    let finished = trial.finish();
    finished.expect_exit(4);
    assert!(
        finished.story().contains("no-such-host.invalid"),
        "the name is not named: {}",
        finished.story()
    );
}

#[test]
fn a_kernel_without_the_mark_program_refuses_the_scope() {
    needs!(Root, Nftables, Cgroup2);
    // Without the right to load BPF a scope by user cannot be exact: it must be refused, never widened.
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else {
        panic!("two hosts were asked for")
    };
    world.echo(1, 7);
    let text = calm(&[&format!(
        "{{ fault: {{ partition: {{ to: [\"{}\"] }} }}, in: {{ user: \"65533\" }}, for: 1s }}",
        peer(far.v4, 7)
    )]);
    let file = world.file("scoped.yaml", text);
    let mut command = near.netns.command("setpriv");
    command.args(["--bounding-set", "-bpf,-sys_admin", "--inh-caps", "-all", "--"]);
    command
        .arg(squall_tests::squall::binary("squall"))
        .args(["run", &file, "--format", "json"]);
    command.env("SQUALL_STATE_DIR", &near.state);
    let finished =
        squall_tests::squall::Squall::with(command, "squall run without CAP_BPF", &world.directory).run();
    if finished.stderr.contains("setpriv:") {
        skip!("this setpriv cannot take single capabilities away");
    }
    finished.expect_exit(4);
}
