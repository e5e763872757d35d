//! An experiment for hosts of which half are gone: known as such or not, before it begins or in the middle of it.

use rustix::process::Signal;
use serde_json::Value;
use squall_tests::host::Host;
use squall_tests::needs;
use squall_tests::netns::signal;
use squall_tests::squall::Squall;
use squall_tests::wait::{PATIENCE, holds, until};

use crate::link::Linked;
use crate::serve::{Fleet, URL};

/// An experiment for all four hosts.
fn asks(fleet: &Fleet, verb: &[&str], on: &str, partial: &str, lasts: &str) -> Squall {
    let text = format!(
        "squall: 1\ntitle: Slow\non: {{ {on} }}\non-partial: {partial}\nhypothesis:\n  - name: the page is there\n    \
         http: {{ url: \"http://127.0.0.1:8080/\", timeout: 2s }}\n    every: 100ms\nmethod:\n  \
         - fault: {{ latency: {{ delay: 20ms, to: [\"127.0.0.1:8080\"] }} }}\n    for: {lasts}\n"
    );
    let file = fleet.world.file("half.yaml", text);
    fleet.asks(&[&verb[..1], &[file.as_str()], &verb[1..]].concat())
}

fn runs(fleet: &Fleet, partial: &str, lasts: &str) -> Squall {
    asks(fleet, &["run", "--controller", URL], "labels: { role: web }", partial, lasts)
}

/// The newest run: its report, made of its events.
fn report(fleet: &Fleet) -> Value {
    let runs = fleet.asks(&["runs", "--format", "json"]).run().expect_exit(0).json();
    let run = runs["runs"][0]["id"].as_str().expect("a run").to_owned();
    let events = fleet.asks(&["show", &run, "--events"]).run().expect_exit(0).stdout.clone();
    let file = fleet.world.file("half.ndjson", events);
    fleet.controller().squall(&["verdict", &file, "--format", "json"]).run().json()
}

/// What the report says of each host, by name: its verdict, and how many faults were injected there.
fn by_host(report: &Value) -> Vec<(String, String, usize)> {
    let injected = |on: &Value| {
        let parts = on["summary"]["parts"].as_array().cloned().unwrap_or_default();
        parts.iter().filter(|part| part["injected_at_ms"].is_number()).count()
    };
    let on = |on: &Value| {
        let text = |name: &str| on[name].as_str().expect("a text").to_owned();
        (text("host"), text("verdict"), injected(on))
    };
    report["hosts"].as_array().expect("hosts").iter().map(on).collect()
}

fn unconnected(fleet: &Fleet, count: usize) {
    holds("the controller to know who is gone", PATIENCE, || {
        let hosts = fleet.asks(&["hosts", "--format", "json"]).run().expect_exit(0).json();
        let hosts = hosts["hosts"].as_array().expect("hosts");
        hosts.iter().filter(|host| host["connected"] == false).count() == count
    });
}

/// The agents of the last two hosts are killed, and their hosts never come back.
fn half_is_killed(fleet: &mut Fleet) {
    fleet.world.hosts[3..].iter().for_each(Host::kill_agents);
    // Their identities go with them only then.
    let killed = fleet.linked.split_off(2);
    killed.into_iter().for_each(Linked::waits_for_its_end);
}

/// Everything of Squall on a host, stopped as if its machine hung, or going on.
fn all(host: &Host, hit: Signal) {
    for process in host.squalls() {
        signal(&process, hit);
    }
}

#[test]
fn hosts_that_are_known_to_be_gone_are_named_and_the_others_have_the_experiment() {
    needs!(Root, Nftables, Queue, Nginx);
    let mut fleet = Fleet::new(4);
    half_is_killed(&mut fleet);
    unconnected(&fleet, 2);
    let gone = "Not connected, so not chosen from: web-3, web-4";
    let plan = asks(&fleet, &["plan", "--submit"], "labels: { role: web }", "revert", "1s").run();
    plan.expect_exit(0).expect_told("On web-1").expect_told("On web-2").expect_told(gone);
    assert!(!plan.stdout.contains("On web-3"), "{}", plan.story());

    // Whoever names them does not get less than that.
    let named = "name: [web-1, web-2, web-3, web-4]";
    let refused = asks(&fleet, &["run", "--controller", URL], named, "continue", "1s").run();
    refused.expect_exit(4).expect_told("web-3");
    let refused = asks(&fleet, &["run", "--controller", URL], "pick: 3", "continue", "1s").run();
    refused.expect_exit(4);

    // Both ways: who is not there when hosts are chosen is no host of the run.
    for partial in ["revert", "continue"] {
        runs(&fleet, partial, "1s").run().expect_exit(0);
        let report = report(&fleet);
        assert_eq!(report["unconnected"], serde_json::json!(["web-3", "web-4"]), "{report}");
        let held = |name: &str| (name.to_owned(), "held".to_owned(), 1);
        assert_eq!(by_host(&report), [held("web-1"), held("web-2")], "{report}");
    }
    fleet.are_clean();
    for host in &fleet.world.hosts[3..] {
        // An agent that is killed leaves its socket, and the next one takes it.
        let mut next = host.agent(&["run"]).start();
        host.agents();
        next.signal(Signal::TERM);
        next.finish().expect_exit(0);
    }
    fleet.end();
}

#[test]
fn hosts_that_hang_when_it_begins_keep_it_from_all_or_are_left_out() {
    needs!(Root, Nftables, Queue, Nginx);
    let fleet = Fleet::new(4);
    let hang = || {
        fleet.holds_connected();
        fleet.world.hosts[3..].iter().for_each(|host| all(host, Signal::STOP));
    };
    let go_on = || fleet.world.hosts[3..].iter().for_each(|host| all(host, Signal::CONT));
    // Where the controller has found out by then, they are no hosts of the run: then it is tried again.
    let half = |partial: &str| {
        until("a run that begins on four", PATIENCE * 3, || {
            hang();
            let ended = runs(&fleet, partial, "1s").run();
            let report = report(&fleet);
            go_on();
            (report["hosts"].as_array().is_some_and(|hosts| hosts.len() == 4)).then_some((ended, report))
        })
    };
    let (ended, shown) = half("revert");
    assert_ne!(ended.status.code(), Some(0), "{}", ended.story());
    assert!(
        by_host(&shown).iter().all(|(_, verdict, injected)| *injected == 0 && verdict != "held"),
        "{shown}"
    );
    fleet.are_clean();

    let (ended, shown) = half("continue");
    assert_ne!(
        ended.status.code(),
        Some(0),
        "a run that two could not take part in is not held: {}",
        ended.story()
    );
    let had: Vec<usize> = by_host(&shown).into_iter().map(|(.., injected)| injected).collect();
    assert_eq!(had, [1, 1, 0, 0], "{shown}");
    fleet.are_clean();
    fleet.holds_connected();
    fleet.end();
}

#[test]
fn hosts_whose_agents_die_in_the_middle_revert_all_or_are_done_without() {
    needs!(Root, Nftables, Queue, Nginx);
    for (partial, others) in [("revert", "reverted because of another host"), ("continue", "held")] {
        let mut fleet = Fleet::new(4);
        let followed = runs(&fleet, partial, "15s").start();
        fleet.live();
        half_is_killed(&mut fleet);
        let ended = followed.finish();
        let shown = report(&fleet);
        let of = by_host(&shown);
        assert_eq!(of.iter().map(|(.., injected)| *injected).collect::<Vec<_>>(), [1; 4], "{shown}");
        assert!(of[..2].iter().all(|(_, verdict, _)| verdict == others), "{partial}: {shown}");
        assert!(of[2..].iter().all(|(_, verdict, _)| verdict != "held"), "{partial}: {shown}");
        // Nobody can say that a host that is gone holds nothing any more.
        ended.expect_exit(7);
        fleet.are_clean();
        for host in &fleet.world.hosts[3..] {
            host.agent(&["recover"]).run().expect_exit(0);
        }
        fleet.end();
    }
}
