//! The processes that a prober started, and everything that those started: none of them outlives it.
//!
//! The prober is a child subreaper, so whatever loses its parent becomes its child instead of init's.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;
use procfs::process::Process;
use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};

/// Who is whose child. Belongs to one prober.
pub(super) struct Family {
    /// Children whose sample waits for them: only it may reap them.
    awaited: RefCell<HashSet<i32>>,
}

impl Family {
    /// From now on this process adopts the orphans of its descendants.
    pub(super) fn new() -> nix::Result<Self> {
        prctl::set_child_subreaper(true)?;
        Ok(Family { awaited: RefCell::default() })
    }

    /// A sample waits for this child.
    pub(super) fn awaits(&self, child: Pid) {
        self.awaited.borrow_mut().insert(child.as_raw());
    }

    /// Kills what is left of a program's process group. The child itself must not have been reaped yet: until then its
    /// number, which is also its group's, belongs to nobody else.
    pub(super) fn kill_group(&self, child: Pid) {
        // Fails only where nobody is left.
        let _ = killpg(child, Signal::SIGKILL);
    }

    /// Kills a program, its process group, and its descendants in other groups. Same condition.
    pub(super) fn kill_tree(&self, child: Pid) {
        // Looked up first: the death of a parent hides whose children they were.
        for descendant in descendants(child) {
            descendant.kill();
        }
        self.kill_group(child);
    }

    /// The child was reaped by its sample; adopted orphans that ended are reaped here.
    pub(super) fn forgets(&self, child: Pid) {
        self.awaited.borrow_mut().remove(&child.as_raw());
        let peek = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        while let Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _)) = waitid(Id::All, peek) {
            if self.awaited.borrow().contains(&pid.as_raw())
                || waitpid(pid, Some(WaitPidFlag::WNOHANG)).is_err()
            {
                break;
            }
        }
    }

    /// Kills everything that this process ever started and that still runs. Gives up after two seconds, which only a
    /// process that sleeps in the kernel can outlast.
    pub(super) fn end(&self) {
        let until = Instant::now() + Duration::from_secs(2);
        // Whoever has no child has no descendant: orphans of descendants became children.
        while has_children() && Instant::now() < until {
            // A process that forks while we look has its child seen in the next round.
            for descendant in descendants(Pid::this()) {
                descendant.kill();
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Reaps every child that has ended; whether any is left.
fn has_children() -> bool {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => return true,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return false,
        }
    }
}

/// A process, told from a later one with the same number by its start time.
struct Descendant {
    pid: i32,
    started: u64,
}

impl Descendant {
    fn kill(&self) {
        let Some(pid) = rustix::process::Pid::from_raw(self.pid) else {
            return;
        };
        let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else {
            return;
        };
        let same = |stat: procfs::process::Stat| stat.starttime == self.started;
        if Process::new(self.pid).and_then(|process| process.stat()).is_ok_and(same) {
            // Fails only where it has just ended.
            let _ = pidfd_send_signal(&pidfd, rustix::process::Signal::KILL);
        }
    }
}

/// Everything below a process that still runs, in no order. One pass over /proc.
fn descendants(root: Pid) -> Vec<Descendant> {
    let Ok(processes) = procfs::process::all_processes() else {
        return Vec::new();
    };
    let mut children: HashMap<i32, Vec<(Descendant, bool)>> = HashMap::new();
    for stat in processes.flatten().filter_map(|process| process.stat().ok()) {
        let runs = !matches!(stat.state, 'Z' | 'X');
        let descendant = Descendant { pid: stat.pid, started: stat.starttime };
        children.entry(stat.ppid).or_default().push((descendant, runs));
    }
    let mut found = Vec::new();
    let mut parents = vec![root.as_raw()];
    while let Some(parent) = parents.pop() {
        for (descendant, runs) in children.remove(&parent).unwrap_or_default() {
            parents.push(descendant.pid);
            if runs {
                found.push(descendant);
            }
        }
    }
    found
}
