//! A fleet from nothing: the real controller and the real agents, each on a host of its own, and one run over all of them.

use std::path::PathBuf;

use rustix::process::Signal;
use serde_json::Value;
use squall_tests::host::Host;
use squall_tests::needs;
use squall_tests::squall::{Background, Squall, binary};
use squall_tests::wait::{PATIENCE, holds, until};
use squall_tests::world::World;

use crate::link::Linked;
use crate::trial::SOON;

pub const URL: &str = "http://127.0.0.1:8416";

/// A controller on the first host, and an agent on each of the others, which all serve a page.
pub struct Fleet {
    pub linked: Vec<Linked>,
    pub controller: Option<Background>,
    pub data: PathBuf,
    /// Where it keeps everything, if not in its data directory.
    pub database: Option<String>,
    /// How else its processes are started.
    manner: Manner,
    pub world: World,
}

/// How the processes of a fleet are started, beside what every fleet has.
#[derive(Default)]
pub struct Manner {
    /// Options of the controller.
    pub controller: Vec<String>,
    /// Options of every agent.
    pub agents: Vec<String>,
    /// The environment of the controller.
    pub environment: Vec<(&'static str, String)>,
    /// How many files the controller may have open.
    pub files: Option<usize>,
    /// How people call the controller; none: [`URL`].
    pub url: Option<&'static str>,
}

impl Fleet {
    pub fn new(hosts: usize) -> Self {
        Fleet::over(World::new(hosts + 1), None)
    }

    /// On the hosts of a world, under a configuration of the controller.
    pub fn under(world: World, config: &str) -> Self {
        let config = world.file("controller.yaml", config);
        let controller = vec!["--config".to_owned(), config];
        Fleet::made(world, None, Manner { controller, ..Manner::default() })
    }

    /// On the hosts of a world; the controller keeps everything in a database, where there is one.
    pub fn over(world: World, database: Option<String>) -> Self {
        Fleet::made(world, database, Manner::default())
    }

    /// On so many hosts, with processes that are started in some manner.
    pub fn like(hosts: usize, manner: Manner) -> Self {
        Fleet::made(World::new(hosts + 1), None, manner)
    }

    fn made(world: World, database: Option<String>, manner: Manner) -> Self {
        let hosts = world.hosts.len() - 1;
        (1..=hosts).for_each(|host| drop(world.nginx(host, 8080)));
        let data = world.place("data");
        let mut fleet = Fleet { linked: Vec::new(), controller: None, data, database, manner, world };
        fleet.serve();
        for number in 1..=hosts {
            let token = fleet.asks(&["tokens", "join", "--format", "json"]).run();
            let token = token.expect_exit(0).json()["token"].as_str().expect("a token").to_owned();
            let host = &fleet.world.hosts[number];
            let url = format!("https://10.77.{number}.1:8417");
            let zone = format!("z{number}");
            let cell = if number == 1 { "first" } else { "rest" };
            let own = fleet.manner.agents.iter().map(String::as_str);
            let usual = ["--label", "role=web", "--zone", &zone, "--cell", cell];
            let more: Vec<&str> = usual.into_iter().chain(own).collect();
            fleet.linked.push(Linked::by(host, &format!("web-{number}"), &url, &token, &more));
        }
        fleet.holds_connected();
        fleet
    }

    pub fn serve(&mut self) {
        let data = self.data.display().to_string();
        let agents = "0.0.0.0:8417";
        let people = self.url().split_once("//").expect("a URL").1;
        let mut serve = vec!["serve", "--data", &data, "--listen", people, "--listen-agents", agents];
        serve.extend(["--heartbeat", "500ms"]);
        serve.extend(self.manner.controller.iter().map(String::as_str));
        let mut controller = match self.manner.files {
            None => self.controller().squall(&serve),
            Some(files) => {
                let mut command = self.controller().netns.command("prlimit");
                command.arg(format!("--nofile={files}:{files}")).arg(binary("squall")).args(&serve);
                Squall::with(command, "squall serve with few files", &self.world.directory)
            }
        };
        for (name, value) in &self.manner.environment {
            controller = controller.env(name, value);
        }
        if let Some(database) = &self.database {
            controller = controller.env("SQUALL_DATABASE", database);
        }
        let controller = controller.start();
        let controller = self.controller.insert(controller);
        holds("the controller to listen", PATIENCE, || controller.story().contains("serves agents at"));
    }

    pub fn controller(&self) -> &Host {
        &self.world.hosts[0]
    }

    /// A command of whoever administers it.
    pub fn asks(&self, arguments: &[&str]) -> Squall {
        let token = self.data.join("admin-token");
        let asks = self.controller().squall(arguments).env("SQUALL_TOKEN_FILE", token);
        asks.env("SQUALL_CONTROLLER", self.url()).env("SQUALL_CA", self.data.join("ca.pem"))
    }

    /// How people call the controller.
    pub fn url(&self) -> &'static str {
        self.manner.url.unwrap_or(URL)
    }

    fn hosts(&self) -> Value {
        self.asks(&["hosts", "--format", "json"]).run().expect_exit(0).json()
    }

    pub fn holds_connected(&self) {
        holds("all hosts to be connected", PATIENCE, || {
            let hosts = self.hosts();
            let hosts = hosts["hosts"].as_array().expect("a list of hosts");
            hosts.len() == self.linked.len() && hosts.iter().all(|host| host["connected"] == true)
        });
    }

    /// Gives an experiment to the controller, and follows it.
    pub fn runs(&self, fault: &str, lasts: &str) -> Squall {
        self.runs_on("web", fault, lasts, &[])
    }

    fn runs_on(&self, role: &str, fault: &str, lasts: &str, more: &[&str]) -> Squall {
        let document = format!(
            "squall: 1\ntitle: A page of every host\non: {{ labels: {{ role: {role} }} }}\n\
             hypothesis:\n  - name: the page is there\n    http: {{ url: \"http://127.0.0.1:8080/\", timeout: 2s }}\n    every: 100ms\n\
             method:\n  - fault: {{ {fault} }}\n    for: {lasts}\n"
        );
        let file = self.world.file("fleet.yaml", document);
        self.asks(&[&["run", &file, "--controller", URL], more].concat())
    }

    /// The newest run, as soon as its fault is on every host.
    pub fn live(&self) -> String {
        let live = || self.world.hosts[1..].iter().all(|host| host.tables() == ["table inet squall"]);
        holds("the fault on every host", PATIENCE, live);
        let runs = self.asks(&["runs", "--format", "json"]).run().expect_exit(0).json();
        runs["runs"][0]["id"].as_str().expect("a run").to_owned()
    }

    pub fn shows(&self, run: &str) -> Value {
        self.asks(&["show", run, "--format", "json"]).run().expect_exit(0).json()
    }

    pub fn are_clean(&self) {
        let clean = || self.world.hosts[1..].iter().all(|host| host.tables().is_empty());
        holds("every host to be as before", PATIENCE, clean);
    }

    pub fn end(mut self) {
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
    // For a pipeline: what was asked for is written, and what says nothing to a controller is no silent wish.
    let (junit, events) =
        (fleet.world.directory.join("junit.xml"), fleet.world.directory.join("events.ndjson"));
    let (junit_path, events_path) = (junit.display().to_string(), events.display().to_string());
    let files = ["--ci", "--junit", &junit_path, "--events", &events_path];
    let deviated = fleet.runs_on("web", refused, "3s", &files).run();
    deviated.expect_exit(5);
    assert!(deviated.stdout.contains("web-1  deviated"), "{}", deviated.story());
    let junit = std::fs::read_to_string(&junit).expect("it was written");
    for host in ["web-1", "web-2"] {
        assert!(junit.contains(&format!("A page of every host on {host}")), "{junit}");
    }
    assert!(junit.contains("<failure") && !junit.contains("failures=\"0\""), "{junit}");
    fleet.asks(&["verdict", &events_path]).run().expect_exit(5).expect_told("the run itself said the same");
    let wish = fleet.runs_on("web", refused, "3s", &["--repeat", "2"]).run();
    wish.expect_exit(2).expect_told("`--repeat` is for a run of this host");
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
    let nowhere = fleet.runs_on("db", slow, "1s", &[]).run();
    nowhere.expect_exit(4).expect_told("no host matches `labels role=db`");
    // What an administrator says of a host goes before what it says of itself.
    fleet.asks(&["hosts", "label", "web-2", "role=db"]).run().expect_exit(0);
    let events = fleet.runs_on("db", slow, "1s", &[]).run();
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

    // A plan that was approved is run once, and each agent has seen that it is told what was approved.
    let document = fleet.world.directory.join("fleet.yaml").display().to_string();
    let plan = fleet.asks(&["plan", "--submit", &document, "--format", "json"]).run().expect_exit(0).json();
    let hash = plan["hash"].as_str().expect("a hash").to_owned();
    let approved = ["run", "--controller", URL, "--approved", &hash];
    fleet.asks(&approved).run().expect_exit(4).expect_told("not approved");
    let approve = fleet.asks(&["approve", &hash, "--note", "looked at it"]).run();
    approve.expect_exit(0).expect_told("looked at it");
    fleet.asks(&approved).run().expect_exit(0).expect_told(&hash);
    fleet.asks(&approved).run().expect_exit(4).expect_told("was used");
    fleet.asks(&["audit", "verify"]).run().expect_exit(0);
    fleet.end();
}

#[test]
fn a_signal_halts_everything_and_a_halt_by_label_the_hosts_that_carry_it() {
    needs!(Root, Nftables, Queue, Nginx);
    let mut fleet = Fleet::new(2);
    let slow = "latency: { delay: 20ms, to: [\"127.0.0.1:8080\"] }";
    let followed = fleet.runs(slow, "80s").start();
    let run = fleet.live();
    // No token, no network, no command: whoever administers the machine of the controller needs none of them.
    fleet.controller.as_mut().expect("it was started").signal(Signal::USR1);
    fleet.are_clean();
    followed.finish().expect_exit(6);
    assert_eq!(fleet.shows(&run)["state"], "interrupted");
    fleet.runs(slow, "1s").run().expect_exit(4).expect_told("halted by a signal");
    fleet.asks(&["audit"]).run().expect_exit(0).expect_told("SIGUSR1");
    fleet.asks(&["halt", "--controller", URL, "--lift"]).run().expect_exit(0);

    // By label: of the two hosts one is concerned, and new runs may begin.
    fleet.asks(&["hosts", "label", "web-2", "role=db"]).run().expect_exit(0);
    let halt = |label: &str| fleet.asks(&["halt", "--controller", URL, "--on", label]).run();
    halt("role=cache").expect_exit(4).expect_told("no host matches");
    let followed = fleet.runs_on("db", slow, "80s", &[]).start();
    let on = |host: usize| fleet.world.hosts[host].tables();
    holds("the fault on one host", PATIENCE, || on(2) == ["table inet squall"]);
    let other = halt("role=web");
    assert!(other.expect_exit(0).stdout.is_empty(), "it held nothing: {}", other.story());
    assert_eq!(on(2), ["table inet squall"], "a halt of others does not end it");
    let done = halt("role=db");
    done.expect_exit(0).expect_told("web-2: undone");
    fleet.are_clean();
    followed.finish();
    fleet.runs_on("web", slow, "1s", &[]).run().expect_exit(0);
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

/// The numbers of the lines of a run, as the controller keeps them, and how often each host says that it injected.
fn injections(events: &[Value]) -> Vec<(String, usize)> {
    for (at, event) in (1_u64..).zip(events) {
        assert_eq!(event["seq"], at, "the lines of the run have no gap: {event}");
    }
    let of = |host: &str| {
        let injected = |event: &&Value| event["host"] == host && event["event"] == "injected";
        (host.to_owned(), events.iter().filter(injected).count())
    };
    ["web-1", "web-2"].map(of).to_vec()
}

#[test]
fn a_run_goes_on_over_a_link_that_breaks_and_comes_back_and_a_host_that_stays_away_reverts_by_its_lease() {
    needs!(Root, Nftables, Queue, Nginx);
    let fleet = Fleet::new(2);
    let slow = "latency: { delay: 20ms, to: [\"127.0.0.1:8080\"] }";
    let away = |host: &Host, verdict: &str| {
        let rule = format!("add rule inet cut in ip saddr {} tcp dport 8417 {verdict}", host.v4);
        let chain = "add table inet cut; add chain inet cut in { type filter hook input priority 0 ; }";
        fleet.controller().look(&["nft", &format!("{chain}; {rule}")]);
    };
    let back = || drop(fleet.controller().look(&["nft", "delete", "table", "inet", "cut"]));
    let connected = |name: &str| {
        let hosts = fleet.hosts();
        let hosts = hosts["hosts"].as_array().expect("a list of hosts").clone();
        hosts.iter().any(|host| host["name"] == name && host["connected"] == true)
    };

    // Both ends of the connection are told that it is gone: another one takes its streams on. On a machine that is too slow for
    // its lease of five seconds the host is right to revert; then it is tried again.
    let (run, exit) = until("a run that goes on", PATIENCE * 4, || {
        let followed = fleet.runs(slow, "9s").start();
        let run = fleet.live();
        away(&fleet.world.hosts[1], "reject with tcp reset");
        holds("the connection to be lost", PATIENCE, || !connected("web-1"));
        back();
        holds("the host to be back", PATIENCE, || connected("web-1"));
        let ended = followed.finish();
        let late = ended.stdout.contains("its lease was not renewed");
        fleet.are_clean();
        (!late).then_some((run, ended))
    });
    exit.expect_exit(0);
    let events = fleet.asks(&["show", &run, "--events"]).run().expect_exit(0).stdout.clone();
    let events: Vec<Value> =
        events.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect();
    assert_eq!(injections(&events), [("web-1".to_owned(), 1), ("web-2".to_owned(), 1)]);

    // For longer than the lease: the host is clean by itself, while nobody can tell it anything.
    let followed = fleet.runs(slow, "60s").start();
    let run = fleet.live();
    away(&fleet.world.hosts[2], "drop");
    let stays = || fleet.world.hosts[2].tables().is_empty();
    holds("the host that is cut off to revert", PATIENCE, stays);
    back();
    fleet.are_clean();
    followed.finish().expect_exit(6);
    let events = fleet.asks(&["show", &run, "--events"]).run();
    let told = events.expect_exit(0).stdout.clone();
    assert!(told.contains("its lease was not renewed"), "{told}");
    fleet.holds_connected();
    fleet.end();
}
