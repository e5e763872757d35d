//! One of the two sockets of a connection: reading and writing without waiting.

use std::io;
use std::os::fd::OwnedFd;

use bytes::Bytes;
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

use super::dependency;
use super::queue::{Chunk, Ending, Item};

/// The most that one read takes, in bytes.
const READ: usize = 64 << 10;
/// The most that is moved at once without being read, in bytes: what of it does not fit has to be read after all.
const MOVE: usize = 256 << 10;
/// A chunk of at least this size keeps the buffer that it was read into.
const LARGE: usize = READ / 4;

/// What a shard has for bytes that are on their way. Nothing is in it between two moves.
pub struct Scratch {
    buffer: Vec<u8>,
    /// Through it bytes go from socket to socket without being copied (splice(2)): where to read, and where to write.
    pipe: (OwnedFd, OwnedFd),
}

impl Scratch {
    /// An empty one.
    pub fn new() -> io::Result<Self> {
        let pipe = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // Pages that hold less than they could take a place each, too; where it is not allowed, less is moved at once.
        let _ = fcntl_setpipe_size(&pipe.1, 4 * MOVE);
        Ok(Scratch { buffer: vec![0; READ], pipe })
    }

    /// So many bytes that are in the pipe and could not be moved on.
    fn rest(&self, length: usize) -> Vec<u8> {
        let mut rest = vec![0; length];
        let mut filled = 0;
        while filled < length {
            match rustix::io::read(&self.pipe.0, &mut rest[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(Errno::INTR) => {}
                // All of it is there: this cannot be.
                Err(_) => break,
            }
        }
        rest.truncate(filled);
        rest
    }
}

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
    /// It sends much: the last read was a full one.
    pub(super) bulky: bool,
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

    /// What taking from the socket came to: how many bytes, or the end that stands there instead; `None`: nothing now.
    fn came(&mut self, taken: Result<usize, Errno>) -> Result<usize, Option<Item>> {
        match taken {
            Ok(0) => {
                self.silent = true;
                Err(Some(Item::End(Ending::Finished)))
            }
            Ok(length) => Ok(length),
            Err(Errno::AGAIN) => {
                self.readable = false;
                Err(None)
            }
            Err(_) => {
                (self.silent, self.deaf) = (true, true);
                Err(Some(Item::End(Ending::Reset)))
            }
        }
    }

    /// Moves what this one sends to another one without reading it, as much as that takes; only what is left of it comes
    /// back. Also says how many bytes came. Both are sockets of the kernel's TCP.
    pub(super) fn pass(
        &mut self,
        now: u64,
        scratch: &Scratch,
        sink: &mut Peer,
        counted: &dependency::Bytes,
    ) -> (Option<Item>, usize) {
        let (Some(socket), Some(other)) = (&self.socket, &sink.socket) else { return (None, 0) };
        let into = &scratch.pipe.1;
        let length = retry_on_intr(|| splice(socket, None, into, None, MOVE, SpliceFlags::NONBLOCK));
        let length = match self.came(length) {
            Ok(length) => length,
            Err(end) => {
                self.bulky = false;
                return (end, 0);
            }
        };
        counted.received(length);
        // Little came: a read would have been cheaper, and tells whether there is more.
        self.bulky = length >= LARGE;
        let mut left = length;
        while left > 0 {
            match splice(&scratch.pipe.0, None, other, None, left, SpliceFlags::NONBLOCK) {
                Ok(moved @ 1..) => left -= moved,
                Err(Errno::INTR) => {}
                Ok(_) | Err(Errno::AGAIN) => {
                    // The kernel tells of new room, as after a write that was cut short.
                    sink.writable = false;
                    break;
                }
                Err(_) => {
                    (sink.deaf, sink.readable, sink.ending) = (true, true, true);
                    break;
                }
            }
        }
        counted.sent(length - left);
        if left == 0 {
            return (None, length);
        }
        let bytes = Bytes::from(scratch.rest(left));
        (Some(Item::Data(Chunk { bytes, at: now })), length)
    }

    /// Reads once. Where nothing stands between, what was read is written at once, and only what is left comes back.
    /// Also says how many bytes were read.
    pub(super) fn receive(
        &mut self,
        now: u64,
        scratch: &mut Scratch,
        sink: Option<&mut Peer>,
        counted: &dependency::Bytes,
    ) -> (Option<Item>, usize) {
        let buffer = &mut scratch.buffer;
        let Some(socket) = &self.socket else { return (None, 0) };
        let length = retry_on_intr(|| recv(socket, buffer.as_mut_slice(), RecvFlags::empty()));
        let length = match self.came(length.map(|(length, _)| length)) {
            Ok(length) => length,
            Err(end) => return (end, 0),
        };
        counted.received(length);
        // Less than was asked for: the socket is empty, and the kernel will tell of more.
        self.bulky = length == buffer.len();
        self.readable = self.bulky || self.ending;
        let written = match sink {
            Some(sink) if sink.writable => sink.send(&buffer[..length]),
            _ => 0,
        };
        counted.sent(written);
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
