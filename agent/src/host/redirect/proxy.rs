//! The proxies that run, as the worker sees them: started, told, counted, ended.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{Uid, User};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Signal, pidfd_send_signal};
use serde_json::Value;
use squall_experiments::protocol::{Refusal, RunId};

use super::seen::Seen;
use crate::deputy::Hand;
use crate::host::process::Target;
use crate::host::sys;
use crate::host::undo::Undone;
use crate::line::Line;
use crate::outage::order::{Answer, Counts, Order, Task};
use crate::proxy::caller;

/// How long a proxy may take to be ready.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long one that lives may say nothing, in nanoseconds.
const SILENCE: u64 = 5_000_000_000;
/// How long it may take to say what it has counted: a busy machine's time, and no longer than a fault may last on.
const ANSWER: Duration = Duration::from_secs(1);
/// How long one that is told to end may take before it is killed.
const ENDING: Duration = Duration::from_millis(300);
/// The user that a host may have for it.
pub const ACCOUNT: &str = "squall-proxy";
/// Numbers that nobody is given by usual rules: above those of dynamic users, below `nobody`.
const UNUSED: std::ops::RangeInclusive<u32> = 65_520..=65_533;
/// How many connections may wait to be accepted.
const BACKLOG: i32 = 4096;

/// The user and the group of a process without privileges: those of this account where the host has it, else nobody
/// else's, now.
pub fn identity(account: &str) -> Result<(u32, u32), Refusal> {
    let refused = |what: &str| {
        Refusal::new(
            format!("a process without privileges needs a user of its own, and {what}"),
            format!("make a system user `{account}` that nothing else runs as"),
        )
    };
    let processes = procfs::process::all_processes()
        .map_err(|error| refused(&format!("`/proc` cannot be read: {error}")))?;
    let paths = processes.flatten().map(|process| format!("/proc/{}", process.pid));
    let used: BTreeSet<u32> =
        paths.filter_map(|path| std::fs::metadata(path).ok()).map(|found| found.uid()).collect();
    if let Ok(Some(user)) = User::from_name(account) {
        return Ok((user.uid.as_raw(), user.gid.as_raw()));
    }
    let named = |uid: u32| matches!(User::from_uid(Uid::from_raw(uid)), Ok(Some(_)) | Err(_));
    let free = UNUSED.into_iter().find(|uid| !used.contains(uid) && !named(*uid));
    free.map(|uid| (uid, uid)).ok_or_else(|| refused("no number from 65520 to 65533 is free"))
}

/// A socket for connections, and one for datagrams at the same port.
fn bind(home: SocketAddr, datagrams: bool) -> io::Result<(TcpListener, Option<UdpSocket>)> {
    let mut tries = 0;
    loop {
        let listener = TcpListener::bind(home)?;
        if !datagrams {
            return Ok((listener, None));
        }
        // The port that the kernel chose for one may be taken for the other.
        match UdpSocket::bind(listener.local_addr()?) {
            Ok(socket) => {
                socket.set_nonblocking(true)?;
                return Ok((listener, Some(socket)));
            }
            Err(error) if tries >= 16 => return Err(error),
            Err(_) => tries += 1,
        }
    }
}

/// A proxy that runs, or did.
#[derive(Debug)]
pub struct Proxy {
    target: Target,
    pidfd: OwnedFd,
    child: Child,
    line: Line,
    counts: Counts,
    /// How often it was asked for its counts, and how often it has answered: in this order.
    asked: u64,
    answered: u64,
    /// When it said something last, on the boot clock.
    heard: u64,
    ready: bool,
    failed: Option<String>,
    healed: bool,
    /// What it sees, until somebody reads it.
    seen: Option<Seen>,
}

/// Two ends of a line.
fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

fn cannot(what: &str, error: impl std::fmt::Display) -> Refusal {
    Refusal::bare(format!("the proxy of an outage {what}: {error}"))
}

impl Proxy {
    /// Starts one in the calling thread's network namespace. It holds nothing and does nothing until it is told, and it
    /// ends when this process does, or drops it. Where its run is watched, it keeps what it sees.
    pub fn start((uid, gid): (u32, u32), seed: u64, watched: Option<&(RunId, u32)>) -> Result<Self, Refusal> {
        let failed = |error: io::Error| cannot("cannot be started", error);
        let (ours, theirs) = pair().map_err(failed)?;
        rustix::io::ioctl_fionbio(&ours, true).map_err(|error| failed(error.into()))?;
        let mut command = Command::new("/proc/self/exe");
        let program = std::fs::read_link("/proc/self/exe").unwrap_or_default();
        // `squall` carries the agent behind a verb.
        if program.file_name().is_some_and(|name| name.to_string_lossy().starts_with("squall-agent")) {
            command.arg("outage-proxy");
        } else {
            command.args(["agent", "outage-proxy"]);
        }
        for (name, value) in [("--uid", u64::from(uid)), ("--gid", u64::from(gid)), ("--seed", seed)] {
            command.arg(name).arg(value.to_string());
        }
        if watched.is_some() {
            command.arg("--observe");
        }
        command.env_clear().current_dir("/").stdin(Stdio::from(theirs));
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().map_err(failed)?;
        let gone = || cannot("ended at once", "it was not there any more");
        let target = Target::of(i32::try_from(child.id()).unwrap_or(0)).ok_or_else(gone)?;
        let pidfd = target.open().ok_or_else(gone)?;
        let mut proxy = Proxy {
            target,
            pidfd,
            child,
            line: Line::new(ours),
            counts: Counts::default(),
            asked: 0,
            answered: 0,
            heard: sys::boot_nanos(),
            ready: false,
            failed: None,
            healed: false,
            seen: None,
        };
        if let Some((run, part)) = watched {
            proxy.keep(&run.0, *part).map_err(failed)?;
        }
        Ok(proxy)
    }

    /// It keeps what it sees, and has the processes behind connections looked for here: it may not look at others itself.
    fn keep(&mut self, run: &str, part: u32) -> io::Result<()> {
        let (seen, memory) = Seen::new(run, part)?;
        self.line.send(&Order::Write, Some(memory.as_fd()))?;
        let (ours, theirs) = pair()?;
        caller::answer(Line::new(ours))?;
        self.line.send(&Order::Ask, Some(theirs.as_fd()))?;
        self.seen = Some(seen);
        Ok(())
    }

    /// Which process it is.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Becomes readable when it has ended.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Waits until it has given up its privileges and listens to orders. The worker goes on living meanwhile.
    pub fn wait(&mut self, hand: &Hand) -> Result<(), Refusal> {
        let began = Instant::now();
        while !self.ready {
            self.hear();
            if let Some(why) = &self.failed {
                return Err(Refusal::new(
                    format!("the proxy of an outage cannot run: {why}"),
                    "run the agent as root of the host itself (CAP_SETUID and CAP_SETGID)",
                ));
            }
            if self.has_ended() {
                return Err(cannot("ended at once", "it said nothing"));
            }
            if began.elapsed() > PATIENCE {
                return Err(cannot("did not get ready", format!("{} s are over", PATIENCE.as_secs())));
            }
            hand.shows();
            self.listen(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Binds a socket for it, and has it carry what comes there. Gives where it is bound.
    pub fn carry(&mut self, upstream: SocketAddr, task: &Task) -> Result<SocketAddr, Refusal> {
        let home: SocketAddr = if upstream.is_ipv4() {
            ([127, 0, 0, 1], 0).into()
        } else {
            (std::net::Ipv6Addr::LOCALHOST, 0).into()
        };
        let bound = |error: io::Error| {
            Refusal::new(
                format!("nothing can listen on {} for the proxy of an outage: {error}", home.ip()),
                "the loopback interface of the target's network must be up",
            )
        };
        let (listener, datagrams) = bind(home, task.ailment.is_of_lookups()).map_err(bound)?;
        let listen = listener.local_addr().map_err(bound)?;
        listener.set_nonblocking(true).map_err(bound)?;
        rustix::net::listen(&listener, BACKLOG).map_err(|error| bound(error.into()))?;
        let order = Order::Carry { upstream, listen, task: task.clone() };
        if let Some(datagrams) = datagrams {
            let order = Order::Hear { upstream, task: task.clone() };
            self.line
                .send(&order, Some(datagrams.as_fd()))
                .map_err(|error| cannot("does not take orders", error))?;
        }
        // The copy that stays here is closed at once: with the proxy the socket must go.
        self.line
            .send(&order, Some(listener.as_fd()))
            .map_err(|error| cannot("does not take orders", error))?;
        Ok(listen)
    }

    /// These names are meant by its lookups, too.
    pub fn mean(&mut self, names: &[String]) {
        // One that hears nothing any more has ended, which is looked at anyway.
        let _ = self.line.send(&Order::Mean { names: names.to_vec() }, None);
    }

    /// Asks for its counts, and takes what it has said since.
    pub fn ask(&mut self) {
        if self.line.send(&Order::Count, None).is_ok() {
            self.asked += 1;
        }
        self.hear();
    }

    /// Its counts as of now, if it answers within a second. Where it has not met as many connections as were led to it,
    /// those on their way are waited for, for a moment.
    pub fn counts(&mut self, led: u64, moment: Duration) -> Counts {
        let began = Instant::now();
        loop {
            // An answer to an earlier question does not know what has happened since.
            self.ask();
            while self.answered < self.asked && !self.has_ended() && began.elapsed() < ANSWER {
                self.listen(Duration::from_millis(2));
                self.hear();
            }
            if self.counts.came >= led || self.has_ended() || began.elapsed() >= moment {
                return self.counts;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn listen(&self, time: Duration) {
        let mut ready = [PollFd::new(self.line.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut ready, PollTimeout::try_from(time).unwrap_or(PollTimeout::ZERO));
    }

    fn hear(&mut self) {
        loop {
            let answer = match self.line.receive() {
                Ok(Some((answer, _))) => answer,
                // One that ended has not read all that it was told; what it said itself waits behind that error (unix(7)).
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => continue,
                _ => return,
            };
            self.heard = sys::boot_nanos();
            match answer {
                Answer::Ready => self.ready = true,
                Answer::Failed { why } => self.failed = Some(why),
                Answer::Counted(counts) => {
                    self.counts = counts;
                    self.answered += 1;
                }
            }
        }
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        let mut ended = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        poll(&mut ended, PollTimeout::ZERO).is_ok_and(|count| count > 0)
    }

    /// Whether it has said nothing for too long.
    pub fn hangs(&self) -> bool {
        sys::boot_nanos().saturating_sub(self.heard) > SILENCE
    }

    /// Ends it now.
    pub fn kill(&mut self) {
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    /// It does nothing to connections any more, and ends with the last one.
    pub fn heal(&mut self) {
        if !std::mem::replace(&mut self.healed, true) {
            let _ = self.line.send(&Order::Heal, None);
        }
    }

    /// Ends it, and says what it still carried.
    fn end(&mut self) -> Undone {
        let _ = self.line.send(&Order::End, None);
        let began = Instant::now();
        while !self.has_ended() && began.elapsed() < ENDING {
            let mut ended = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut ended, PollTimeout::from(20u8));
        }
        // What it said before it was told to end is older.
        self.hear();
        self.kill();
        self.child
            .wait()
            .map_err(|error| format!("the proxy {} cannot be waited for: {error}", self.target))?;
        Ok(match self.counts.open {
            0 => "the proxy of an outage has ended, and carried nothing any more".to_owned(),
            1 => {
                "the proxy of an outage has ended; one connection that it still carried was reset".to_owned()
            }
            open => format!(
                "the proxy of an outage has ended; {open} connections that it still carried were reset"
            ),
        })
    }
}

/// The proxies of a worker, by their pids, wherever they serve. A clone is the same.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    known: Arc<Mutex<BTreeMap<i32, Proxy>>>,
    /// What they have seen: it outlives them.
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Proxies {
    /// One more.
    pub fn add(&self, mut proxy: Proxy) {
        self.seen().extend(proxy.seen.take());
        self.lock().insert(proxy.target.pid, proxy);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<i32, Proxy>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seen(&self) -> MutexGuard<'_, Vec<Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What those of a run have seen and nobody has read yet: a page of each at most.
    pub fn saw(&self, run: &RunId) -> Vec<Vec<Value>> {
        let mut seen = self.seen();
        let pages = seen.iter_mut().filter(|seen| seen.run == run.0).map(Seen::more);
        pages.filter(|page| !page.is_empty()).collect()
    }

    /// What those of a run have seen is wanted no more.
    pub fn forget(&self, run: &RunId) {
        self.seen().retain(|seen| seen.run != run.0);
    }

    /// Does something with one of them; `None` where it is not known here.
    pub fn with<T>(&self, target: &Target, act: impl FnOnce(&mut Proxy) -> T) -> Option<T> {
        self.lock().get_mut(&target.pid).filter(|proxy| proxy.target == *target).map(act)
    }

    /// It does nothing to connections any more, and ends with the last one.
    pub fn heal(&self, target: &Target) {
        self.with(target, Proxy::heal);
    }

    /// Whether it still carries connections on.
    pub fn carries(&self, target: &Target) -> bool {
        self.with(target, |proxy| !proxy.has_ended()).unwrap_or(false)
    }

    /// Ends it; `None` where it is not known here.
    pub fn end(&self, target: &Target) -> Option<Undone> {
        let done = self.with(target, Proxy::end)?;
        if done.is_ok() {
            self.lock().remove(&target.pid);
        }
        Some(done)
    }
}

/// The proxy of a dead worker: it dies with it. Where it has not, it is killed.
pub fn gone(target: &Target) -> Undone {
    for round in 0..100 {
        let Some(pidfd) = target.open() else { return Ok(format!("the proxy {target} has ended")) };
        if round >= 10 {
            let _ = pidfd_send_signal(pidfd, Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Err(format!("the proxy {target} is still there"))
}
