//! What a controller lets begin beside what goes on, and how much of an error budget must be left: each refusal is told, and stands in
//! the record of its run and in the audit log, each reason by itself.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use squall_tests::needs;
use squall_tests::squall::Squall;
use squall_tests::wait::{PATIENCE, holds, until};
use squall_tests::world::World;

use crate::serve::{Fleet, URL};

/// A run on hosts that are chosen so, and how long its fault lasts.
fn run(fleet: &Fleet, on: &str, lasts: &str) -> Squall {
    let document = format!(
        "squall: 1\ntitle: A page of a host\non: {{ {on} }}\n\
         hypothesis:\n  - name: the page is there\n    http: {{ url: \"http://127.0.0.1:8080/\", timeout: 5s }}\n    every: 200ms\n\
         method:\n  - fault: {{ latency: {{ delay: 20ms, to: [\"127.0.0.1:8080\"] }} }}\n    for: {lasts}\n"
    );
    let file = fleet.world.file("budget.yaml", document);
    fleet.asks(&["run", &file, "--controller", URL])
}

/// The newest run, with what its gates said.
fn newest(fleet: &Fleet) -> Value {
    let runs = fleet.asks(&["runs", "--format", "json"]).run().expect_exit(0).json();
    fleet.shows(runs["runs"][0]["id"].as_str().expect("a run"))
}

/// It is refused for these reasons of a gate, which the command tells, the run's record keeps, and the log has.
fn refused(fleet: &Fleet, wanted: Squall, gate: &str, reasons: &[&str]) {
    let told = wanted.run();
    told.expect_exit(4);
    let newest = newest(fleet);
    assert_eq!(newest["state"], "refused", "{newest}");
    let outcome = newest["gates"].as_array().into_iter().flatten().find(|outcome| outcome["gate"] == gate);
    let outcome = outcome.unwrap_or_else(|| panic!("`{gate}` said nothing: {newest}"));
    let why = outcome["why"].as_str().unwrap_or_default();
    let log = fleet.asks(&["audit", "--format", "json"]).run().expect_exit(0).json();
    let entries = log["entries"].as_array().expect("entries");
    let written = entries
        .iter()
        .map(|entry| &entry["what"])
        .find(|what| what["did"] == "was refused a run" && what["run"] == newest["id"]);
    let written = written.unwrap_or_else(|| panic!("the log has nothing of it: {log}")).to_string();
    for reason in reasons {
        told.expect_told(reason);
        assert!(outcome["passed"] == false && why.contains(reason), "{reason}: {newest}");
        assert!(written.contains(reason), "{reason}: {written}");
    }
}

#[test]
fn of_what_goes_on_the_budget_leaves_no_room_for_a_second_member_of_a_quorum_or_a_host_too_many() {
    needs!(Root, Nftables, Queue, Nginx);
    let world = World::new(3);
    world.file("year.ics", "BEGIN:VCALENDAR\nEND:VCALENDAR\n");
    let config = "controller: 1\ncalendars: { year: year.ics }\nfreezes: [year]\n\
                  budget: { runs: 1, service: role, hosts-per-service: 1, hosts-per-zone: 1, faults-per-host-and-day: 2, \
                  quorum: { pair: { role: web } } }\n";
    let fleet = Fleet::under(world, config);
    let members = "`web-1` and `web-2` are members of the quorum `pair` (never two at once)";
    // By one run. What it would do to one zone is no more than it may.
    let service = "2 hosts of the service `web` would have faults at the same time (the budget is 1: 1 of 2)";
    let both = "labels: { role: web }";
    refused(&fleet, run(&fleet, both, "1s"), "budget", &[members, service]);

    // By a second run beside one that goes on.
    let first = run(&fleet, "name: [web-1]", "60s").start();
    holds("the fault on the first host", PATIENCE, || fleet.world.hosts[1].tables() == ["table inet squall"]);
    let going = newest(&fleet)["id"].as_str().expect("a run").to_owned();
    let one = "1 runs go on and 0 are about to (the budget is 1 at once)";
    refused(&fleet, run(&fleet, "name: [web-2]", "1s"), "budget", &[members, service, one]);
    assert!(fleet.world.hosts[2].tables().is_empty(), "nothing was begun there");
    fleet.asks(&["halt", "--controller", URL, "--run", &going]).run().expect_exit(0);
    first.finish().expect_exit(6);
    fleet.are_clean();

    // When it is over, the other may have its fault; a zone has room for one host, whoever it is.
    until("the room of the run that was halted", PATIENCE, || {
        let beside = run(&fleet, "name: [web-2]", "1s").run();
        if beside.stderr.contains("runs go on") {
            return None;
        }
        beside.expect_exit(0);
        Some(())
    });
    // The day of the second host is half used, that of the first too: it had the fault that was halted.
    run(&fleet, "name: [web-1]", "1s").run().expect_exit(0);
    let had = "`web-1` had 2 faults within 24 hours and would get 1 (the budget is 2)";
    refused(&fleet, run(&fleet, "name: [web-1]", "1s"), "budget", &[had]);

    // A freeze that somebody declares now counts from now on; one that cannot be read is one.
    let freeze = "BEGIN:VCALENDAR\nBEGIN:VEVENT\nDTSTART;VALUE=DATE:20200101\nDTEND;VALUE=DATE:21200101\nSUMMARY:The shop moves\n\
                  END:VEVENT\nEND:VCALENDAR\n";
    let frozen = ["a change freeze goes on: The shop moves"];
    fleet.world.file("year.ics", freeze);
    refused(&fleet, run(&fleet, "name: [web-2]", "1s"), "freezes", &frozen);
    fleet.world.file("year.ics", "");
    let unread = ["the calendar `year`: it is no calendar: it is empty"];
    refused(&fleet, run(&fleet, "name: [web-2]", "1s"), "freezes", &unread);
    fleet.world.file("year.ics", "BEGIN:VCALENDAR\nEND:VCALENDAR\n");
    run(&fleet, "name: [web-2]", "1s").run().expect_exit(0);
    fleet.are_clean();
    fleet.end();
}

#[test]
fn how_much_of_an_error_budget_is_left_is_asked_of_a_prometheus_before_each_run() {
    needs!(Root, Nftables, Queue, Nginx, Prometheus);
    let world = World::new(2);
    // As rules of service levels record it: of the four requests that may fail so many did.
    let rules = |failed: u8| {
        format!(
            "groups:\n  - name: budget\n    interval: 1s\n    rules: [{{ record: \"slo:error_budget:left\", \
             expr: \"vector(1 - {failed} / 4)\" }}]\n"
        )
    };
    let rule = world.file("rules.yaml", rules(3));
    let settings = world.file("prometheus.yaml", format!("rule_files: [\"{rule}\"]\n"));
    let data = format!("--storage.tsdb.path={}", world.place("prometheus").display());
    let settings = format!("--config.file={settings}");
    let arguments =
        ["prometheus", &settings, &data, "--web.listen-address=127.0.0.1:9090", "--log.level=error"];
    let config = "controller: 1\ngates:\n  - name: error budget\n    prometheus: { url: \"http://127.0.0.1:9090\", \
                  query: \"slo:error_budget:left\", timeout: 20s, value: \">= 0.4\" }\n";
    let fleet = Fleet::under(world, config);
    let on = "name: [web-1]";
    let gate = |reason: &str| refused(&fleet, run(&fleet, on, "1s"), "error budget", &[reason]);
    gate("there is no answer");
    let prometheus = fleet.world.program(0, None, &arguments);
    let says = |expected: &str| {
        let url = "http://127.0.0.1:9090/api/v1/query?query=slo:error_budget:left";
        holds(&format!("Prometheus to say {expected}"), PATIENCE, || {
            let asked = fleet.controller().netns.command("curl").args(["-sS", "-g", url]).output();
            String::from_utf8_lossy(&asked.expect("curl runs").stdout).contains(expected)
        });
    };
    let told = |rules: &str| {
        fleet.world.file("rules.yaml", rules);
        kill_process(Pid::from_raw(prometheus.pid).expect("a process"), Signal::HUP).expect("it is ours");
    };
    says(",\"0.25\"");
    gate("0.25 (expected >= 0.4)");
    told(&rules(2));
    says(",\"0.5\"");
    run(&fleet, on, "1s").run().expect_exit(0);
    let passed = newest(&fleet);
    let outcomes = passed["gates"].as_array().expect("gates");
    let budget = outcomes.iter().find(|outcome| outcome["gate"] == "error budget").expect("it was asked");
    let why = budget["why"].as_str().unwrap_or_default();
    assert!(budget["passed"] == true && why.starts_with("0.5") && why.contains(">= 0.4"), "{budget}");
    // What nobody records is not enough.
    told("groups: []\n");
    says("\"result\":[]");
    gate("the query gave 0 samples, and one is needed");
    fleet.are_clean();
    fleet.end();
}
