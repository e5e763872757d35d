//! Promise one: whatever dies or hangs, in any order, the host returns to exactly what it was.

use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use squall_agent::state::Place;
use squall_tests::host::Host;
use squall_tests::needs;
use squall_tests::netns::{self, Process, signal};
use squall_tests::squall::{Squall, binary};
use squall_tests::wait::{PATIENCE, holds};
use squall_tests::world::World;

use crate::trial::{Trial, calm};

/// Who is hit.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Worker,
    Guardian,
    Both,
    Command,
}

/// Each fault in its longest form, with what it needs of the world.
const CUT: &str = "{ fault: { partition: { to: [\"10.77.1.2:7\"] } }, for: 60s }";
const SCOPED: &str = "{ fault: { partition: { to: [\"10.77.1.2:7\"] } }, in: { user: \"65533\" }, for: 60s }";
const REFUSE: &str = "{ fault: { refuse: { to: [\"10.77.1.2:7\"] } }, for: 60s }";
const STOLEN: &str =
    "{ fault: { latency: { delay: 100ms, to: [\"10.77.1.2:7\"], direction: egress } }, for: 60s }";
const PAUSE: &str = "{ fault: { pause: {} }, in: { process: { name: sleep } }, for: 60s }";

/// A fault is live, a victim is hit, and the host must be clean in time. Both the kernel's own means (an owned table,
/// a lease, a tracer's end) and the survivor are measured: a killed victim at once, a stopped one after 1.3 to 1.9 s
/// on an idle machine; three times that is allowed here.
fn crash(step: &str, victim: Victim, hit: Signal) {
    let world = World::new(2);
    let host = &world.hosts[0];
    world.echo(1, 7);
    world.program(0, None, &["sleep", "600"]);
    holds("the sleeper", PATIENCE, || host.netns.processes().iter().any(|process| process.name == "sleep"));
    let mut trial = Trial::begin(&world, host, &calm(&[step]));
    trial.injected();
    let (guardian, worker) = host.agents();
    let command = Process::of(trial.run.pid()).expect("the command runs");
    let victims = match victim {
        Victim::Worker => vec![&worker],
        Victim::Guardian => vec![&guardian],
        Victim::Both => vec![&worker, &guardian],
        Victim::Command => vec![&command],
    };
    // Without this the wait below could be over before it began.
    assert!(!host.tables().is_empty() || !paused(host).is_empty(), "a live fault must be there to be seen");
    if victims.len() > 1 {
        // Held first, so that neither notices the other's end: it takes a survivor less than a millisecond to revert.
        for victim in &victims {
            signal(victim, Signal::STOP);
        }
    }
    for victim in &victims {
        assert!(signal(victim, hit), "{victim:?} is gone already");
    }
    let struck = Instant::now();
    let allowed = match (hit, victim) {
        // A stopped command is known by its lease, which is five seconds long.
        (Signal::STOP, Victim::Command) => Duration::from_secs(15),
        (Signal::STOP, _) => Duration::from_secs(6),
        _ => Duration::from_secs(3),
    };
    // What acts again and again must have ended too, not only what can be seen of it. A pair dies together; behind a
    // command that is only stopped it lives on, with nothing injected.
    let idle = || {
        if matches!((hit, victim), (Signal::STOP, Victim::Command)) {
            host.agent(&["status"]).run().stdout.contains("nothing is injected")
        } else {
            !guardian.lives() && !worker.lives()
        }
    };
    let clean = || host.tables().is_empty() && paused(host).is_empty() && idle();
    while !clean() {
        let left = (host.tables(), paused(host), host.squalls());
        assert!(
            struck.elapsed() < allowed,
            "{left:?} are still there {:?} after {victim:?} got {hit:?}",
            struck.elapsed()
        );
        thread::sleep(Duration::from_millis(10));
    }
    if matches!(hit, Signal::STOP) && command.lives() {
        // A stopped command hears of it when it runs again.
        signal(&command, Signal::CONT);
    }
    holds("the command to end", PATIENCE, || trial.run.ended());
    let died = matches!((hit, victim), (Signal::KILL, Victim::Command));
    let finished = trial.finish();
    if died {
        assert_eq!(finished.status.code(), None, "{}", finished.story());
    } else {
        // It lost its agent or its lease and the host is clean: interrupted, and neither green nor "still modified".
        finished.expect_exit(6);
    }
    // What no survivor could do (both died, and the command too) the next command on this host does.
    host.agent(&["recover"]).run().expect_exit(0);
    world.restored(Duration::from_secs(3));
}

/// Processes of a host that do not run although they could; Squall's own may be stopped by the test.
fn paused(host: &Host) -> Vec<Process> {
    let mut found = host.netns.processes();
    found.retain(|process| !process.program.starts_with("squall") && process.halted().is_some());
    found
}

/// A test for each victim and each way to be hit, for a fault of each kind; the others, and every point of an agent's life,
/// are the torture suite's.
macro_rules! crashes {
    ($($module:ident: $step:expr $(, needs $need:ident)*;)+) => {$(
        mod $module {
            use super::*;

            #[test]
            fn worker_killed() { needs!(Root, Nftables $(, $need)*); crash($step, Victim::Worker, Signal::KILL); }

            #[test]
            fn guardian_killed() { needs!(Root, Nftables $(, $need)*); crash($step, Victim::Guardian, Signal::KILL); }

            #[test]
            fn both_killed() { needs!(Root, Nftables $(, $need)*); crash($step, Victim::Both, Signal::KILL); }

            #[test]
            fn command_killed() { needs!(Root, Nftables $(, $need)*); crash($step, Victim::Command, Signal::KILL); }

            #[test]
            fn worker_stopped() { needs!(Root, Nftables $(, $need)*); crash($step, Victim::Worker, Signal::STOP); }

            #[test]
            fn guardian_stopped() { needs!(Root, Nftables $(, $need)*); crash($step, Victim::Guardian, Signal::STOP); }

            #[test]
            fn both_stopped() { needs!(Root, Nftables $(, $need)*); crash($step, Victim::Both, Signal::STOP); }

            #[test]
            fn command_stopped() { needs!(Root, Nftables $(, $need)*); crash($step, Victim::Command, Signal::STOP); }
        }
    )+};
}

crashes! {
    partition: CUT;
    scoped: SCOPED, needs Cgroup2, needs Bpf;
    latency_out: STOLEN, needs Queue;
    pause: PAUSE;
}

#[test]
fn everything_killed_at_any_moment_is_recovered() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let host = &world.hosts[0];
    world.program(0, None, &["sleep", "600"]);
    let both = "{ parallel: [{ fault: { partition: { to: [\"10.77.1.2:7\"] } }, for: 60s }, { fault: { pause: {} }, \
                in: { process: { name: sleep } }, for: 60s }] }";
    for attempt in 0..20 {
        let mut trial = Trial::begin(&world, host, &calm(&[both]));
        // From the start of the command until both faults are live, a tenth of a second or so, and a little beyond.
        thread::sleep(Duration::from_millis(attempt * 12));
        let killed = netns::end(|process| host.squalls().iter().any(|squall| squall.pid == process.pid));
        assert!(!killed.is_empty(), "attempt {attempt}: there was nothing to kill");
        holds("the command to be dead", PATIENCE, || trial.run.ended());
        holds("the kernel to let go", Duration::from_secs(3), || {
            host.tables().is_empty() && paused(host).is_empty()
        });
        host.agent(&["recover"]).run().expect_exit(0);
        world.restored(Duration::from_secs(3));
    }
}

#[test]
fn the_next_command_recovers_what_was_left() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let host = &world.hosts[0];
    let file = world.file("planned.yaml", calm(&[CUT]));
    let commands = [
        host.squall(&["status"]),
        host.squall(&["plan", &file]),
        host.agent(&["status"]),
        host.agent(&["preflight"]),
        host.agent(&["fingerprint"]),
    ];
    for command in commands {
        killed_live(&world, CUT);
        assert!(journal(host).is_some(), "a killed pair leaves its journal");
        let run = command.run();
        assert_eq!(
            journal(host),
            None,
            "every command that looks at the host recovers first: {}",
            run.story()
        );
        assert!(run.stderr.contains("recovered from a dead agent: "), "{}", run.story());
        world.restored(Duration::from_secs(3));
    }
}

#[test]
fn an_agent_that_is_started_recovers_other_network_namespaces_too() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let [host, other] = &world.hosts[..] else { panic!("two hosts were asked for") };
    killed_live(&world, CUT);
    let left = journal(host).expect("a killed pair leaves its journal");
    let place = left.parent().expect("it lies in a directory");
    let mut command = other.netns.command(binary("squall-agent"));
    command.arg("run").env("SQUALL_STATE_DIR", &host.state);
    let mut agent = Squall::with(command, "squall-agent run elsewhere", &host.directory).start();
    let listens = || Place::all(&host.state).iter().any(|place| place.socket().exists());
    holds("the dead agent's place to be cleared", PATIENCE, || !place.exists() && listens());
    agent.signal(Signal::TERM);
    agent.finish().expect_exit(0).expect_told("recovered from a dead agent: ");
    world.restored(Duration::from_secs(3));
}

#[test]
fn who_asks_is_told_of_a_journal_that_somebody_else_is_undoing() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let host = &world.hosts[0];
    killed_live(&world, CUT);
    let place = Place::all(&host.state).pop().expect("a killed pair leaves its journal");
    let undoing = place.starting().expect("root may lock it").expect("nobody else recovers it");
    for command in [host.agent(&["status"]), host.squall(&["status"])] {
        command.run().expect_exit(7).expect_told("is not undone yet");
    }
    host.agent(&["recover"]).run().expect_exit(0).expect_told("left alone: ");
    drop(undoing);
    host.agent(&["status"]).run().expect_exit(0).expect_told("nothing is injected");
    assert_eq!(journal(host), None);
    world.restored(Duration::from_secs(3));
}

/// Kills command, guardian and worker while a fault is live.
pub fn killed_live(world: &World, step: &str) {
    let host = &world.hosts[0];
    let mut trial = Trial::begin(world, host, &calm(&[step]));
    trial.injected();
    // All are stopped first, so that none of them can clean up after another.
    for signal in [Signal::STOP, Signal::KILL] {
        for process in host.squalls() {
            netns::signal(&process, signal);
        }
    }
    holds("the command to be dead", PATIENCE, || trial.run.ended());
    holds("the agent to be dead", PATIENCE, || host.squalls().is_empty());
}

/// The undo journal that lies on a host.
pub fn journal(host: &Host) -> Option<PathBuf> {
    let places = fs::read_dir(&host.state).into_iter().flatten().flatten();
    places.map(|place| place.path().join("journal")).find(|journal| journal.exists())
}

#[test]
fn a_torn_last_line_of_the_journal_is_ignored() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let host = &world.hosts[0];
    killed_live(&world, CUT);
    let path = journal(host).expect("a killed pair leaves its journal");
    let text = fs::read(&path).expect("root may read it");
    let end = text.iter().rposition(|byte| *byte == b'\n').expect("it has lines");
    // Half of one more line, as a power cut leaves it; what the file has reserved ahead follows.
    let file = fs::OpenOptions::new().write(true).open(&path).expect("root may write it");
    file.write_all_at(b"0123456789abcdef 0123456789abcdef {\"undo\":{\"num", end as u64 + 1)
        .expect("it can be written");
    host.agent(&["recover"]).run().expect_exit(0);
    world.restored(Duration::from_secs(3));
}

#[test]
fn a_damaged_journal_stops_everything_and_is_named() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let host = &world.hosts[0];
    killed_live(&world, CUT);
    let path = journal(host).expect("a killed pair leaves its journal");
    let whole = fs::read(&path).expect("root may read it");
    let mut damaged = whole.clone();
    let first = damaged.iter().position(|byte| *byte == b'\n').expect("it has lines");
    damaged[first / 2] ^= 0x20;
    fs::write(&path, &damaged).expect("root may write it");
    let shown = path.display().to_string();
    for finished in
        [host.agent(&["recover"]).run(), host.squall(&["run", &world.file("next.yaml", calm(&[CUT]))]).run()]
    {
        let code = finished.status.code();
        assert!(matches!(code, Some(4 | 7)), "it must refuse: {}", finished.story());
        finished.expect_told(&shown);
    }
    assert!(
        fs::read(&path).is_ok_and(|now| now == damaged),
        "a journal that cannot be read must not be touched"
    );
    fs::write(&path, whole).expect("root may write it");
    host.agent(&["recover"]).run().expect_exit(0);
    world.restored(Duration::from_secs(3));
}

#[test]
fn a_host_of_which_nobody_can_say_that_it_is_clean_is_exit_7() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let host = &world.hosts[0];
    let mut trial = Trial::begin(&world, host, &calm(&[CUT]));
    trial.injected();
    let (guardian, worker) = host.agents();
    let path = journal(host).expect("a live fault has a journal");
    let whole = fs::read(&path).expect("root may read it");
    let mut damaged = whole.clone();
    damaged[3] ^= 0x01;
    // Neither may clean up after the other; then the command is alone with a journal that it cannot read.
    for signal in [Signal::STOP, Signal::KILL] {
        if signal == Signal::KILL {
            fs::write(&path, &damaged).expect("root may write it");
        }
        for process in [&guardian, &worker] {
            netns::signal(process, signal);
        }
    }
    holds("the run to end", PATIENCE, || trial.run.ended());
    let finished = trial.finish();
    finished.expect_exit(7);
    assert!(fs::read(&path).is_ok_and(|now| now == damaged), "it must not be touched: {}", finished.story());
    fs::write(&path, whole).expect("root may write it");
    host.agent(&["recover"]).run().expect_exit(0);
    world.restored(Duration::from_secs(3));
}

#[test]
fn a_full_disk_refuses_before_anything_is_injected() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let host = &world.hosts[0];
    world.tmpfs(&host.state, 64 * 1024);
    fill(host);
    world.as_found();
    let mut trial = Trial::begin(&world, host, &calm(&[CUT]));
    holds("the run to end", PATIENCE, || trial.run.ended());
    assert!(!trial.has("injected"), "something was injected");
    trial.finish().expect_exit(4);
}

/// Fills the file system of a state directory to its last block.
fn fill(host: &Host) {
    let mut file = fs::File::create(host.state.join("filler")).expect("one more file fits");
    for size in [4096, 1] {
        while file.write_all(&vec![b'x'; size]).is_ok() {}
    }
}

#[test]
fn a_disk_that_fills_up_while_a_fault_is_live_does_not_prevent_the_revert() {
    needs!(Root, Nftables);
    let world = World::new(2);
    let host = &world.hosts[0];
    let echo = world.echo(1, 7);
    world.tmpfs(&host.state, 1024 * 1024);
    let mut trial = Trial::begin(&world, host, &calm(&[&REFUSE.replace("60s", "3s")]));
    trial.injected();
    fill(host);
    for _ in 0..4 {
        echo.dial(host, world.hosts[1].v4).err().expect("it is refused");
    }
    trial.finish().expect_exit(0);
    echo.dial(host, world.hosts[1].v4).expect("reached after the fault");
    fs::remove_file(host.state.join("filler")).expect("root may remove it");
}

/// A file system that is held still, until it is dropped.
struct Frozen(String);

impl Frozen {
    fn now(path: &std::path::Path) -> Self {
        let path = path.display().to_string();
        netns::look(None, &["fsfreeze", "--freeze", &path]).expect("ext4 can be frozen");
        Frozen(path)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = netns::look(None, &["fsfreeze", "--unfreeze", &self.0]);
    }
}

#[test]
fn a_disk_that_stands_still_for_a_moment_is_no_death() {
    needs!(Root, Nftables, Freezable);
    let world = World::new(2);
    let host = &world.hosts[0];
    let echo = world.echo(1, 7);
    world.ext4(&host.state);
    let mut trial = Trial::begin(&world, host, &calm(&[&REFUSE.replace("60s", "2s")]));
    trial.injected();
    let injected = Instant::now();
    for _ in 0..4 {
        echo.dial(host, world.hosts[1].v4).err().expect("it is refused");
    }
    // The end of the fault, after 2 s, is written meanwhile: for longer than a silence that is taken for death, and less
    // long than the command waits for an answer.
    let frozen = Frozen::now(&host.state);
    thread::sleep(Duration::from_millis(3900).saturating_sub(injected.elapsed()));
    drop(frozen);
    trial.finish().expect_exit(0);
    echo.dial(host, world.hosts[1].v4).expect("reached after the fault");
}
