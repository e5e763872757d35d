//! A controller that may have few files open: what it has no room for is refused before anything is done, and all else works.

use std::fs;

use squall_tests::needs;
use squall_tests::squall::{Squall, binary};
use squall_tests::wait::{PATIENCE, holds};
use squall_tests::world::World;

use crate::serve::{Fleet, Manner, URL};

const SLOW: &str = "latency: { delay: 20ms, to: [\"127.0.0.1:8080\"] }";
/// Enough for four hosts and one run over them, too little for a second.
const FILES: usize = 150;

#[test]
fn a_run_that_there_is_no_room_for_is_refused_before_anything_is_done() {
    needs!(Root, Nftables, Queue, Nginx);
    let fleet = Fleet::like(4, Manner { files: Some(FILES), ..Manner::default() });
    let pid = fleet.controller.as_ref().expect("it was started").pid();
    let open = || fs::read_dir(format!("/proc/{pid}/fd")).expect("it lives").count();
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("it lives");
    let limit = limits.lines().find(|line| line.starts_with("Max open files")).expect("a limit");
    assert_eq!(limit.split_whitespace().skip(3).take(2).collect::<Vec<_>>(), ["150", "150"]);

    let idle = open();
    let aimed = |name: &str, on: &str| {
        let text = format!(
            "squall: 1\ntitle: Slow\non: {{ {on} }}\nhypothesis: []\nmethod:\n  - fault: {{ {SLOW} }}\n    for: 60s\n"
        );
        let file = fleet.world.file(name, text);
        fleet.asks(&["run", &file, "--controller", URL])
    };
    let followed = aimed("all.yaml", "labels: { role: web }").start();
    fleet.live();
    // Four for each thread that drives hosts; besides, a client that looks on.
    let live = open();
    assert!(live > idle && live <= idle + 16 + 2, "{idle} were open, then {live}");
    // Another one like it finds no room now, and nothing of it is done; a smaller one does, and a halt.
    let refused = aimed("again.yaml", "labels: { role: web }").run();
    refused.expect_exit(4).expect_told("no room for this run").expect_told("LimitNOFILE");
    let runs = fleet.asks(&["runs", "--format", "json"]).run().expect_exit(0).json();
    let run = runs["runs"][0]["id"].as_str().expect("it is kept that it was refused").to_owned();
    assert_eq!(runs["runs"][0]["state"], "refused");
    let events = fleet.asks(&["show", &run, "--events"]).run();
    assert_eq!(events.expect_exit(0).stdout, "", "nothing of it was begun");
    let small = "squall: 1\ntitle: A look\non: { pick: 1 }\nhypothesis: []\nmethod:\n  - wait: 100ms\n";
    let small = fleet.world.file("small.yaml", small);
    fleet.asks(&["run", &small, "--controller", URL]).run().expect_exit(0);
    fleet.asks(&["halt", "--controller", URL]).run().expect_exit(0);
    followed.finish().expect_exit(6);
    fleet.are_clean();
    holds("what the run had open to be closed", PATIENCE, || open() <= idle + 2);
    fleet.end();
}

#[test]
fn a_controller_that_could_do_nothing_does_not_begin() {
    needs!(Root);
    let world = World::new(1);
    let data = world.place("data").display().to_string();
    let mut command = world.hosts[0].netns.command("prlimit");
    command.arg("--nofile=100:100").arg(binary("squall")).args(["serve", "--data", &data]);
    let refused = Squall::with(command, "squall serve", &world.directory).run();
    refused.expect_exit(4).expect_told("only 100 files may be open").expect_told("LimitNOFILE");
    assert_eq!(fs::read_dir(&data).expect("a directory").count(), 0, "it has made nothing");
}
