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
fn the_proxy_has_a_user_of_its_own_and_no_privilege_and_cannot_get_any() {
    needs!(Root, Cgroup2, Bpf, Redis);
    let (world, trial) = reset();
    let carrier = proxy(&world.hosts[0]).expect("connections are led to a process");
    let status = fs::read_to_string(format!("/proc/{}/status", carrier.pid)).expect("it runs");
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {name} in {status}")).split_whitespace().collect::<Vec<_>>()
    };
    // Its real, effective, saved and file system ids are one, and nobody else's.
    for ids in [of("Uid"), of("Gid")] {
        assert!(ids.len() == 4 && ids.iter().all(|id| *id == ids[0] && *id != "0"), "{status}");
    }
    assert_eq!(of("Groups"), [""; 0], "{status}");
    // Of this host: an agent of another world may have chosen the same number in the same moment.
    let others = world.hosts[0].netns.processes().into_iter().filter(|other| other.pid != carrier.pid);
    for other in others {
        let Ok(theirs) = fs::read_to_string(format!("/proc/{}/status", other.pid)) else { continue };
        let same = theirs.lines().find(|line| line.starts_with("Uid:"))
            == status.lines().find(|line| line.starts_with("Uid:"));
        assert!(!same, "{other:?} has its user, too");
    }
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        let [bits] = of(set)[..] else { panic!("{set} of {status}") };
        assert_eq!(u64::from_str_radix(bits, 16), Ok(0), "{set} of {status}");
    }
    assert_eq!(of("NoNewPrivs"), ["1"], "{status}");
    assert!(!has_filters() || of("Seccomp") == ["2"], "{status}");
    // Every one of its threads: they are made after it has given up everything.
    let threads = fs::read_dir(format!("/proc/{}/task", carrier.pid)).expect("it runs");
    for thread in threads.flatten() {
        let theirs = fs::read_to_string(thread.path().join("status")).expect("it runs");
        for name in ["Uid", "Gid", "CapPrm", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp"] {
            let line =
                |of: &str| of.lines().find(|line| line.starts_with(&format!("{name}:"))).map(str::to_owned);
            assert_eq!(line(&theirs), line(&status), "{theirs}");
        }
    }
    trial.halted();
}

#[test]
fn a_proxy_that_hangs_is_led_to_no_more_and_the_report_says_so() {
    needs!(Root, Cgroup2, Bpf, Redis);
    let (world, mut trial) = reset();
    let near = &world.hosts[0];
    let hung = proxy(near).expect("a proxy runs");
    assert!(signal(&hung, Signal::STOP));
    // What connects meanwhile waits in vain: each try is short, so that the first one that is answered is soon.
    holds("new connections to be answered", PATIENCE, || {
        let stream = connect(&near.netns, (world.hosts[1].v4, 6379).into(), Duration::from_millis(300));
        stream.and_then(|stream| Redis::over(stream).call(&["PING"])).is_ok_and(|said| said == "PONG")
    });
    gone(&world);
    assert!(!trial.has("lifted"), "the fault was over before it was looked at");
    trial.run.signal(Signal::INT);
    let finished = trial.finish();
    let report = finished.expect_exit(6).json();
    let evidence = report["parts"][0]["evidence"][0].to_string();
    assert!(evidence.contains("its proxy did not answer any more after"), "{report:#}");
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
