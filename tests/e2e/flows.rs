//! Which packets a fault means: directions, address families, transports, ports, and what is always left out.

use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use squall_tests::client::{Datagrams, Steady, TIMEOUT, Talk, connect};
use squall_tests::host::Host;
use squall_tests::service::Service;
use squall_tests::traffic::counted;
use squall_tests::wait::{PATIENCE, holds};
use squall_tests::world::World;
use squall_tests::{needs, skip};

use crate::trial::{SHORT, Trial, calm, impaired, peer, run, timed_out};

#[test]
fn a_partition_of_one_family_leaves_the_other() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else { panic!("two hosts were asked for") };
    let echo = world.echo(1, 7);
    let mut v4 = echo.dial(near, far.v4).expect("reached over IPv4");
    let v4 = Steady::start("IPv4", Duration::from_millis(20), move || v4.talk());
    let mut v6 = echo.dial_within(near, far.v6, SHORT).expect("reached over IPv6");
    let step = format!("{{ fault: {{ partition: {{ to: [\"{}\"] }} }}, for: 3s }}", peer(far.v6, 7));
    let mut trial = Trial::begin(&world, near, &calm(&[&step]));
    trial.injected();
    assert!(timed_out(&v6.talk().expect_err("IPv6 must hang")));
    trial.lifted();
    echo.dial(near, far.v6).expect("reached after the fault").talk().expect("answers after the fault");
    trial.finish().expect_exit(0);
    v4.saw_nothing(20);
}

#[test]
fn refuse_answers_over_ipv6_too() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else { panic!("two hosts were asked for") };
    let echo = world.echo(1, 7);
    let step = format!("{{ fault: {{ refuse: {{ to: [\"{}\"] }} }}, for: 2s }}", peer(far.v6, 7));
    let mut trial = Trial::begin(&world, near, &calm(&[&step]));
    trial.injected();
    for _ in 0..4 {
        let error = connect(&near.netns, (far.v6, 7).into(), TIMEOUT).expect_err("IPv6 must be refused");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{error}");
    }
    echo.dial(near, far.v4).expect("IPv4 is not refused");
    trial.finish().expect_exit(0);
}

/// Nobody answers, asked often enough for the fault's effect to be more than thin.
#[track_caller]
fn hangs(service: &Service, from: &Host, address: IpAddr) {
    for _ in 0..4 {
        let error = service.dial_within(from, address, SHORT).err().expect("it must not be reached");
        assert!(timed_out(&error), "it must hang, not fail with {error}");
    }
}

#[test]
fn each_direction_can_be_cut_alone() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else { panic!("two hosts were asked for") };
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
        let received = || counted::v4(&far.netns, "Udp", "InDatagrams");
        let before = received();
        for _ in 0..4 {
            // Cut on its way out, a datagram is refused by the own kernel; cut on the way in, the answer is awaited.
            datagrams.talk().expect_err("no answer may come");
        }
        assert_eq!(received() - before, arrives, "datagrams that arrived with {direction} cut");
        let finished = trial.finish();
        assert!(impaired(&finished.expect_exit(0).json()) >= 4, "{}", finished.story());
        datagrams.talk().expect("answers after the fault");
    }
}

#[test]
fn a_partition_of_udp_leaves_tcp() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else { panic!("two hosts were asked for") };
    let echo = world.echo(1, 7);
    let mut tcp = echo.dial(near, far.v4).expect("reached");
    let tcp = Steady::start("TCP", Duration::from_millis(20), move || tcp.talk());
    let mut udp =
        Datagrams::to(&near.netns, (far.v4, 7).into(), Duration::from_millis(200)).expect("a socket");
    udp.talk().expect("answers before the fault");
    let step =
        format!("{{ fault: {{ partition: {{ to: [\"{}\"], protocol: udp }} }}, for: 2s }}", peer(far.v4, 7));
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
    let [near, far] = &world.hosts[..] else { panic!("two hosts were asked for") };
    world.echo(1, 7);
    let mut udp = Datagrams::to(&near.netns, (far.v4, 7).into(), TIMEOUT).expect("a socket");
    let step = format!("{{ fault: {{ refuse: {{ to: [\"{}\"] }} }}, for: 2s }}", peer(far.v4, 7));
    let mut trial = Trial::begin(&world, near, &calm(&[&step]));
    trial.injected();
    let mut errors = Vec::new();
    for _ in 0..6 {
        let begun = Instant::now();
        errors.push(udp.talk().expect_err("it must be refused").kind());
        assert!(begun.elapsed() < TIMEOUT, "it hung instead of being refused");
    }
    // The kernel tells a sender in two ways that its packet was rejected on this host: the call fails (EPERM), and the
    // ICMP answer stands at the socket for the next call.
    assert!(errors.contains(&io::ErrorKind::ConnectionRefused), "{errors:?}");
    trial.finish().expect_exit(0);
    udp.talk().expect("answers after the fault");
}

#[test]
fn a_server_can_be_cut_from_its_callers_by_its_own_port() {
    needs!(Root, Nftables, Nginx, Redis);
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else { panic!("two hosts were asked for") };
    let (nginx, redis) = (world.nginx(1, 80), world.redis(1, 6379));
    let mut other = redis.dial(near, far.v4).expect("reached");
    let other = Steady::start("another server of the host", Duration::from_millis(20), move || other.talk());
    for (fault, refused) in
        [("partition: { from: [\"any:80\"] }", false), ("refuse: { from: [\"any:80\"] }", true)]
    {
        let step = format!("{{ fault: {{ {fault} }}, for: 3s }}");
        let mut trial = Trial::begin(&world, far, &calm(&[&step]));
        trial.injected();
        for _ in 0..3 {
            let error = connect(&near.netns, (far.v4, 80).into(), SHORT).expect_err("it must not be reached");
            let right =
                if refused { error.kind() == io::ErrorKind::ConnectionRefused } else { timed_out(&error) };
            assert!(right, "{fault}: {error}");
        }
        trial.lifted();
        nginx.dial(near, far.v4).expect("reached after the fault").talk().expect("answers after the fault");
        trial.finish().expect_exit(0);
    }
    other.saw_nothing(20);
}

#[test]
fn a_scope_by_local_port_hits_that_port_alone() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else { panic!("two hosts were asked for") };
    let (hit, spared) = (world.echo(1, 7), world.echo(1, 8));
    let mut talk = spared.dial(near, far.v4).expect("reached");
    let witness = Steady::start("another port", Duration::from_millis(20), move || talk.talk());
    let mut trial =
        Trial::begin(&world, far, &calm(&["{ fault: { partition: {} }, in: { port: \"7\" }, for: 3s }"]));
    trial.injected();
    hangs(&hit, near, far.v4);
    trial.finish().expect_exit(0);
    hit.dial(near, far.v4).expect("reached after the fault").talk().expect("answers after the fault");
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
    run(&world, host, &calm(&["{ fault: { partition: { to: [\"any:7\"] } }, for: 1s }"])).expect_exit(8);
    witness.saw_nothing(10);
    let mut trial =
        Trial::begin(&world, host, &calm(&["{ fault: { partition: { to: [\"127.0.0.1:7\"] } }, for: 3s }"]));
    trial.injected();
    hangs(&echo, host, loopback);
    trial.finish().expect_exit(0);
}

#[test]
fn the_port_of_a_remote_login_is_carved_out() {
    needs!(Root, Nftables, Sshd);
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else { panic!("two hosts were asked for") };
    world.sshd(1, 2222);
    let echo = world.echo(1, 7);
    let mut trial =
        Trial::begin(&world, far, &calm(&["{ fault: { partition: { from: [\"any\"] } }, for: 4s }"]));
    trial.injected();
    hangs(&echo, near, far.v4);
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
    assert!(finished.story().contains("no-such-host.invalid"), "the name is not named: {}", finished.story());
}

#[test]
fn a_kernel_without_the_mark_program_refuses_the_scope() {
    needs!(Root, Nftables, Cgroup2);
    // Without the right to load BPF a scope by user cannot be exact: it must be refused, never widened.
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else { panic!("two hosts were asked for") };
    world.echo(1, 7);
    let text = calm(&[&format!(
        "{{ fault: {{ partition: {{ to: [\"{}\"] }} }}, in: {{ user: \"65533\" }}, for: 1s }}",
        peer(far.v4, 7)
    )]);
    let file = world.file("scoped.yaml", text);
    let mut command = near.netns.command("setpriv");
    command.args(["--bounding-set", "-bpf,-sys_admin", "--inh-caps", "-all", "--"]);
    command.arg(squall_tests::squall::binary("squall")).args(["run", &file, "--format", "json"]);
    command.env("SQUALL_STATE_DIR", &near.state);
    let finished =
        squall_tests::squall::Squall::with(command, "squall run without CAP_BPF", &world.directory).run();
    if finished.stderr.contains("setpriv:") {
        skip!("this setpriv cannot take single capabilities away");
    }
    finished.expect_exit(4);
}
