//! Two controllers on one database, and schedules that both of them know: each entry has one run, whoever of them dies.

use std::fs;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::Signal;
use serde_json::Value;
use squall_controller::conductor::date_of;
use squall_tests::needs;
use squall_tests::squall::{Background, Squall};
use squall_tests::wait::{PATIENCE, holds, until};
use squall_tests::world::World;

use crate::link::Linked;
use crate::trial::SOON;

const DOCUMENT: &str = "squall: 1
title: A page of a host
on: { labels: { role: web }, pick: 1 }
hypothesis:
  - name: the page is there
    http: { url: \"http://127.0.0.1:8080/\", timeout: 2s }
    every: 100ms
method:
  - wait: 1s
";

/// The ports of each controller: for people, and for agents.
const PORTS: [(u16, u16); 2] = [(8416, 8417), (8426, 8427)];

/// Two controllers on the first host of a world; each has one of the other hosts, which goes to the other one when its own is gone.
pub struct Twins {
    pub hosts: Vec<Linked>,
    pub controllers: [Option<Background>; 2],
    data: [PathBuf; 2],
    database: String,
    pub world: World,
}

impl Twins {
    pub fn new() -> Self {
        let world = World::new(3);
        world.postgres(0, 5432);
        (1..=2).for_each(|host| drop(world.nginx(host, 8080)));
        let database = world.directory.join("service-0");
        let database = format!("host={} port=5432 user=postgres dbname=postgres", database.display());
        let data = [world.place("one"), world.place("other")];
        let mut twins = Twins { hosts: Vec::new(), controllers: [None, None], data, database, world };
        twins.serves(0);
        // What controllers share beside the database: keys.
        for entry in fs::read_dir(&twins.data[0]).expect("a directory").flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_file()) {
                fs::copy(entry.path(), twins.data[1].join(entry.file_name())).expect("a copy");
            }
        }
        twins.serves(1);
        for number in [1, 2] {
            let token = twins.asks(0, &["tokens", "join", "--format", "json"]).run().expect_exit(0).json();
            let token = token["token"].as_str().expect("a token").to_owned();
            let url = |at: usize| format!("https://10.77.{number}.1:{}", PORTS[at].1);
            let other = url(2 - number);
            let more = ["--controller", &other, "--label", "role=web"];
            let host = &twins.world.hosts[number];
            twins.hosts.push(Linked::by(host, &format!("web-{number}"), &url(number - 1), &token, &more));
        }
        twins.hold_a_host_each();
        twins
    }

    /// At which port of the first host people reach one of them.
    pub fn people(at: usize) -> u16 {
        PORTS[at].0
    }

    pub fn serves(&mut self, at: usize) {
        let (people, agents) = PORTS[at];
        let (data, people) = (self.data[at].display().to_string(), format!("127.0.0.1:{people}"));
        let agents = format!("0.0.0.0:{agents}");
        let serve = [
            "serve",
            "--data",
            &data,
            "--listen",
            &people,
            "--listen-agents",
            &agents,
            "--heartbeat",
            "500ms",
        ];
        let serve = self.world.hosts[0].squall(&serve).env("SQUALL_DATABASE", &self.database);
        let mut controller = serve.start();
        holds("the controller to listen", PATIENCE, || {
            assert!(!controller.ended(), "{}", controller.story());
            controller.story().contains("serves agents at")
        });
        self.controllers[at] = Some(controller);
    }

    pub fn dies(&mut self, at: usize) {
        let mut controller = self.controllers[at].take().expect("it was started");
        controller.signal(Signal::KILL);
        holds("the controller to be gone", PATIENCE, || controller.ended());
    }

    /// A command of whoever administers one of them.
    pub fn asks(&self, at: usize, arguments: &[&str]) -> Squall {
        let asks =
            self.world.hosts[0].squall(arguments).env("SQUALL_TOKEN_FILE", self.data[0].join("admin-token"));
        asks.env("SQUALL_CONTROLLER", format!("http://127.0.0.1:{}", PORTS[at].0))
    }

    /// How many hosts one of them is connected to.
    pub fn has(&self, at: usize) -> usize {
        let hosts = self.asks(at, &["hosts", "--format", "json"]).run().expect_exit(0).json();
        let hosts = hosts["hosts"].as_array().expect("hosts");
        hosts.iter().filter(|host| host["connected"] == true).count()
    }

    fn hold_a_host_each(&self) {
        holds("a host for each of them", PATIENCE, || self.has(0) == 1 && self.has(1) == 1);
    }

    /// Adds schedules with an entry each, one a second; their names and the time of the first. None where the machine was too slow
    /// for the time of one of them.
    fn adds(&self, name: &str, later: u64) -> Option<(Vec<String>, u64)> {
        let first = now() / 1000 + later;
        let experiment = self.world.file("once.yaml", DOCUMENT);
        let mut names = Vec::new();
        for (number, at) in (first..first + 4).enumerate() {
            let name = format!("{name}-{later}-{number}");
            let moment = date_of(at * 1000)[..19].replace('T', " ");
            let text = format!("schedule: 1\nname: {name}\nwhen: {{ at: \"{moment}\" }}\n");
            let file = self.world.file(&format!("{name}.yaml"), text);
            let added = self.asks(1, &["schedule", "add", &file, "--experiment", &experiment]).run();
            if added.stderr.contains("is over") {
                return None;
            }
            added.expect_exit(0);
            names.push(name);
        }
        Some((names, first * 1000))
    }

    /// What became of the one entry of a schedule; none as long as that is not known.
    fn became(&self, schedule: &str, since: u64) -> Option<Value> {
        let since = date_of(since);
        let asked = ["calendar", "--from", &since, "--schedule", schedule, "--json"];
        let calendar = self.asks(1, &asked).run().expect_exit(0).json();
        let [entry] = &calendar["entries"].as_array().expect("entries")[..] else {
            panic!("{schedule}: {calendar}")
        };
        (!["planned", "claimed"].iter().any(|state| entry["state"] == *state)).then(|| entry.clone())
    }

    /// The runs that a schedule has begun.
    fn runs(&self, schedule: &str) -> Vec<Value> {
        let runs = self.asks(1, &["runs", "--format", "json"]).run().expect_exit(0).json();
        let runs = runs["runs"].as_array().expect("runs").clone();
        runs.into_iter().filter(|run| run["by"] == format!("schedule:{schedule}")).collect()
    }

    /// Each entry has begun one run, which its host has seen the end of.
    fn each_has_one_run(&self, schedules: &[String], since: u64) {
        for schedule in schedules {
            let entry = until("an entry to be decided", PATIENCE * 3, || self.became(schedule, since));
            assert_eq!(entry["state"], "fired", "{entry}");
            let run = until("its run to end", PATIENCE * 3, || {
                let runs = self.runs(schedule);
                assert_eq!(runs.len(), 1, "{schedule}: {runs:#?}");
                (runs[0]["state"] != "submitted" && runs[0]["state"] != "running").then(|| runs[0].clone())
            });
            assert_eq!(run["id"], entry["run"]);
            assert_ne!(run["state"], "refused", "{run}");
        }
    }
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    u64::try_from(now.as_millis()).expect("it is before the year 9999")
}

#[test]
fn of_two_controllers_one_begins_each_entry_and_the_other_goes_on_alone() {
    needs!(Root, Nftables, Nginx, Postgres);
    let mut twins = Twins::new();
    let since = now();
    let mut later = 0;
    let (both, _) = until("schedules that are added in time", PATIENCE * 6, || {
        later += 5;
        twins.adds("both", later)
    });
    twins.each_has_one_run(&both, since);

    // One of them dies before the time of entries that it knew of. Where the machine was too slow for that it comes back, and it
    // is tried again.
    let mut later = 5;
    let alone = until("a death between two entries", PATIENCE * 12, || {
        later += 5;
        if twins.controllers[0].is_none() {
            twins.serves(0);
        }
        let (alone, first) = twins.adds("alone", later)?;
        twins.dies(0);
        (now() < first).then_some(alone)
    });
    twins.each_has_one_run(&alone, since);
    // What it began before still has one run.
    twins.each_has_one_run(&both, since);

    // It dies whenever it will while entries are being begun: none has two runs, whoever takes over what.
    twins.serves(0);
    let mut later = 0;
    let (torn, first) = until("schedules that are added in time", PATIENCE * 6, || {
        later += 5;
        twins.adds("torn", later)
    });
    holds("the first of them to be due", PATIENCE * 3, || now() >= first + 1000);
    twins.dies(0);
    for schedule in &torn {
        let entry = until("an entry that is over", PATIENCE * 3, || {
            let entry = twins.became(schedule, since);
            // What it had claimed and not begun stays so: nobody begins it a second time.
            entry.or_else(|| (now() > first + 30_000).then_some(Value::Null))
        });
        let runs = twins.runs(schedule);
        let least = usize::from(entry["state"] == "fired");
        assert!((least..=1).contains(&runs.len()), "{entry}: {runs:#?}");
    }
    twins.asks(1, &["audit", "verify"]).run().expect_exit(0);

    twins.hosts.drain(..).for_each(Linked::end);
    let mut last = twins.controllers[1].take().expect("it was never ended");
    last.signal(Signal::TERM);
    last.finish().expect_exit(0);
    twins.world.restored(SOON);
}
