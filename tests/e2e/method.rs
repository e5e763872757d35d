//! What a method may hold besides one fault: actions with their undo, several faults at once and after another.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use squall_tests::client::{TIMEOUT, connect};
use squall_tests::needs;
use squall_tests::wait::{PATIENCE, holds};
use squall_tests::world::World;

use crate::trial::{CUT, ECHO, Trial, calm, document, run};

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
    let owner =
        fs::metadata(&file).map(|meta| std::os::unix::fs::MetadataExt::uid(&meta)).expect("it is there");
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
    let [near, far] = &world.hosts[..] else { panic!("two hosts were asked for") };
    let (one, two) = (world.echo(1, 7), world.echo(1, 8));
    let fault = |port| format!("{{ fault: {{ refuse: {{ to: [\"10.77.1.2:{port}\"] }} }}, for: 3s }}");
    let step = format!("{{ parallel: [{}, {}] }}", fault(7), fault(8));
    let mut trial = Trial::begin(&world, near, &calm(&[&step]));
    trial.run.event(&trial.events, |event| event["event"] == "injected" && event["part"] == 2);
    trial.run.event(&trial.events, |event| event["event"] == "injected" && event["part"] == 1);
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
    let finished = run(&world, &world.hosts[0], &document(ECHO, &[cut, "{ wait: 500ms }", cut]));
    let report = finished.expect_exit(5).json();
    let time =
        |part: usize, key: &str| report["parts"][part][key].as_u64().expect("both parts have their times");
    for part in [0, 1] {
        let lasted = time(part, "lifted_at_ms") - time(part, "injected_at_ms");
        assert!((900..3000).contains(&lasted), "part {part} lasted {lasted} ms: {report:#}");
    }
    let between = time(1, "injected_at_ms") - time(0, "lifted_at_ms");
    assert!((450..2000).contains(&between), "{between} ms between them: {report:#}");
}
