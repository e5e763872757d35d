//! Pipes of the kernel: through them bytes go from socket to socket without being copied (splice(2)).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use bytes::Bytes;
use rustix::io::{Errno, retry_on_intr};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

/// The most that is moved at once, in bytes.
pub const MOVE: usize = 256 << 10;
/// The most pipes of a shard: two descriptors each, and of what all pipes of a user may take (pipe(7),
/// `pipe-user-pages-soft`, usually 64 MB) a part that leaves most to others.
const MOST: usize = 8;

/// One of them.
struct Pipe {
    reading: OwnedFd,
    writing: OwnedFd,
    /// Held by every pipe of a shard.
    _alive: Arc<()>,
}

/// The pipes of a shard. What waits for room in a socket keeps the pipe that it is in, as long as others are left.
pub struct Pipes {
    idle: Vec<Pipe>,
    alive: Arc<()>,
}

/// What became of a move.
pub enum Moved {
    /// Everything was moved on.
    All,
    /// The receiver has no room for this, which stays where it is.
    Waits(Waiting),
    /// The same, where no pipe could be spared.
    Copied(Bytes),
    /// The receiver takes nothing any more: what was left is lost.
    Lost,
}

/// Bytes in a pipe, which wait for room in the socket that they go to.
pub struct Waiting {
    pipe: Pipe,
    left: usize,
}

impl Pipes {
    /// One.
    pub fn new() -> io::Result<Self> {
        let mut pipes = Pipes { idle: Vec::new(), alive: Arc::new(()) };
        let first = pipes.make()?;
        pipes.idle.push(first);
        Ok(pipes)
    }

    fn make(&self) -> io::Result<Pipe> {
        let (reading, writing) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // Pages that hold less than they could take a place each, too; where it is not allowed, less is moved at once.
        let _ = fcntl_setpipe_size(&writing, 4 * MOVE);
        Ok(Pipe { reading, writing, _alive: self.alive.clone() })
    }

    /// Whether another can be had when this one is left with somebody.
    fn spares(&mut self) -> bool {
        if self.idle.is_empty()
            && Arc::strong_count(&self.alive) <= MOST
            && let Ok(pipe) = self.make()
        {
            self.idle.push(pipe);
        }
        !self.idle.is_empty()
    }

    /// Moves what has come to one socket of the kernel's TCP to another one, as much as that takes. Also says how many bytes
    /// came and how many of them were moved on.
    ///
    /// # Errors
    /// Nothing can be taken from the socket; `Ok(0)` is its end.
    pub fn pass(&mut self, from: &OwnedFd, to: &OwnedFd) -> Result<(Moved, usize, usize), Errno> {
        // There always is one: the last is left with nobody.
        let pipe = self.idle.pop().ok_or(Errno::BADFD)?;
        let came = retry_on_intr(|| splice(from, None, &pipe.writing, None, MOVE, SpliceFlags::NONBLOCK));
        let length = match came {
            Ok(length @ 1..) => length,
            other => {
                self.idle.push(pipe);
                return other.map(|_| (Moved::All, 0, 0));
            }
        };
        let mut waiting = Waiting { pipe, left: length };
        let went = waiting.go_on(to);
        let moved = length - waiting.left;
        let outcome = match went {
            Err(_) => {
                waiting.pipe.empty(waiting.left);
                self.idle.push(waiting.pipe);
                Moved::Lost
            }
            Ok(_) if waiting.left == 0 => {
                self.idle.push(waiting.pipe);
                Moved::All
            }
            Ok(_) if self.spares() => Moved::Waits(waiting),
            Ok(_) => {
                let bytes = waiting.pipe.empty(waiting.left);
                self.idle.push(waiting.pipe);
                Moved::Copied(bytes)
            }
        };
        Ok((outcome, length, moved))
    }

    /// Takes a pipe back whose bytes have been moved on.
    pub fn give_back(&mut self, waiting: Waiting) {
        debug_assert_eq!(waiting.left, 0, "what is left would come to somebody else");
        self.idle.push(waiting.pipe);
    }
}

impl Pipe {
    /// The bytes that are in it.
    fn empty(&self, length: usize) -> Bytes {
        let mut bytes = vec![0; length];
        let mut filled = 0;
        while filled < length {
            match rustix::io::read(&self.reading, &mut bytes[filled..]) {
                Ok(read @ 1..) => filled += read,
                Err(Errno::INTR) => {}
                // All of it is there: this cannot be.
                Ok(_) | Err(_) => break,
            }
        }
        bytes.truncate(filled);
        Bytes::from(bytes)
    }
}

impl Waiting {
    /// How many bytes.
    pub fn left(&self) -> usize {
        self.left
    }

    /// Moves on what the socket takes, and says how many bytes that were. Where some are left, the kernel tells of new
    /// room, as after a write that was cut short.
    ///
    /// # Errors
    /// The socket takes nothing any more.
    pub fn go_on(&mut self, to: impl AsFd) -> Result<usize, Errno> {
        let before = self.left;
        while self.left > 0 {
            match splice(&self.pipe.reading, None, &to, None, self.left, SpliceFlags::NONBLOCK) {
                Ok(moved @ 1..) => self.left -= moved,
                Err(Errno::INTR) => {}
                Ok(_) | Err(Errno::AGAIN) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(before - self.left)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::OwnedFd;
    use std::sync::LazyLock;
    use std::thread;

    use rustix::io::Errno;

    use super::{MOST, Moved, Pipes, Waiting};

    /// What one connection carries, in bytes: more than sockets take while nobody reads.
    const MUCH: usize = 16 << 20;

    /// Bytes that show by their values where they belong.
    static NUMBERED: LazyLock<Vec<u8>> =
        LazyLock::new(|| (0..MUCH).map(|at| (at ^ (at >> 8) ^ (at >> 16)) as u8).collect());

    /// Both ends of a connection.
    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let near = TcpStream::connect(listener.local_addr().expect("an address")).expect("it listens");
        (near, listener.accept().expect("somebody has connected").0)
    }

    fn waits_for_nobody(stream: TcpStream) -> OwnedFd {
        stream.set_nonblocking(true).expect("a socket");
        stream.into()
    }

    /// A sender of much, the sockets between, and its receiver.
    fn carried() -> (thread::JoinHandle<std::io::Result<()>>, OwnedFd, OwnedFd, TcpStream) {
        let ((mut sender, from), (to, receiver)) = (pair(), pair());
        let sending = thread::spawn(move || sender.write_all(&NUMBERED));
        (sending, waits_for_nobody(from), waits_for_nobody(to), receiver)
    }

    /// What becomes of what comes next, and how many bytes that are.
    fn next(pipes: &mut Pipes, from: &OwnedFd, to: &OwnedFd) -> (Moved, usize) {
        loop {
            match pipes.pass(from, to) {
                Ok((moved, length, _)) => return (moved, length),
                Err(Errno::AGAIN) => thread::yield_now(),
                Err(error) => panic!("nothing can be taken: {error}"),
            }
        }
    }

    /// Moves until the receiver takes no more: what waits, or was read because no pipe could be spared.
    fn fill(pipes: &mut Pipes, from: &OwnedFd, to: &OwnedFd) -> Moved {
        loop {
            match pipes.pass(from, to) {
                Ok((Moved::All, 1.., _)) => {}
                Ok((left, 1.., _)) => return left,
                Err(Errno::AGAIN) => thread::yield_now(),
                _ => panic!("the sender has ended before the receiver was full"),
            }
        }
    }

    /// Moves all that waits and all that follows.
    fn finish(pipes: &mut Pipes, mut waiting: Option<Waiting>, from: &OwnedFd, to: &OwnedFd) {
        loop {
            if let Some(mut rest) = waiting.take() {
                rest.go_on(to).expect("the receiver is there");
                if rest.left() > 0 {
                    waiting = Some(rest);
                    thread::yield_now();
                    continue;
                }
                pipes.give_back(rest);
            }
            match pipes.pass(from, to) {
                Ok((_, 0, _)) => return,
                Ok((Moved::Waits(rest), ..)) => waiting = Some(rest),
                Ok((Moved::All, ..)) => {}
                Err(Errno::AGAIN) => thread::yield_now(),
                _ => panic!("a pipe is always left for one connection"),
            }
        }
    }

    #[test]
    fn what_waits_keeps_its_pipe_and_its_place_and_the_last_pipe_is_left_to_others() {
        let mut pipes = Pipes::new().expect("a pipe");
        let mut kept = Vec::new();
        let mut copied = Vec::new();
        for _ in 0..MOST + 1 {
            let (sending, from, to, receiver) = carried();
            match fill(&mut pipes, &from, &to) {
                Moved::Waits(waiting) => kept.push((sending, from, to, receiver, waiting)),
                Moved::Copied(bytes) => copied.push((bytes, receiver)),
                _ => panic!("the receiver has gone"),
            }
        }
        // What was read is what follows what the receiver has.
        assert_eq!((kept.len(), copied.len()), (MOST - 1, 2));
        for (bytes, mut receiver) in copied {
            let mut got = Vec::new();
            receiver.read_to_end(&mut got).expect("an orderly end");
            let (before, behind) = NUMBERED.split_at(got.len());
            assert!(got == before && bytes == behind[..bytes.len()], "{} and {}", got.len(), bytes.len());
        }
        for (sending, from, to, mut receiver, waiting) in kept {
            let receiving = thread::spawn(move || {
                let mut got = vec![0; MUCH];
                receiver.read_exact(&mut got).map(|()| got)
            });
            finish(&mut pipes, Some(waiting), &from, &to);
            sending.join().expect("the sender ends well").expect("it can be sent");
            let got = receiving.join().expect("the receiver ends well").expect("all of it");
            assert!(got == *NUMBERED, "other bytes came");
        }
    }

    #[test]
    fn what_a_receiver_that_has_gone_does_not_take_comes_to_nobody_else() {
        let mut pipes = Pipes::new().expect("a pipe");
        let ((mut sender, from), (to, receiver)) = (pair(), pair());
        let (from, to) = (waits_for_nobody(from), waits_for_nobody(to));
        drop(receiver);
        // The first bytes are answered with a reset.
        sender.write_all(b"first").expect("it can be sent");
        assert!(matches!(next(&mut pipes, &from, &to), (Moved::All, 5)));
        let gone = |error: Errno| matches!(error, Errno::CONNRESET | Errno::PIPE);
        while !rustix::net::sockopt::socket_error(&to).expect("it is a socket").is_err_and(gone) {
            thread::yield_now();
        }
        sender.write_all(b"lost").expect("it can be sent");
        assert!(matches!(next(&mut pipes, &from, &to), (Moved::Lost, 4)));
        let (other, receiver) = pair();
        sender.write_all(b"whole").expect("it can be sent");
        let other = waits_for_nobody(other);
        assert!(matches!(next(&mut pipes, &from, &other), (Moved::All, 5)));
        let mut got = [0; 5];
        (&receiver).read_exact(&mut got).expect("it came");
        assert_eq!(&got, b"whole");
    }
}
