//! What a run leaves is found out by looking, whatever the undos say; and what others change is told from it.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use squall_tests::host::Host;
use squall_tests::needs;
use squall_tests::wait::{PATIENCE, holds};
use squall_tests::world::World;

use crate::trial::{LONG, SOON, Trial, calm};

/// A run whose fault is live.
fn live(world: &World, text: &str) -> Trial {
    let mut trial = Trial::begin(world, &world.hosts[0], text);
    trial.injected();
    trial
}

/// The lines of a list in a report.
fn list(report: &Value, key: &str) -> String {
    report[key]
        .as_array()
        .map(|lines| lines.iter().map(|line| format!("{line}\n")).collect())
        .unwrap_or_default()
}

/// Interrupts a run and gives its report, with the exit code that it must have.
#[track_caller]
fn interrupted(mut trial: Trial, code: i32) -> Value {
    trial.run.signal(Signal::INT);
    trial.finish().expect_exit(code).json()
}

/// Something of Squall's that nobody of Squall made stands on a host while a run ends, behind the agent's back.
fn residue(world: &World, host: &Host, text: &str, planted: &[&str], removed: &[&str], named: &str) {
    let trial = live(world, text);
    host.look(planted);
    let report = interrupted(trial, 7);
    assert!(list(&report, "stuck").contains(named), "`{named}` is not in {report:#}");
    assert!(report["host"]["ours"].as_u64() > Some(0), "{report:#}");
    host.look(removed);
    // The agent looks again until it is gone, and then leaves by itself.
    holds("the agent to leave", PATIENCE, || world.hosts[0].squalls().is_empty());
    world.restored(SOON);
}

#[test]
fn a_table_with_our_mark_that_is_left_is_exit_7_although_every_undo_succeeded() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let (add, delete) =
        (["nft", "add", "table", "ip", "squall-left"], ["nft", "delete", "table", "ip", "squall-left"]);
    residue(&world, &world.hosts[0], &calm(&[LONG]), &add, &delete, "ip squall-left");
}

#[test]
fn a_root_with_our_mark_that_is_left_is_exit_7() {
    needs!(Root, Nftables, Htb);
    let world = World::new(2);
    let add = ["tc", "qdisc", "add", "dev", "to1", "root", "handle", "5a17:", "htb"];
    let delete = ["tc", "qdisc", "del", "dev", "to1", "root"];
    residue(&world, &world.hosts[0], &calm(&[LONG]), &add, &delete, "discipline of `to1`");
}

#[test]
fn what_is_left_in_the_namespace_of_a_target_is_exit_7_too() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let target = &world.hosts[1];
    let step =
        format!("{{ fault: {{ partition: {{}} }}, in: {{ netns: \"{}\" }}, for: 60s }}", target.netns.name());
    let (add, delete) =
        (["nft", "add", "table", "ip", "squall-left"], ["nft", "delete", "table", "ip", "squall-left"]);
    residue(&world, target, &calm(&[&step]), &add, &delete, target.netns.name());
}

#[test]
fn what_others_change_is_listed_and_fails_nothing() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let [host, target] = &world.hosts[..] else { panic!("two hosts were asked for") };
    let inside =
        format!("{{ fault: {{ partition: {{}} }}, in: {{ netns: \"{}\" }}, for: 60s }}", target.netns.name());
    let trial = live(&world, &calm(&[&format!("{{ parallel: [{LONG}, {inside}] }}")]));
    for host in [host, target] {
        host.look(&["nft", "add", "table", "inet", "bystander"]);
        host.look(&["nft", "add", "chain", "inet", "bystander", "own"]);
        host.look(&["nft", "add", "rule", "inet", "bystander", "own", "tcp", "dport", "9", "drop"]);
    }
    host.look(&["ip", "route", "add", "blackhole", "10.99.0.0/16"]);
    let report = interrupted(trial, 6);
    let others = list(&report, "others");
    let netns = target.netns.name();
    for named in [
        "rules of nftables table `inet bystander`, chain `own`: new",
        "route to 10.99.0.0/16",
        &format!("{netns}: nftables: nftables table `inet bystander`: new"),
    ] {
        assert!(others.contains(named), "`{named}` is not in\n{others}");
    }
    let compared = &report["host"];
    assert_eq!(compared["ours"], 0, "{report:#}");
    assert_eq!(compared["namespaces"], 2, "{report:#}");
    assert!(compared["things"].as_u64() > Some(20), "{report:#}");
    assert_ne!(compared["before"]["nftables"], compared["after"]["nftables"], "{report:#}");
    assert_eq!(compared["before"]["queueing disciplines"], compared["after"]["queueing disciplines"]);
    for host in [host, target] {
        host.look(&["nft", "delete", "table", "inet", "bystander"]);
    }
    host.look(&["ip", "route", "del", "blackhole", "10.99.0.0/16"]);
    world.restored(SOON);
}

#[test]
fn a_report_says_that_the_host_is_as_before() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let host = &world.hosts[0];
    let file = world.file("short.yaml", calm(&[&LONG.replace("60s", "300ms")]));
    let run = host.squall(&["run", &file]).run();
    run.expect_told("Host as before: ").expect_told(" things compared, ");
}

/// The names of what differs in a host's network; what others do to the machine meanwhile is not this test's.
fn differences(host: &Host, file: &str, codes: &[i32]) -> Vec<String> {
    let run = host.agent(&["fingerprint", "--format", "json", "--compare", file]).run();
    assert!(run.status.code().is_some_and(|code| codes.contains(&code)), "{codes:?}: {}", run.story());
    let list = run.json();
    let list = list.as_array().expect("a list of differences");
    let machine = ["mounts", "control-groups", "processes", "files"];
    let own =
        list.iter().filter(|one| one["section"].as_str().is_some_and(|section| !machine.contains(&section)));
    own.filter_map(|one| one["name"].as_str().map(str::to_owned)).collect()
}

#[test]
fn the_command_compares_with_what_was_and_says_whose_it_is() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let host = &world.hosts[0];
    host.has_a_firewall();
    let before = host.agent(&["fingerprint", "--format", "json"]).run();
    let file = world.file("before.json", &before.expect_exit(0).stdout);
    // What counts, expires or comes and goes by itself is no difference.
    host.look(&["nft", "add", "element", "inet", "own", "seen", "{ 10.0.0.1 timeout 60s }"]);
    let echo = world.echo(1, 7);
    echo.dial(host, world.hosts[1].v4).expect("the echo server can be reached").talk().expect("it answers");
    assert_eq!(differences(host, &file, &[0, 5]), [""; 0]);
    host.look(&["nft", "add", "rule", "inet", "own", "in", "tcp", "dport", "1", "drop"]);
    host.look(&["ip", "link", "set", "to1", "mtu", "1400"]);
    host.look(&["tc", "qdisc", "add", "dev", "to1", "root", "pfifo", "limit", "7"]);
    host.look(&["ip", "rule", "add", "fwmark", "7", "lookup", "77"]);
    let seen = differences(host, &file, &[5]).join("\n");
    for named in ["link to1", "discipline of `to1`", "chain `in`", "routing rule 32765 (IPv4)"] {
        assert!(seen.contains(named), "`{named}` is not in\n{seen}");
    }
    host.look(&["nft", "add", "table", "inet", "squall"]);
    let seen = differences(host, &file, &[7]).join("\n");
    assert!(seen.contains("inet squall"), "{seen}");
    host.look(&["nft", "flush", "ruleset"]);
    host.look(&["ip", "rule", "del", "fwmark", "7", "lookup", "77"]);
    host.look(&["tc", "qdisc", "del", "dev", "to1", "root"]);
    host.look(&["ip", "link", "set", "to1", "mtu", "1500"]);
    world.restored(SOON);
    host.agent(&["fingerprint", "--compare", "/etc/hostname"])
        .run()
        .expect_exit(4)
        .expect_told("no fingerprint");
}

#[test]
fn both_programs_have_the_verbs_of_the_agent() {
    needs!(Root);
    let world = World::new(1);
    let host = &world.hosts[0];
    for verb in ["fingerprint", "preflight"] {
        for run in
            [host.squall(&["agent", verb, "--format", "json"]), host.agent(&[verb, "--format", "json"])]
        {
            let run = run.run();
            assert!(run.status.code().is_some_and(|code| matches!(code, 0 | 4)), "{}", run.story());
            assert!(run.json().is_object(), "{}", run.story());
        }
    }
}

#[test]
fn a_full_routing_table_and_a_long_ruleset_are_compared_as_one() {
    needs!(Root, Nftables);
    let world = World::new(1);
    let host = &world.hosts[0];
    let routes: String = (0..3000)
        .map(|number| format!("route add blackhole 10.{}.{}.0/24\n", number / 250, number % 250))
        .collect();
    let rules: String =
        (0..1000).map(|port| format!("add rule ip own ports tcp dport {port} accept\n")).collect();
    let rules = format!("add table ip own\nadd chain ip own ports\n{rules}");
    for (program, text) in [("routes", &routes), ("rules", &rules)] {
        let file = world.file(program, text);
        match program {
            "routes" => host.look(&["ip", "-batch", &file]),
            _ => host.look(&["nft", "-f", &file]),
        };
    }
    let before = host.agent(&["fingerprint", "--format", "json"]).run();
    let file = world.file("before.json", &before.expect_exit(0).stdout);
    assert!(before.stdout.contains("they are compared as one"), "{}", before.story());
    assert_eq!(differences(host, &file, &[0, 5]), [""; 0]);
    host.look(&["ip", "route", "del", "blackhole", "10.3.7.0/24"]);
    assert_eq!(differences(host, &file, &[5]), ["everything"]);
    host.look(&[
        "ip",
        "-batch",
        &world.file("undo", routes.replace("add", "del").replace("route del blackhole 10.3.7.0/24\n", "")),
    ]);
    host.look(&["nft", "flush", "ruleset"]);
    world.restored(Duration::from_secs(3));
}

#[test]
fn a_reader_that_has_gone_away_is_no_failure() {
    needs!(Root);
    let world = World::new(1);
    let host = &world.hosts[0];
    for verb in ["fingerprint", "status", "recover"] {
        let (reader, writer) = std::io::pipe().expect("a pipe can be made");
        drop(reader);
        let mut command = host.netns.command(squall_tests::squall::binary("squall-agent"));
        command.arg(verb).env("SQUALL_STATE_DIR", &host.state).stdout(writer);
        let status = command.status().expect("it can be started");
        assert_eq!(status.code(), Some(0), "{verb}");
    }
}
