//! One of the two sockets of a connection: reading and writing without waiting.

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::dependency;
use super::queue::{Chunk, Ending, Item};

/// The most that one read takes, in bytes.
pub const READ: usize = 64 << 10;
/// A chunk of at least this size keeps the buffer that it was read into.
const LARGE: usize = READ / 4;
/// One peer's socket, and what is known of it: nothing is asked twice (the poll is edge-triggered).
#[derive(Default)]
pub(super) struct Peer {
    pub(super) socket: Option<OwnedFd>,
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// The kernel has announced an end: read until it is there.
    pub(super) ending: bool,
    /// Nothing more comes.
    pub(super) silent: bool,
    /// Nothing more can be sent.
    pub(super) deaf: bool,
}

impl Peer {
    /// Writes what fits; what the socket no longer takes at all makes it deaf.
    pub(super) fn send(&mut self, bytes: &[u8]) -> usize {
        let Some(socket) = &self.socket else { return 0 };
        loop {
            match send(socket, bytes, SendFlags::NOSIGNAL) {
                Ok(written) => {
                    // The kernel tells of new room after a write that was cut short (`SOCK_NOSPACE`, net/ipv4/tcp.c).
                    self.writable = written == bytes.len();
                    return written;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.writable = false;
                    return 0;
                }
                Err(_) => {
                    // What it sent before it went away can still be read.
                    (self.deaf, self.readable, self.ending) = (true, true, true);
                    return 0;
                }
            }
        }
    }

    /// Reads once. Where nothing stands between, what was read is written at once, and only what is left comes back.
    /// Also says how many bytes were read.
    pub(super) fn receive(
        &mut self,
        now: u64,
        buffer: &mut Vec<u8>,
        sink: Option<&mut Peer>,
        counted: &dependency::Bytes,
    ) -> (Option<Item>, usize) {
        let Some(socket) = &self.socket else { return (None, 0) };
        let length = loop {
            match recv(socket, buffer.as_mut_slice(), RecvFlags::empty()) {
                Ok((length, _)) => break length,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.readable = false;
                    return (None, 0);
                }
                Err(_) => {
                    (self.silent, self.deaf) = (true, true);
                    return (Some(Item::End(Ending::Reset)), 0);
                }
            }
        };
        if length == 0 {
            self.silent = true;
            return (Some(Item::End(Ending::Finished)), 0);
        }
        counted.received.fetch_add(length as u64, Ordering::Relaxed);
        // Less than was asked for: the socket is empty, and the kernel will tell of more.
        self.readable = length == buffer.len() || self.ending;
        let written = match sink {
            Some(sink) if sink.writable => sink.send(&buffer[..length]),
            _ => 0,
        };
        counted.sent.fetch_add(written as u64, Ordering::Relaxed);
        if written == length {
            return (None, length);
        }
        let bytes = if written == 0 && length >= LARGE {
            let mut full = std::mem::replace(buffer, vec![0; READ]);
            full.truncate(length);
            Bytes::from(full)
        } else {
            Bytes::copy_from_slice(&buffer[written..length])
        };
        (Some(Item::Data(Chunk { bytes, at: now })), length)
    }
}
