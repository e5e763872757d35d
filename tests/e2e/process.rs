//! Kill and pause on real services: who is hit, who never is, and what the report says.

use std::collections::BTreeSet;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use squall_tests::client::Steady;
use squall_tests::needs;
use squall_tests::netns::{self, Process};
use squall_tests::squall::Squall;
use squall_tests::wait::{PATIENCE, holds};
use squall_tests::world::World;

use crate::trial::{CALM, SHORT, Trial, calm, document, evidence, impaired, run};

/// What happened to the targets, by a report: milliseconds after the fault began, and words.
fn incidents(report: &Value) -> Vec<(u64, String)> {
    let list = evidence(report)["incidents"].as_array().cloned().unwrap_or_default();
    list.iter()
        .map(|incident| {
            let after = incident["after_ms"].as_u64().unwrap_or_else(|| panic!("no time in {incident}"));
            (after, incident["what"].as_str().unwrap_or_default().to_owned())
        })
        .collect()
}

#[test]
fn a_killed_nginx_worker_is_replaced_and_the_report_shows_when() {
    needs!(Root, Nftables, Nginx);
    let world = World::new(1);
    let host = &world.hosts[0];
    let nginx = world.nginx(0, 8080);
    let before: BTreeSet<i32> = nginx.workers().iter().map(|worker| worker.pid).collect();
    let hypothesis = "  - name: the page is served\n    http: { url: \"http://127.0.0.1:8080/\" }\n    every: 200ms\n    \
                      expect: { status: 200 }\n";
    let step = "{ fault: { kill: { pick: 1 } }, in: { process: { name: nginx, args: worker } }, for: 3s }";
    let finished = run(&world, host, &document(hypothesis, &[step]));
    let report = finished.expect_exit(0).json();
    let after: BTreeSet<i32> = nginx.workers().iter().map(|worker| worker.pid).collect();
    assert_eq!(after.len(), 2, "nginx must have two workers again");
    let ended: Vec<&i32> = before.difference(&after).collect();
    assert_eq!(ended.len(), 1, "exactly one worker must be another one: {before:?}, {after:?}");
    assert_eq!(impaired(&report), 1, "{report:#}");
    assert_eq!(evidence(&report)["unit"], "processes", "{report:#}");
    let seen = incidents(&report);
    let pid = ended[0].to_string();
    assert!(
        seen.iter().any(|(after, what)| *after < 3000 && what.contains(&pid) && what.contains("ended")),
        "when {pid} ended is not in {seen:?}"
    );
    let new: Vec<String> = after.difference(&before).map(i32::to_string).collect();
    assert!(
        seen.iter().any(|(_, what)| what.contains(&new[0])),
        "when the new worker {new:?} came is not in {seen:?}"
    );
    let not_undone = report["not_undone"].as_array().map_or(0, Vec::len);
    assert!(not_undone >= 1, "a kill is not undone, and the report must say so: {report:#}");
}

#[test]
fn a_killed_redis_stays_down_and_the_run_deviates() {
    needs!(Root, Nftables, Redis);
    let world = World::new(1);
    let host = &world.hosts[0];
    let redis = world.redis(0, 6379);
    let hypothesis =
        "  - name: redis accepts connections\n    tcp: { address: \"127.0.0.1:6379\" }\n    every: 200ms\n";
    let step = "{ fault: { kill: {} }, in: { process: { listening: 6379 } }, for: 2s }";
    let text = document(hypothesis, &[step]).replace("recovery: 10s", "recovery: 1s");
    let finished = run(&world, host, &text);
    let report = finished.expect_exit(5).json();
    assert!(Process::of(redis.pid).is_none_or(|process| process.state == 'Z'), "redis still runs");
    assert_eq!(impaired(&report), 1);
    assert_eq!(report["hypotheses"][0]["recovered"], false, "{report:#}");
    assert!(report["hypotheses"][0]["during"]["bad"].as_u64().is_some_and(|bad| bad >= 2), "{report:#}");
}

/// Which of six like processes two kills with this seed hit, by their place.
fn picked(seed: u64) -> BTreeSet<usize> {
    let world = World::new(1);
    let sleepers: Vec<Process> = (0..6).map(|_| world.program(0, None, &["sleep", "600"])).collect();
    let text = calm(&["{ fault: { kill: { pick: 2 } }, in: { process: { name: sleep } }, for: 1s }"]);
    let mut trial = Trial::with(&world, &world.hosts[0], &text, &["--seed", &seed.to_string()]);
    holds("the run to end", PATIENCE, || trial.run.ended());
    let finished = trial.finish();
    let report = finished.expect_exit(0).json();
    assert_eq!(report["seed"].as_u64(), Some(seed), "the seed must be in the report");
    let hit =
        sleepers.iter().enumerate().filter(|(_, sleeper)| !sleeper.lives()).map(|(place, _)| place).collect();
    assert_eq!(impaired(&report), 2, "{report:#}");
    hit
}

#[test]
fn the_same_seed_picks_the_same_processes() {
    needs!(Root, Nftables);
    let first = picked(7);
    assert_eq!(first.len(), 2);
    assert_eq!(picked(7), first, "seed 7 must pick the same two again");
    // Fifteen pairs are possible: five seeds that all pick the first one's would be a choice that ignores the seed.
    assert!((8..13).any(|seed| picked(seed) != first), "the seed changes nothing");
}

#[test]
fn a_second_signal_ends_what_the_first_did_not() {
    needs!(Root, Nftables);
    let world = World::new(1);
    let stubborn = world.program(0, None, &["bash", "-c", "trap '' TERM; while :; do sleep 0.1; done"]);
    let step = format!(
        "{{ fault: {{ kill: {{ signal: TERM, then: {{ signal: KILL, after: 1s }} }} }}, in: {{ process: {{ pid: {} }} }}, \
         for: 3s }}",
        stubborn.pid
    );
    // The trap is set by the shell itself, a moment after it runs.
    holds("the shell to ignore SIGTERM", PATIENCE, || ignores_term(stubborn.pid));
    let mut trial = Trial::begin(&world, &world.hosts[0], &calm(&[&step]));
    trial.injected();
    assert!(stubborn.lives(), "SIGTERM was to be ignored");
    holds("the second signal", Duration::from_secs(3), || !stubborn.lives());
    let finished = trial.finish();
    let report = finished.expect_exit(0).json();
    let ended = incidents(&report).into_iter().find(|(_, what)| what.contains("ended"));
    let (after, _) = ended.unwrap_or_else(|| panic!("its end is not in {report:#}"));
    assert!(
        (1000..3000).contains(&after),
        "it ended {after} ms after the fault began, not after the second signal"
    );
}

fn ignores_term(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let set = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    set.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).is_some_and(|set| set >> 14 & 1 == 1)
}

#[test]
fn kill_again_and_again_hits_the_replacements() {
    needs!(Root, Nftables, Nginx);
    let world = World::new(1);
    let nginx = world.nginx(0, 8080);
    let master = Process::of(nginx.pid).expect("nginx runs");
    let step = "{ fault: { kill: { pick: 1, every: 500ms } }, in: { process: { name: nginx, args: worker } }, for: 3s }";
    let finished = run(&world, &world.hosts[0], &calm(&[step]));
    let report = finished.expect_exit(0).json();
    let count = impaired(&report);
    assert!((3..=7).contains(&count), "{count} kills in 3 s, one each 500 ms: {report:#}");
    assert!(master.lives(), "the master was not in scope");
    holds("two workers again", PATIENCE, || nginx.workers().len() == 2);
}

#[test]
fn a_paused_redis_hangs_and_then_answers() {
    needs!(Root, Nftables, Redis);
    let world = World::new(1);
    let host = &world.hosts[0];
    let (hit, spared) = (world.redis(0, 6379), world.redis(0, 6380));
    let loopback = [127, 0, 0, 1].into();
    let mut other = spared.dial(host, loopback).expect("reached");
    let witness = Steady::start("the other Redis", Duration::from_millis(20), move || other.talk());
    let mut patient =
        hit.dial_within(host, loopback, Duration::from_secs(20)).expect("reached before the fault");
    patient.talk().expect("answers before the fault");
    let step = "{ fault: { pause: {} }, in: { process: { listening: 6379 } }, for: 3s }";
    let mut trial = Trial::begin(&world, host, &calm(&[step]));
    trial.injected();
    // The kernel still accepts; nobody answers.
    let mut hanging = hit.dial_within(host, loopback, SHORT).expect("the kernel accepts");
    let error = hanging.talk().expect_err("nobody may answer");
    assert!(matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut), "{error}");
    assert!(!trial.has("lifted"), "the fault was over before it was looked at");
    patient.talk().expect("the answer comes when the pause is over");
    trial.lifted();
    let finished = trial.finish();
    let report = finished.expect_exit(0).json();
    assert_eq!(impaired(&report), 1, "{report:#}");
    witness.saw_nothing(20);
    assert!(Process::of(hit.pid).is_some_and(|process| process.halted().is_none()), "redis must run again");
}

#[test]
fn a_process_that_was_stopped_before_stays_stopped() {
    needs!(Root, Nftables);
    let world = World::new(1);
    let running = world.program(0, None, &["sleep", "601"]);
    let stopped = world.program(0, None, &["sleep", "601"]);
    assert!(netns::signal(&stopped, Signal::STOP));
    let halted = |process: &Process| Process::of(process.pid).and_then(|process| process.halted());
    holds("the second sleeper to stop", PATIENCE, || halted(&stopped) == Some("stopped"));
    world.as_found();
    let step = "{ fault: { pause: {} }, in: { process: { name: sleep } }, for: 2s }";
    let mut trial = Trial::begin(&world, &world.hosts[0], &calm(&[step]));
    trial.injected();
    assert!(halted(&running).is_some(), "the first sleeper must be paused");
    trial.finish().expect_exit(0);
    assert_eq!(halted(&running), None, "the first sleeper must run");
    assert_eq!(halted(&stopped), Some("stopped"), "the second sleeper must still be stopped");
}

#[test]
fn a_pause_covers_every_thread() {
    needs!(Root, Nftables, Redis);
    let world = World::new(1);
    let redis = world.redis(0, 6379);
    let step =
        format!("{{ fault: {{ pause: {{}} }}, in: {{ process: {{ pid: {} }} }}, for: 2s }}", redis.pid);
    let mut trial = Trial::begin(&world, &world.hosts[0], &calm(&[&step]));
    trial.injected();
    let threads: Vec<i32> = std::fs::read_dir(format!("/proc/{}/task", redis.pid))
        .expect("redis runs")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    assert!(threads.len() > 1, "redis has background threads");
    for thread in threads {
        let thread = Process::of(thread).expect("the thread is there");
        assert!(thread.halted().is_some(), "a thread of redis runs: {thread:?}");
    }
    trial.finish().expect_exit(0);
}

/// Runs a fault that must be refused, and gives what was said.
fn refused(world: &World, scope: &str) -> String {
    let step = format!("{{ fault: {{ kill: {{}} }}, in: {{ process: {{ {scope} }} }}, for: 1s }}");
    let mut trial = Trial::begin(world, &world.hosts[0], &document(CALM, &[&step]));
    holds("the run to end", PATIENCE, || trial.run.ended());
    assert!(!trial.has("injected"), "something was injected");
    let finished = trial.finish();
    finished.expect_exit(4);
    finished.story()
}

#[test]
fn the_first_process_and_squalls_own_ancestors_are_never_hit() {
    needs!(Root, Nftables);
    let world = World::new(1);
    // This one needs no look at a host: the file itself is wrong.
    let step = "{ fault: { kill: {} }, in: { process: { pid: 1 } }, for: 1s }";
    run(&world, &world.hosts[0], &calm(&[step])).expect_exit(3);
    // A shell that aims squall at itself. Were that not refused, it would end by a signal and not with squall's code.
    let squall = squall_tests::squall::binary("squall");
    let template = world
        .file("template.yaml", calm(&["{ fault: { kill: {} }, in: { process: { pid: PARENT } }, for: 1s }"]));
    let file = world.directory.join("aimed.yaml");
    let script = "sed \"s/PARENT/$$/\" \"$1\" >\"$2\"; \"$0\" run \"$2\"; exit $?";
    let host = &world.hosts[0];
    let mut command = host.netns.command("sh");
    command.args(["-c", script]).arg(squall).arg(template).arg(file).env("SQUALL_STATE_DIR", &host.state);
    let finished = Squall::with(command, "a shell that aims squall at itself", &world.directory).run();
    finished.expect_exit(4);
}

#[test]
fn a_remote_login_is_never_hit() {
    needs!(Root, Nftables, Sshd);
    let world = World::new(1);
    let sshd = world.sshd(0, 2222);
    refused(&world, "name: sshd");
    refused(&world, &format!("pid: {}", sshd.pid));
    refused(&world, "listening: 2222");
    assert!(sshd.lives(), "sshd must still run");
}

#[test]
fn squalls_own_processes_are_never_hit() {
    needs!(Root, Nftables);
    let world = World::new(1);
    let sleeper = world.program(0, None, &["sleep", "600"]);
    // Matches the sleeper, and everything of Squall's that runs here: command line, guardian, worker, prober.
    let step = "{ fault: { kill: {} }, in: { process: { args: \".\" } }, for: 2s }";
    let finished = run(&world, &world.hosts[0], &calm(&[step]));
    let report = finished.expect_exit(0).json();
    assert!(!sleeper.lives(), "the sleeper was in scope");
    let aimed = report["parts"][0]["targets"].to_string();
    assert!(aimed.contains(&sleeper.pid.to_string()), "{report:#}");
    assert_eq!(impaired(&report), 1, "only the sleeper may be hit: {report:#}");
}

#[test]
fn a_pick_larger_than_what_matches_is_refused() {
    needs!(Root, Nftables);
    let world = World::new(1);
    let sleeper = world.program(0, None, &["sleep", "600"]);
    let step = "{ fault: { kill: { pick: 2 } }, in: { process: { name: sleep } }, for: 1s }";
    run(&world, &world.hosts[0], &calm(&[step])).expect_exit(4);
    assert!(sleeper.lives(), "nothing may be hit");
}
