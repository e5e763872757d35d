//! How guardian and worker notice each other's end, and how both end when neither can notice anything.
//!
//! While an injection is live each side beats every [`BEAT`]; silence for [`SILENCE`] is death, and so is the end of
//! the other's socket. With every beat each pushes ahead a timer that kills it (`SIGKILL` also ends a stopped, traced
//! or frozen process): a pair that hangs together removes itself. Idle, nobody wakes up.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{SigEvent, SigevNotify, Signal};
use nix::sys::socket::{MsgFlags, recv, send};
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;
use rustix::process::{getpriority_process, setpriority_process};

use crate::host::sys;

/// Time between beats.
pub const BEAT: Duration = Duration::from_millis(300);
/// So long without a beat, and the other is dead.
pub const SILENCE: Duration = Duration::from_millis(1200);
/// So long without beating oneself, and one is killed.
const SUICIDE: Duration = Duration::from_millis(1500);

/// The niceness of a thread whose beats are waited for.
const FOREMOST: i32 = -20;

/// One end of the line between guardian and worker.
#[derive(Debug)]
pub struct Pulse {
    socket: OwnedFd,
    timer: Timer,
    live: bool,
    heard: u64,
    beaten: u64,
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
        let event = SigEvent::new(SigevNotify::SigevSignal { signal: Signal::SIGKILL, si_value: 0 });
        let timer = Timer::new(ClockId::CLOCK_MONOTONIC, event)?;
        Ok(Pulse { socket, timer, live: false, heard: 0, beaten: 0, nice: None })
    }

    /// Something is live from now on, or nothing any more.
    pub fn set_live(&mut self, live: bool) {
        if live && !self.live {
            self.heard = sys::boot_nanos();
            self.live = true;
            self.take_precedence();
            self.beat();
        } else if !live && self.live {
            self.live = false;
            if let Some(nice) = self.nice.take() {
                let _ = setpriority_process(None, nice);
            }
            // A zero expiration disarms: timer_settime(2).
            let _ = self.timer.set(Expiration::OneShot(Duration::ZERO.into()), TimerSetTimeFlags::empty());
        }
    }

    /// On a host that has more work than processors, a side that waits for its turn looks like one that hangs. Where it is
    /// allowed, the calling thread gets its turn before ordinary ones.
    fn take_precedence(&mut self) {
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

    fn beat(&mut self) {
        self.beaten = sys::boot_nanos();
        let _ = send(self.socket.as_raw_fd(), &[1], MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL);
        let _ = self.timer.set(Expiration::OneShot(SUICIDE.into()), TimerSetTimeFlags::empty());
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
        let silent = sys::boot_nanos().saturating_sub(self.heard) > SILENCE.as_nanos() as u64;
        if self.live && silent { Other::Dead } else { Other::Alive }
    }
}

impl AsFd for Pulse {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
