//! Two controllers on one database: each does what the other was asked for, and carries on where the other dies.

use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde_json::Value;
use squall_tests::host::Host;
use squall_tests::needs;
use squall_tests::squall::{Background, Squall};
use squall_tests::wait::{PATIENCE, holds, until};
use squall_tests::world::World;

use crate::link::Linked;
use crate::serve::URL;
use crate::trial::SOON;

const OTHER: &str = "http://127.0.0.1:8426";

/// Both controllers on the first host of a world, beside their database; nginx on the second.
struct Pair {
    one: Background,
    other: Background,
    first: PathBuf,
    world: World,
}

impl Pair {
    fn new() -> Self {
        let world = World::new(2);
        world.postgres(0, 5432);
        world.nginx(1, 8080);
        let (first, second) = (world.place("first"), world.directory.join("second"));
        let one = Pair::serve(&world, &first, "127.0.0.1:8416", "0.0.0.0:8417");
        // What controllers share beside the database: keys.
        std::fs::create_dir(&second).expect("a directory");
        for entry in std::fs::read_dir(&first).expect("a directory").flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_file()) {
                std::fs::copy(entry.path(), second.join(entry.file_name())).expect("a copy");
            }
        }
        let other = Pair::serve(&world, &second, "127.0.0.1:8426", "0.0.0.0:8427");
        Pair { one, other, first, world }
    }

    fn serve(world: &World, data: &Path, people: &str, agents: &str) -> Background {
        let database = world.directory.join("service-0");
        let database = format!("host={} port=5432 user=postgres dbname=postgres", database.display());
        let data = data.display().to_string();
        let arguments = ["serve", "--data", &data, "--listen", people, "--listen-agents", agents];
        let serve = world.hosts[0].squall(&[&arguments[..], &["--heartbeat", "500ms"]].concat());
        let mut controller = serve.env("SQUALL_DATABASE", &database).start();
        holds("the controller to listen", PATIENCE, || {
            assert!(!controller.ended(), "{}", controller.story());
            controller.story().contains("serves agents at")
        });
        controller
    }

    /// A command of whoever administers one of them.
    fn asks(&self, url: &str, arguments: &[&str]) -> Squall {
        let token = self.first.join("admin-token");
        let asked = self.world.hosts[0].squall(arguments);
        asked.env("SQUALL_TOKEN_FILE", token).env("SQUALL_CONTROLLER", url)
    }

    fn json(&self, url: &str, arguments: &[&str]) -> Value {
        self.asks(url, &[arguments, &["--format", "json"]].concat()).run().expect_exit(0).json()
    }

    fn host(&self) -> &Host {
        &self.world.hosts[1]
    }

    /// The host joins at the first that answers of these.
    fn joins(&self, ports: [u16; 2]) -> Linked {
        let token = self.json(URL, &["tokens", "join"]);
        let [url, next] = ports.map(|port| format!("https://10.77.1.1:{port}"));
        let more = ["--controller", &next, "--label", "role=web"];
        Linked::by(self.host(), "web-1", &url, token["token"].as_str().expect("a token"), &more)
    }

    fn connected(&self, url: &str) -> bool {
        self.json(url, &["hosts"])["hosts"][0]["connected"] == true
    }

    /// An experiment for the host, given to one of them, which follows it.
    fn runs(&self, url: &str, lasts: &str) -> Squall {
        let text = format!(
            "squall: 1\ntitle: A page\non: {{ pick: all }}\nhypothesis:\n  - name: the page is there\n    \
             http: {{ url: \"http://127.0.0.1:8080/\", timeout: 2s }}\n    every: 100ms\nmethod:\n  \
             - fault: {{ latency: {{ delay: 20ms, to: [\"127.0.0.1:8080\"] }} }}\n    for: {lasts}\n"
        );
        let file = self.world.file("shared.yaml", text);
        self.asks(url, &["run", &file, "--controller", url])
    }

    /// A run by one of them whose fault is on the host, as the other one knows it.
    fn live(&self, url: &str, seen_from: &str) -> (Background, String) {
        let followed = self.runs(url, "80s").start();
        holds("the fault on the host", PATIENCE, || self.host().tables() == ["table inet squall"]);
        let runs = self.json(seen_from, &["runs"]);
        (followed, runs["runs"][0]["id"].as_str().expect("the other one knows of it").to_owned())
    }

    fn is_clean(&self) {
        holds("the host to be as before", PATIENCE, || self.host().tables().is_empty());
    }
}

#[test]
fn a_controller_that_dies_is_followed_by_another_on_the_same_database() {
    needs!(Root, Nftables, Queue, Nginx, Postgres);
    let mut pair = Pair::new();
    let linked = pair.joins([8417, 8427]);
    holds("the host to be connected to the first", PATIENCE, || pair.connected(URL));
    let (followed, run) = pair.live(URL, OTHER);
    pair.one.signal(Signal::KILL);
    holds("the controller to be gone", PATIENCE, || pair.one.ended());
    drop(followed);
    pair.is_clean();
    holds("the host to be connected to the other", PATIENCE, || pair.connected(OTHER));
    let closed = until("the run to be closed", PATIENCE * 2, || {
        let shown = pair.json(OTHER, &["show", &run]);
        (shown["state"] != "running").then_some(shown)
    });
    assert_eq!((&closed["state"], &closed["epoch"]), (&"interrupted".into(), &1.into()), "{closed}");
    let events = pair.asks(OTHER, &["show", &run, "--events"]).run().expect_exit(0).stdout.clone();
    assert_eq!(events.matches("\"event\":\"injected\"").count(), 1, "{events}");
    // Also the one that closed it publishes the end of the audit log.
    let log = pair.world.file("closed.ndjson", &events);
    pair.asks(OTHER, &["audit", "verify", "--report", &log])
        .run()
        .expect_exit(0)
        .expect_told("is in the log");
    holds("the host to be told", PATIENCE, || {
        pair.other.story().contains("a host knows that its run is over")
    });
    pair.runs(OTHER, "1s").run().expect_exit(0);
    linked.end();
    pair.other.signal(Signal::TERM);
    holds("the controller to end", PATIENCE, || pair.other.ended());
    pair.world.restored(SOON);
}

#[test]
fn a_halt_that_one_controller_is_asked_for_is_done_by_the_other_and_lifted_for_both() {
    needs!(Root, Nftables, Queue, Nginx, Postgres);
    let mut pair = Pair::new();
    // Only the other one reaches the host.
    let linked = pair.joins([8427, 8427]);
    holds("the host to be connected to the other", PATIENCE, || pair.connected(OTHER));
    assert!(!pair.connected(URL), "the first one does not reach it");
    for (asked, lifted) in [(URL, URL), (URL, OTHER), (OTHER, URL)] {
        let (followed, run) = pair.live(OTHER, URL);
        let halt = pair.asks(asked, &["halt", "--controller", asked, "--reason", "smoke"]).run();
        halt.expect_exit(0).expect_told("new runs are blocked");
        pair.is_clean();
        followed.finish().expect_exit(6);
        assert_eq!(pair.json(URL, &["show", &run])["state"], "interrupted");
        let events = pair.asks(URL, &["show", &run, "--events"]).run().expect_exit(0).stdout.clone();
        // Not by its lease: whoever held it was told.
        assert!(events.contains("\"by\":\"halt\"") && !events.contains("lease was not renewed"), "{events}");
        for url in [URL, OTHER] {
            pair.runs(url, "1s").run().expect_exit(4).expect_told("smoke");
        }
        pair.asks(lifted, &["halt", "--controller", lifted, "--lift"]).run().expect_exit(0);
        pair.runs(OTHER, "1s").run().expect_exit(0);
    }

    // One run alone, which blocks nothing.
    let (followed, run) = pair.live(OTHER, URL);
    pair.asks(URL, &["halt", "--controller", URL, "--run", &run]).run().expect_exit(0);
    pair.is_clean();
    followed.finish().expect_exit(6);
    pair.runs(OTHER, "1s").run().expect_exit(0);
    assert_eq!(pair.other.story().matches("a halt of everything is done here, too").count(), 3);
    linked.end();
    for controller in [&mut pair.one, &mut pair.other] {
        controller.signal(Signal::TERM);
        holds("the controller to end", PATIENCE, || controller.ended());
    }
    pair.world.restored(SOON);
}
