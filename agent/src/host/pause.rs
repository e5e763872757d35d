//! Pausing processes: by ptrace, which the kernel ends with the worker; where that is not allowed, by SIGSTOP.
//!
//! Source: ptrace(2), `PTRACE_SEIZE` and `PTRACE_INTERRUPT`. A tracer must stay the same thread, and must collect the
//! end of what it traces, or the real parent never hears of it. A process that was already stopped stays stopped.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::process::{Signal as Number, pidfd_send_signal};
use squall_experiments::change::Pause;
use squall_experiments::evidence::{Evidence, Unit};
use squall_experiments::protocol::Refusal;

use super::Record;
use super::aim::{Aim, choose};
use super::process::{Processes, Target};
use super::undo::Undo;

/// How long a thread may take to stop: it may be in an uninterruptible sleep.
const PATIENCE: Duration = Duration::from_millis(500);

/// A pause that has been looked at.
#[derive(Debug)]
pub struct Prepared {
    /// The processes.
    pub chosen: Vec<Target>,
    /// What was left out.
    pub notes: Vec<String>,
}

/// Processes that are paused.
#[derive(Debug)]
pub struct Live {
    held: Vec<Held>,
    evidence: Evidence,
}

#[derive(Debug)]
struct Held {
    target: Target,
    /// The traced threads; none where the process was stopped by a signal.
    threads: BTreeSet<i32>,
}

/// Looks at the host. Changes nothing.
pub fn prepare(pause: &Pause, seed: u64, place: &str, aim: &Aim<'_>) -> Result<Prepared, Refusal> {
    let in_scope = aim.processes(&Processes::reached_by(&pause.scope)?, &pause.scope)?;
    let chosen = choose(&in_scope.targets, pause.pick, seed, place)?;
    Ok(Prepared { chosen, notes: in_scope.notes })
}

impl Live {
    /// Nothing is paused yet.
    pub fn none() -> Self {
        Live { held: Vec::new(), evidence: Evidence { unit: Unit::Processes, ..Evidence::default() } }
    }

    /// Pauses one process. `record` is called before a stop signal, whose undo outlives the agent.
    pub fn pause(&mut self, target: &Target, record: Record<'_>) -> Result<(), Refusal> {
        if !target.alive() {
            self.evidence.notes.push(format!("{target} had ended before it could be paused"));
            return Ok(());
        }
        self.evidence.matched += 1;
        self.held.push(Held { target: target.clone(), threads: BTreeSet::new() });
        let held = self.held.last_mut().expect("just pushed");
        match held.seize() {
            Ok(()) => Ok(()),
            Err(Errno::ESRCH) => Ok(()),
            Err(errno) => {
                held.release();
                if target.state() == Some('T') {
                    self.held.pop();
                    self.evidence.notes.push(format!("{target} was stopped already, and is left as it is"));
                    return Ok(());
                }
                record(Undo::Resume(target.clone()), None)?;
                self.evidence.notes.push(format!("{target} is stopped by SIGSTOP: ptrace says {errno}"));
                stop(target)
            }
        }
    }

    /// Collects what ended while it was paused, so that its parent hears of it.
    pub fn reap(&mut self) {
        for held in &mut self.held {
            let ended = |thread: &i32| {
                matches!(
                    waitpid(Pid::from_raw(*thread), Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)),
                    Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) | Err(Errno::ECHILD)
                )
            };
            held.threads.retain(|thread| !ended(thread));
        }
    }

    /// How many do not run, as `/proc` shows it.
    pub fn observe(&mut self) -> Evidence {
        self.reap();
        let stopped = |held: &&Held| matches!(held.target.state(), Some('t' | 'T'));
        let paused = self.held.iter().filter(stopped).count() as u64;
        self.evidence.impaired = self.evidence.impaired.max(paused);
        self.evidence.clone()
    }

    /// Lets the traced ones run. Those stopped by a signal are undone from the journal.
    pub fn release(&mut self) {
        for held in &mut self.held {
            held.release();
        }
    }
}

impl Held {
    /// Traces and stops all threads, also those that appear meanwhile.
    fn seize(&mut self) -> Result<(), Errno> {
        loop {
            let all = threads(self.target.pid)?;
            let new: Vec<i32> = all.into_iter().filter(|thread| !self.threads.contains(thread)).collect();
            if new.is_empty() {
                return Ok(());
            }
            for thread in new {
                match ptrace::seize(Pid::from_raw(thread), ptrace::Options::empty()) {
                    Err(Errno::ESRCH) => continue,
                    result => result?,
                }
                self.threads.insert(thread);
                match ptrace::interrupt(Pid::from_raw(thread)) {
                    Ok(()) | Err(Errno::ESRCH) => {}
                    Err(errno) => return Err(errno),
                }
                await_stop(thread);
            }
        }
    }

    fn release(&mut self) {
        for thread in std::mem::take(&mut self.threads) {
            let pid = Pid::from_raw(thread);
            if ptrace::detach(pid, None) == Err(Errno::ESRCH) {
                // Not in a stop (an uninterruptible sleep, or its end): wait for one of both, then let go.
                await_stop(thread);
                let _ = ptrace::detach(pid, None);
            }
        }
    }
}

fn threads(pid: i32) -> Result<Vec<i32>, Errno> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).map_err(|_| Errno::ESRCH)?;
    Ok(tasks.flatten().filter_map(|task| task.file_name().to_str()?.parse().ok()).collect())
}

fn await_stop(thread: i32) {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        match waitpid(Pid::from_raw(thread), Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)) {
            Ok(WaitStatus::StillAlive) => std::thread::sleep(Duration::from_micros(100)),
            _ => return,
        }
    }
}

fn stop(target: &Target) -> Result<(), Refusal> {
    let Some(pidfd) = target.open() else { return Ok(()) };
    pidfd_send_signal(pidfd, Number::STOP).map_err(|error| {
        Refusal::new(
            format!("cannot stop {target}: {error}"),
            "it needs root, or to be the process's own user",
        )
    })
}
