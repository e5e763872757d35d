//! A journal that is damaged, cut, lost or somebody else's is never "nothing to do"; and what bears Squall's marks is
//! found without one, and nothing else.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use rustix::process::Signal;
use squall_agent::host::process::Target;
use squall_agent::host::undo::Undo;
use squall_agent::journal::{Entry, Journal};
use squall_agent::state::Place;
use squall_experiments::protocol::RunId;
use squall_tests::host::Host;
use squall_tests::needs;
use squall_tests::netns::{Process, signal};
use squall_tests::trial::calm;
use squall_tests::wait::{PATIENCE, holds};
use squall_tests::world::World;

use crate::crash::{journal, killed_live};

/// Leaves an inert root with a class on the interface when both agent processes are killed.
pub const LINE: &str =
    "{ fault: { bandwidth: { rate: 20Mbit/s, to: [\"10.77.1.2:9\"], direction: egress } }, for: 90s }";
const SOON: Duration = Duration::from_secs(3);

fn root_is_ours(host: &Host) -> bool {
    host.look(&["tc", "qdisc", "show", "dev", "to1"]).contains("htb 5a17:")
}

/// Writes a journal as a dead agent of this host leaves it, with these undos; `change` may spoil its text.
pub fn plant(host: &Host, undos: &[Undo], change: impl FnOnce(Vec<u8>) -> Vec<u8> + Send) -> PathBuf {
    host.netns.inside(|| {
        let place = Place::here(&host.state).expect("the namespace has a cookie");
        place.create().expect("root may make it");
        let path = place.journal();
        let mut journal = Journal::create(&path).expect("it can be written");
        let run = RunId("r1".into());
        journal.append(&[Entry::Begin { run: run.clone(), title: "t".into() }]).expect("it can be written");
        for undo in undos {
            journal.record(&run, undo).expect("it can be written");
        }
        fs::write(&path, change(fs::read(&path).expect("root may read it"))).expect("root may write it");
        path
    })
}

/// The first lines of a journal.
fn lines(bytes: &[u8], count: usize) -> Vec<u8> {
    bytes.split_inclusive(|byte| *byte == b'\n').take(count).flatten().copied().collect()
}

#[test]
fn a_journal_that_is_cut_lost_or_not_its_own_is_never_nothing_to_do() {
    needs!(Root, Nftables, Htb);
    let world = World::new(2);
    let host = &world.hosts[0];
    killed_live(&world, LINE);
    let path = journal(host).expect("a killed pair leaves its journal");
    let whole = fs::read(&path).expect("root may read it");
    let place = path.parent().expect("it lies in a directory").to_owned();
    let elsewhere = place.with_file_name("netns-1");
    let mut zeros = whole.clone();
    zeros[40..].fill(0);
    let future = b"0123456789abcdef 0000000000000000 {\"header\":{\"version\":3}}\n".to_vec();
    // Each with what must be said: where the file is damaged the file, where it is lost what stands on the host.
    let shown = path.display().to_string();
    let marked = "an inert root on `to1`".to_owned();
    let cases: Vec<(&str, Option<Vec<u8>>, &String)> = vec![
        ("empty", Some(Vec::new()), &shown),
        ("zeros", Some(zeros), &shown),
        ("another version", Some(future), &shown),
        ("garbage behind it", Some([&whole[..], b"\x01\x02"].concat()), &shown),
        ("a line doubled", Some([lines(&whole, 2), lines(&whole, 2)].concat()), &shown),
        ("cut behind its header", Some(lines(&whole, 1)), &marked),
        ("cut in its second undo", Some(whole[..lines(&whole, 3).len() + 50].to_vec()), &marked),
        ("missing", None, &marked),
    ];
    let next = world.file("next.yaml", calm(&[LINE]));
    for (name, bytes, told) in cases {
        fs::create_dir_all(&place).expect("root may make it");
        match &bytes {
            Some(bytes) => fs::write(&path, bytes).expect("root may write it"),
            None => {
                let _ = fs::remove_file(&path);
            }
        }
        let finished = host.squall(&["run", &next]).run();
        finished.expect_exit(4).expect_told(told).expect_told("--from-host");
        assert!(root_is_ours(host), "{name}: nothing may be assumed to be clean: {}", finished.story());
        if let Some(bytes) = bytes.filter(|_| *told == shown) {
            assert_eq!(fs::read(&path).ok(), Some(bytes), "{name}: a damaged journal must not be touched");
        }
    }
    host.agent(&["recover"]).run().expect_exit(7).expect_told(&marked);
    // A journal that lies in the directory of another namespace.
    fs::create_dir_all(&place).expect("root may make it");
    fs::create_dir_all(&elsewhere).expect("root may make it");
    fs::write(elsewhere.join("journal"), &whole).expect("root may write it");
    host.squall(&["run", &next]).run().expect_exit(4).expect_told("another network namespace");
    fs::remove_dir_all(&elsewhere).expect("root may remove it");
    fs::create_dir_all(&place).expect("root may make it");
    fs::write(&path, whole).expect("root may write it");
    host.agent(&["recover"]).run().expect_exit(0);
    world.restored(SOON);
}

#[test]
fn an_agent_that_is_asked_to_serve_refuses_where_marks_stand_that_nobody_knows_of() {
    needs!(Root, Nftables, Htb);
    let world = World::new(2);
    let host = &world.hosts[0];
    host.look(&["tc", "qdisc", "add", "dev", "to1", "root", "handle", "5a17:", "htb"]);
    host.agent(&["run"]).run().expect_exit(4).expect_told("an inert root on `to1`");
    host.look(&["ip", "link", "add", "squall-in", "type", "ifb"]);
    let finished = host.agent(&["recover", "--from-host"]).run();
    finished.expect_exit(0).expect_told("the kernel's own again").expect_told("`squall-in` is gone");
    host.agent(&["recover", "--from-host"]).run().expect_exit(0).expect_told("nothing here");
    world.restored(SOON);
}

/// A listening socket with a mark, as long as it lives.
fn marked(host: &Host, mark: u32) -> std::net::TcpListener {
    host.netns.inside(|| {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
        setsockopt(&socket, sockopt::Mark, &mark).expect("root may mark it");
        socket
    })
}

fn marks(host: &Host) -> String {
    host.look(&["ss", "-tlnHe"])
}

#[test]
fn from_the_host_only_what_is_ours_is_taken_away() {
    needs!(Root, Nftables, Htb);
    let world = World::new(3);
    let host = &world.hosts[0];
    killed_live(&world, LINE);
    fs::remove_file(journal(host).expect("a killed pair leaves its journal")).expect("root may remove it");
    let ours = marked(host, 1 << 22);
    // Look-alikes: each has something of ours and is not.
    let strangers = [
        vec!["nft", "add", "table", "inet", "squall"],
        vec!["nft", "add", "chain", "inet", "squall", "fault-in"],
        vec!["nft", "add", "table", "inet", "squall2"],
        vec!["nft", "add", "table", "ip", "squall"],
        vec!["tc", "qdisc", "add", "dev", "to2", "root", "handle", "5a17:", "bfifo", "limit", "100000"],
        vec!["ip", "rule", "add", "fwmark", "0x800000/0x800000", "lookup", "main"],
    ];
    strangers.iter().for_each(|stranger| drop(host.look(stranger)));
    let theirs = [marked(host, 1 << 22 | 1), marked(host, 1 << 23), marked(host, 1 << 12)];
    let stopped = world.program(0, None, &["sleep", "600"]);
    assert!(signal(&stopped, Signal::STOP));
    let standing = |host: &Host| {
        let qdiscs = host.look(&["tc", "qdisc", "show", "dev", "to2"]);
        (host.tables(), qdiscs, host.look(&["ip", "rule"]), stopped.lives())
    };
    let before = standing(host);
    let dry = host.agent(&["recover", "--from-host", "--dry-run"]).run();
    dry.expect_exit(0).expect_told("an inert root on `to1` with 1 classes").expect_told("mark 0x400000");
    assert!(root_is_ours(host), "a dry run does nothing");
    let finished = host.agent(&["recover", "--from-host"]).run();
    finished
        .expect_exit(0)
        .expect_told("left alone")
        .expect_told("the root of `to1` is the kernel's own again");
    finished.expect_told("a discipline with our handle").expect_told("somebody else's");
    assert_eq!(standing(host), before, "{}", finished.story());
    assert!(!root_is_ours(host), "{}", finished.story());
    let now = marks(host);
    assert_eq!(now.matches("fwmark:0x400000 ").count(), 0, "{now}");
    for mark in ["fwmark:0x400001", "fwmark:0x800000", "fwmark:0x1000"] {
        assert!(now.contains(mark), "a socket of somebody else's has lost its mark {mark}: {now}");
    }
    holds("the stopped process to be stopped still", PATIENCE, || {
        Process::of(stopped.pid).and_then(|now| now.halted()) == Some("stopped")
    });
    drop((ours, theirs));
    for undo in [
        vec!["nft", "delete", "table", "inet", "squall"],
        vec!["nft", "delete", "table", "inet", "squall2"],
        vec!["nft", "delete", "table", "ip", "squall"],
        vec!["tc", "qdisc", "del", "dev", "to2", "root"],
        vec!["ip", "rule", "del", "fwmark", "0x800000/0x800000"],
    ] {
        host.look(&undo);
    }
    signal(&stopped, Signal::CONT);
    world.restored(SOON);
}

#[test]
fn the_whole_lines_of_a_damaged_journal_are_undone_and_it_is_kept() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let host = &world.hosts[0];
    let sleepers: Vec<Process> = (0..2).map(|_| world.program(0, None, &["sleep", "600"])).collect();
    sleepers.iter().for_each(|sleeper| assert!(signal(sleeper, Signal::STOP)));
    holds("the sleepers to be stopped", PATIENCE, || {
        sleepers
            .iter()
            .all(|sleeper| Process::of(sleeper.pid).and_then(|now| now.halted()) == Some("stopped"))
    });
    let undos = [
        Undo::Resume(Target::of(sleepers[0].pid).expect("it lives")),
        Undo::Resume(Target::of(sleepers[1].pid).expect("it lives")),
    ];
    let path = plant(host, &undos, |mut bytes| {
        // In the line of the first of them.
        let at = lines(&bytes, 2).len() + 60;
        bytes[at] ^= 0x01;
        bytes
    });
    let shown = path.display().to_string();
    host.agent(&["recover"]).run().expect_exit(7).expect_told(&shown).expect_told("line 3");
    let finished = host.agent(&["recover", "--from-host"]).run();
    finished.expect_exit(0).expect_told("line 3").expect_told(&format!("(pid {}) runs", sleepers[1].pid));
    let halted = |sleeper: &Process| Process::of(sleeper.pid).and_then(|now| now.halted());
    assert_eq!(halted(&sleepers[0]), Some("stopped"), "nobody knows who has stopped it");
    assert_eq!(halted(&sleepers[1]), None);
    let kept: Vec<PathBuf> = beside(&path);
    assert!(kept.iter().any(|file| file.ends_with("damaged-1")), "{kept:?}");
    host.agent(&["recover"]).run().expect_exit(0);
    signal(&sleepers[0], Signal::CONT);
    fs::remove_dir_all(path.parent().expect("it lies in a directory")).expect("root may remove it");
    world.restored(SOON);
}

fn beside(path: &Path) -> Vec<PathBuf> {
    let entries =
        fs::read_dir(path.parent().expect("it lies in a directory")).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

#[test]
fn a_journal_of_another_boot_undoes_nothing_that_the_reboot_has_undone() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let host = &world.hosts[0];
    let stopped = world.program(0, None, &["sleep", "600"]);
    assert!(signal(&stopped, Signal::STOP));
    let target = Target::of(stopped.pid).expect("it lives");
    let path = plant(host, &[], |_| {
        let boot = "00000000-0000-0000-0000-000000000000".to_owned();
        let namespace = squall_agent::host::netns::Netns::here().expect("it can be seen").id();
        let run = RunId("r1".into());
        let entries = [
            Entry::Header { version: squall_agent::journal::VERSION, boot, namespace },
            Entry::Undo { number: 1, run, undo: Undo::Resume(target) },
        ];
        squall_agent::journal::lines::Chain::default().lines(&entries).expect("it is text").0.into_bytes()
    });
    host.agent(&["recover"]).run().expect_exit(0).expect_told("a reboot has undone it");
    assert_eq!(Process::of(stopped.pid).and_then(|now| now.halted()), Some("stopped"), "it is another's");
    assert!(!path.exists());
    signal(&stopped, Signal::CONT);
    world.restored(SOON);
}
