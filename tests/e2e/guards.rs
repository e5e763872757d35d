//! What stops a run: guards that the agent looks at itself, and budgets.

use std::collections::BTreeSet;
use std::fs;

use rustix::process::Signal;
use serde_json::Value;
use squall_tests::host::Host;
use squall_tests::needs;
use squall_tests::netns::{self, Process};
use squall_tests::wait::{PATIENCE, holds, until};
use squall_tests::world::World;

use crate::trial::{LONG, SOON, Trial, calm, document};

/// A guard that holds as long as a file is there.
fn there(path: &str) -> String {
    format!(
        "stop-when:\n  - name: the file is there\n    process: {{ argv: [test, -e, \"{path}\"] }}\n    every: 200ms\n"
    )
}

/// The process that looks at guards for the agent of a host: the only prober whose parent is not the command.
fn prober(host: &Host, command: i32) -> Option<Process> {
    host.squalls().into_iter().find(|process| process.name == "squall-prober" && process.parent != command)
}

fn field(pid: i32, key: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let value = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    value.unwrap_or_default().split_whitespace().next().unwrap_or_default().to_owned()
}

/// The sockets and pipes that a process has open.
fn open(pid: i32) -> BTreeSet<String> {
    let links = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let targets = links.filter_map(|link| fs::read_link(link.path()).ok());
    targets
        .map(|target| target.display().to_string())
        .filter(|target| target.starts_with("socket:"))
        .collect()
}

/// The command is stopped, and its lease is long: what ends the run is the agent's own look.
#[test]
fn a_guard_reverts_while_its_command_is_stopped() {
    needs!(Root, Nftables);
    let world = World::new(2);
    world.echo(1, 7);
    let host = &world.hosts[0];
    let file = world.file("guarded", "");
    let text = format!("{}{}", calm(&[LONG]), there(&file));
    let mut trial = Trial::with(&world, host, &text, &["--lease", "60s"]);
    trial.injected();
    let command = trial.run.pid();
    let prober = until("the agent's prober", PATIENCE, || prober(host, command));
    trial.run.event(&trial.events, |event| event["guard"] == true && event["phase"] == "during");
    trial.run.signal(Signal::STOP);
    // It is nobody, may nothing, and keeps nothing of the agent's alive.
    assert_eq!(field(prober.pid, "CapEff"), "0000000000000000");
    assert_eq!(field(prober.pid, "CapPrm"), "0000000000000000");
    assert_eq!(field(prober.pid, "NoNewPrivs"), "1");
    assert_eq!(Process::of(prober.pid).map(|now| now.uid), Some(65534), "it has taken a sample since");
    let (_, worker) = host.agents();
    assert_eq!(prober.parent, worker.pid);
    let shared: Vec<String> = open(prober.pid).intersection(&open(worker.pid)).cloned().collect();
    assert!(shared.is_empty(), "it has sockets of the worker's open: {shared:?}");

    fs::remove_file(&file).expect("it was there");
    holds("the agent to undo everything by itself", PATIENCE, || host.tables().is_empty());
    holds("the prober to end", PATIENCE, || !prober.lives());
    assert!(!trial.has("guard-tripped"), "the command is stopped");
    trial.run.signal(Signal::CONT);
    holds("the run to end", PATIENCE, || trial.run.ended());
    let report = trial.finish().expect_exit(5).json();
    assert!(
        report["guards"][0]["tripped"].as_str().is_some_and(|seen| seen.contains("exit 1")),
        "{report:#}"
    );
    assert!(
        report["sentence"].as_str().is_some_and(|said| said.contains("`the file is there`")),
        "{report:#}"
    );
    assert_eq!(report["parts"][0]["stuck"], serde_json::json!([]), "{report:#}");
    world.restored(SOON);
}

/// The prober is killed: a guard that nobody looks at guards nothing.
#[test]
fn a_guard_that_cannot_be_looked_at_any_more_reverts() {
    needs!(Root, Nftables);
    let world = World::new(2);
    world.echo(1, 7);
    let host = &world.hosts[0];
    let file = world.file("guarded", "");
    let mut trial = Trial::begin(&world, host, &format!("{}{}", calm(&[LONG]), there(&file)));
    trial.injected();
    let command = trial.run.pid();
    let prober = until("the agent's prober", PATIENCE, || prober(host, command));
    assert!(netns::signal(&prober, Signal::KILL));
    holds("the run to end", PATIENCE, || trial.run.ended());
    let report = trial.finish().expect_exit(8).json();
    let words = "says nothing any more: the prober ended";
    assert!(report["sentence"].as_str().is_some_and(|said| said.contains(words)), "{report:#}");
}

/// Failures are counted one by one, and the one that spends the budget ends the run.
#[test]
fn a_budget_of_requests_stops_the_run_when_it_is_spent() {
    needs!(Root, Nftables, Nginx);
    let world = World::new(2);
    world.nginx(1, 80);
    let claim = "  - name: few requests fail\n    \
                 load: { url: \"http://10.77.1.2/\", rate: 100/s, timeout: 2s }\n    \
                 budget: 60 failed\n";
    let cut = "{ fault: { partition: { to: [\"10.77.1.2:80\"] } }, for: 60s }";
    let mut trial = Trial::begin(&world, &world.hosts[0], &document(claim, &[cut]));
    let events = trial.events.clone();
    let spent = trial.event("budget-spent");
    holds("the run to end", PATIENCE, || trial.run.ended());
    let failed = |value: &Value| value["failed"].as_u64().unwrap_or_else(|| panic!("no count: {value:#}"));
    assert!(failed(&spent) >= 60, "{spent:#}");
    let finished = trial.finish();
    let report = finished.expect_exit(5).json();
    let budget = &report["hypotheses"][0]["budget"];
    assert!(failed(budget) >= failed(&spent), "{report:#}");
    assert_eq!(budget["budget"], "60 failed", "{report:#}");
    assert!(report["sentence"].as_str().is_some_and(|said| said.contains("at most 60 may")), "{report:#}");
    let again = world.hosts[0].squall(&["verdict", &events.to_string_lossy(), "--format", "json"]).run();
    assert_eq!(again.expect_exit(5).json()["hypotheses"], report["hypotheses"], "{}", again.story());
}

/// The same in a guard: it is the agent that counts.
#[test]
fn a_budget_of_a_guard_stops_the_run_while_its_command_is_stopped() {
    needs!(Root, Nftables);
    let world = World::new(2);
    world.echo(1, 7);
    let host = &world.hosts[0];
    let file = world.file("guarded", "");
    let guard = there(&file).replace("    every", "    budget: 3 failed\n    every");
    let mut trial = Trial::with(&world, host, &format!("{}{guard}", calm(&[LONG])), &["--lease", "60s"]);
    trial.run.event(&trial.events, |event| event["guard"] == true && event["phase"] == "during");
    trial.run.signal(Signal::STOP);
    fs::remove_file(&file).expect("it was there");
    holds("the agent to undo everything by itself", PATIENCE, || host.tables().is_empty());
    trial.run.signal(Signal::CONT);
    holds("the run to end", PATIENCE, || trial.run.ended());
    let report = trial.finish().expect_exit(5).json();
    assert_eq!(report["guards"][0]["budget"]["failed"], 3, "{report:#}");
    let words = "`the file is there` has spent its budget: 3 failed since the method began, at most 3 may";
    assert!(report["sentence"].as_str().is_some_and(|said| said.contains(words)), "{report:#}");
}
