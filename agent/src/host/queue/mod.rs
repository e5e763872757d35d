//! The packet engine: packets of a flow come to user space by an NFQUEUE, are held, lost or altered, and go on.
//!
//! Each queue has a thread of its own, which waits for nothing but the kernel: its socket, one timer for the earliest
//! of all deadlines, and a word from the worker's main thread. Whoever holds a duplicate of the socket can let all held
//! packets go ([`drain`]), also after that thread is dead.
//!
//! | file | what |
//! |---|---|
//! | `wire` | the kernel's messages |
//! | `packet`, `fragment` | IP headers, and datagrams in pieces |
//! | `dice` | what befalls the n-th packet |
//! | `line` | how long each waits for a line that carries little |
//! | `schedule` | what is held until when |
//! | `raw` | packets that the engine sends itself |
//! | `work`, `times` | what is done to packets, and its measurements |
//! | `engine`, `pace` | the thread, and its manners |

mod dice;
mod engine;
mod fragment;
mod line;
pub(crate) mod pace;
mod packet;
mod raw;
mod schedule;
mod times;
mod wire;
mod work;

pub(super) use dice::pareto;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{MsgFlags, NetlinkAddr, SockProtocol, getsockopt, recv, sendto, setsockopt, sockopt};
use squall_experiments::evidence::Engine;
use squall_experiments::impairment::Impairment;
use squall_experiments::protocol::Refusal;

use super::netlink::{NetlinkError, Socket};
use super::nft::Hook;
use super::sys;
use engine::Ask;
use wire::Event;

/// The first queue number that is tried: programs that choose one by hand choose a small one.
const FIRST: u16 = 21_001;
/// How many are tried.
const TRIED: u16 = 4096;
/// What a queue's socket may hold of messages that are not read yet, in bytes.
const BUFFER: usize = 32 << 20;
/// Packets that the kernel may hold beyond the limit, while the engine decides about them: more than fit into the
/// socket. Where the socket is what overflows, the gaps in the packets' numbers show it; otherwise nothing does.
const MARGIN: u32 = 65_536;
/// How long the thread may take for an answer.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long it may take to let everything go.
const LAST_PATIENCE: Duration = Duration::from_secs(2);

/// What an engine is to do.
#[derive(Clone, Debug)]
pub struct Orders {
    /// To the packets.
    pub impairment: Impairment,
    /// At which hook they are: what is held on its way out is stolen and sent on by a raw socket.
    pub hook: Hook,
    /// How many are held at most.
    pub limit: u32,
    /// Of all choices: the same packets in the same order meet the same fate.
    pub seed: [u8; 32],
    /// What packets that a raw socket sends carry in their mark, beside their own: the rules of this engine and of those
    /// before it pass such packets by. Value and mask.
    pub mark: (u32, u32),
}

/// A queue number that this process reads. Dropped without [`Queue::stop`] it lets everything go, too.
#[derive(Debug)]
pub struct Queue {
    number: u16,
    socket: Socket,
    notes: Vec<String>,
    thread: Option<Thread>,
    counts: Engine,
}

#[derive(Debug)]
struct Thread {
    asks: Sender<Ask>,
    bell: Arc<EventFd>,
    asked: u64,
    answered: Arc<AtomicU64>,
    handle: JoinHandle<()>,
}

impl Queue {
    /// Takes a free queue number in the network namespace of the calling thread. Until [`Queue::run`] nobody reads it: no
    /// rule may name it yet.
    pub fn bind() -> Result<Self, Refusal> {
        let mut socket = Socket::open(SockProtocol::NetlinkNetFilter).map_err(|error| refused(&error))?;
        let mut notes = Vec::new();
        if setsockopt(&socket.as_fd(), sockopt::RcvBufForce, &BUFFER).is_err() {
            let _ = setsockopt(&socket.as_fd(), sockopt::RcvBuf, &BUFFER);
            // The kernel tells twice what was asked for: half of it is its own bookkeeping.
            let room = getsockopt(&socket.as_fd(), sockopt::RcvBuf).map_or(0, |bytes| bytes / 2);
            if room < BUFFER {
                notes.push(format!(
                    "the packet queue's socket holds {} KiB here instead of {} (more needs CAP_NET_ADMIN on the host itself, \
                     or a higher `net.core.rmem_max`): packets of a burst may pass unharmed, and are counted",
                    room >> 10,
                    BUFFER >> 10
                ));
            }
        }
        // A verdict may carry a whole packet; the default is enough where this is refused.
        let _ = setsockopt(&socket.as_fd(), sockopt::SndBufForce, &(1 << 20));
        sys::keep_silent_about_overruns(socket.as_fd());
        let taken = numbers();
        for number in (FIRST..FIRST + TRIED).filter(|number| !taken.contains(number)) {
            match socket.request(vec![wire::bind(number)]) {
                Ok(()) => {
                    return Ok(Queue { number, socket, notes, thread: None, counts: nothing() });
                }
                // Somebody else was faster; `EPERM` says so, too, but not only that.
                Err(error) if error.errno() == Errno::EBUSY || numbers().contains(&number) => {}
                Err(error) => return Err(refused(&error)),
            }
        }
        Err(Refusal::new(
            format!("no packet queue is free between {FIRST} and {}", FIRST + TRIED - 1),
            "end the programs that hold them: `/proc/net/netfilter/nfnetlink_queue` lists them",
        ))
    }

    /// Its number, for rules.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// Its socket, to hand a duplicate to the guardian.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Starts the engine's thread. Gives what could not be had (priority, buffer), for a reader.
    pub fn run(&mut self, orders: Orders) -> Result<Vec<String>, Refusal> {
        let (copied, flags) = work::needs(&orders);
        let longest = orders.limit.saturating_add(MARGIN);
        self.socket
            .request(vec![wire::configure(self.number, copied, flags, longest)])
            .map_err(|error| refused(&error))?;
        self.thread = Some(self.start(orders).map_err(|error| {
            Refusal::bare(format!("cannot start the packet engine of queue `{}`: {error}", self.number))
        })?);
        Ok(std::mem::take(&mut self.notes))
    }

    fn start(&mut self, orders: Orders) -> io::Result<Thread> {
        let (asks, asked) = channel();
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let bell = Arc::new(EventFd::from_flags(flags)?);
        let answered = Arc::new(AtomicU64::new(0));
        let ends = engine::Ends {
            socket: self.socket.as_fd().try_clone_to_owned()?,
            number: self.number,
            asked,
            bell: bell.clone(),
            answered: answered.clone(),
        };
        let urgent = orders.impairment.holds();
        let engine = engine::Engine::new(ends, orders)?;
        let (ready, waiting) = channel();
        let handle = thread::Builder::new().name(format!("queue-{}", self.number)).spawn(move || {
            // What has no deadline is done faster in larger helpings.
            let notes = if urgent { pace::hurry() } else { Vec::new() };
            // Nobody listens any more when this took too long: the notes are lost, nothing else.
            let _ = ready.send(notes);
            engine.run();
        })?;
        self.notes.extend(waiting.recv_timeout(PATIENCE).unwrap_or_default());
        Ok(Thread { asks, bell, asked: 0, answered, handle })
    }

    /// What it did so far, after everything that has come to its socket; the last known where it does not answer.
    pub fn counts(&mut self) -> Engine {
        if let Some(thread) = &self.thread {
            let (answer, waiting) = channel();
            thread.ask(Ask::Counts(answer));
            if let Ok(counts) = waiting.recv_timeout(PATIENCE) {
                self.counts = counts;
            }
        }
        self.counts.clone()
    }

    /// Whether the engine's thread has answered the last question; asks the next one.
    pub fn lives(&mut self) -> bool {
        let Some(thread) = &mut self.thread else {
            return true;
        };
        let answered = thread.answered.load(Ordering::Acquire) == thread.asked;
        if answered {
            thread.asked += 1;
            thread.ask(Ask::Ping(thread.asked));
        }
        answered
    }

    /// Ends the thread and lets everything go that is held, in order. No rule names the queue any more. Gives what it did,
    /// and whether the thread has answered: of one that hangs only what the kernel holds can be let go.
    pub fn stop(mut self) -> (Engine, bool) {
        let answered = self.end();
        (self.counts.clone(), answered)
    }

    /// Gives the number back, whoever holds a duplicate of the socket, and whether or not the thread still runs.
    pub fn unbind(&mut self) {
        let _ = self.socket.request(vec![wire::unbind(self.number)]);
    }

    fn end(&mut self) -> bool {
        let Some(thread) = self.thread.take() else {
            return true;
        };
        let (answer, waiting) = channel();
        thread.ask(Ask::Stop(answer));
        let counts = waiting.recv_timeout(LAST_PATIENCE);
        let answered = counts.is_ok();
        if let Ok(counts) = counts {
            self.counts = counts;
            // It ends by itself now; what it says at the end has been said.
            let _ = thread.handle.join();
        }
        // What it did not let go, or all that the kernel holds for it where it hangs.
        let _ = drain(self.socket.as_fd(), self.number);
        answered
    }
}

impl Thread {
    /// Asks; an answer never comes from a thread that has ended.
    fn ask(&self, ask: Ask) {
        if self.asks.send(ask).is_ok() {
            let _ = self.bell.write(1);
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.end();
        self.unbind();
    }
}

fn nothing() -> Engine {
    Engine { name: "queue".to_owned(), ..Engine::default() }
}

fn refused(error: &NetlinkError) -> Refusal {
    let help = match error.errno() {
        Errno::EPERM => "run the agent as root, or with CAP_NET_ADMIN",
        _ => "load `nfnetlink_queue` (CONFIG_NETFILTER_NETLINK_QUEUE)",
    };
    Refusal::new(format!("no packet queue can be had here: {error}"), help)
}

/// The queue numbers of this network namespace that somebody reads.
fn numbers() -> Vec<u16> {
    listed().into_iter().map(|(number, _)| number).collect()
}

/// Queue numbers, and how many packets each holds. Source: `net/netfilter/nfnetlink_queue.c`, `seq_show`.
fn listed() -> Vec<(u16, usize)> {
    let text = std::fs::read_to_string("/proc/thread-self/net/netfilter/nfnetlink_queue").unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            Some((fields.next()?.parse().ok()?, fields.nth(1)?.parse().ok()?))
        })
        .collect()
}

/// Lets all packets go that a queue holds, through its socket or a duplicate. The number of rounds that found some.
///
/// What waits in the socket is thrown away: call it when the engine is dead, or has let go what it knew of. New packets
/// are let go, too, while rules still send some, but not for ever.
pub fn drain(socket: BorrowedFd<'_>, number: u16) -> io::Result<usize> {
    /// A packet may be on its way from its rule into the queue.
    const PAUSE: Duration = Duration::from_micros(300);
    const LONGEST: Duration = Duration::from_millis(100);
    let begun = Instant::now();
    let mut found = 0;
    // The answers need room in the socket.
    answers(socket)?;
    loop {
        // The kernel compares signed: the first covers the lower half of all numbers, the second the upper one.
        for highest in [0x7fff_ffff, 0xffff_ffff] {
            let message = wire::accept_up_to(number, highest);
            sendto(socket.as_raw_fd(), &message, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        }
        let (mut some, mut none) = (false, 0);
        for errno in answers(socket)? {
            match (errno, Errno::from_raw(errno)) {
                (0, _) => some = true,
                (_, Errno::ENOENT) => none += 1,
                // There is no such queue: nothing is held.
                (_, Errno::ENODEV) => return Ok(found),
                _ => return Err(io::Error::from_raw_os_error(errno)),
            }
        }
        found += usize::from(some);
        let elapsed = begun.elapsed();
        if elapsed > LONGEST || (none == 2 && elapsed >= PAUSE) {
            return Ok(found);
        }
        thread::sleep(PAUSE);
    }
}

/// Reads everything that waits in a socket, and gives the answers among it.
fn answers(socket: BorrowedFd<'_>) -> io::Result<Vec<i32>> {
    let mut buffer = vec![0; usize::from(u16::MAX) + wire::AROUND];
    let mut answers = Vec::new();
    loop {
        match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(length) => answers.extend(wire::events(&buffer[..length]).filter_map(|event| match event {
                Event::Answer(errno, _) => Some(errno),
                Event::Packet(_) => None,
            })),
            Err(Errno::EAGAIN) => return Ok(answers),
            Err(Errno::EINTR | Errno::ENOBUFS) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
