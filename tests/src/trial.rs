//! One experiment under way: written, started, watched through its event file.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::host::Host;
use crate::squall::{Background, Finished, lines};
use crate::world::World;

/// A hypothesis that holds as long as the machine runs programs: for tests whose subject is the fault.
pub const CALM: &str = "  - name: programs run\n    process: { argv: [\"true\"] }\n    every: 200ms\n";

/// An experiment with that hypothesis and these steps, one line each in YAML's short form.
pub fn calm(steps: &[&str]) -> String {
    document(CALM, steps)
}

/// An experiment with a hypothesis of the test's own.
pub fn document(hypothesis: &str, steps: &[&str]) -> String {
    let steps: String = steps.iter().map(|step| format!("  - {step}\n")).collect();
    format!("squall: 1\ntitle: A test\nhypothesis:\n{hypothesis}method:\n{steps}recovery: 10s\n")
}

/// A run in the background.
#[derive(Debug)]
pub struct Trial {
    /// Its process.
    pub run: Background,
    /// The file of its events.
    pub events: PathBuf,
}

impl Trial {
    /// Starts `squall run` on a host, with a JSON report.
    pub fn begin(world: &World, host: &Host, text: &str) -> Self {
        Trial::with(world, host, text, &[])
    }

    /// [`Trial::begin`] with more arguments.
    pub fn with(world: &World, host: &Host, text: &str, more: &[&str]) -> Self {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("trial-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let file = world.file(&format!("{name}.yaml"), text);
        let events = world.directory.join(format!("{name}.ndjson"));
        let shown = events.display().to_string();
        let arguments = [&["run", &file, "--format", "json", "--events", &shown][..], more].concat();
        Trial { run: host.squall(&arguments).start(), events }
    }

    /// Waits for the first event of a kind.
    #[track_caller]
    pub fn event(&mut self, kind: &str) -> Value {
        self.run.event(&self.events, |event| event["event"] == kind)
    }

    /// Waits until the fault is live.
    #[track_caller]
    pub fn injected(&mut self) -> Value {
        self.event("injected")
    }

    /// Waits until the fault is undone.
    #[track_caller]
    pub fn lifted(&mut self) -> Value {
        self.event("lifted")
    }

    /// Whether an event of a kind has happened.
    pub fn has(&self, kind: &str) -> bool {
        lines(&self.events).iter().any(|event| event["event"] == kind)
    }

    /// Asks it to end, once everything was looked at: the fault may be as long as the slowest machine needs. Gives the
    /// report, in which the first part must have been measured.
    #[track_caller]
    pub fn halted(mut self) -> Value {
        assert!(!self.has("lifted"), "the fault was over before it was looked at");
        self.run.signal(Signal::INT);
        let finished = self.finish();
        // Not because the agent was lost, which is the same code.
        let report = finished.expect_exit(6).expect_told("SIGINT").json();
        assert_eq!(report["parts"][0]["measured"], true, "{report:#}");
        report
    }

    /// Waits for the end.
    pub fn finish(self) -> Finished {
        self.run.finish()
    }
}

/// Runs an experiment to its end.
pub fn run(world: &World, host: &Host, text: &str) -> Finished {
    Trial::begin(world, host, text).finish()
}

/// The first evidence of the first fault in a report.
#[track_caller]
pub fn evidence(report: &Value) -> &Value {
    let evidence = &report["parts"][0]["evidence"][0];
    assert!(evidence.is_object(), "no evidence in {report:#}");
    evidence
}

/// How many things a fault acted on, by a report.
#[track_caller]
pub fn impaired(report: &Value) -> u64 {
    let count = evidence(report)["impaired"].as_u64();
    count.unwrap_or_else(|| panic!("no count in {report:#}"))
}

/// A time-out short enough to wait for, long enough for a busy machine.
pub const SHORT: Duration = Duration::from_millis(400);

/// A hypothesis about the echo server on the other host.
pub const ECHO: &str =
    "  - name: echo answers\n    tcp: { address: \"10.77.1.2:7\", timeout: 300ms }\n    every: 200ms\n";
/// The fault that makes it fail.
pub const CUT: &str = "{ fault: { partition: { to: [\"10.77.1.2:7\"] } }, for: 3s }";
/// The same for longer than any test waits.
pub const LONG: &str = "{ fault: { partition: { to: [\"10.77.1.2:7\"] } }, for: 60s }";

/// How long a host may stay changed after its run was told to end: what takes milliseconds, on a busy machine.
pub const SOON: Duration = Duration::from_secs(3);

/// Whether nobody answered, rather than somebody with an error.
pub fn timed_out(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
}

/// A peer as an experiment writes it.
pub fn peer(address: IpAddr, port: u16) -> String {
    SocketAddr::new(address, port).to_string()
}
