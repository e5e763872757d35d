//! A run from its beginning to its end, every way that it can end, and the exit code that says so.

use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use squall_tests::needs;
use squall_tests::wait::{PATIENCE, holds};
use squall_tests::world::World;

use crate::trial::{CUT, ECHO, LONG, SOON, Trial, calm, document, run};

#[test]
fn a_hypothesis_that_fails_under_the_fault_deviates_and_recovers() {
    needs!(Root, Nftables);
    let world = World::new(2);
    world.echo(1, 7);
    let finished = run(&world, &world.hosts[0], &document(ECHO, &[CUT]));
    let report = finished.expect_exit(5).json();
    let claim = &report["hypotheses"][0];
    assert_eq!(claim["judgement"]["outcome"], "deviated", "{report:#}");
    assert_eq!(claim["before"]["bad"], 0, "{report:#}");
    assert_eq!(claim["during"]["good"], 0, "{report:#}");
    assert!(claim["during"]["bad"].as_u64().is_some_and(|bad| bad >= 3), "{report:#}");
    assert_eq!(claim["recovered"], true, "{report:#}");
    assert!(report["well_again_ms"].is_u64(), "{report:#}");
    assert!(
        report["sentence"].as_str().is_some_and(|sentence| sentence.contains("echo answers")),
        "{report:#}"
    );
    assert_eq!(report["stuck"].as_array().map(Vec::len), Some(0), "{report:#}");
    assert!(report["undone"].as_array().is_some_and(|undone| !undone.is_empty()), "{report:#}");
}

#[test]
fn a_baseline_that_is_not_met_injects_nothing() {
    needs!(Root, Nftables);
    let world = World::new(2);
    // Nobody listens on port 7.
    let mut trial = Trial::begin(&world, &world.hosts[0], &document(ECHO, &[CUT]));
    trial.event("baseline-not-met");
    holds("the run to end", PATIENCE, || trial.run.ended());
    assert!(!trial.has("injecting"), "something was injected");
    let finished = trial.finish();
    finished.expect_exit(4);
    assert!(finished.stdout.contains("echo answers"), "{}", finished.story());
}

#[test]
fn a_fault_without_effect_is_inconclusive() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let finished = run(&world, &world.hosts[0], &calm(&[&CUT.replace("for: 3s", "for: 1s")]));
    let report = finished.expect_exit(8).json();
    assert_eq!(report["parts"][0]["measured"], false, "{report:#}");
    assert_eq!(report["verdict"], "inconclusive", "{report:#}");
}

#[test]
fn a_guard_reverts_within_its_interval() {
    needs!(Root, Nftables);
    let world = World::new(2);
    world.echo(1, 7);
    let guard =
        ECHO.replace("name: echo answers", "name: the site is up").replace("every: 200ms", "every: 500ms");
    let text = format!("{}stop-when:\n{guard}", calm(&[LONG]));
    let mut trial = Trial::begin(&world, &world.hosts[0], &text);
    let at = |event: &serde_json::Value| event["at_ms"].as_u64().expect("every event has its time");
    let injected = at(&trial.injected());
    let tripped = at(&trial.event("guard-tripped"));
    let lifted = at(&trial.lifted());
    // Half a second to the next sample and 300 ms of its time-out, with three-fold slack.
    assert!(tripped - injected <= 2400, "it tripped only after {} ms", tripped - injected);
    assert!(lifted >= tripped && lifted - tripped <= 1500, "reverted {} ms after", lifted - tripped);
    let finished = trial.finish();
    let report = finished.expect_exit(5).json();
    assert!(report["guards"][0]["tripped"].is_string(), "{report:#}");
}

/// A run of an endless fault is stopped by a signal when an event has come: it reverts, reports, and exits with 6.
fn stopped(signal: Signal, text: &str, when: &str) {
    let world = World::new(2);
    world.echo(1, 7);
    let mut trial = Trial::begin(&world, &world.hosts[0], text);
    trial.event(when);
    trial.run.signal(signal);
    let begun = Instant::now();
    holds(&format!("the run to end after {signal:?}"), PATIENCE, || trial.run.ended());
    assert!(begun.elapsed() < Duration::from_secs(10), "it took {:?}", begun.elapsed());
    assert!(trial.has("interrupted"), "the interruption is not in the events");
    let finished = trial.finish();
    let report = finished.expect_exit(6).json();
    assert_eq!(report["verdict"], "interrupted", "{report:#}");
    world.restored(SOON);
}

#[test]
fn control_c_during_the_baseline_stops_the_run() {
    needs!(Root, Nftables);
    stopped(Signal::INT, &format!("{}baseline: 60s\n", document(ECHO, &[CUT])), "sample");
}

#[test]
fn control_c_during_the_fault_stops_the_run() {
    needs!(Root, Nftables);
    stopped(Signal::INT, &document(ECHO, &[LONG]), "injected");
}

#[test]
fn sigterm_during_the_fault_stops_the_run() {
    needs!(Root, Nftables);
    stopped(Signal::TERM, &document(ECHO, &[LONG]), "injected");
}

#[test]
fn a_closed_terminal_during_the_fault_stops_the_run() {
    needs!(Root, Nftables);
    stopped(Signal::HUP, &document(ECHO, &[LONG]), "injected");
}

#[test]
fn sigterm_while_injecting_stops_the_run() {
    needs!(Root, Nftables);
    stopped(Signal::TERM, &document(ECHO, &[LONG]), "injecting");
}

#[test]
fn sigterm_during_a_wait_stops_the_run() {
    needs!(Root, Nftables);
    stopped(Signal::TERM, &document(ECHO, &["{ wait: 60s }"]), "step-began");
}

#[test]
fn control_c_during_the_recovery_stops_the_run() {
    needs!(Root, Nftables, Redis);
    let world = World::new(1);
    world.redis(0, 6379);
    // What is killed does not come back, so the recovery lasts.
    let hypothesis = "  - name: redis accepts\n    tcp: { address: \"127.0.0.1:6379\" }\n    every: 200ms\n";
    let step = "{ fault: { kill: {} }, in: { process: { listening: 6379 } }, for: 1s }";
    let text = document(hypothesis, &[step]).replace("recovery: 10s", "recovery: 60s");
    let mut trial = Trial::begin(&world, &world.hosts[0], &text);
    trial.event("recovery-began");
    trial.run.signal(Signal::INT);
    trial.finish().expect_exit(6);
}

#[test]
fn a_second_signal_does_not_skip_the_revert() {
    needs!(Root, Nftables);
    let world = World::new(2);
    world.echo(1, 7);
    let mut trial = Trial::begin(&world, &world.hosts[0], &document(ECHO, &[LONG]));
    trial.injected();
    trial.run.signal(Signal::INT);
    for _ in 0..3 {
        if !trial.run.ended() {
            trial.run.signal(Signal::INT);
        }
    }
    holds("the run to end", PATIENCE, || trial.run.ended());
    assert!(trial.has("lifted"), "the revert was skipped");
    trial.finish().expect_exit(6);
    world.restored(SOON);
}

#[test]
fn a_signal_at_any_moment_leaves_the_host_as_it_was() {
    needs!(Root, Nftables);
    let world = World::new(2);
    world.echo(1, 7);
    let text = document(ECHO, &[&CUT.replace("for: 3s", "for: 300ms")]);
    for attempt in 0..16 {
        let mut trial = Trial::begin(&world, &world.hosts[0], &text);
        // From before its first event to after its last: a run of this kind takes about a second and a half.
        thread::sleep(Duration::from_millis(attempt * 60));
        let over = trial.run.ended();
        if !over {
            trial.run.signal(Signal::TERM);
        }
        holds("the run to end", PATIENCE, || trial.run.ended());
        let begun = trial.has("started");
        let finished = trial.finish();
        match finished.status.code() {
            Some(6) => assert!(!over, "{}", finished.story()),
            // It may be over before the signal, or the signal may come before main does.
            Some(5 | 8) => assert!(attempt > 8, "the signal was lost: {}", finished.story()),
            None => assert!(!begun, "it was killed while it ran: {}", finished.story()),
            _ => panic!("{}", finished.story()),
        }
        world.restored(SOON);
    }
}
