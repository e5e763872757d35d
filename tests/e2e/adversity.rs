//! A fleet to which bad things happen in the middle of a run: its database goes away, its disk is full, its controller is cut
//! off while hosts are cut off from each other.

use std::fs;
use std::time::Duration;

use squall_tests::needs;
use squall_tests::service::Kind;
use squall_tests::wait::{PATIENCE, holds, until};
use squall_tests::world::World;

use crate::serve::{Fleet, URL};
use crate::store::several::{begins_again, ends};
use crate::trial::SHORT;

/// What a controller says whose run ended because its database did not answer for too long.
const LATE: [&str; 2] = ["cannot be kept: it ends", "still carried on"];

/// A run does not depend on a database that comes back soon, and nothing of what it did is missing then.
#[test]
fn a_database_that_comes_back_in_the_middle_of_a_run_has_all_of_it() {
    needs!(Root, Nftables, Queue, Nginx, Postgres);
    let world = World::new(2);
    let database = world.postgres(0, 5432);
    let at = format!("host={} port=5432 user=postgres", world.directory.join("service-0").display());
    let fleet = Fleet::over(world, Some(at));
    let slow = "latency: { delay: 20ms, to: [\"127.0.0.1:8080\"] }";
    let mut postmaster = database.pid;
    // On a machine on which a database takes longer than a run bears, the run is right to end; then it is tried again.
    let (run, followed) = until("a run that goes on without its database", PATIENCE * 6, || {
        let followed = fleet.runs(slow, "80s").start();
        let run = fleet.live();
        ends(postmaster);
        // Long enough that something of the run is said meanwhile.
        std::thread::sleep(Duration::from_secs(2));
        postmaster = begins_again(&fleet.world).pid;
        let answers = || fleet.asks(&["runs"]).run().status.success();
        holds("the database to answer again", PATIENCE, answers);
        let goes_on = fleet.world.hosts[1].tables() == ["table inet squall"];
        let halt = ["halt", "--controller", URL, "--run", &run, "--reason", "seen enough"];
        fleet.asks(&halt).run().expect_exit(0);
        fleet.are_clean();
        let followed = followed.finish();
        let told = fleet.controller.as_ref().expect("it was started").story();
        let late = LATE.iter().any(|word| told.contains(word));
        assert!(goes_on || late, "the run goes on: {told}");
        goes_on.then_some((run, followed))
    });
    let shown = until("the end of the run", PATIENCE * 2, || {
        let shown = fleet.asks(&["show", &run, "--format", "json"]).run();
        let shown = (shown.status.success()).then(|| shown.json())?;
        (shown["state"] != "running").then_some(shown)
    });
    assert_eq!(shown["state"], "interrupted", "{shown}");
    let events = fleet.asks(&["show", &run, "--events"]).run();
    let events = events.expect_exit(0).stdout.clone();
    let numbers = events.lines().map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).expect("a line of JSON");
        line["seq"].as_u64().expect("a number")
    });
    let numbers: Vec<u64> = numbers.collect();
    assert!(numbers.iter().copied().eq(1..=numbers.len() as u64), "none is missing: {numbers:?}");
    assert!(events.contains("\"finished\"") && events.contains("\"halt\""), "it was halted: {events}");
    // Whoever followed it has found its end, or says that it could not be followed.
    assert!(!followed.status.success(), "{}", followed.story());
    fleet.end();
}

#[test]
fn a_disk_that_is_full_is_said_and_halting_does_not_need_it() {
    needs!(Root, Nftables, Queue, Nginx);
    let world = World::new(2);
    let data = world.place("data");
    fs::create_dir_all(&data).expect("a directory");
    world.tmpfs(&data, 4 << 20);
    let fleet = Fleet::over(world, None);
    // Begun on the host itself, so that it does not end with the controller's disk.
    let host = &fleet.world.hosts[1];
    let slow = ["inject", "latency", "--delay", "20ms", "--to", "127.0.0.1:8080", "--for", "80s"];
    let injected = host.squall(&slow).start();
    holds("the fault on the host", PATIENCE, || host.tables() == ["table inet squall"]);
    let filler = data.join("filler");
    let mut size = 4 << 20;
    // Down to the last byte.
    let mut full = Vec::new();
    while size > 0 {
        full.resize(full.len() + size, 0);
        if fs::write(&filler, &full).is_err() {
            full.truncate(full.len() - size);
            let _ = fs::write(&filler, &full);
            size /= 2;
        }
    }
    let made = |name: &str| fleet.asks(&["tokens", "new", name, "--role", "viewer"]).run();
    // What is small may still fit where there was something before.
    let refused = until("a full disk", PATIENCE, || {
        let made = made("one-more");
        (!made.status.success()).then_some(made)
    });
    refused.expect_exit(4).expect_told("disk is full");
    assert_eq!(host.tables(), ["table inet squall"], "the fault is still there");
    let halted = fleet.asks(&["halt", "--controller", URL, "--reason", "it is full"]).run();
    halted.expect_exit(0).expect_told("web-1: undone");
    fleet.are_clean();
    injected.finish().expect_exit(6);
    fs::remove_file(&filler).expect("it is there");
    made("after").expect_exit(0);
    fleet.asks(&["audit", "verify"]).run().expect_exit(0);
    fleet.end();
}

/// Hosts of which one has a web server that needs the database of another; the way between them goes through a third machine.
#[test]
fn hosts_that_are_cut_off_from_each_other_and_then_from_their_controller_are_clean_by_their_leases() {
    needs!(Root, Nftables, Nginx, Postgres);
    let world = World::new(4);
    world.hosts[0].look(&["sysctl", "-q", "-w", "net.ipv4.ip_forward=1"]);
    for number in 1..=3 {
        let router = format!("10.77.{number}.1");
        world.hosts[number].look(&["ip", "route", "add", "default", "via", &router]);
    }
    world.as_found();
    let database = world.postgres(3, 5432);
    let fleet = Fleet::over(world, None);
    let hosts = &fleet.world.hosts;
    let (front, middle, store) = (&hosts[1], &hosts[2], &hosts[3]);
    let reaches = |from| database.dial_within(from, store.v4, SHORT).is_ok();
    assert_eq!(database.kind, Kind::Postgres);
    assert!(reaches(front) && reaches(middle), "the way is there");

    let document = format!(
        "squall: 1\ntitle: The front loses its database\non: {{ labels: {{ role: web }} }}\n\
         hypothesis:\n  - name: the page is there\n    http: {{ url: \"http://127.0.0.1:8080/\", timeout: 2s }}\n    every: 100ms\n\
         method:\n  - fault: {{ partition: {{ to: [\"{}:5432\"] }} }}\n    on: {{ name: [web-1] }}\n    for: 80s\n",
        store.v4
    );
    let file = fleet.world.file("front.yaml", document);
    let followed = fleet.asks(&["run", &file, "--controller", URL]).start();
    holds("the front to be cut off from the database", PATIENCE, || !reaches(front));
    assert!(reaches(middle), "nobody else is");
    let runs = fleet.asks(&["runs", "--format", "json"]).run().expect_exit(0).json();
    let run = runs["runs"][0]["id"].as_str().expect("a run").to_owned();

    // Nothing that the controller says to agents arrives any more.
    let controller = &hosts[0];
    for rule in [
        &["add", "table", "inet", "cut"][..],
        &["add", "chain", "inet", "cut", "out", "{ type filter hook output priority 0 ; }"],
        &["add", "rule", "inet", "cut", "out", "tcp", "sport", "8417", "drop"],
    ] {
        controller.look(&[&["nft"], rule].concat());
    }
    fleet.are_clean();
    assert!(reaches(front), "the front has its database again, and still no controller");
    controller.look(&["nft", "delete", "table", "inet", "cut"]);
    let shown = until("what became of the run", PATIENCE * 2, || {
        let shown = fleet.shows(&run);
        (shown["state"] != "running").then_some(shown)
    });
    assert_ne!(shown["state"], "held", "{shown}");
    let events = fleet.asks(&["show", &run, "--events"]).run();
    let events = events.expect_exit(0).stdout.clone();
    assert!(
        events.contains("its lease was not renewed; everything was undone"),
        "web-1 ended it by itself: {events}"
    );
    let told = followed.finish();
    assert!(!told.status.success(), "{}", told.story());
    fleet.holds_connected();
    fleet.end();
}
