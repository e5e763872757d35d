//! `squall demo` where it may not run, and where it is interrupted.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const SQUALL: &str = env!("CARGO_BIN_EXE_squall");

/// A directory for temporary files that everything started by the demo carries in its environment.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("squall-demo-test-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Place(path)
    }

    fn files(&self) -> usize {
        fs::read_dir(&self.0).unwrap().count()
    }

    /// Processes that were started with this place, the demo itself too. Zombies have no environment.
    fn processes(&self) -> usize {
        let mark = format!("TMPDIR={}\0", self.0.display()).into_bytes();
        let marked = |process: &Path| {
            let environment = fs::read(process.join("environ")).unwrap_or_default();
            environment.windows(mark.len()).any(|window| window == mark)
        };
        fs::read_dir("/proc").unwrap().flatten().filter(|entry| marked(&entry.path())).count()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn eventually(what: &str, limit: Duration, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn namespaces_allowed() -> bool {
    let probe = Command::new("unshare").args(["--user", "--map-root-user", "--net", "true"]).status();
    let allowed = probe.is_ok_and(|status| status.success());
    if !allowed {
        eprintln!("SKIP: user namespaces are not allowed here");
    }
    allowed
}

#[test]
fn where_namespaces_are_forbidden_it_names_the_switch_and_the_way_on() {
    if !namespaces_allowed() {
        return;
    }
    // A user namespace has a limit of its own, so this forbids nothing to the rest of the system.
    let forbid = "echo 0 > /proc/sys/user/max_user_namespaces; \
                  exec setpriv --bounding-set -all --inh-caps -all --no-new-privs \"$0\" demo";
    let demo =
        Command::new("unshare").args(["--user", "--map-root-user", "sh", "-c", forbid, SQUALL]).output();
    let demo = demo.unwrap();
    let talk = String::from_utf8(demo.stderr).unwrap();
    assert_eq!(demo.status.code(), Some(4), "{talk}");
    assert_eq!(
        talk,
        "error: this system does not let ordinary users make namespaces (ENOSPC)\n\
         help: `user.max_user_namespaces` is 0 on this system; run the demo outside of the container, or in a virtual \
         machine\n"
    );
    assert!(demo.stdout.is_empty(), "nothing was begun");
}

fn start(place: &Place) -> Child {
    let mut command = Command::new(SQUALL);
    command.arg("demo").env("TMPDIR", &place.0).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

#[test]
fn each_fault_breaks_the_shop_once_and_then_no_more() {
    if !namespaces_allowed() {
        return;
    }
    let place = Place::new("whole");
    let demo =
        Command::new(SQUALL).args(["demo", "--format", "json"]).env("TMPDIR", &place.0).output().unwrap();
    let talk = String::from_utf8(demo.stderr).unwrap();
    assert_eq!(demo.status.code(), Some(0), "{talk}");
    let report: serde_json::Value = serde_json::from_slice(&demo.stdout).unwrap();
    assert_eq!(report["as-expected"], true);
    let verdicts: Vec<_> = report["runs"].as_array().unwrap().iter().map(|run| &run["verdict"]).collect();
    assert_eq!(verdicts, ["deviated", "held", "deviated", "held"]);
    for run in report["runs"].as_array().unwrap() {
        let part = &run["parts"][0];
        assert_eq!(part["measured"], true, "{part}");
        assert_eq!(part["stuck"].as_array().unwrap().len(), 0, "{part}");
    }
    assert!(talk.contains("the front page never asks payments"), "{talk}");
    assert_eq!((place.processes(), place.files()), (0, 0));
}

/// The demo, its seven children (five of the shop, the run, the run's prober), and the agent's two processes.
const EVERYBODY: usize = 10;

#[test]
fn an_interruption_in_the_middle_of_a_fault_leaves_nothing() {
    if !namespaces_allowed() {
        return;
    }
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGKILL] {
        let place = Place::new(signal.as_str());
        let mut demo = start(&place);
        let all_run = || place.processes() >= EVERYBODY;
        eventually("the fault is about to be injected", Duration::from_secs(60), all_run);
        std::thread::sleep(Duration::from_millis(500));
        kill(Pid::from_raw(demo.id().cast_signed()), signal).unwrap();
        let status = demo.wait().unwrap();
        eventually("all processes have ended", Duration::from_secs(30), || place.processes() == 0);
        if signal == Signal::SIGKILL {
            // Whoever is killed cannot tidy up: the folder with the files stays, and nothing else.
            assert_eq!(place.files(), 1);
        } else {
            assert_eq!(status.code(), Some(6), "{signal}");
            assert_eq!(place.files(), 0, "{signal}");
        }
    }
}
