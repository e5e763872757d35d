//! A fleet from nothing: the real controller and the real agents, each on a host of its own, and one run over all of them.

use std::path::PathBuf;

use rustix::process::Signal;
use serde_json::Value;
use squall_tests::host::Host;
use squall_tests::needs;
use squall_tests::squall::{Background, Squall};
use squall_tests::wait::{PATIENCE, holds, until};
use squall_tests::world::World;

use crate::link::Linked;
use crate::trial::SOON;

const URL: &str = "http://127.0.0.1:8416";

/// A controller on the first host, and an agent on each of the others, which all serve a page.
struct Fleet {
    linked: Vec<Linked>,
    controller: Option<Background>,
    data: PathBuf,
    config: Option<String>,
    world: World,
}

impl Fleet {
    fn new(hosts: usize) -> Self {
        Fleet::under(hosts, None)
    }

    /// The same under a configuration of the controller.
    fn under(hosts: usize, config: Option<&str>) -> Self {
        let world = World::new(hosts + 1);
        (1..=hosts).for_each(|host| drop(world.nginx(host, 8080)));
        let data = world.place("data");
        let config = config.map(|text| world.file("controller.yaml", text));
        let mut fleet = Fleet { linked: Vec::new(), controller: None, data, config, world };
        fleet.serve();
        for number in 1..=hosts {
            let token = fleet.asks(&["tokens", "join", "--format", "json"]).run();
            let token = token.expect_exit(0).json()["token"].as_str().expect("a token").to_owned();
            let host = &fleet.world.hosts[number];
            let url = format!("https://10.77.{number}.1:8417");
            let zone = format!("z{number}");
            let more = ["--label", "role=web", "--zone", &zone];
            fleet.linked.push(Linked::by(host, &format!("web-{number}"), &url, &token, &more));
        }
        fleet.holds_connected();
        fleet
    }

    fn serve(&mut self) {
        let data = self.data.display().to_string();
        let agents = "0.0.0.0:8417";
        let mut serve = vec!["serve", "--data", &data, "--listen-agents", agents, "--heartbeat", "500ms"];
        let config = self.config.clone();
        serve.extend(config.iter().flat_map(|config| ["--config", config.as_str()]));
        let controller = self.controller().squall(&serve).start();
        let controller = self.controller.insert(controller);
        holds("the controller to listen", PATIENCE, || controller.story().contains("serves agents at"));
    }

    fn controller(&self) -> &Host {
        &self.world.hosts[0]
    }

    /// A command of whoever administers it.
    fn asks(&self, arguments: &[&str]) -> Squall {
        let token = self.data.join("admin-token");
        self.controller().squall(arguments).env("SQUALL_TOKEN_FILE", token).env("SQUALL_CONTROLLER", URL)
    }

    fn hosts(&self) -> Value {
        self.asks(&["hosts", "--format", "json"]).run().expect_exit(0).json()
    }

    fn holds_connected(&self) {
        holds("all hosts to be connected", PATIENCE, || {
            let hosts = self.hosts();
            let hosts = hosts["hosts"].as_array().expect("a list of hosts");
            hosts.len() == self.linked.len() && hosts.iter().all(|host| host["connected"] == true)
        });
    }

    /// Gives an experiment to the controller, and follows it.
    fn runs(&self, fault: &str, lasts: &str) -> Squall {
        self.runs_on("web", fault, lasts)
    }

    fn runs_on(&self, role: &str, fault: &str, lasts: &str) -> Squall {
        let document = format!(
            "squall: 1\ntitle: A page of every host\non: {{ labels: {{ role: {role} }} }}\n\
             hypothesis:\n  - name: the page is there\n    http: {{ url: \"http://127.0.0.1:8080/\", timeout: 2s }}\n    every: 100ms\n\
             method:\n  - fault: {{ {fault} }}\n    for: {lasts}\n"
        );
        let file = self.world.file("fleet.yaml", document);
        self.asks(&["run", &file, "--controller", URL])
    }

    /// The newest run, as soon as its fault is on every host.
    fn live(&self) -> String {
        let live = || self.world.hosts[1..].iter().all(|host| host.tables() == ["table inet squall"]);
        holds("the fault on every host", PATIENCE, live);
        let runs = self.asks(&["runs", "--format", "json"]).run().expect_exit(0).json();
        runs["runs"][0]["id"].as_str().expect("a run").to_owned()
    }

    fn shows(&self, run: &str) -> Value {
        self.asks(&["show", run, "--format", "json"]).run().expect_exit(0).json()
    }

    fn are_clean(&self) {
        let clean = || self.world.hosts[1..].iter().all(|host| host.tables().is_empty());
        holds("every host to be as before", PATIENCE, clean);
    }

    fn end(mut self) {
        self.linked.drain(..).for_each(Linked::end);
        if let Some(mut controller) = self.controller.take() {
            controller.signal(Signal::TERM);
            controller.finish().expect_exit(0);
        }
        self.world.restored(SOON);
    }
}

#[test]
fn a_run_over_hosts_has_one_verdict_and_a_halt_ends_it_on_all() {
    needs!(Root, Nftables, Queue, Nginx);
    let fleet = Fleet::new(2);
    let slow = "latency: { delay: 20ms, to: [\"127.0.0.1:8080\"] }";
    let refused = "refuse: { to: [\"127.0.0.1:8080\"] }";
    fleet.runs(slow, "2s").run().expect_exit(0);
    fleet.runs(refused, "3s").run().expect_exit(5);
    let runs = fleet.asks(&["runs", "--format", "json"]).run().expect_exit(0).json();
    assert_eq!((&runs["runs"][0]["state"], &runs["runs"][1]["state"]), (&"deviated".into(), &"held".into()));
    let held = runs["runs"][1]["id"].as_str().expect("a name").to_owned();
    let events = fleet.asks(&["show", &held, "--events"]).run();
    let events = events.expect_exit(0).stdout.clone();
    for host in ["web-1", "web-2"] {
        let injected = |line: &str| line.contains(host) && line.contains("\"event\":\"injected\"");
        assert!(events.lines().any(injected), "{host}: {events}");
    }

    // What is no experiment, or none for these hosts, begins nothing.
    let none = fleet.world.file("none.yaml", "squall: 1\ntitel: Nothing\n");
    let none = fleet.asks(&["run", &none, "--controller", URL]).run();
    none.expect_exit(3).expect_told("did you mean `title`?");
    fleet.asks(&["run", "no-such-file.yaml", "--controller", URL]).run().expect_exit(3);
    let nowhere = fleet.runs_on("db", slow, "1s").run();
    nowhere.expect_exit(4).expect_told("no host matches `labels role=db`");
    // What an administrator says of a host goes before what it says of itself.
    fleet.asks(&["hosts", "label", "web-2", "role=db"]).run().expect_exit(0);
    let events = fleet.runs_on("db", slow, "1s").run();
    events.expect_exit(0);
    assert!(
        events.stdout.contains("web-2: injected") && !events.stdout.contains("web-1: "),
        "{}",
        events.story()
    );
    fleet.asks(&["hosts", "label", "web-2", "role=web"]).run().expect_exit(0);
    // Whoever writes an experiment does not read what the controller keeps for itself.
    let theft = "squall: 1\ntitle: ${secret:token_key}\non: { pick: all }\nhypothesis: []\nmethod: []\n";
    let theft = fleet.world.file("theft.yaml", theft);
    let theft = fleet.asks(&["run", &theft, "--controller", URL]).run();
    theft.expect_exit(3).expect_told("the secret `token_key` is not set");

    let followed = fleet.runs(slow, "80s").start();
    let run = fleet.live();
    fleet.asks(&["halt", "--controller", URL, "--reason", "seen enough"]).run().expect_exit(0);
    fleet.are_clean();
    followed.finish().expect_exit(6);
    assert_eq!(fleet.shows(&run)["state"], "interrupted");
    // Until it is lifted, nothing begins.
    fleet.runs(slow, "1s").run().expect_exit(4).expect_told("seen enough");
    fleet.asks(&["halt", "--controller", URL, "--lift"]).run().expect_exit(0);
    fleet.runs(slow, "1s").run().expect_exit(0);
    fleet.asks(&["audit", "verify"]).run().expect_exit(0);
    fleet.end();
}

#[test]
fn a_controller_that_dies_leaves_nothing_and_its_next_start_says_so() {
    needs!(Root, Nftables, Queue, Nginx);
    let mut fleet = Fleet::new(2);
    let followed = fleet.runs("latency: { delay: 20ms, to: [\"127.0.0.1:8080\"] }", "80s").start();
    let run = fleet.live();
    let mut controller = fleet.controller.take().expect("it was started");
    controller.signal(Signal::KILL);
    holds("the controller to be gone", PATIENCE, || controller.ended());
    fleet.are_clean();
    fleet.serve();
    let shown = until("what became of the run", PATIENCE, || {
        let shown = fleet.shows(&run);
        (shown["state"] != "running").then_some(shown)
    });
    assert_eq!(shown["state"], "interrupted", "{shown}");
    let events = fleet.asks(&["show", &run, "--events"]).run();
    let told = "each host reverted by its lease";
    assert!(events.expect_exit(0).stdout.contains(told), "{}", events.story());
    // Whoever followed it has found the controller again, and its end.
    followed.finish().expect_exit(6);
    fleet.holds_connected();
    fleet.end();
}

#[test]
fn gates_and_budget_hold_for_everybody_and_schedules_are_kept_and_shown() {
    needs!(Root, Nftables, Queue, Nginx);
    let config = "controller: 1\n\
                  gates:\n  - name: the page is there\n    http: { url: \"http://10.77.1.2:8080/\", timeout: 20s, expect: {} }\n\
                  budget: { service: role, hosts-per-service: 1 }\n";
    let fleet = Fleet::under(2, Some(config));
    let slow = "latency: { delay: 20ms, to: [\"127.0.0.1:8080\"] }";
    let refused = fleet.runs(slow, "1s").run();
    refused
        .expect_exit(4)
        .expect_told("budget: 2 hosts of the service `web` would have faults at the same time");
    let runs = fleet.asks(&["runs", "--format", "json"]).run().expect_exit(0).json();
    assert_eq!(runs["runs"][0]["state"], "refused");
    let file = fleet.world.directory.join("fleet.yaml").display().to_string();
    let overruled = ["run", &file, "--controller", URL, "--overrule", "the release waits"];
    fleet.asks(&overruled).run().expect_exit(0);
    let log = fleet.asks(&["audit", "--format", "json"]).run().expect_exit(0).json().to_string();
    assert!(log.contains("overruled gates and budget") && log.contains("the release waits"), "{log}");

    let wrong = fleet.world.file("wrong.yaml", "schedule: 1\nname: night\nwhen: { cron: \"99 2 * * *\" }\n");
    let wrong = fleet.asks(&["schedule", "add", &wrong, "--experiment", &file]).run();
    wrong.expect_exit(3).expect_told("`99` is no minute of a cron expression");
    let night = "schedule: 1\nname: night\nzone: Europe/Berlin\nwhen: { cron: \"30 2 * * *\" }\nopt-in: { role: web }\n";
    let night = fleet.world.file("night.yaml", night);
    fleet.asks(&["schedule", "add", &night, "--experiment", &night]).run().expect_exit(3);
    let added = fleet.asks(&["schedule", "add", &night, "--experiment", &file]).run();
    assert!(added.expect_exit(0).stdout.contains("02:30:00 +0"), "{}", added.story());
    fleet.asks(&["schedule", "add", &night, "--experiment", &file]).run().expect_exit(4);
    let calendar = || fleet.asks(&["calendar", "--json"]).run().expect_exit(0).json();
    let states = |calendar: Value| -> Vec<Value> {
        let entries = calendar["entries"].as_array().expect("entries").clone();
        entries.into_iter().map(|entry| entry["state"].clone()).collect()
    };
    assert_eq!(states(calendar()), ["planned"; 7]);
    fleet.asks(&["schedule", "pause", "night", "--reason", "we move"]).run().expect_exit(0);
    let paused = fleet.asks(&["calendar"]).run();
    assert!(paused.expect_exit(0).stdout.contains("we move"), "{}", paused.story());
    fleet.asks(&["schedule", "resume", "night"]).run().expect_exit(0);
    assert_eq!(states(calendar()), ["planned"; 7]);
    fleet.asks(&["schedule", "remove", "night"]).run().expect_exit(0);
    let none = fleet.asks(&["schedule"]).run();
    assert!(none.expect_exit(0).stdout.contains("no schedule yet"), "{}", none.story());
    fleet.end();
}

#[test]
#[ignore = "it waits for the next whole minute"]
fn a_schedule_begins_its_run_at_its_time() {
    needs!(Root, Nftables, Queue, Nginx);
    let fleet = Fleet::new(1);
    let slow = "latency: { delay: 20ms, to: [\"127.0.0.1:8080\"] }";
    fleet.runs(slow, "1s").run().expect_exit(0);
    let file = fleet.world.directory.join("fleet.yaml").display().to_string();
    let soon = fleet.world.file("soon.yaml", "schedule: 1\nname: soon\nwhen: { cron: \"* * * * *\" }\n");
    fleet.asks(&["schedule", "add", &soon, "--experiment", &file]).run().expect_exit(0);
    let ended = || {
        let runs = fleet.asks(&["runs", "--format", "json"]).run().expect_exit(0).json();
        let run = runs["runs"][0].clone();
        (run["by"] == "schedule:soon" && run["state"] == "held").then_some(run)
    };
    let run = until("the scheduled run to have held", PATIENCE * 6, ended);
    let begun = run["at"].as_u64().expect("a time") % 60_000;
    println!("begun {begun} ms after its minute");
    let gates = fleet.asks(&["schedule", "show", "soon", "--format", "json"]).run().expect_exit(0).json();
    assert_eq!(gates["next"].as_array().map(Vec::len), Some(10), "{gates}");
    fleet.are_clean();
    fleet.end();
}
