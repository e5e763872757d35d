//! An agent that belongs to the test: started, asked, killed.

use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use squall_experiments::protocol::{Call, Message, Refusal, Reply, Request, VERSION};

use crate::host::process::Target;

/// An answer that takes longer is none.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// The process that acts.
    Worker,
    /// The process that watches it.
    Guardian,
    /// Both, so that neither can clean up after the other.
    Both,
}

impl Victim {
    /// All of them.
    pub const ALL: [Victim; 3] = [Victim::Worker, Victim::Guardian, Victim::Both];
}

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Victim::Worker => "worker",
            Victim::Guardian => "guardian",
            Victim::Both => "both",
        })
    }
}

/// A living agent.
#[derive(Debug)]
pub struct Pair {
    child: Child,
    stream: BufReader<UnixStream>,
    number: u64,
    guardian: (Target, OwnedFd),
    worker: (Target, OwnedFd),
}

impl Pair {
    /// Starts one, which ends with its connection to this process.
    pub fn start(state: &Path) -> Result<Self, Refusal> {
        let failed = |error: std::io::Error| Refusal::bare(format!("cannot start an agent: {error}"));
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        ours.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        let mut command = own_verb();
        command.arg("--state-dir").arg(state).args(["run", "--on-stdin"]);
        command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().map_err(failed)?;
        let mut stream = BufReader::new(ours);
        let Reply::Hello { guardian, worker, .. } = ask(&mut stream, 1, Request::Hello { version: VERSION })?
        else {
            return Err(Refusal::bare("the agent gave another answer than was asked for"));
        };
        Ok(Pair { child, stream, number: 1, guardian: held(guardian)?, worker: held(worker)? })
    }

    /// Asks something.
    pub fn ask(&mut self, request: Request) -> Result<Reply, Refusal> {
        self.number += 1;
        ask(&mut self.stream, self.number, request)
    }

    /// Kills, and gives when.
    pub fn kill(&self, victim: Victim) -> Result<Instant, Refusal> {
        let send = |of: &OwnedFd, signal| {
            pidfd_send_signal(of, signal)
                .map_err(|errno| Refusal::bare(format!("the agent cannot be killed: {errno}")))
        };
        let all = [(Victim::Worker, &self.worker.1), (Victim::Guardian, &self.guardian.1)];
        let hit: Vec<&OwnedFd> = all
            .iter()
            .filter(|(who, _)| victim == Victim::Both || *who == victim)
            .map(|(_, fd)| *fd)
            .collect();
        if victim == Victim::Both {
            // Held first: it takes a survivor less than a millisecond to clean up after the other.
            hit.iter().try_for_each(|fd| send(fd, Signal::STOP))?;
        }
        let now = Instant::now();
        hit.iter().try_for_each(|fd| send(fd, Signal::KILL))?;
        Ok(now)
    }

    /// Waits until both have ended; `false` where they live on.
    pub fn ended(&mut self, within: Duration) -> bool {
        let began = Instant::now();
        loop {
            // The guardian is this process's child, and a zombie until it is asked for.
            let gone = self.child.try_wait().is_ok_and(|status| status.is_some());
            if gone && !self.worker.0.alive() {
                return true;
            }
            if began.elapsed() > within {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for (_, fd) in [&self.worker, &self.guardian] {
            let _ = pidfd_send_signal(fd, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

/// This very program, up to a verb of the agent's.
pub fn own_verb() -> Command {
    let mut command = Command::new("/proc/self/exe");
    // `squall` carries the agent behind a verb.
    let program = std::fs::read_link("/proc/self/exe").unwrap_or_default();
    if program.file_name().is_some_and(|name| name == "squall") {
        command.arg("agent");
    }
    command
}

fn held(pid: u32) -> Result<(Target, OwnedFd), Refusal> {
    let gone = || Refusal::bare("the agent ended at once");
    let pid = i32::try_from(pid).map_err(|_| gone())?;
    let fd = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()).ok_or_else(gone)?;
    Ok((Target::of(pid).ok_or_else(gone)?, fd))
}

fn ask(stream: &mut BufReader<UnixStream>, number: u64, request: Request) -> Result<Reply, Refusal> {
    let lost = |error: std::io::Error| Refusal::bare(format!("the agent does not answer: {error}"));
    let line = serde_json::to_string(&Call { number, request }).map_err(|error| lost(error.into()))?;
    stream.get_mut().write_all(format!("{line}\n").as_bytes()).map_err(lost)?;
    loop {
        let mut answer = String::new();
        if stream.read_line(&mut answer).map_err(lost)? == 0 {
            return Err(lost(std::io::ErrorKind::UnexpectedEof.into()));
        }
        match serde_json::from_str(&answer).map_err(|error| lost(error.into()))? {
            Message::Answer { reply: Reply::Refused(refusal), .. } => return Err(refusal),
            Message::Answer { reply, number: to } if to == number => return Ok(reply),
            Message::Answer { .. } | Message::Ended { .. } | Message::Guard { .. } | Message::Saw { .. } => {}
        }
    }
}
