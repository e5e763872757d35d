//! What worker and guardian say to each other: the worker asks, the guardian writes, syncs and answers.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};
use squall_experiments::protocol::{Refusal, RunId};

use crate::deputy::Hand;
use crate::fingerprint::claims::Claims;
use crate::host::undo::Undo;
use crate::line::Line;
use crate::points::{self, Point};
use crate::pulse::BEAT;

/// How long the guardian may take to write and sync.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// From worker to guardian; each is answered before the next.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ask {
    /// A run begins, and must have ended by then, on the boot clock.
    Begin {
        /// Which.
        run: RunId,
        /// The experiment's title.
        title: String,
        /// Nanoseconds since boot.
        deadline: u64,
    },
    /// Write an undo. The socket that it needs may be attached: hold it until the undo is done.
    Record {
        /// Of which run.
        run: RunId,
        /// How.
        undo: Undo,
    },
    /// These have been undone and looked at.
    Undone {
        /// By their numbers.
        numbers: Vec<u64>,
    },
    /// A run has ended; nothing of it is left.
    End {
        /// Which.
        run: RunId,
    },
}

impl Ask {
    /// The stopping points on both sides of doing it.
    pub fn points(&self) -> (Point, Point) {
        match self {
            Ask::Begin { .. } => (Point::BeforeBegin, Point::AfterBegin),
            Ask::Record { .. } => (Point::BeforeRecord, Point::AfterRecord),
            Ask::Undone { .. } => (Point::BeforeUndone, Point::AfterUndone),
            Ask::End { .. } => (Point::BeforeEnd, Point::AfterEnd),
        }
    }
}

/// From guardian to worker.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// On disk.
    Written {
        /// The number of an undo; 0 for everything else.
        number: u64,
    },
    /// Not on disk: it must not be done.
    Not {
        /// Why.
        why: String,
    },
}

/// One end of the line.
#[derive(Debug)]
pub struct Records {
    line: Line,
    hand: Hand,
    claims: RefCell<Claims>,
}

impl Records {
    /// Takes one end. The hand shows itself at every question, and while an answer is waited for: a disk may be slow.
    pub fn new(socket: OwnedFd, hand: Hand) -> Self {
        Records { line: Line::new(socket), hand, claims: RefCell::default() }
    }

    /// The hand shows itself, at something else that takes long.
    pub fn breathe(&self) {
        self.hand.shows();
    }

    /// What has been claimed by what was recorded.
    pub fn claims(&self) -> Claims {
        self.claims.borrow().clone()
    }

    /// Asks the guardian, and waits until it has written.
    pub fn ask(&self, ask: &Ask, attached: Option<BorrowedFd<'_>>) -> Result<u64, Refusal> {
        if let Ask::Record { undo, .. } = ask {
            self.claims.borrow_mut().add(undo);
        }
        let lost = |error: io::Error| Refusal::bare(format!("the guardian does not answer: {error}"));
        let (before, after) = ask.points();
        self.breathe();
        points::pass(before);
        self.send(ask, attached).map_err(lost)?;
        let mut ready = [PollFd::new(self.line.as_fd(), PollFlags::POLLIN)];
        let begun = Instant::now();
        let slice = PollTimeout::try_from(BEAT).unwrap_or(PollTimeout::ZERO);
        loop {
            match poll(&mut ready, slice) {
                Ok(0) if begun.elapsed() > PATIENCE => return Err(lost(io::ErrorKind::TimedOut.into())),
                Ok(0) => self.breathe(),
                Ok(_) => break,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(lost(errno.into())),
            }
        }
        match self.receive::<Answer>().map_err(lost)? {
            Some((Answer::Written { number }, _)) => {
                points::pass(after);
                Ok(number)
            }
            Some((Answer::Not { why }, _)) => Err(Refusal::new(
                format!("the undo journal cannot be written: {why}"),
                "nothing is done without it: make room, or choose another place with `--state-dir`",
            )),
            None => Err(lost(io::ErrorKind::UnexpectedEof.into())),
        }
    }

    /// Sends one message, with a descriptor.
    pub fn send<T: Serialize>(&self, message: &T, attached: Option<BorrowedFd<'_>>) -> io::Result<()> {
        self.line.send(message, attached)
    }

    /// Receives one message; `None` is the end of the other side.
    pub fn receive<T: for<'de> Deserialize<'de>>(&self) -> io::Result<Option<(T, Option<OwnedFd>)>> {
        self.line.receive()
    }
}

impl AsFd for Records {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.line.as_fd()
    }
}
