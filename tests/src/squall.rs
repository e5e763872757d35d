//! Runs the binaries under test as a user would: as processes, with their output and exit code.

use std::fs::{self, File};
use std::io::PipeWriter;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::host::Host;
use crate::netns::{self, Process};

/// The environment variable by which a world finds what its runs left behind.
pub const MARK: &str = "SQUALL_TEST_WORLD";

/// What the tests' caller may have set, and no run is to see: a pipeline that runs the tests is not the subject of them.
const UNSET: [&str; 10] = [
    "SQUALL_SKIP_LOG",
    "RUST_LOG",
    "RUST_BACKTRACE",
    "NO_COLOR",
    "XDG_STATE_HOME",
    "GITHUB_ACTIONS",
    "GITHUB_STEP_SUMMARY",
    "GITHUB_WORKSPACE",
    "GITLAB_CI",
    "CI_PROJECT_DIR",
];

/// The longest that any run of a test may take.
const LONGEST: Duration = Duration::from_secs(90);

/// Where the binaries are: `SQUALL_BIN_DIR`, else beside the directory of the test executable.
///
/// # Panics
/// When they have not been built.
pub fn binary(name: &str) -> PathBuf {
    let directory = std::env::var_os("SQUALL_BIN_DIR").map(PathBuf::from).unwrap_or_else(|| {
        let own = std::env::current_exe().expect("a test knows its own executable");
        own.ancestors().nth(2).expect("tests stand in `target/<profile>/deps`").to_owned()
    });
    let path = directory.join(name);
    assert!(
        path.exists(),
        "`{}` is missing: build it with `cargo build --workspace --bins`, or run `tests/run`",
        path.display()
    );
    path
}

/// Copies a binary. Another process writes the copy: while this one did, a child that another test starts would hold it
/// open for a moment, and it could not be run (ETXTBSY).
///
/// # Panics
/// When it cannot be copied.
pub fn copy_binary(name: &str, to: &Path) {
    let copied = Command::new("cp").arg(binary(name)).arg(to).status();
    assert!(copied.is_ok_and(|status| status.success()), "`{name}` cannot be copied to `{}`", to.display());
}

/// One run that is being put together.
#[derive(Debug)]
pub struct Squall {
    command: Command,
    shown: String,
    directory: PathBuf,
}

impl Squall {
    /// `squall …` or `squall-agent …` on a host: in its namespace, with its state directory.
    pub fn on(host: &Host, program: &str, arguments: &[&str]) -> Self {
        let mut command = host.netns.command(binary(program));
        command.args(arguments).env("SQUALL_STATE_DIR", &host.state);
        Squall::with(command, format!("{program} {}", arguments.join(" ")), &host.directory)
    }

    /// A whole command of the test's own, such as one under `setpriv`.
    pub fn with(mut command: Command, shown: impl Into<String>, directory: &Path) -> Self {
        // What the tests' caller has set must not change what the runs do.
        for name in UNSET {
            command.env_remove(name);
        }
        command.env(MARK, directory);
        Squall { command, shown: shown.into(), directory: directory.to_owned() }
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Begins it in the background.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(self) -> Background {
        self.start_with_input("")
    }

    /// [`Squall::start`] with something to read.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start_with_input(self, input: &str) -> Background {
        let number = Squall::number();
        let stdin = self.directory.join(format!("run-{number}.in"));
        fs::write(&stdin, input).expect("the world's directory can be written");
        let stdin = File::open(&stdin).expect("the input was just written");
        self.begin(number, stdin.into())
    }

    /// [`Squall::start`] on a terminal of its own (util-linux's `script` gives it one), and what is typed there: a line ends with
    /// `\n`, and `\x03` is Ctrl-C. What it says to its terminal is its standard output here.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start_on_a_terminal(self) -> (Background, PipeWriter) {
        let quoted = |word: &std::ffi::OsStr| format!("'{}'", word.to_string_lossy().replace('\'', r"'\''"));
        let words = [self.command.get_program()].into_iter().chain(self.command.get_args());
        let line: Vec<String> = words.map(quoted).collect();
        // A shell that stayed would get what is typed, too.
        let line = format!("exec {}", line.join(" "));
        let mut command = Command::new("script");
        command.args(["--quiet", "--flush", "--return", "--command", &line, "/dev/null"]);
        for (name, value) in self.command.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let (stdin, typed) = std::io::pipe().expect("a pipe can be made");
        let terminal =
            Squall { command, shown: format!("{} on a terminal", self.shown), directory: self.directory };
        (terminal.begin(Squall::number(), stdin.into()), typed)
    }

    fn number() -> u32 {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(1);
        NEXT.fetch_add(1, Ordering::Relaxed)
    }

    fn begin(mut self, number: u32, stdin: Stdio) -> Background {
        let file = |kind: &str| self.directory.join(format!("run-{number}.{kind}"));
        let (out, err) = (file("out"), file("err"));
        let create = |path: &Path| File::create(path).expect("the world's directory can be written");
        // Files, not pipes: a child that outlives the run must not keep the test waiting for an end of file.
        self.command.stdin(stdin);
        self.command.stdout(create(&out)).stderr(create(&err));
        let begun = Instant::now();
        let child = self.command.spawn();
        let child = child.unwrap_or_else(|error| panic!("cannot start `{}`: {error}", self.shown));
        Background { child, shown: self.shown, out, err, begun, ended: None }
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// When it takes longer than 90 seconds, with its output.
    pub fn run(self) -> Finished {
        self.start().finish()
    }

    /// [`Squall::run`] with something to read.
    ///
    /// # Panics
    /// As [`Squall::run`].
    pub fn run_with_input(self, input: &str) -> Finished {
        self.start_with_input(input).finish()
    }
}

/// A run under way. Dropped, it is asked to end, and waited for.
#[derive(Debug)]
pub struct Background {
    child: Child,
    shown: String,
    out: PathBuf,
    err: PathBuf,
    begun: Instant,
    ended: Option<std::process::ExitStatus>,
}

impl Background {
    /// Its pid: that of the binary itself.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap_or(0)
    }

    /// Whether it has ended.
    pub fn ended(&mut self) -> bool {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended.is_some()
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// When it is gone already, with its output.
    pub fn signal(&mut self, signal: Signal) {
        // It has not been waited for, so its pid is still its own.
        let sent =
            !self.ended() && Process::of(self.pid()).is_some_and(|process| netns::signal(&process, signal));
        assert!(sent, "{signal:?} came too late for\n{}", self.story());
    }

    /// What it has said so far.
    pub fn story(&self) -> String {
        let read = |path: &Path| fs::read(path).map(|text| String::from_utf8_lossy(&text).into_owned());
        let shown = |path: &Path| read(path).unwrap_or_else(|error| format!("({error})"));
        format!(
            "`{}` (pid {}, {:?} ago)\n--- stdout\n{}\n--- stderr\n{}\n---",
            self.shown,
            self.child.id(),
            self.begun.elapsed(),
            shown(&self.out),
            shown(&self.err)
        )
    }

    /// What it has written to standard error so far.
    pub fn stderr(&self) -> String {
        fs::read(&self.err).map(|text| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default()
    }

    /// What it has written to standard output so far.
    pub fn stdout(&self) -> String {
        fs::read(&self.out).map(|text| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default()
    }

    /// Waits until an NDJSON file of events holds a line that matches; gives that line.
    ///
    /// # Panics
    /// After 30 seconds, or when the run ends without it, with its output.
    pub fn event(&mut self, events: &Path, matches: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let over = self.ended();
            if let Some(event) = lines(events).into_iter().find(|event| matches(event)) {
                return event;
            }
            assert!(
                !over && begun.elapsed() < Duration::from_secs(30),
                "the event never came in `{}`:\n{}\nof\n{}",
                events.display(),
                fs::read_to_string(events).unwrap_or_default(),
                self.story()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When that takes longer than 90 seconds from now, with its output.
    pub fn finish(mut self) -> Finished {
        let asked = Instant::now();
        while !self.ended() {
            if asked.elapsed() > LONGEST {
                panic!("no end after {LONGEST:?}: {}", self.story());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let took = self.begun.elapsed();
        let read = |path: &Path| {
            let bytes = fs::read(path).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        Finished {
            shown: self.shown.clone(),
            status: self.ended.expect("it has just ended"),
            stdout: read(&self.out),
            stderr: read(&self.err),
            took,
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if self.ended() {
            return;
        }
        let process = Process::of(self.pid());
        // A stopped one must run to hear that it is to end.
        for (signal, patience) in [(Signal::CONT, 0), (Signal::TERM, 10), (Signal::KILL, 10)] {
            if let Some(process) = &process {
                netns::signal(process, signal);
            }
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_secs(patience) {
                if self.ended() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

/// A run that has ended.
#[derive(Clone, Debug)]
pub struct Finished {
    shown: String,
    /// How it ended.
    pub status: std::process::ExitStatus,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
    /// How long it took.
    pub took: Duration,
}

impl Finished {
    /// Everything about it, for a failing test.
    pub fn story(&self) -> String {
        format!(
            "`{}`: {} after {:?}\n--- stdout\n{}\n--- stderr\n{}\n---",
            self.shown, self.status, self.took, self.stdout, self.stderr
        )
    }

    /// Fails the test unless this was the exit code.
    ///
    /// # Panics
    /// With everything about the run.
    #[track_caller]
    pub fn expect_exit(&self, code: i32) -> &Self {
        assert_eq!(self.status.code(), Some(code), "expected exit code {code} of {}", self.story());
        self
    }

    /// Fails the test unless its reader was told this, as a result (standard output) or as talk (standard error).
    ///
    /// # Panics
    /// With everything about the run.
    #[track_caller]
    pub fn expect_told(&self, text: &str) -> &Self {
        let told = self.stdout.contains(text) || self.stderr.contains(text);
        assert!(told, "expected `{text}` in the output of {}", self.story());
        self
    }

    /// Standard output as one JSON document.
    ///
    /// # Panics
    /// When it is not, with everything about the run.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.story()))
    }
}

/// The events of a file so far. A last line that is still being written is left out.
pub fn lines(events: &Path) -> Vec<Value> {
    let text = fs::read_to_string(events).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let parsed = whole.lines().map(|line| {
        serde_json::from_str(line).unwrap_or_else(|error| {
            panic!("`{}` holds a line that is not JSON ({error}): {line}", events.display())
        })
    });
    parsed.collect()
}

/// Waits until nothing matches any more: processes that end by themselves.
///
/// # Panics
/// After `within`, naming those that are left.
pub fn gone(what: &str, within: Duration, matches: impl Fn(&Process) -> bool) {
    let begun = Instant::now();
    loop {
        let left: Vec<Process> = netns::processes().into_iter().filter(&matches).collect();
        if left.is_empty() {
            return;
        }
        assert!(begun.elapsed() < within, "{what} did not end within {within:?}: {left:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
