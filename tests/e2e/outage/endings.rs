//! However an outage ends, new connections lead to the dependency at once, and nothing of it is left.

use std::fs;
use std::io;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use squall_tests::client::{Redis, connect};
use squall_tests::needs;
use squall_tests::netns::{Process, signal};
use squall_tests::skip::has_filters;
use squall_tests::wait::{PATIENCE, holds};
use squall_tests::world::World;

use super::{LONG, outage, ping, proxy};
use crate::trial::{Trial, calm, impaired};

/// A world in which the second host's Redis resets what it should answer.
fn reset() -> (World, Trial) {
    let world = World::new(2);
    world.redis(1, 6379);
    let trial = outage(&world, 6379, "reset", "");
    ping(&world.hosts[0], world.hosts[1].v4, 6379).expect_err("the answer must be a reset");
    let carrier = proxy(&world.hosts[0]).expect("connections are led to a process");
    let status = fs::read_to_string(format!("/proc/{}/status", carrier.pid)).expect("it runs");
    assert!(!has_filters() || status.contains("Seccomp:\t2"), "{status}");
    (world, trial)
}

/// New connections are answered again; gives how long that took.
fn direct(world: &World) -> Duration {
    let begun = Instant::now();
    holds("new connections to be answered", PATIENCE, || {
        ping(&world.hosts[0], world.hosts[1].v4, 6379).is_ok_and(|said| said == "PONG")
    });
    begun.elapsed()
}

fn gone(world: &World) {
    holds("the proxy to be gone", PATIENCE, || proxy(&world.hosts[0]).is_none());
}

#[test]
fn without_its_proxy_nothing_is_led_anywhere_and_the_run_is_inconclusive() {
    needs!(Root, Cgroup2, Bpf, Redis);
    let world = World::new(2);
    world.redis(1, 6379);
    let near = &world.hosts[0];
    let step = "{ fault: { outage: { of: \"10.77.1.2:6379\", how: reset } }, for: 4s }";
    let mut trial = Trial::begin(&world, near, &calm(&[step]));
    trial.injected();
    ping(near, world.hosts[1].v4, 6379).expect_err("the answer must be a reset");
    let proxy = proxy(near).expect("a proxy runs");
    assert!(signal(&proxy, Signal::KILL));
    direct(&world);
    assert!(!trial.has("lifted"), "the fault was over before it was looked at");
    trial.finish().expect_exit(8).expect_told("its proxy has ended after");
}

/// Kills some of the agent's processes, and looks that the host is free of the fault.
fn killed(victims: impl Fn(Process, Process) -> Vec<Process>, hit: Signal) {
    let (world, trial) = reset();
    let (guardian, worker) = world.hosts[0].agents();
    let victims = victims(guardian, worker);
    if victims.len() > 1 {
        // Held first, so that neither notices the other's end.
        victims.iter().for_each(|victim| assert!(signal(victim, Signal::STOP)));
    }
    for victim in &victims {
        assert!(signal(victim, hit), "{victim:?} is gone already");
    }
    direct(&world);
    gone(&world);
    trial.finish().expect_exit(6);
    world.hosts[0].agent(&["recover"]).run().expect_exit(0);
}

#[test]
fn the_worker_dies() {
    needs!(Root, Cgroup2, Bpf, Redis);
    killed(|_, worker| vec![worker], Signal::KILL);
}

#[test]
fn the_guardian_dies() {
    needs!(Root, Cgroup2, Bpf, Redis);
    killed(|guardian, _| vec![guardian], Signal::KILL);
}

#[test]
fn both_die() {
    needs!(Root, Cgroup2, Bpf, Redis);
    killed(|guardian, worker| vec![guardian, worker], Signal::KILL);
}

#[test]
fn both_hang() {
    needs!(Root, Cgroup2, Bpf, Redis);
    killed(|guardian, worker| vec![guardian, worker], Signal::STOP);
}

#[test]
fn a_refusal_by_the_kernel_ends_with_the_agent_too() {
    needs!(Root, Nftables, Redis);
    for stopped in [false, true] {
        let world = World::new(2);
        world.redis(1, 6379);
        let trial = outage(&world, 6379, "refuse", "");
        for _ in 0..4 {
            let error = ping(&world.hosts[0], world.hosts[1].v4, 6379).expect_err("it must be refused");
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{error}");
        }
        let (guardian, worker) = world.hosts[0].agents();
        for hit in if stopped { &[Signal::STOP][..] } else { &[Signal::STOP, Signal::KILL] } {
            [&guardian, &worker].into_iter().for_each(|victim| assert!(signal(victim, *hit)));
        }
        direct(&world);
        trial.finish().expect_exit(6);
        world.hosts[0].agent(&["recover"]).run().expect_exit(0);
    }
}

#[test]
fn what_is_carried_at_the_end_goes_on_unharmed() {
    needs!(Root, Cgroup2, Bpf, Redis);
    let world = World::new(2);
    world.redis(1, 6379);
    let [near, far] = &world.hosts[..] else { panic!("two hosts are needed") };
    let step = "{ fault: { outage: { of: \"10.77.1.2:6379\", how: latency, delay: 200ms } }, for: 3s }";
    // A second step, so that the run goes on when the fault is over.
    let mut trial = Trial::begin(&world, near, &calm(&[step, "wait: 2s"]));
    trial.injected();
    let stream = connect(&near.netns, (far.v4, 6379).into(), LONG).expect("the proxy accepts");
    let mut carried = Redis::over(stream);
    let begun = Instant::now();
    assert_eq!(carried.call(&["PING"]).expect("answered late"), "PONG");
    assert!(begun.elapsed() >= Duration::from_millis(200), "answered after {:?}", begun.elapsed());
    assert!(!trial.has("lifted"), "the fault was over before it was looked at");
    trial.lifted();
    assert_eq!(carried.call(&["PING"]).expect("it is carried on"), "PONG");
    assert!(proxy(near).is_some(), "somebody must carry it");
    drop(carried);
    gone(&world);
    let finished = trial.finish();
    let finished = finished.expect_exit(0);
    finished.expect_told("the proxy of an outage has ended, and carried nothing any more");
    let report = finished.json();
    assert_eq!(impaired(&report), 1, "{report:#}");
}

#[test]
fn what_is_carried_when_a_run_is_halted_is_reset_and_counted() {
    needs!(Root, Cgroup2, Bpf, Redis);
    let world = World::new(2);
    world.redis(1, 6379);
    let [near, far] = &world.hosts[..] else { panic!("two hosts are needed") };
    let trial = outage(&world, 6379, "latency, delay: 20ms", "");
    let stream = connect(&near.netns, (far.v4, 6379).into(), LONG).expect("the proxy accepts");
    let mut carried = Redis::over(stream);
    carried.call(&["PING"]).expect("answered");
    near.squall(&["halt"]).run().expect_exit(0);
    let error = carried.call(&["PING"]).expect_err("it was reset");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
    trial.finish().expect_exit(6).expect_told("one connection that it still carried was reset");
}
