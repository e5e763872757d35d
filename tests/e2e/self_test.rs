//! `squall-agent self-test`: every layer cleans up, as root and without, and a test that is killed leaves nothing.

use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;
use squall_tests::netns;
use squall_tests::squall::{MARK, Squall, copy_binary};
use squall_tests::wait::{PATIENCE, holds};
use squall_tests::world::World;
use squall_tests::{needs, skip};

use crate::refusal::program_under_policy;

/// The self-test, as root or as another user.
fn self_test(world: &World, user: Option<u32>) -> Squall {
    let copy = world.directory.join("squall-agent");
    copy_binary("squall-agent", &copy);
    let mut command = match user {
        None => Command::new(&copy),
        Some(user) => {
            let user = user.to_string();
            let mut command = Command::new("setpriv");
            command.args(["--reuid", &user, "--regid", &user, "--clear-groups", "--"]).arg(&copy);
            command
        }
    };
    command.args(["self-test", "--format", "json"]);
    Squall::with(command, "squall-agent self-test", &world.directory)
}

/// Processes that a self-test of this world has left, in whatever namespace.
fn left(world: &World) -> Vec<netns::Process> {
    let own = world.directory.display().to_string();
    let mut found = netns::processes();
    found.retain(|process| process.environment(MARK).as_deref() == Some(&own));
    found
}

fn whole(user: Option<u32>) {
    let world = World::new(0);
    let finished = self_test(&world, user).run();
    let report = finished.expect_exit(0).json();
    let rows = report["rows"].as_array().expect("it has rows");
    for row in rows {
        assert!(row["residue"].as_array().is_some_and(Vec::is_empty), "{row:#}");
        assert!(row["impaired"].as_u64() > Some(0), "{row:#}");
    }
    let layers = |fault: &str| -> Vec<(&str, &str)> {
        let of = rows.iter().filter(|row| row["fault"] == fault);
        of.filter_map(|row| Some((row["killed"].as_str()?, row["layer"].as_str()?))).collect()
    };
    for fault in ["partition", "refuse", "pause"] {
        let expected = [("worker", "guardian"), ("guardian", "worker"), ("both", "kernel")];
        assert_eq!(layers(fault), expected, "{fault}: {report:#}");
    }
    assert_eq!(layers("disconnect").len(), 3, "{report:#}");
    // Without root no connection can be led to a proxy, and the report says so.
    let left_out = report["left-out"].to_string().contains("outage");
    assert_eq!(
        (layers("outage").len(), left_out),
        if user.is_none() { (3, false) } else { (0, true) },
        "{report:#}"
    );
    assert_eq!(report["root"], Value::Bool(user.is_none()));
    holds("the self-test's processes to end", PATIENCE, || left(&world).is_empty());
}

#[test]
fn every_layer_cleans_up_as_root() {
    needs!(Root, Nftables, Cgroup2, Bpf);
    whole(None);
}

#[test]
fn every_layer_cleans_up_without_root() {
    needs!(Root, Nftables, UserNamespaces);
    whole(Some(65534));
}

#[test]
fn what_the_hosts_policy_forbids_is_left_out_and_said_once() {
    needs!(Root, Nftables);
    let world = World::new(1);
    for (policy, deaths, exit) in [("{ \"allow\": [\"pause\"] }", 3, 0), ("{ \"allow\": [] }", 0, 4)] {
        let arguments = ["self-test", "--format", "json"];
        let finished = program_under_policy(&world, policy, "squall-agent", &arguments).run();
        if finished.status.code() == Some(99) {
            skip!("overlay file systems cannot be mounted here, and /etc is not ours to change");
        }
        let report = finished.expect_exit(exit).json();
        assert_eq!(report["rows"].as_array().map(Vec::len), Some(deaths), "{report:#}");
        let left_out = report["left-out"].as_array().expect("there is such a list");
        let left_out: Vec<&str> = left_out.iter().filter_map(Value::as_str).collect();
        for (trial, kind) in [("partition", "block"), ("latency (queue)", "shape"), ("kill", "signal")] {
            let said: Vec<_> = left_out.iter().filter(|said| said.starts_with(trial)).collect();
            let why = format!("{trial}: this host's policy does not allow `{kind}`");
            assert!(said.len() == 1 && said[0].starts_with(&why), "{left_out:?}");
        }
    }
}

#[test]
fn one_that_is_killed_or_interrupted_leaves_nothing() {
    needs!(Root, Nftables);
    for signal in [Signal::KILL, Signal::INT] {
        let world = World::new(0);
        // On a machine that stands still meanwhile it may have ended by itself before the signal: then once more.
        let ended_by_it = (0..5).any(|_| {
            let mut run = self_test(&world, None).start();
            // The test itself, its agent's two processes, and the one that is there to suffer.
            holds("an agent to be at work", PATIENCE, || left(&world).len() >= 4 || run.ended());
            if !run.ended() {
                run.signal(signal);
            }
            let finished = run.finish();
            holds("everything to be gone", PATIENCE, || left(&world).is_empty());
            finished.status.code() != Some(0)
        });
        assert!(ended_by_it, "{signal:?} never ended it");
    }
}
