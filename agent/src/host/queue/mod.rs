//! The packet engine: packets of a flow come to user space by an NFQUEUE, are held, lost or altered, and go on.
//!
//! Each queue has a thread of its own, which waits for nothing but the kernel: its socket, one timer for the earliest
//! of all deadlines, and a word from the worker's main thread. Whoever holds a duplicate of the socket can let all held
//! packets go ([`drain`]), also after that thread is dead.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use squall_experiments::evidence::Engine;
use squall_experiments::impairment::Impairment;
use squall_experiments::protocol::Refusal;

use super::nft::Hook;

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

/// A queue number that this process reads.
#[derive(Debug)]
pub struct Queue {
    number: u16,
    socket: OwnedFd,
}

impl Queue {
    /// Takes a free queue number. Until [`Queue::run`] nobody reads it: no rule may name it yet.
    pub fn bind() -> Result<Self, Refusal> {
        Err(Refusal::bare("not yet"))
    }

    /// Its number, for rules.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// Its socket, to hand a duplicate to the guardian.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Starts the engine's thread. What could not be had (priority, buffer) is in the notes of [`Queue::counts`]' caller.
    pub fn run(&mut self, _orders: Orders) -> Result<Vec<String>, Refusal> {
        Err(Refusal::bare("not yet"))
    }

    /// What it did so far, after everything that has come to its socket; the last known where it does not answer.
    pub fn counts(&mut self) -> Engine {
        Engine::default()
    }

    /// Whether the engine's thread has answered the last question; asks the next one.
    pub fn lives(&mut self) -> bool {
        true
    }

    /// Ends the thread and lets everything go that is held, in order. No rule names the queue any more.
    pub fn stop(self) -> Engine {
        Engine::default()
    }
}

/// Lets all packets go that a queue holds, through its socket or a duplicate. The number of rounds that found some.
pub fn drain(_socket: BorrowedFd<'_>, _number: u16) -> std::io::Result<usize> {
    Ok(0)
}
