//! How guardian and worker notice each other's end, and how both end when neither can notice anything.
//!
//! While an injection is live each side beats every [`BEAT`]; silence for [`SILENCE`] is death, and so is the end of
//! the other's socket. With every beat each pushes ahead a timer that kills it (`SIGKILL` also ends a stopped, traced
//! or frozen process): a pair that hangs together removes itself. Idle, nobody wakes up.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};
use rustix::process::{getpriority_process, setpriority_process};

use crate::host::sys::{self, DeathTimer};

/// Time between beats.
pub const BEAT: Duration = Duration::from_millis(300);
/// So long without a beat, and the other is dead.
pub const SILENCE: Duration = Duration::from_millis(1200);
/// So long without beating oneself, and one is killed.
const SUICIDE: Duration = Duration::from_millis(1500);

/// So long one may be at one thing that undoes what the other has left: nobody is there any more to notice that it hangs.
/// Longer than a slow disk takes ([`PATIENCE`](crate::records::PATIENCE)).
pub const ALONE: Duration = Duration::from_secs(15);

/// The niceness of a thread whose beats are waited for.
pub const FOREMOST: i32 = -20;

/// One end of the line between guardian and worker.
#[derive(Debug)]
pub struct Pulse {
    socket: OwnedFd,
    timer: DeathTimer,
    live: bool,
    heard: u64,
    listened: u64,
    beaten: u64,
    /// Whether the thread does so little that it may go before all others.
    urgent: bool,
    /// The thread's usual niceness, while it has a better one.
    nice: Option<i32>,
}

/// What listening came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Other {
    /// It lives, as far as can be known.
    Alive,
    /// It is gone, or silent for too long.
    Dead,
}

impl Pulse {
    /// Takes one end. Nothing beats yet.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        let timer = DeathTimer::new()?;
        Ok(Pulse { socket, timer, live: false, heard: 0, listened: 0, beaten: 0, urgent: false, nice: None })
    }

    /// For a thread that does little else than beat, and sleeps: while something is live it goes before all others.
    pub fn urgent(self) -> Self {
        Pulse { urgent: true, ..self }
    }

    /// Something is live from now on, or nothing any more.
    pub fn set_live(&mut self, live: bool) {
        if live && !self.live {
            self.heard = sys::boot_nanos();
            self.listened = self.heard;
            self.live = true;
            self.take_precedence();
            self.beat();
        } else if !live && self.live {
            self.live = false;
            if let Some(nice) = self.nice.take() {
                let _ = setpriority_process(None, nice);
            }
            if self.urgent {
                let _ = sys::run_as_usual();
            }
            self.timer.set(Duration::ZERO);
        }
    }

    /// The other is dead, and this side undoes what is left: it beats no more, and is killed when it takes longer than
    /// [`ALONE`] until the next call. Whoever comes next does the rest.
    pub fn alone(&mut self) {
        self.set_live(false);
        self.timer.set(ALONE);
    }

    /// On a host that has more work than processors, a side that waits for its turn looks like one that hangs. Where it is
    /// allowed, the calling thread gets its turn before ordinary ones: by niceness, which counts within a session or a
    /// control group only (sched(7), "The autogroup feature"), and by a real-time priority, which counts everywhere.
    fn take_precedence(&mut self) {
        if self.urgent {
            let _ = sys::run_urgently();
        }
        if let Ok(usual) = getpriority_process(None)
            && setpriority_process(None, FOREMOST).is_ok()
        {
            self.nice = Some(usual);
        }
    }

    /// Beats if it is time, and says when the next beat is due on the boot clock; `None` while nothing is live.
    pub fn beat_if_due(&mut self) -> Option<u64> {
        if !self.live {
            return None;
        }
        if sys::boot_nanos() >= self.beaten + BEAT.as_nanos() as u64 {
            self.beat();
        }
        Some(self.beaten + BEAT.as_nanos() as u64)
    }

    /// When it beat last, on the boot clock; `None` while nothing is live.
    pub fn last_beat(&self) -> Option<u64> {
        self.live.then_some(self.beaten)
    }

    /// What comes now may take longer than a life does without a beat, and is no death: so long at most. Ends with the
    /// next beat.
    pub fn hold_breath(&mut self, longest: Duration) {
        if self.live {
            self.timer.set(longest);
        }
    }

    /// Beats now.
    pub fn breathe(&mut self) {
        if self.live {
            self.beat();
        }
    }

    fn beat(&mut self) {
        self.beaten = sys::boot_nanos();
        let _ = send(self.socket.as_raw_fd(), &[1], MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL);
        self.timer.set(SUICIDE);
    }

    /// Reads what has come, without waiting.
    pub fn listen(&mut self) -> Other {
        let mut byte = [0; 8];
        loop {
            match recv(self.socket.as_raw_fd(), &mut byte, MsgFlags::MSG_DONTWAIT) {
                Ok(0) => return Other::Dead,
                Ok(_) => self.heard = sys::boot_nanos(),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => break,
                Err(_) => return Other::Dead,
            }
        }
        let now = sys::boot_nanos();
        // Whoever did not listen cannot tell: it was busy itself, or the whole machine stood still.
        if now.saturating_sub(self.listened) > 2 * BEAT.as_nanos() as u64 {
            self.heard = now;
        }
        self.listened = now;
        let silent = now.saturating_sub(self.heard) > SILENCE.as_nanos() as u64;
        if self.live && silent { Other::Dead } else { Other::Alive }
    }
}

impl AsFd for Pulse {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
