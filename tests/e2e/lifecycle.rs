//! A run from its beginning to its end, every way that it can end, and the exit code that says so.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use squall_tests::client::{TIMEOUT, connect};
use squall_tests::needs;
use squall_tests::squall::lines;
use squall_tests::wait::{PATIENCE, holds};
use squall_tests::world::World;

use crate::trial::{Trial, calm, document, run};

/// A hypothesis about the echo server on the other host.
const ECHO: &str =
    "  - name: echo answers\n    tcp: { address: \"10.77.1.2:7\", timeout: 300ms }\n    every: 200ms\n";
/// The fault that makes it fail.
const CUT: &str = "{ fault: { partition: { to: [\"10.77.1.2:7\"] } }, for: 3s }";
/// The same for longer than any test waits.
const LONG: &str = "{ fault: { partition: { to: [\"10.77.1.2:7\"] } }, for: 60s }";

/// How long a host may stay changed after its run was told to end: what takes milliseconds, on a busy machine.
const SOON: Duration = Duration::from_secs(3);

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
    assert!(
        claim["during"]["bad"].as_u64().is_some_and(|bad| bad >= 3),
        "{report:#}"
    );
    assert_eq!(claim["recovered"], true, "{report:#}");
    assert!(report["well_again_ms"].is_u64(), "{report:#}");
    assert!(
        report["sentence"]
            .as_str()
            .is_some_and(|sentence| sentence.contains("echo answers")),
        "{report:#}"
    );
    assert_eq!(report["stuck"].as_array().map(Vec::len), Some(0), "{report:#}");
    assert!(
        report["undone"]
            .as_array()
            .is_some_and(|undone| !undone.is_empty()),
        "{report:#}"
    );
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
    let finished = run(
        &world,
        &world.hosts[0],
        &calm(&[&CUT.replace("for: 3s", "for: 1s")]),
    );
    let report = finished.expect_exit(8).json();
    assert_eq!(report["parts"][0]["measured"], false, "{report:#}");
    assert_eq!(report["verdict"], "inconclusive", "{report:#}");
}

#[test]
fn a_guard_reverts_within_its_interval() {
    needs!(Root, Nftables);
    let world = World::new(2);
    world.echo(1, 7);
    let guard = ECHO
        .replace("name: echo answers", "name: the site is up")
        .replace("every: 200ms", "every: 500ms");
    let text = format!("{}stop-when:\n{guard}", calm(&[LONG]));
    let mut trial = Trial::begin(&world, &world.hosts[0], &text);
    let at = |event: &serde_json::Value| event["at_ms"].as_u64().expect("every event has its time");
    let injected = at(&trial.injected());
    let tripped = at(&trial.event("guard-tripped"));
    let lifted = at(&trial.lifted());
    // Half a second to the next sample and 300 ms of its time-out, with three-fold slack.
    assert!(
        tripped - injected <= 2400,
        "it tripped only after {} ms",
        tripped - injected
    );
    assert!(
        lifted >= tripped && lifted - tripped <= 1500,
        "reverted {} ms after",
        lifted - tripped
    );
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
    holds(&format!("the run to end after {signal:?}"), PATIENCE, || {
        trial.run.ended()
    });
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "it took {:?}",
        begun.elapsed()
    );
    assert!(trial.has("interrupted"), "the interruption is not in the events");
    let finished = trial.finish();
    let report = finished.expect_exit(6).json();
    assert_eq!(report["verdict"], "interrupted", "{report:#}");
    world.restored(SOON);
}

#[test]
fn control_c_during_the_baseline_stops_the_run() {
    needs!(Root, Nftables);
    stopped(
        Signal::INT,
        &format!("{}baseline: 60s\n", document(ECHO, &[CUT])),
        "sample",
    );
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

/// A directory in which the unprivileged prober may write.
fn open_place(world: &World) -> std::path::PathBuf {
    let place = world.place("open");
    fs::set_permissions(&place, fs::Permissions::from_mode(0o777)).expect("root may open a directory");
    place
}

fn action(file: &Path) -> String {
    let file = file.display();
    format!(
        "{{ action: {{ process: {{ argv: [\"touch\", \"{file}\"] }} }}, \
         undo: {{ process: {{ argv: [\"rm\", \"{file}\"] }} }} }}"
    )
}

#[test]
fn an_action_is_done_and_undone() {
    needs!(Root, Nftables);
    let world = World::new(1);
    let file = open_place(&world).join("done");
    let mut trial = Trial::begin(&world, &world.hosts[0], &calm(&[&action(&file), "{ wait: 1s }"]));
    trial.event("action-ended");
    holds("the action's file", Duration::from_secs(1), || file.exists());
    let owner = fs::metadata(&file)
        .map(|meta| std::os::unix::fs::MetadataExt::uid(&meta))
        .expect("it is there");
    assert_ne!(owner, 0, "an action never runs as root unless it is asked for");
    let finished = trial.finish();
    let report = finished.expect_exit(0).json();
    assert!(!file.exists(), "the undo was not played");
    assert_eq!(report["actions"][0]["undo"]["good"], true, "{report:#}");
}

#[test]
fn an_action_is_undone_after_an_interruption_too() {
    needs!(Root, Nftables);
    let world = World::new(1);
    let file = open_place(&world).join("done");
    let mut trial = Trial::begin(&world, &world.hosts[0], &calm(&[&action(&file), "{ wait: 60s }"]));
    trial.event("action-ended");
    trial.run.signal(Signal::INT);
    trial.finish().expect_exit(6);
    assert!(!file.exists(), "the undo was not played");
}

#[test]
fn a_failing_action_stops_the_method_and_reverts() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let steps = ["{ action: { process: { argv: [\"false\"] } } }", CUT];
    let mut trial = Trial::begin(&world, &world.hosts[0], &calm(&steps));
    holds("the run to end", PATIENCE, || trial.run.ended());
    assert!(!trial.has("injecting"), "the next step was done");
    let finished = trial.finish();
    assert_ne!(finished.status.code(), Some(0), "{}", finished.story());
}

#[test]
fn parallel_faults_are_live_at_the_same_time() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else {
        panic!("two hosts were asked for")
    };
    let (one, two) = (world.echo(1, 7), world.echo(1, 8));
    let fault = |port| format!("{{ fault: {{ refuse: {{ to: [\"10.77.1.2:{port}\"] }} }}, for: 3s }}");
    let step = format!("{{ parallel: [{}, {}] }}", fault(7), fault(8));
    let mut trial = Trial::begin(&world, near, &calm(&[&step]));
    trial.run.event(&trial.events, |event| {
        event["event"] == "injected" && event["part"] == 2
    });
    trial.run.event(&trial.events, |event| {
        event["event"] == "injected" && event["part"] == 1
    });
    for port in [7, 8, 7, 8, 7, 8] {
        connect(&near.netns, (far.v4, port).into(), TIMEOUT).expect_err("both ports are refused");
    }
    assert!(!trial.has("lifted"), "a fault was over before it was looked at");
    let finished = trial.finish();
    let report = finished.expect_exit(0).json();
    assert_eq!(report["parts"].as_array().map(Vec::len), Some(2), "{report:#}");
    for service in [one, two] {
        service.dial(near, far.v4).expect("reached after the faults");
    }
}

#[test]
fn steps_run_in_order_and_each_is_lifted_at_its_time() {
    needs!(Root, Nftables);
    let world = World::new(2);
    world.echo(1, 7);
    let cut = "{ fault: { partition: { to: [\"10.77.1.2:7\"] } }, for: 1s }";
    let finished = run(
        &world,
        &world.hosts[0],
        &document(ECHO, &[cut, "{ wait: 500ms }", cut]),
    );
    let report = finished.expect_exit(5).json();
    let time = |part: usize, key: &str| {
        report["parts"][part][key]
            .as_u64()
            .expect("both parts have their times")
    };
    for part in [0, 1] {
        let lasted = time(part, "lifted_at_ms") - time(part, "injected_at_ms");
        assert!(
            (900..3000).contains(&lasted),
            "part {part} lasted {lasted} ms: {report:#}"
        );
    }
    let between = time(1, "injected_at_ms") - time(0, "lifted_at_ms");
    assert!(
        (450..2000).contains(&between),
        "{between} ms between them: {report:#}"
    );
}

#[test]
fn the_events_of_a_killed_run_can_be_read() {
    needs!(Root, Nftables);
    let world = World::new(2);
    world.echo(1, 7);
    let mut trial = Trial::begin(&world, &world.hosts[0], &document(ECHO, &[LONG]));
    trial.injected();
    trial.event("measured");
    trial.run.signal(Signal::KILL);
    holds("it to be dead", PATIENCE, || trial.run.ended());
    world.restored(SOON);
    let events = lines(&trial.events);
    assert_eq!(events[0]["event"], "started", "{events:?}");
    assert!(
        events[0]["date"].is_string() && events[0]["seed"].is_u64(),
        "{:?}",
        events[0]
    );
    let times: Vec<u64> = events
        .iter()
        .filter_map(|event| event["at_ms"].as_u64())
        .collect();
    assert_eq!(times.len(), events.len(), "every event has its time");
    assert!(times.is_sorted(), "times must not go back: {times:?}");
}

#[test]
fn status_shows_what_is_active_and_halt_ends_it() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let host = &world.hosts[0];
    world.echo(1, 7);
    host.squall(&["status"]).run().expect_exit(0);
    let mut trial = Trial::begin(&world, host, &document(ECHO, &[LONG]));
    let run = trial.event("started")["run"]
        .as_str()
        .expect("a run has a name")
        .to_owned();
    trial.injected();
    let status = host.squall(&["status"]).run();
    status.expect_exit(0);
    assert!(
        status.stdout.contains(&run) && status.stdout.contains("10.77.1.2:7"),
        "{}",
        status.story()
    );
    let json = host.squall(&["status", "--format", "json"]).run();
    assert!(
        json.expect_exit(0).json().to_string().contains(&run),
        "{}",
        json.story()
    );
    // Another host has nothing to do with it.
    let other = world.hosts[1].squall(&["status"]).run();
    assert!(!other.expect_exit(0).stdout.contains(&run), "{}", other.story());

    let halt = host.squall(&["halt"]).run();
    halt.expect_exit(0);
    holds("the run to end", PATIENCE, || trial.run.ended());
    trial.finish().expect_exit(6);
    world.restored(SOON);
}

#[test]
fn halt_with_nothing_active_says_so() {
    needs!(Root, Nftables);
    let world = World::new(1);
    let halt = world.hosts[0].squall(&["halt"]).run();
    halt.expect_exit(0);
    assert!(
        format!("{}{}", halt.stdout, halt.stderr).contains("nothing"),
        "{}",
        halt.story()
    );
}

#[test]
fn a_second_run_with_the_same_claim_is_refused_and_told_who_holds_it() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let host = &world.hosts[0];
    world.echo(1, 7);
    let mut first = Trial::begin(&world, host, &document(ECHO, &[LONG]));
    let run_id = first.event("started")["run"]
        .as_str()
        .expect("a run has a name")
        .to_owned();
    first.injected();
    let second = run(
        &world,
        host,
        &calm(&["{ fault: { refuse: { to: [\"10.77.1.2\"] } }, for: 2s }"]),
    );
    second.expect_exit(4);
    assert!(
        second.story().contains(&run_id),
        "the run that holds it is not named: {}",
        second.story()
    );
    assert!(!first.has("lifted"), "the first run must not be touched");
    first.run.signal(Signal::INT);
    first.finish().expect_exit(6);
}

#[test]
fn two_runs_with_different_claims_share_one_agent() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let host = &world.hosts[0];
    let (one, two) = (world.echo(1, 7), world.echo(1, 8));
    let refuse = |port, time| {
        calm(&[&format!(
            "{{ fault: {{ refuse: {{ to: [\"10.77.1.2:{port}\"] }} }}, for: {time} }}"
        )])
    };
    let far = world.hosts[1].v4;
    let mut first = Trial::begin(&world, host, &refuse(7, "3s"));
    first.injected();
    let mut second = Trial::begin(&world, host, &refuse(8, "6s"));
    second.injected();
    host.agents();
    let knock = |port| connect(&host.netns, (far, port).into(), TIMEOUT).is_ok();
    for _ in 0..4 {
        assert!(!knock(7) && !knock(8), "both must be refused");
    }
    // The first started the agent; its end must not end the second's fault.
    first.finish().expect_exit(0);
    one.dial(host, far).expect("the first fault is over");
    assert!(!knock(8), "the second fault must live on");
    second.finish().expect_exit(0);
    two.dial(host, far).expect("the second fault is over");
}

#[test]
fn a_resident_agent_is_joined_and_stays() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let host = &world.hosts[0];
    world.echo(1, 7);
    let mut agent = host.agent(&["run"]).start();
    let (guardian, worker) = host.agents();
    assert_eq!(
        guardian.pid,
        agent.pid(),
        "the guardian is the parent, and the process that was started"
    );
    run(
        &world,
        host,
        &document(ECHO, &[&CUT.replace("for: 3s", "for: 1s")]),
    )
    .expect_exit(5);
    assert!(
        guardian.lives() && worker.lives(),
        "a resident agent stays when a run is over"
    );
    let status = host.agent(&["status"]).run();
    status.expect_exit(0);
    agent.signal(Signal::TERM);
    agent.finish().expect_exit(0);
}

#[test]
fn one_line_injects_without_a_file() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else {
        panic!("two hosts were asked for")
    };
    world.echo(1, 7);
    let arguments = ["inject", "refuse", "--to", "10.77.1.2:7", "--for", "3s"];
    let printed = near.squall(&[&arguments[..], &["--print"]].concat()).run();
    printed.expect_exit(0);
    let file = world.file("printed.yaml", &printed.stdout);
    near.squall(&["check", &file]).run().expect_exit(0);
    let mut run = near.squall(&arguments).start();
    holds("the port to be refused", PATIENCE, || {
        assert!(!run.ended(), "it ended without a refusal: {}", run.story());
        connect(&near.netns, (far.v4, 7).into(), TIMEOUT).is_err()
    });
    for _ in 0..3 {
        connect(&near.netns, (far.v4, 7).into(), TIMEOUT).expect_err("it is refused");
    }
    run.finish().expect_exit(0);
    connect(&near.netns, (far.v4, 7).into(), TIMEOUT).expect("reached after the fault");
}

#[test]
fn a_junit_file_names_every_hypothesis() {
    needs!(Root, Nftables);
    let world = World::new(2);
    world.echo(1, 7);
    let junit = world.directory.join("junit.xml").display().to_string();
    let trial = Trial::with(
        &world,
        &world.hosts[0],
        &document(ECHO, &[&CUT.replace("for: 3s", "for: 1s")]),
        &["--junit", &junit],
    );
    trial.finish().expect_exit(5);
    let text = fs::read_to_string(&junit).expect("the file was asked for");
    assert!(
        text.contains("<testsuite") && text.contains("echo answers") && text.contains("<failure"),
        "{text}"
    );
}

#[test]
fn a_closed_pipe_does_not_prevent_the_revert() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let host = &world.hosts[0];
    world.echo(1, 7);
    let file = world.file("cut.yaml", document(ECHO, &[&CUT.replace("for: 3s", "for: 2s")]));
    let squall = squall_tests::squall::binary("squall");
    let mut command = host.netns.command("bash");
    // Both outputs go to a reader that is gone at once.
    command
        .args(["-c", "\"$0\" run \"$1\" 2>&1 | true; exit ${PIPESTATUS[0]}"])
        .arg(squall)
        .arg(&file);
    command.env("SQUALL_STATE_DIR", &host.state);
    let run =
        squall_tests::squall::Squall::with(command, "squall run with a closed pipe", &world.directory).run();
    run.expect_exit(5);
    world.restored(SOON);
}

#[test]
fn the_terminals_report_ends_with_what_was_not_undone() {
    needs!(Root, Nftables);
    let world = World::new(2);
    world.echo(1, 7);
    let host = &world.hosts[0];
    let file = world.file("cut.yaml", document(ECHO, &[&CUT.replace("for: 3s", "for: 1s")]));
    let finished = host.squall(&["run", &file]).run();
    finished.expect_exit(5);
    for word in ["echo answers", "deviated", "not undone", "seed"] {
        assert!(
            finished.stdout.to_lowercase().contains(word),
            "`{word}` is missing: {}",
            finished.story()
        );
    }
    assert!(
        !finished.stdout.contains('\u{1b}'),
        "no colour unless a terminal reads: {}",
        finished.story()
    );
}
