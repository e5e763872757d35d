//! What is held when a fault ends, however it ends, goes on its way: a fault must not cost more than was asked for.

use std::fs;
use std::thread;
use std::time::Duration;

use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use rustix::process::Signal;
use squall_tests::needs;
use squall_tests::netns::{Process, signal};
use squall_tests::traffic::numbered::{Numbered, Outcome};
use squall_tests::wait::{PATIENCE, holds};
use squall_tests::world::World;

use crate::trial::{Trial, calm};

/// How long packets are held.
const DELAY: Duration = Duration::from_millis(100);

/// A thousand datagrams a second: a hundred are held at any time.
const STREAM: Numbered =
    Numbered { count: 3000, rate: 1000, size: 64, quiet: Duration::from_millis(300), urgent: false };

/// How the fault ends.
#[derive(Clone, Copy, Debug)]
enum End {
    /// Its command is interrupted.
    Asked,
    /// The agent's processes get a signal: worker, guardian.
    Struck([bool; 2], Signal),
}

/// Datagrams while packets are held and the fault ends in their midst.
fn stream(direction: &str, end: End) -> Outcome {
    stream_by(direction, end, false)
}

/// With the agent on the host whose packets are held, or on another one, from which it reaches into the first.
fn stream_by(direction: &str, end: End, from_afar: bool) -> Outcome {
    let world = World::new(3);
    let [near, far, other] = &world.hosts[..] else { panic!("three hosts were asked for") };
    let (on, traffic) =
        if direction == "egress" { (near, "to: [\"10.77.1.2:9\"]") } else { (far, "from: [\"any:9\"]") };
    let fault = format!("latency: {{ delay: 100ms, {traffic}, direction: {direction} }}");
    let agent = if from_afar { other } else { on };
    let within = if from_afar { format!(", in: {{ netns: {} }}", on.netns.name()) } else { String::new() };
    let step = format!("{{ fault: {{ {fault} }}{within}, for: 60s }}");
    let mut trial = Trial::begin(&world, agent, &calm(&[&step]));
    trial.injected();
    let (guardian, worker) = agent.agents();
    let outcome = thread::scope(|scope| {
        let sending = scope.spawn(|| STREAM.send(&near.netns, &far.netns, (far.v4, 9).into()));
        // In the midst of the stream: by what has come to the queue, not by the clock.
        holds("packets to be held", PATIENCE, || held(on) || direction == "egress");
        thread::sleep(Duration::from_millis(500));
        match end {
            End::Asked => trial.run.signal(Signal::INT),
            End::Struck(whom, hit) => {
                let struck: Vec<&Process> = [&worker, &guardian]
                    .into_iter()
                    .zip(whom)
                    .filter_map(|(one, hit)| hit.then_some(one))
                    .collect();
                // Held first, so that neither notices the other's end.
                let first = if struck.len() > 1 { Signal::STOP } else { hit };
                assert!(struck.iter().all(|one| signal(one, first)), "one is gone already");
                if first != hit {
                    assert!(struck.iter().all(|one| signal(one, hit)), "one is gone already");
                }
            }
        }
        sending.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    holds("the run to end", PATIENCE, || trial.run.ended());
    trial.finish().expect_exit(6);
    agent.agent(&["recover"]).run().expect_exit(0);
    world.restored(Duration::from_secs(3));
    let late = outcome.took().iter().filter(|took| **took >= DELAY).count();
    assert!(late >= 300, "only {late} were late at all");
    let quick = outcome.took().iter().rev().take(300).filter(|took| **took < DELAY).count();
    assert!(quick >= 200, "only {quick} of the last 300 were quick again");
    assert!(outcome.errors.is_empty(), "the sender was told of it: {:?}", outcome.errors);
    outcome
}

/// Whether packets wait in a queue of a host.
fn held(host: &squall_tests::host::Host) -> bool {
    let queues = host.look(&["cat", "/proc/net/netfilter/nfnetlink_queue"]);
    queues.lines().filter_map(|line| line.split_whitespace().nth(2)?.parse::<u32>().ok()).any(|held| held > 0)
}

/// As many as were between a rule and its queue when the rule went: a prototype lost 0 or 1.
#[track_caller]
fn nearly_none_lost(outcome: &Outcome) {
    assert!(outcome.lost().len() <= 3, "lost in bursts of {:?}", outcome.bursts());
    assert_eq!(outcome.doubled(), 0);
}

/// What was held is lost, and nothing else.
#[track_caller]
fn only_held_ones_lost(outcome: &Outcome) {
    let bursts = outcome.bursts();
    // A hundred by the clock; the machine may have been slow to kill.
    assert!(bursts.len() <= 2 && bursts.iter().sum::<u32>() <= 300, "lost in bursts of {bursts:?}");
}

#[test]
fn nothing_that_enters_is_lost_when_the_fault_is_lifted() {
    needs!(Root, Nftables, Queue);
    let outcome = stream("ingress", End::Asked);
    assert_eq!(outcome.lost(), [] as [u32; 0]);
}

#[test]
fn nothing_that_leaves_is_lost_when_the_fault_is_lifted() {
    needs!(Root, Nftables, Queue);
    let outcome = stream("egress", End::Asked);
    assert_eq!((outcome.lost(), outcome.doubled()), (Vec::new(), 0));
}

#[test]
fn nothing_is_lost_in_another_namespace_either() {
    needs!(Root, Nftables, Queue);
    for direction in ["ingress", "egress"] {
        let outcome = stream_by(direction, End::Asked, true);
        assert_eq!((outcome.lost(), outcome.doubled()), (Vec::new(), 0), "{direction}");
    }
    for (whom, hit) in
        [([true, false], Signal::KILL), ([true, false], Signal::STOP), ([false, true], Signal::KILL)]
    {
        nearly_none_lost(&stream_by("ingress", End::Struck(whom, hit), true));
    }
}

#[test]
fn the_guardian_lets_go_what_a_killed_worker_held() {
    needs!(Root, Nftables, Queue);
    nearly_none_lost(&stream("ingress", End::Struck([true, false], Signal::KILL)));
}

#[test]
fn the_guardian_lets_go_what_a_stopped_worker_held() {
    needs!(Root, Nftables, Queue);
    nearly_none_lost(&stream("ingress", End::Struck([true, false], Signal::STOP)));
}

#[test]
fn the_worker_lets_go_what_it_holds_when_the_guardian_is_killed() {
    needs!(Root, Nftables, Queue);
    nearly_none_lost(&stream("ingress", End::Struck([false, true], Signal::KILL)));
}

#[test]
fn the_worker_lets_go_what_it_holds_when_the_guardian_is_stopped() {
    needs!(Root, Nftables, Queue);
    nearly_none_lost(&stream("ingress", End::Struck([false, true], Signal::STOP)));
}

#[test]
fn an_engine_that_hangs_is_noticed_and_everything_is_reverted() {
    needs!(Root, Nftables, Queue);
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else { panic!("two hosts were asked for") };
    let echo = world.echo(1, 7);
    let fault = "{ fault: { latency: { delay: 300ms, to: [\"10.77.1.2:7\"] } }, for: 60s }";
    let mut trial = Trial::begin(&world, near, &calm(&[fault]));
    trial.injected();
    let mut talk = echo.dial_within(near, far.v4, PATIENCE).expect("reached during the fault");
    let (_, worker) = near.agents();
    let threads = fs::read_dir(format!("/proc/{}/task", worker.pid)).expect("it lives").flatten();
    let name = |thread: &fs::DirEntry| fs::read_to_string(thread.path().join("comm")).unwrap_or_default();
    let engine = threads
        .filter(|thread| name(thread).starts_with("queue-"))
        .find_map(|thread| thread.file_name().to_str()?.parse().ok().map(Pid::from_raw))
        .expect("the worker has a thread for its queue");
    // That thread alone: the kernel goes on to hand it packets, and all others run.
    ptrace::seize(engine, ptrace::Options::empty()).expect("root may trace");
    ptrace::interrupt(engine).expect("it is traced");
    waitpid(engine, Some(WaitPidFlag::__WALL)).expect("it stops");
    talk.talk().expect("what was held goes on");
    holds("the run to end", PATIENCE, || trial.run.ended());
    if ptrace::detach(engine, None).is_err() {
        // It has ended with its process, which stays until its tracer has heard of that.
        waitpid(engine, Some(WaitPidFlag::__WALL)).expect("it was traced until its end");
    }
    trial.finish().expect_exit(6).expect_told("engine did not answer");
    world.restored(Duration::from_secs(3));
}

#[test]
fn what_a_killed_worker_was_about_to_send_again_is_lost_and_nothing_else() {
    needs!(Root, Nftables, Queue);
    only_held_ones_lost(&stream("egress", End::Struck([true, false], Signal::KILL)));
}

#[test]
fn what_a_killed_pair_held_is_lost_and_nothing_else() {
    needs!(Root, Nftables, Queue);
    only_held_ones_lost(&stream("ingress", End::Struck([true, true], Signal::KILL)));
}
