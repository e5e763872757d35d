//! What the report says of shaping, and what becomes of traffic when nobody shapes it any more.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use squall_tests::needs;
use squall_tests::netns::{Process, signal};
use squall_tests::traffic::numbered::Numbered;
use squall_tests::traffic::round_trips;
use squall_tests::wait::{PATIENCE, holds};
use squall_tests::world::World;

use super::{DELAY, count, delayed, engine, lasting, nothing_leaked, shaped, step};
use crate::trial::{Trial, calm, evidence, peer, run};

#[test]
fn shaping_that_meets_no_packet_is_inconclusive() {
    needs!(Root, Nftables, Queue);
    let world = World::new(2);
    let near = &world.hosts[0];
    for fault in
        ["latency: { delay: 50ms, to: [\"10.77.1.2:9\"] }", "loss: { percent: 5%, to: [\"10.77.1.2:9\"] }"]
    {
        let finished = run(&world, near, &calm(&[&step(fault, 1)]));
        let report = finished.expect_exit(8).json();
        assert_eq!(count(&report, "seen"), 0, "{report:#}");
        let sentence = report["sentence"].as_str().expect("a sentence");
        assert!(sentence.contains("nothing used the path"), "{sentence}");
    }
}

#[test]
fn more_than_may_be_held_passes_is_counted_and_is_inconclusive() {
    needs!(Root, Nftables, Queue);
    let world = World::new(2);
    let plan = Numbered { count: 4000, rate: 4000, ..Numbered::default() };
    // 200 ms of 4000 packets a second are 800: far more than ten.
    let fault = "latency: { delay: 200ms, limit: 10, from: [\"any:9\"] }";
    let [near, far] = &world.hosts[..] else { panic!("two hosts were asked for") };
    let mut trial = Trial::begin(&world, far, &calm(&[&step(fault, 8)]));
    trial.injected();
    let outcome = plan.send(&near.netns, &far.netns, (far.v4, 9).into());
    assert_eq!(outcome.lost(), [] as [u32; 0], "what cannot be held passes");
    let report = trial.finish().expect_exit(8).json();
    let (overflowed, held) = (count(&report, "overflowed"), count(&report, "delayed"));
    assert!(overflowed > 2000 && held >= 10, "{report:#}");
    let incidents = evidence(&report)["incidents"].to_string();
    assert!(incidents.contains("10 packets were held"), "the report does not say so: {report:#}");
}

/// As many as may be held at most are, each way, and no byte more: what comes beyond it passes, is counted and is told.
#[test]
fn more_packets_than_any_host_may_hold_cost_a_bounded_memory() {
    needs!(Root, Nftables, Queue);
    let plan = Numbered { count: 200_000, rate: 100_000, ..Numbered::default() };
    for (on, traffic) in [(1, "from: [\"any:9\"]"), (0, "to: [\"10.77.1.2:9\"], direction: egress")] {
        let world = World::new(2);
        let [near, far] = &world.hosts[..] else { panic!("two hosts were asked for") };
        // Longer than the slowest machine takes to send them: 100,000 a second at a second would need a fast one.
        let fault = format!("latency: {{ delay: 50s, {traffic} }}");
        let mut trial = Trial::begin(&world, &world.hosts[on], &calm(&[&lasting(&fault)]));
        trial.injected();
        let (_, worker) = world.hosts[on].agents();
        let before = most_memory(&worker);
        let outcome = plan.send(&near.netns, &far.netns, (far.v4, 9).into());
        let grown = most_memory(&worker).saturating_sub(before);
        // Of the engine's own: a datagram of 92 bytes and what belongs to it take less than 1 KiB each.
        assert!(grown <= 96 << 10, "the worker took {grown} KiB more");
        trial.run.signal(Signal::INT);
        let report = trial.finish().expect_exit(6).json();
        let seen = |name| u64::from(count(&report, name));
        // Fewer where a slow machine let some pass before.
        assert!((10_000..=65_536).contains(&seen("delayed")), "{report:#}");
        let matched = evidence(&report)["matched"].as_u64().expect("a count");
        let passed = matched - seen("seen") + seen("overflowed") + seen("overrun");
        assert_eq!(passed + seen("delayed"), matched, "{report:#}");
        assert!(passed >= u64::from(plan.count) - 65_536, "{report:#}");
        let arrived = u64::try_from(outcome.arrivals.len()).expect("a count");
        assert!(arrived >= u64::from(plan.count) - 65_536, "only {arrived} passed");
        assert_eq!(report["parts"][0]["measured"], false, "{report:#}");
    }
}

/// The most memory that a process has had, in KiB.
fn most_memory(process: &Process) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.pid)).expect("it lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the kernel says so");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[test]
fn the_terminals_report_shows_what_the_engine_did() {
    needs!(Root, Nftables, Queue);
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else { panic!("two hosts were asked for") };
    let echo = world.echo(1, 7);
    let mut talk = echo.dial(near, far.v4).expect("reached");
    let control = round_trips(&mut *talk, 5);
    let fault = format!("latency: {{ delay: 60ms, to: [\"{}\"] }}", peer(far.v4, 7));
    let file = world.file("late.yaml", calm(&[&step(&fault, 4)]));
    let events = world.directory.join("late.ndjson");
    let mut run = near.squall(&["run", &file, "--events", &events.display().to_string()]).start();
    run.event(&events, |event| event["event"] == "injected");
    delayed(round_trips(&mut *talk, 5), control, DELAY);
    let finished = run.finish();
    finished.expect_exit(0);
    for word in ["delay by 60ms", "packets", "seed"] {
        assert!(finished.stdout.contains(word), "`{word}` is missing: {}", finished.story());
    }
}

#[test]
fn a_fault_is_seen_whole_at_the_rate_of_a_busy_service() {
    needs!(Root, Nftables, Queue);
    let world = World::new(2);
    let plan = Numbered { count: 40_000, rate: 20_000, ..Numbered::default() };
    let fault = "latency: { delay: 20ms, from: [\"any:9\"] }";
    let (outcome, report) = shaped(&world, &world.hosts[1], fault, plan, &[]);
    assert_eq!((outcome.lost().len(), outcome.doubled(), outcome.overtaken()), (0, 0, 0));
    let early = outcome.took().into_iter().filter(|took| *took < Duration::from_millis(20)).count();
    assert_eq!(early, 0, "datagrams came early");
    nothing_leaked(&report);
    assert!(count(&report, "delayed") >= plan.count, "{:#}", engine(&report));
}

#[test]
fn a_stalled_engine_frees_traffic_within_seconds() {
    needs!(Root, Nftables, Queue);
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else { panic!("two hosts were asked for") };
    let echo = world.echo(1, 7);
    let fault = format!("latency: {{ delay: 400ms, to: [\"{}\"] }}", peer(far.v4, 7));
    let mut trial = Trial::begin(&world, near, &calm(&[&step(&fault, 60)]));
    trial.injected();
    let mut talk = echo.dial(near, far.v4).expect("reached during the fault");
    assert!(round_trips(&mut *talk, 1)[0] >= Duration::from_millis(400));
    let (guardian, worker) = near.agents();
    for process in [&guardian, &worker] {
        assert!(signal(process, Signal::STOP), "it is gone already");
    }
    // Nobody runs who could revert. The kernel's own lease ends what is done to traffic.
    let stalled = Instant::now();
    holds("traffic to be free again", Duration::from_secs(10), || {
        let begun = Instant::now();
        let answered =
            echo.dial_within(near, far.v4, Duration::from_millis(300)).and_then(|mut talk| talk.talk());
        answered.is_ok() && begun.elapsed() < Duration::from_millis(400)
    });
    eprintln!("free {:?} after both were stopped", stalled.elapsed());
    holds("the run to end", PATIENCE, || trial.run.ended());
    trial.finish().expect_exit(6);
    near.agent(&["recover"]).run().expect_exit(0);
    world.restored(Duration::from_secs(3));
}

/// What a plan says of engines is what the run takes, here and in another network, and is asked for where it is forced.
#[test]
fn a_plan_says_by_which_engine_a_run_would_act() {
    needs!(Root, Nftables, Queue);
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else { panic!("two hosts were asked for") };
    let echo = world.echo(1, 7);
    let inside = far.netns.name();
    for (number, (fault, scope)) in [
        ("bandwidth: { rate: 20Mbit/s, to: [\"10.77.1.2:7\"], direction: egress }", String::new()),
        (
            "bandwidth: { rate: 20Mbit/s, to: [\"10.77.1.2:7\"], direction: egress, engine: queue }",
            String::new(),
        ),
        ("latency: { delay: 20ms, to: [\"10.77.1.2:7\"] }", String::new()),
        ("latency: { delay: 20ms, from: [\"any:7\"] }", format!(", in: {{ netns: {inside} }}")),
    ]
    .into_iter()
    .enumerate()
    {
        let text = calm(&[&format!("{{ fault: {{ {fault} }}{scope}, for: 60s }}")]);
        let file = world.file(&format!("planned-{number}.yaml"), &text);
        let planned = near.squall(&["plan", &file, "--format", "json"]).run();
        let planned = planned.expect_exit(0).json();
        let expected = planned["on-this-host-now"]["engines"].as_array().expect("engines");
        assert_eq!(expected.len(), 1, "{planned:#}");
        assert_eq!(expected[0]["part"], 1, "{planned:#}");
        let words = expected[0]["why"].to_string();
        assert!(words.contains("engine"), "no reason in {planned:#}");
        near.squall(&["plan", &file]).run().expect_exit(0).expect_told("  part 1: engine ");
        let mut trial = Trial::begin(&world, near, &text);
        trial.injected();
        // A live root of an agent's own stands in nobody's way.
        let beside = near.squall(&["plan", &file, "--format", "json"]).run().expect_exit(0).json();
        assert_eq!(beside["on-this-host-now"]["engines"][0]["engine"], expected[0]["engine"], "{beside:#}");
        let mut talk = echo.dial(near, far.v4).expect("reached");
        for _ in 0..10 {
            talk.talk().expect("answered");
        }
        trial.run.signal(rustix::process::Signal::INT);
        let report = trial.finish().expect_exit(6).json();
        assert_eq!(engine(&report)["name"], expected[0]["engine"], "{report:#}\n{planned:#}");
        let notes = report["parts"][0]["notes"].to_string();
        assert!(notes.contains("the engine is"), "{report:#}");
    }
    let cut = calm(&["{ fault: { partition: { to: [\"10.77.1.2:7\"] } }, for: 1s }"]);
    let file = world.file("planned-cut.yaml", cut);
    near.squall(&["plan", &file]).run().expect_exit(0).expect_told("part 1: engine rules");
}
