//! One network namespace, what runs in it, and the one function that runs `ip`, `nft`, `tc` and `ss`.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// What every namespace, temporary directory and control group of the harness is called, before the pid.
pub const PREFIX: &str = "sqt-";

/// `ip netns add` mounts below one shared directory; two at once can step on each other.
static MOUNTING: Mutex<()> = Mutex::new(());

/// Runs a tool to look at, or to set up, a namespace (`None` is the one that the tests run in); gives its output.
///
/// From a thread that has entered it, never by `ip netns exec`: that one hides `/sys/fs/cgroup` behind a mount namespace
/// of its own.
pub fn look(netns: Option<&Netns>, argv: &[&str]) -> Result<String> {
    feed(netns, argv, "")
}

/// [`look`] with something to read for the tool, such as the lines of `ip -batch -`. Not for more than a pipe holds.
pub fn feed(netns: Option<&Netns>, argv: &[&str], input: &str) -> Result<String> {
    let (program, arguments) = argv.split_first().context("no program given")?;
    let run = || {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // A tool that does not read what it gets says so by its exit status.
            drop(stdin.write_all(input.as_bytes()));
        }
        child.wait_with_output()
    };
    let output = match netns {
        Some(netns) => netns.inside(run),
        None => run(),
    };
    let output = output.with_context(|| format!("cannot run `{program}`"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{}`: {}: {}", argv.join(" "), output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A network namespace with a name. [`Netns::delete`] ends it; dropping does not, so that an order can be kept.
#[derive(Debug)]
pub struct Netns {
    name: String,
    inode: u64,
}

impl Netns {
    /// Makes one, with its loopback up.
    pub fn create(name: &str) -> Result<Self> {
        {
            let _alone = MOUNTING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            look(None, &["ip", "netns", "add", name])?;
        }
        let inode = fs::metadata(place(name)).context("the new namespace has no file")?.ino();
        let netns = Netns { name: name.to_owned(), inode };
        look(Some(&netns), &["ip", "link", "set", "lo", "up"])?;
        Ok(netns)
    }

    /// Its name below `/run/netns`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it.
    pub fn path(&self) -> PathBuf {
        place(&self.name)
    }

    /// A command that will run inside. It is the program itself that runs, under the pid that the caller sees.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg("--").arg(program);
        command
    }

    /// Moves the calling thread, and only it, inside.
    pub fn enter(&self) -> Result<()> {
        let file = File::open(self.path()).with_context(|| format!("namespace `{}`", self.name))?;
        setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("cannot enter `{}`", self.name))
    }

    /// Runs something on a thread of its own inside. Sockets opened there stay inside.
    ///
    /// # Panics
    /// When the namespace cannot be entered, or the work panics.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let entered = scope.spawn(|| {
                self.enter().expect("the namespace of a host can be entered");
                work()
            });
            entered.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// What runs inside, without the tests themselves.
    pub fn processes(&self) -> Vec<Process> {
        processes().into_iter().filter(|process| process.net == Some(self.inode)).collect()
    }

    /// Ends what runs inside and removes the name.
    pub fn delete(&self) -> Result<()> {
        end(|process| process.net == Some(self.inode));
        let _alone = MOUNTING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        look(None, &["ip", "netns", "delete", &self.name]).map(drop)
    }

    /// One that is there already: a leftover of an earlier run.
    pub fn existing(name: &str) -> Result<Self> {
        let inode = fs::metadata(place(name)).with_context(|| format!("namespace `{name}`"))?.ino();
        Ok(Netns { name: name.to_owned(), inode })
    }
}

fn place(name: &str) -> PathBuf {
    Path::new("/run/netns").join(name)
}

/// A process, as `/proc` shows it.
#[derive(Clone, Debug)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// Its command name.
    pub name: String,
    /// The file name of its executable; empty for a kernel thread. Unlike the command name it cannot be chosen.
    pub program: String,
    /// `R`, `S`, `T` (stopped), `t` (traced), `Z`, …
    pub state: char,
    /// Who traces it; 0 is nobody.
    pub tracer: i32,
    /// Its effective user.
    pub uid: u32,
    /// Its parent.
    pub parent: i32,
    /// The inode of its network namespace; a zombie has none.
    pub net: Option<u64>,
    /// When it was started, in clock ticks since boot: with the pid it names a process for ever.
    pub started: u64,
}

impl Process {
    /// One process; `None` when it is gone.
    pub fn of(pid: i32) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let field = |name: &str| {
            status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
        };
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name may hold blanks and brackets: fields are counted from the last bracket.
        let after_name = &stat[stat.rfind(')')? + 1..];
        Some(Process {
            pid,
            name: field("Name")?.to_owned(),
            program: fs::read_link(format!("/proc/{pid}/exe"))
                .ok()
                .and_then(|path| path.file_name().map(|name| name.to_string_lossy().into_owned()))
                .unwrap_or_default(),
            state: field("State")?.chars().next()?,
            tracer: field("TracerPid")?.parse().ok()?,
            uid: field("Uid")?.split_whitespace().nth(1)?.parse().ok()?,
            parent: field("PPid")?.parse().ok()?,
            net: fs::metadata(format!("/proc/{pid}/ns/net")).ok().map(|meta| meta.ino()),
            started: after_name.split_whitespace().nth(19)?.parse().ok()?,
        })
    }

    /// Whether it does not run although it could: stopped, traced, or in a frozen control group.
    pub fn halted(&self) -> Option<&'static str> {
        match self.state {
            'T' => Some("stopped"),
            't' => Some("in a tracing stop"),
            _ if self.tracer != 0 => Some("traced"),
            _ if self.frozen() => Some("frozen"),
            _ => None,
        }
    }

    fn frozen(&self) -> bool {
        let Ok(groups) = fs::read_to_string(format!("/proc/{}/cgroup", self.pid)) else {
            return false;
        };
        groups.lines().any(|line| {
            let mut parts = line.splitn(3, ':');
            let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
                return false;
            };
            let path = path.trim_start_matches('/');
            let reads = |file: PathBuf, word: &str| {
                fs::read_to_string(file).is_ok_and(|text| text.split_whitespace().any(|part| part == word))
            };
            if controllers == "freezer" {
                reads(Path::new("/sys/fs/cgroup/freezer").join(path).join("freezer.state"), "FROZEN")
            } else if controllers.is_empty() {
                crate::skip::cgroup_root()
                    .is_some_and(|root| reads(root.join(path).join("cgroup.freeze"), "1"))
            } else {
                false
            }
        })
    }

    /// The value of an environment variable that it was started with.
    pub fn environment(&self, name: &str) -> Option<String> {
        let environment = fs::read(format!("/proc/{}/environ", self.pid)).ok()?;
        environment.split(|byte| *byte == 0).find_map(|entry| {
            let value = std::str::from_utf8(entry).ok()?.strip_prefix(name)?.strip_prefix('=')?;
            Some(value.to_owned())
        })
    }

    /// Its arguments, the program's name first.
    pub fn arguments(&self) -> Vec<String> {
        let line = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        let words = line.split(|byte| *byte == 0).filter(|word| !word.is_empty());
        words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
    }

    /// Whether this very process, not a later one with its pid, still runs.
    pub fn lives(&self) -> bool {
        Process::of(self.pid).is_some_and(|now| now.started == self.started && now.state != 'Z')
    }
}

/// Every process but the tests' own, and without zombies.
pub fn processes() -> Vec<Process> {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| *pid != own).filter_map(Process::of).filter(|process| process.state != 'Z').collect()
}

/// Sends a signal to exactly this process: held by a pidfd, and looked at again after it is held.
///
/// Gives whether it was sent; `false` means that the process is gone.
pub fn signal(process: &Process, signal: Signal) -> bool {
    let Some(pid) = Pid::from_raw(process.pid) else {
        return false;
    };
    let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else {
        return false;
    };
    process.lives() && pidfd_send_signal(handle, signal).is_ok()
}

/// Kills all processes that match, and those that they start meanwhile; gives who was killed.
pub fn end(matches: impl Fn(&Process) -> bool) -> Vec<Process> {
    let mut ended = Vec::new();
    for _ in 0..200 {
        let found: Vec<Process> = processes().into_iter().filter(&matches).collect();
        if found.is_empty() {
            break;
        }
        for process in found {
            if signal(&process, Signal::KILL) && !ended.iter().any(|other: &Process| other.pid == process.pid)
            {
                ended.push(process);
            }
        }
        thread::sleep(std::time::Duration::from_millis(5));
    }
    ended
}
