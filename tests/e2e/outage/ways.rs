//! Each way to be out, as a client of a real service sees it.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use squall_tests::client::{Http, Redis, connect};
use squall_tests::needs;
use squall_tests::world::World;

use super::{LONG, outage, ping, step};
use crate::trial::{SHORT, Trial, calm, evidence, impaired, timed_out};

/// Asks for a page over a new connection, and reads until an end: what came, and how it ended.
fn page(world: &World, patience: Duration) -> (Vec<u8>, io::Result<()>) {
    let to = SocketAddr::new(world.hosts[1].v4, 80);
    let mut stream = connect(&world.hosts[0].netns, to, patience).expect("the proxy accepts");
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        .expect("the request is taken");
    let mut came = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return (came, Ok(())),
            Ok(length) => came.extend_from_slice(&buffer[..length]),
            // A call with a time-out is not begun again by itself, such as after the machine was frozen.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (came, Err(error)),
        }
    }
}

/// A store, and a connection to it that is there before the fault.
fn connected(world: &World) -> Redis {
    world.redis(1, 6379);
    let stream = connect(&world.hosts[0].netns, (world.hosts[1].v4, 6379).into(), LONG);
    let mut redis = Redis::over(stream.expect("reached before the fault"));
    redis.call(&["PING"]).expect("answered before the fault");
    redis
}

#[test]
fn a_dependency_resets_and_what_was_there_before_is_left_alone() {
    needs!(Root, Cgroup2, Bpf, Redis);
    let world = World::new(2);
    let mut before = connected(&world);
    let (near, far) = (&world.hosts[0], &world.hosts[1]);
    let trial = outage(&world, 6379, "reset", "");
    for _ in 0..3 {
        let error = ping(near, far.v4, 6379).expect_err("the answer must be a reset");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
    }
    assert_eq!(before.call(&["PING"]).expect("it is left alone"), "PONG");
    assert_eq!(ping(near, far.v6, 6379).expect("another address is left alone"), "PONG");
    let report = trial.halted();
    assert_eq!(
        (impaired(&report), evidence(&report)["unit"].as_str()),
        (3, Some("connections")),
        "{report:#}"
    );
    assert_eq!(ping(near, far.v4, 6379).expect("answered after the fault"), "PONG");
    assert_eq!(before.call(&["PING"]).expect("it lives on"), "PONG");
}

#[test]
fn connections_that_are_reset_come_back_through_the_proxy() {
    needs!(Root, Cgroup2, Bpf, Redis);
    let world = World::new(2);
    let mut before = connected(&world);
    let (near, far) = (&world.hosts[0], &world.hosts[1]);
    let trial = outage(&world, 6379, "latency, delay: 300ms, established: reset", "");
    before.call(&["PING"]).expect_err("it must have been reset");
    let begun = Instant::now();
    assert_eq!(ping(near, far.v4, 6379).expect("answered late"), "PONG");
    assert!(begun.elapsed() >= Duration::from_millis(300), "answered after {:?}", begun.elapsed());
    trial.halted();
}

#[test]
fn a_dependency_hangs_in_the_middle_of_an_answer() {
    needs!(Root, Cgroup2, Bpf, Nginx);
    let world = World::new(2);
    world.nginx(1, 80);
    let trial = outage(&world, 80, "hang, after: 12B", "");
    let (came, ended) = page(&world, SHORT);
    assert_eq!(String::from_utf8_lossy(&came), "HTTP/1.1 200");
    let error = ended.expect_err("it must hang, not end");
    assert!(timed_out(&error), "it must hang, not fail with {error}");
    assert_eq!(impaired(&trial.halted()), 1);
}

#[test]
fn a_dependency_closes_in_the_middle_of_an_answer() {
    needs!(Root, Cgroup2, Bpf, Nginx);
    let world = World::new(2);
    world.nginx(1, 80);
    let trial = outage(&world, 80, "close-early, after: 12B", "");
    let (came, ended) = page(&world, LONG);
    assert_eq!(String::from_utf8_lossy(&came), "HTTP/1.1 200");
    ended.expect("an orderly end");
    assert_eq!(impaired(&trial.halted()), 1);
}

#[test]
fn a_dependency_is_slow() {
    needs!(Root, Cgroup2, Bpf, Nginx);
    let world = World::new(2);
    world.nginx(1, 80);
    let (whole, ended) = page(&world, LONG);
    ended.expect("a whole page");
    // A tenth of a second's worth may leave at once.
    let least = Duration::from_secs_f64((whole.len() as f64 - 200.0) / 1000.0);
    assert!(least > Duration::ZERO, "{} bytes are too few to be slow", whole.len());
    let trial = outage(&world, 80, "slow, rate: 1kB/s", "");
    let begun = Instant::now();
    let (came, ended) = page(&world, LONG);
    ended.expect("a whole page");
    assert_eq!(came.len(), whole.len());
    assert!(begun.elapsed() >= least, "{} bytes after {:?}", came.len(), begun.elapsed());
    assert_eq!(impaired(&trial.halted()), 1);
}

#[test]
fn a_brownout_concerns_its_share_of_connections() {
    needs!(Root, Cgroup2, Bpf, Redis);
    let world = World::new(2);
    world.redis(1, 6379);
    let trial = outage(&world, 6379, "brownout, share: 50%, delay: 5ms", "");
    for _ in 0..60 {
        assert_eq!(ping(&world.hosts[0], world.hosts[1].v4, 6379).expect("answered"), "PONG");
    }
    let report = trial.halted();
    assert_eq!(evidence(&report)["matched"], 60, "{report:#}");
    // Binomial(60, 0.5): four standard deviations are 15.5.
    assert!((15..=45).contains(&impaired(&report)), "{report:#}");
}

#[test]
fn a_brownout_concerns_its_share_of_requests_where_they_can_be_read() {
    needs!(Root, Cgroup2, Bpf, Nginx);
    let world = World::new(2);
    world.nginx(1, 80);
    let trial = outage(&world, 80, "brownout, share: 50%, delay: 5ms", "");
    let to = SocketAddr::new(world.hosts[1].v4, 80);
    let mut client = Http::over(connect(&world.hosts[0].netns, to, LONG).expect("the proxy accepts"));
    // All over one connection, and one that says what is no HTTP: nginx answers that by itself.
    for _ in 0..60 {
        assert_eq!(client.get("/").expect("answered").0, 200);
    }
    let mut other = connect(&world.hosts[0].netns, to, LONG).expect("the proxy accepts");
    other.write_all(b"\x16hello\r\n\r\n").expect("it is taken");
    let mut said = Vec::new();
    other.read_to_end(&mut said).expect("nginx ends it");
    assert!(said.windows(4).any(|word| word == b" 400"), "{}", String::from_utf8_lossy(&said));
    let report = trial.halted();
    let evidence = evidence(&report);
    assert_eq!(
        (evidence["unit"].as_str(), &evidence["matched"]),
        (Some("requests"), &61.into()),
        "{report:#}"
    );
    // Binomial(61, 0.5): four standard deviations are 15.6.
    assert!((15..=46).contains(&impaired(&report)), "{report:#}");
    assert!(evidence["notes"].to_string().contains("counted as one request each"), "{report:#}");
}

#[test]
fn who_is_led_to_the_proxy_sees_the_address_that_it_asked_for() {
    needs!(Root, Cgroup2, Bpf, Redis);
    let world = World::new(2);
    world.redis(1, 6379);
    let [near, far] = &world.hosts[..] else { panic!("two hosts are needed") };
    let IpAddr::V4(v4) = far.v4 else { panic!("an address of version 4") };
    let mapped = IpAddr::V6(v4.to_ipv6_mapped());
    for (of, asked) in [(far.v6, far.v6), (far.v4, mapped), (far.v4, far.v4)] {
        let text = calm(&[&step(of, 6379, "latency, delay: 100ms", "")]);
        let mut trial = Trial::begin(&world, near, &text);
        trial.injected();
        let stream: TcpStream = connect(&near.netns, (asked, 6379).into(), LONG).expect("the proxy accepts");
        assert_eq!(stream.peer_addr().expect("it is connected"), SocketAddr::new(asked, 6379));
        assert!(
            stream.local_addr().expect("it is bound").ip().to_canonical().is_loopback(),
            "it must be led home"
        );
        assert_eq!(Redis::over(stream).call(&["PING"]).expect("answered"), "PONG");
        assert_eq!(impaired(&trial.halted()), 1);
    }
}

#[test]
fn an_outage_that_nobody_meets_is_inconclusive() {
    needs!(Root, Cgroup2, Bpf, Redis);
    let world = World::new(2);
    world.redis(1, 6379);
    let near = &world.hosts[0];
    let of = SocketAddr::new(world.hosts[1].v4, 6379).to_string();
    near.squall(&["inject", "outage", "--of", &of, "--how", "hang", "--for", "300ms"])
        .run()
        .expect_exit(8)
        .expect_told("nothing used the path while it was live");
}
