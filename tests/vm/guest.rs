//! Inside the virtual machine: init, which runs the cases, and a case, which is a process.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use squall_tests::netns;

use crate::cases;

/// The argument before the name of a case.
pub const CASE: &str = "--case";
/// The file that holds the names of the cases that are wanted, one a line.
pub const WANTED: &str = "/wanted";
/// The directory of the binaries under test.
pub const BINARIES: &str = "/squall";

/// How the words of a case begin that was tried again.
pub const SECOND_TRY: &str = "the first try failed";

/// The serial port that the host of the machine listens to. The first one is the kernel's.
const PORT: &str = "/dev/ttyS1";
/// The longest that a case may take.
const LONGEST: Duration = Duration::from_secs(180);

/// What a host that has been up for a while has loaded. An nftables transaction waits until the modules that it needs are
/// loaded; here that takes seconds, and an agent that does not beat for so long kills itself.
const MODULES: [&str; 15] = [
    "ifb",
    "nf_tables",
    "nft_fib_netdev",
    "nft_fwd_netdev",
    "nft_numgen",
    "nft_queue",
    "nft_reject_inet",
    "nft_socket",
    "nfnetlink_queue",
    "inet_diag",
    "raw_diag",
    "sch_netem",
    "tcp_diag",
    "udp_diag",
    "veth",
];

/// What came of a case.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// As it should be.
    Passed,
    /// Not so, and why.
    Failed(String),
    /// It needs something that is not here.
    Skipped(String),
}

/// What init says.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Word {
    /// A case is over.
    Case {
        /// Its name.
        name: String,
        /// How it went.
        outcome: Outcome,
        /// What it wrote to standard output and standard error.
        said: String,
        /// How long it took.
        seconds: f64,
    },
    /// Every case that was wanted is over.
    Done,
    /// Init itself could not go on.
    Trouble(String),
}

/// Init: makes the machine usable, runs the cases, turns the machine off.
pub fn init() -> ExitCode {
    let worked = prepare().and_then(|mut port| {
        let run = serve(&mut port);
        let last = match &run {
            Ok(()) => Word::Done,
            Err(error) => Word::Trouble(format!("{error:#}")),
        };
        say(&mut port, &last)?;
        run
    });
    if let Err(error) = worked {
        eprintln!("init: {error:#}");
    }
    nix::unistd::sync();
    let refused = reboot(RebootMode::RB_POWER_OFF);
    eprintln!("the machine cannot be turned off: {refused:?}");
    ExitCode::FAILURE
}

fn say(port: &mut File, word: &Word) -> Result<()> {
    let line = serde_json::to_string(word).context("a word is JSON")?;
    writeln!(port, "{line}").and_then(|()| port.flush()).context("cannot write to the serial port")
}

/// Mounts what every system has mounted, as a stock one of today: control groups of version 2, and no others.
fn prepare() -> Result<File> {
    for (kind, at) in [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("tmpfs", "/tmp"),
        ("tmpfs", "/run"),
        ("cgroup2", "/sys/fs/cgroup"),
    ] {
        mount(Some(kind), at, Some(kind), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("cannot mount `{at}`"))?;
    }
    // What udev does on a running system.
    for (link, to) in [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")] {
        symlink(to, format!("/dev/{link}")).with_context(|| format!("/dev/{link}"))?;
    }
    netns::look(None, &["ip", "link", "set", "lo", "up"])?;
    netns::look(None, &[&["modprobe", "-a"][..], &MODULES].concat())?;
    OpenOptions::new().write(true).open(PORT).context("no second serial port")
}

fn serve(port: &mut File) -> Result<()> {
    let wanted = fs::read_to_string(WANTED).context("no list of cases")?;
    for name in wanted.lines() {
        let begun = Instant::now();
        let (mut outcome, mut said) = attempt(name)?;
        // An agent that is not scheduled for a second takes itself out, as it should; in an emulator on a busy machine
        // that happens. What fails twice is wrong.
        if let Outcome::Failed(why) = &outcome {
            let first = format!("{SECOND_TRY}: {said}\n{why}\n");
            (outcome, said) = attempt(name)?;
            said.insert_str(0, &first);
        }
        let seconds = begun.elapsed().as_secs_f64();
        say(port, &Word::Case { name: name.to_owned(), outcome, said, seconds })?;
    }
    Ok(())
}

/// Runs a case in a process of its own, so that one which dies or hangs does not take the others with it.
fn attempt(name: &str) -> Result<(Outcome, String)> {
    const SAID: &str = "/tmp/said";
    const SKIPS: &str = "/tmp/skips";
    let said = File::create(SAID).context(SAID)?;
    File::create(SKIPS).context(SKIPS)?;
    let mut command = Command::new("/init");
    command
        .args([CASE, name])
        .env_clear()
        .env("PATH", "/usr/bin")
        .env("SQUALL_BIN_DIR", BINARIES)
        .env("SQUALL_SKIP_LOG", SKIPS)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(said.try_clone().context(SAID)?)
        .stderr(said);
    let child = command.spawn().context("cannot start a case")?;
    let status = wait(Pid::from_raw(i32::try_from(child.id()).context("a pid")?))?;
    // What it left behind must not meet the next one.
    netns::end(|process| !process.program.is_empty());
    let said = String::from_utf8_lossy(&fs::read(SAID).unwrap_or_default()).into_owned();
    let skips = fs::read_to_string(SKIPS).unwrap_or_default();
    let outcome = match status {
        None => Outcome::Failed(format!("no end after {LONGEST:?}")),
        Some(WaitStatus::Exited(_, 0)) => match skips.lines().next().and_then(|line| line.split_once('\t')) {
            Some((_, reason)) => Outcome::Skipped(reason.to_owned()),
            None => Outcome::Passed,
        },
        Some(status) => Outcome::Failed(format!("{status:?}")),
    };
    Ok((outcome, said))
}

/// Waits for a case, at most so long; meanwhile, as every init must, for everybody's orphans.
fn wait(case: Pid) -> Result<Option<WaitStatus>> {
    let begun = Instant::now();
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)).context("cannot wait for a case")? {
            WaitStatus::StillAlive if begun.elapsed() > LONGEST => return Ok(None),
            WaitStatus::StillAlive => thread::sleep(Duration::from_millis(5)),
            status if status.pid() == Some(case) => return Ok(Some(status)),
            _ => {}
        }
    }
}

/// One case: a panic is the failure of this process.
pub fn case(name: &str) -> ExitCode {
    let Some(case) = cases::all().into_iter().find(|case| case.name == name) else {
        eprintln!("no case is called `{name}`");
        return ExitCode::FAILURE;
    };
    // The harness names a skip by the thread's name.
    let thread = thread::Builder::new().name(name.to_owned()).spawn(case.run);
    match thread.map(thread::JoinHandle::join) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
