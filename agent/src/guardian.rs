//! The guardian: the parent of the worker, and whoever undoes everything when the worker is gone.
//!
//! One thread, forked before any runtime, with no socket to the outside. It holds the lock, writes the journal,
//! enforces each run's deadline, and has duplicates of the sockets that own the table and the queues: with them it takes
//! rules out and lets waiting packets go after the worker is dead.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use squall_experiments::exit::Exit;
use squall_experiments::protocol::{Refusal, RunId};

use crate::deputy::Hand;
use crate::fleet::options::Uplink;
use crate::host::sys;
use crate::host::undo::Undo;
use crate::ledger::Ledger;
use crate::notify::{self, Signs};
use crate::points::{self, Point, Role};
use crate::pulse::{Other, Pulse};
use crate::records::{Answer, Ask, PATIENCE, Records};
use crate::recover::{self, Reach};
use crate::state::{Lock, Place};
use crate::worker::{self, Setup};

/// How long after a run's deadline the worker may still be undoing it.
const GRACE: u64 = 2_000_000_000;
/// How long the worker has for an orderly end.
const FAREWELL: u64 = 10_000_000_000;

struct Guardian {
    place: Place,
    _lock: Lock,
    records: Records,
    pulse: Pulse,
    worker: Pid,
    worker_fd: OwnedFd,
    /// Sockets, by the number of the undo that needs each.
    held: BTreeMap<u64, (Undo, OwnedFd)>,
    ledger: Ledger,
    deadlines: BTreeMap<RunId, u64>,
    farewell: Option<u64>,
    signs: Signs,
}

/// Forks the worker and guards it until both have ended. The process must be single-threaded.
///
/// `control` is a connection that is there already; with it the agent leaves when nobody needs it any more.
pub fn run(
    place: Place,
    control: Option<UnixStream>,
    (controllers, uplink): (Vec<SocketAddr>, Option<Uplink>),
) -> Result<Exit, Refusal> {
    place.create()?;
    let broken = |what: &str, error: io::Error| Refusal::bare(format!("cannot {what}: {error}"));
    let lock = place.lock().map_err(|error| broken("take the lock", error))?.ok_or_else(|| {
        Refusal::new(
            format!("another agent works here, in `{}`", place.directory().display()),
            "one agent per network namespace: `squall status` asks it",
        )
    })?;
    recover::with_lock(&place)
        .and_then(|_| recover::compare(&place.root(), true))
        .map_err(|error| error.refusal())?;
    let pair = |kind| {
        socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC)
            .map_err(|errno| broken("make a socket pair", errno.into()))
    };
    let (records, worker_records) = pair(SockType::SeqPacket)?;
    let (pulse, worker_pulse) = pair(SockType::Stream)?;
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGCHLD] {
        signals.add(signal);
    }
    let before = SigSet::thread_get_mask().map_err(|errno| broken("read the signal mask", errno.into()))?;
    signals.thread_block().map_err(|errno| broken("block signals", errno.into()))?;

    let forked = sys::fork().map_err(|error| broken("fork", error))?;
    let Some(worker) = forked else {
        let keep = [worker_records.as_raw_fd(), worker_pulse.as_raw_fd()];
        let keep: Vec<i32> =
            keep.into_iter().chain(control.as_ref().map(|control| control.as_raw_fd())).collect();
        std::mem::forget((records, pulse, lock));
        sys::close_from(3, &keep);
        let _ = before.thread_set_mask();
        let _ = nix::sys::prctl::set_name(c"squall-worker");
        points::play(Role::Worker, nix::unistd::getppid().as_raw());
        let pulse = worker_pulse;
        let setup = Setup { place, records: worker_records, pulse, control, controllers, uplink };
        std::process::exit(worker::run(setup) as i32);
    };
    drop((worker_records, worker_pulse, control));
    points::play(Role::Guardian, worker.as_raw());
    // What is touched from now on stays in memory; what never is, needs none.
    let kept = MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE;
    let _ = nix::sys::prctl::set_name(c"squall-guardian");
    let _ = mlockall(kept | MlockAllFlags::from_bits_retain(libc::MCL_ONFAULT));
    let worker_fd = rustix::process::Pid::from_raw(worker.as_raw())
        .ok_or_else(|| Refusal::bare("the worker has no pid"))
        .and_then(|pid| {
            rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
                .map_err(|errno| broken("hold the worker", errno.into()))
        })?;
    let pulse = Pulse::new(pulse).map_err(|error| broken("make a timer", error))?.urgent();
    let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(|errno| broken("receive signals", errno.into()))?;
    let ledger = Ledger::new(place.journal());
    let guardian = Guardian {
        place,
        _lock: lock,
        records: Records::new(records, Hand::default()),
        pulse,
        worker,
        worker_fd,
        held: BTreeMap::new(),
        ledger,
        deadlines: BTreeMap::new(),
        farewell: None,
        signs: Signs::wanted(),
    };
    Ok(guardian.guard(signals))
}

impl Guardian {
    fn guard(mut self, signals: SignalFd) -> Exit {
        loop {
            let beat = self.pulse.beat_if_due();
            let deadline = self.deadlines.values().min().map(|deadline| deadline.saturating_add(GRACE));
            let wake = [beat, deadline, self.farewell, self.signs.give_if_due()].into_iter().flatten().min();
            let timeout = wake.map_or(PollTimeout::NONE, |wake| {
                let left = wake.saturating_sub(sys::boot_nanos()).div_ceil(1_000_000);
                PollTimeout::try_from(i32::try_from(left).unwrap_or(i32::MAX)).unwrap_or(PollTimeout::MAX)
            });
            let mut ready = [
                PollFd::new(self.records.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.pulse.as_fd(), PollFlags::POLLIN),
                PollFd::new(signals.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.worker_fd.as_fd(), PollFlags::POLLIN),
            ];
            let _ = poll(&mut ready, timeout);
            let has = |index: usize| ready[index].any().unwrap_or(false);
            let (asked, signalled, ended) = (has(0), has(2), has(3));
            if asked && !self.answer() {
                return self.undo_everything();
            }
            if signalled {
                while let Ok(Some(signal)) = signals.read_signal() {
                    if signal.ssi_signo != Signal::SIGCHLD as u32 && self.farewell.is_none() {
                        self.farewell = Some(sys::boot_nanos() + FAREWELL);
                        notify::tell("STOPPING=1");
                        let _ = self.signal_worker(rustix::process::Signal::TERM);
                    }
                }
            }
            let now = sys::boot_nanos();
            let late = deadline.is_some_and(|deadline| deadline <= now);
            let lingers = self.farewell.is_some_and(|farewell| farewell <= now);
            if ended || late || lingers || self.pulse.listen() == Other::Dead {
                return self.undo_everything();
            }
        }
    }

    /// Serves one question; `false` is the end of the worker.
    fn answer(&mut self) -> bool {
        let Ok(Some((ask, attached))) = self.records.receive::<Ask>() else {
            return false;
        };
        // A disk may be slow without anybody hanging: the worker beats while it waits, and gives up by itself.
        self.pulse.hold_breath(PATIENCE);
        let (before, after) = ask.points();
        points::pass(before);
        let answer = match self.write(ask, attached) {
            Ok(number) => {
                points::pass(after);
                Answer::Written { number }
            }
            Err(error) => Answer::Not { why: error.to_string() },
        };
        self.pulse.breathe();
        self.records.send(&answer, None).is_ok()
    }

    fn write(&mut self, ask: Ask, attached: Option<OwnedFd>) -> io::Result<u64> {
        if let Ask::End { run } = &ask {
            self.deadlines.remove(run);
            if self.deadlines.is_empty() {
                self.pulse.set_live(false);
            }
        }
        let number = self.ledger.write(&ask)?;
        match ask {
            Ask::Begin { run, deadline, .. } => {
                self.deadlines.insert(run, deadline);
                self.pulse.set_live(true);
            }
            Ask::Record { undo, .. } => {
                if let Some(socket) = attached {
                    self.held.insert(number, (undo, socket));
                }
            }
            // The worker still holds each of them: the last one to close it would have to wait.
            Ask::Undone { numbers } => numbers.iter().for_each(|number| drop(self.held.remove(number))),
            Ask::End { .. } => {}
        }
        Ok(number)
    }

    fn signal_worker(&self, signal: rustix::process::Signal) -> rustix::io::Result<()> {
        rustix::process::pidfd_send_signal(&self.worker_fd, signal)
    }

    /// Ends the worker, then takes back whatever the journal holds. What cannot be taken back stays in the journal.
    fn undo_everything(mut self) -> Exit {
        let _ = self.signal_worker(rustix::process::Signal::KILL);
        self.pulse.alone();
        points::pass(Point::BeforeRevert);
        let mut reach = Reach::of(std::mem::take(&mut self.held).into_values());
        let mut exit = Exit::Held;
        for attempt in 0..5 {
            match recover::replay(&self.place.journal(), &mut reach, || self.pulse.alone()) {
                Ok(outcome) if outcome.stuck.is_empty() => {
                    exit = Exit::Held;
                    break;
                }
                Ok(outcome) => {
                    exit = Exit::Modified;
                    for what in outcome.stuck {
                        tracing::error!(what, attempt, "a host may be left modified");
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "a host may be left modified");
                    exit = Exit::Modified;
                    break;
                }
            }
            std::thread::sleep(Duration::from_millis(200 << attempt));
        }
        let _ = waitpid(self.worker, None);
        if exit == Exit::Held {
            points::pass(Point::BeforeClear);
            self.place.clear();
        }
        exit
    }
}
