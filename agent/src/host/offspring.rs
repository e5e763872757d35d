//! Processes that the chosen ones start: they belong to a scope by process from their beginning.
//!
//! The kernel tells of every fork through the process events connector, in order, so that nobody is lost whose parent has
//! ended meanwhile. A thread listens and has the new process marked at once; the worker looks at intervals at who it was.
//! The connector speaks only in the machine's first network namespace. Where it cannot be had,
//! `/proc/PID/task/*/children` is looked at; there a grandchild is missed whose parent ended between two looks.
//!
//! Source: `include/uapi/linux/cn_proc.h`, `drivers/connector/cn_proc.c`.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use procfs::ticks_per_second;
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_recv_buffer_size_force, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, netlink, recv, send, socket_with,
};

use super::netlink::u32_at;
use super::netns::Netns;
use super::process::Target;
use super::sys;

/// How often it is looked who was started.
const READ: Duration = Duration::from_millis(20);
/// The same where no events are told.
const LOOK: Duration = Duration::from_millis(50);
/// How often those who have ended are forgotten.
const FORGET: Duration = Duration::from_secs(1);
/// How often the thread that listens looks whether it may end.
const PATIENCE: Duration = Duration::from_millis(100);
/// The group and the message by which process events are asked for (`CN_IDX_PROC`, `CN_VAL_PROC`, `PROC_CN_MCAST_LISTEN`).
const PROCESSES: u32 = 1;
const LISTEN: u32 = 1;
/// The header of netlink and that of the connector.
const HEADERS: usize = 16 + 20;
const FORK: u32 = 1;

/// The descendants of chosen processes, from when they are watched.
#[derive(Debug)]
pub struct Offspring {
    /// Until somebody listens.
    events: Option<OwnedFd>,
    heard: Arc<Heard>,
    /// Whether somebody listens.
    listens: bool,
    began: u64,
    next: u64,
    forget: u64,
    followed: u64,
    missed: u64,
    /// The longest time between a beginning and the look that found it, in milliseconds.
    latest_ms: u64,
}

/// What the listening thread and the worker share.
#[derive(Debug, Default)]
struct Heard {
    state: Mutex<State>,
    /// Events were lost.
    lost: AtomicBool,
    stop: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// The chosen ones and their descendants.
    family: BTreeSet<i32>,
    /// Who was started and has not been looked at.
    started: Vec<i32>,
}

impl Heard {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes every event, and has children of the family marked, until it is stopped.
    fn listen(&self, events: &OwnedFd, chosen: &OwnedFd) {
        let mut bytes = [0; 512];
        while !self.stop.load(Ordering::Acquire) {
            match recv(events, &mut bytes, RecvFlags::empty()) {
                Ok((_, length)) => {
                    let Some((parent, child)) = forked(&bytes[..length.min(bytes.len())]) else { continue };
                    let mut state = self.state();
                    if state.family.contains(&parent) && state.family.insert(child) {
                        // Where that fails the worker's look finds it out.
                        let _ = sys::bpf_number(chosen.as_fd(), child as u32, true);
                        state.started.push(child);
                    }
                }
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(_) => self.lost.store(true, Ordering::Release),
            }
        }
    }
}

impl Offspring {
    /// Begins to watch: nobody is missed who is started from now on by whoever is chosen in a moment.
    pub fn watch() -> Self {
        let began = sys::boot_nanos();
        let events = events();
        Offspring {
            events,
            heard: Arc::default(),
            listens: false,
            began,
            next: began,
            forget: began + FORGET.as_nanos() as u64,
            followed: 0,
            missed: 0,
            latest_ms: 0,
        }
    }

    /// These are the chosen ones.
    pub fn of<'a>(&mut self, chosen: impl IntoIterator<Item = &'a Target>) {
        self.heard.state().family.extend(chosen.into_iter().map(|target| target.pid));
    }

    /// From now on whoever is started is put among the numbers that mark (`chosen`).
    pub fn begin(&mut self, chosen: OwnedFd) {
        let Some(events) = self.events.take() else { return };
        let heard = Arc::clone(&self.heard);
        let listener = std::thread::Builder::new().name("offspring".into()).stack_size(256 << 10);
        self.listens = listener.spawn(move || heard.listen(&events, &chosen)).is_ok();
    }

    /// When it wants to look, on the boot clock.
    pub fn due(&self) -> u64 {
        self.next
    }

    /// Those who were started since it looked before, and the pids of those of them who have ended already; `None` where it
    /// is not time yet. `known` are those of the scope.
    pub fn look(&mut self, known: &[Target]) -> Option<(Vec<Target>, Vec<i32>)> {
        let now = sys::boot_nanos();
        if now < self.next {
            return None;
        }
        self.next = now + if self.listens { READ } else { LOOK }.as_nanos() as u64;
        let mut started = std::mem::take(&mut self.heard.state().started);
        if !self.listens || self.heard.lost.swap(false, Ordering::AcqRel) {
            started.extend(self.children(known));
        }
        let (mut found, mut ended) = (Vec::new(), Vec::new());
        for pid in started {
            match Target::of(pid).filter(Target::alive) {
                Some(target) => found.push(target),
                None => ended.push(pid),
            }
        }
        found.retain(|target| !known.contains(target));
        self.followed += found.len() as u64;
        self.missed += ended.len() as u64;
        let age =
            |target: &Target| (now / 1_000_000).saturating_sub(target.start * 1000 / ticks_per_second());
        self.latest_ms = found.iter().map(age).fold(self.latest_ms, u64::max);
        Some((found, ended))
    }

    /// Whether it is time to forget who has ended, so that a pid that comes again is nobody's.
    pub fn forgets(&mut self) -> bool {
        let now = sys::boot_nanos();
        let due = now >= self.forget;
        if due {
            self.forget = now + FORGET.as_nanos() as u64;
            // Also those who were heard of and not looked at.
            let mut state = self.heard.state();
            state.family.retain(|pid| std::fs::exists(format!("/proc/{pid}")).unwrap_or(true));
        }
        due
    }

    /// The living descendants of those known who were started since the watch began.
    fn children(&mut self, known: &[Target]) -> Vec<i32> {
        let mut open: Vec<i32> = known.iter().map(|target| target.pid).collect();
        let mut started = Vec::new();
        // A time of start is a number of ticks, of which the last may have begun before.
        let first = self.began / 1_000_000_000 * ticks_per_second()
            + self.began % 1_000_000_000 * ticks_per_second() / 1_000_000_000;
        while let Some(pid) = open.pop() {
            for child in children(pid) {
                let young = Target::of(child).is_some_and(|target| target.start >= first);
                if young && self.heard.state().family.insert(child) {
                    started.push(child);
                    open.push(child);
                }
            }
        }
        started
    }

    /// For the report.
    pub fn told_later(&self) -> Vec<String> {
        let all = self.followed + self.missed;
        let how = match (all, self.listens) {
            (0, _) => return Vec::new(),
            (_, true) => {
                "the kernel tells of each when it begins, and what it opens is marked from that moment"
                    .to_owned()
            }
            (_, false) => format!(
                "looked for every {} ms, found at most {} ms after they began, and what they opened and sent until then passed \
                 unharmed; {} of them had ended before",
                LOOK.as_millis(),
                self.latest_ms + 1,
                self.missed
            ),
        };
        vec![format!("processes that the chosen ones started are followed ({all} so far): {how}")]
    }
}

impl Drop for Offspring {
    fn drop(&mut self) {
        self.heard.stop.store(true, Ordering::Release);
    }
}

/// The kernel's events, from wherever it tells them: its first network namespace may be this one, that of the first
/// process, or that of whoever started the agent.
fn events() -> Option<OwnedFd> {
    let elsewhere = |pid: i32| {
        // The thread comes back at once; only the socket stays there.
        Netns::of_process(pid).and_then(|there| there.enter(subscribe)?)
    };
    let mut pid = i32::try_from(std::process::id()).unwrap_or(0);
    let parents = std::iter::from_fn(|| {
        pid = procfs::process::Process::new(pid).and_then(|process| process.stat()).ok()?.ppid;
        (pid > 1).then_some(pid)
    });
    subscribe().ok().or_else(|| std::iter::once(1).chain(parents).find_map(|pid| elsewhere(pid).ok()))
}

/// A socket that hears of every process that begins or ends on the machine.
fn subscribe() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(netlink::CONNECTOR))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
    let _ = set_socket_recv_buffer_size_force(&socket, 4 << 20);
    bind(&socket, &netlink::SocketAddrNetlink::new(0, PROCESSES))?;
    let mut message = Vec::new();
    message.extend((HEADERS as u32 + 4).to_ne_bytes());
    message.extend(3u16.to_ne_bytes()); // NLMSG_DONE, as the connector wants it
    message.extend([0; 10]);
    message.extend(PROCESSES.to_ne_bytes());
    message.extend(PROCESSES.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(4u16.to_ne_bytes());
    message.extend([0; 2]);
    message.extend(LISTEN.to_ne_bytes());
    send(&socket, &message, SendFlags::empty())?;
    Ok(socket)
}

/// Parent and child of an event that tells of a new process; a new thread is none.
fn forked(message: &[u8]) -> Option<(i32, i32)> {
    let event = message.get(HEADERS..HEADERS + 32)?;
    let [parent, child, child_process] = [20, 24, 28].map(|at| u32_at(event, at) as i32);
    (u32_at(event, 0) == FORK && child == child_process).then_some((parent, child))
}

/// The children of all threads of a process.
fn children(pid: i32) -> Vec<i32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A program that starts another for each line that it reads, and waits for them when its input has ended.
    fn parent() -> Child {
        let mut command = Command::new("xargs");
        command.args(["-P", "2", "-n", "1", "sleep"]).stdin(Stdio::piped()).stderr(Stdio::null());
        command.spawn().expect("a program of every Linux runs")
    }

    /// Two children of a program are found once each.
    fn finds_both(mut offspring: Offspring) {
        use std::io::Write;
        let mut started = parent();
        let parent = Target::of(i32::try_from(started.id()).unwrap()).unwrap();
        offspring.of([&parent]);
        if offspring.events.is_some() {
            offspring.begin(File::open("/dev/null").unwrap().into());
        }
        let mut input = started.stdin.take().unwrap();
        input.write_all(b"60\n60\n").unwrap();
        let begun = std::time::Instant::now();
        let mut found: Vec<Target> = Vec::new();
        while found.len() < 2 && begun.elapsed().as_secs() < 20 {
            std::thread::sleep(Duration::from_millis(5));
            let known = [std::slice::from_ref(&parent), &found].concat();
            found.extend(offspring.look(&known).unwrap_or_default().0);
        }
        assert!(offspring.children(&[parent]).is_empty(), "each is found once");
        assert!(found.iter().all(Target::alive) && found.len() == 2, "{found:?}");
        assert!(offspring.told_later()[0].contains("(2 so far)"));
        drop(input);
        for child in found {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.pid), nix::sys::signal::Signal::SIGKILL)
                .unwrap();
        }
        started.wait().unwrap();
    }

    fn unheard() -> Offspring {
        let mut offspring = Offspring::watch();
        offspring.events = None;
        offspring
    }

    #[test]
    fn children_are_found_by_looking() {
        finds_both(unheard());
    }

    #[test]
    fn children_are_told_by_the_kernel() {
        let offspring = Offspring::watch();
        if offspring.events.is_some() {
            finds_both(offspring);
        }
    }

    #[test]
    fn only_a_fork_is_one_and_no_thread() {
        let event = |what: u32, child: u32, process: u32| {
            let mut message = vec![0; HEADERS];
            for word in [what, 0, 0, 0, 311, 312, child, process] {
                message.extend(word.to_ne_bytes());
            }
            message
        };
        assert_eq!(forked(&event(FORK, 400, 400)), Some((312, 400)));
        assert_eq!(forked(&event(FORK, 401, 400)), None);
        assert_eq!(forked(&event(2, 400, 400)), None);
        assert_eq!(forked(&event(FORK, 400, 400)[..60]), None);
    }
}
