//! What a run leaves to read: its report, its events, and the one-line form of the command.

use std::fs;

use rustix::process::Signal;
use squall_tests::client::{TIMEOUT, connect};
use squall_tests::needs;
use squall_tests::squall::lines;
use squall_tests::wait::{PATIENCE, holds};
use squall_tests::world::World;

use crate::trial::{CUT, ECHO, LONG, SOON, Trial, document};

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
    assert!(events[0]["date"].is_string() && events[0]["seed"].is_u64(), "{:?}", events[0]);
    let times: Vec<u64> = events.iter().filter_map(|event| event["at_ms"].as_u64()).collect();
    assert_eq!(times.len(), events.len(), "every event has its time");
    assert!(times.is_sorted(), "times must not go back: {times:?}");
}

#[test]
fn one_line_injects_without_a_file() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else { panic!("two hosts were asked for") };
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
    command.args(["-c", "\"$0\" run \"$1\" 2>&1 | true; exit ${PIPESTATUS[0]}"]).arg(squall).arg(&file);
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
        assert!(finished.stdout.to_lowercase().contains(word), "`{word}` is missing: {}", finished.story());
    }
    assert!(!finished.stdout.contains('\u{1b}'), "no colour unless a terminal reads: {}", finished.story());
}
