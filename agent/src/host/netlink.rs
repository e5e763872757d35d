//! A netlink socket and its messages: what every kernel interface of this crate speaks.
//!
//! Source: RFC 3549 and the kernel's `include/uapi/linux/netlink.h`. The kernel answers a request before `send`
//! returns, so no call here waits for anybody but the kernel.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto, setsockopt,
    socket, sockopt,
};

use super::sys;

const HEADER: usize = 16;
/// Room for some ten thousand addresses at once.
const BUFFER: usize = 8 << 20;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const FLAG_REQUEST: u16 = 0x01;
const FLAG_ACK: u16 = 0x04;
/// Take the place of the object that exists.
pub const FLAG_REPLACE: u16 = 0x100;
/// Fail if the object exists.
pub const FLAG_EXCL: u16 = 0x200;
/// Make the object.
pub const FLAG_CREATE: u16 = 0x400;
/// Answer with the object as it was made.
pub const FLAG_ECHO: u16 = 0x08;
/// Put the object behind its siblings.
pub const FLAG_APPEND: u16 = 0x800;
const FLAG_DUMP: u16 = 0x300;
const FLAG_DUMP_INTERRUPTED: u16 = 0x10;
const NESTED: u16 = 0x8000;
const TYPE_MASK: u16 = 0x3fff;

/// What the kernel said no to.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The socket itself failed.
    #[error("the netlink socket failed")]
    Io(#[from] io::Error),
    /// The kernel refused a message.
    #[error("the kernel refused: {}{}", errno.desc(), text.as_ref().map(|text| format!(" ({text})")).unwrap_or_default())]
    Refused {
        /// Why.
        errno: Errno,
        /// The kernel's own words, where it has any.
        text: Option<String>,
        /// Which message of the request, from 0.
        index: usize,
    },
}

impl NetlinkError {
    /// The error number, whoever reported it.
    pub fn errno(&self) -> Errno {
        match self {
            NetlinkError::Io(error) => Errno::from_raw(error.raw_os_error().unwrap_or(0)),
            NetlinkError::Refused { errno, .. } => *errno,
        }
    }
}

impl From<Errno> for NetlinkError {
    fn from(errno: Errno) -> Self {
        NetlinkError::Io(errno.into())
    }
}

/// One message under construction.
#[derive(Clone, Debug)]
pub struct Message(Vec<u8>);

impl Message {
    /// A request of the given type.
    pub fn new(kind: u16, flags: u16) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | FLAG_REQUEST).to_ne_bytes());
        Message(bytes)
    }

    /// The fixed header of the protocol, padded.
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self.pad();
        self
    }

    /// With another first byte of the protocol's header, where nftables has the family.
    pub fn with_first(mut self, byte: u8) -> Self {
        self.0[HEADER] = byte;
        self
    }

    /// Asks for one more thing with the request.
    pub fn flagged(mut self, flags: u16) -> Self {
        let flags = u16_at(&self.0, 6) | flags;
        self.0[6..8].copy_from_slice(&flags.to_ne_bytes());
        self
    }

    /// An attribute.
    pub fn attr(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(value.len() + 4).expect("attributes of this crate are short");
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.pad();
        self
    }

    /// An attribute that is a text with its NUL.
    pub fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attr(kind, &bytes)
    }

    /// An attribute that holds attributes.
    pub fn nest(mut self, kind: u16, inside: impl FnOnce(Message) -> Message) -> Self {
        let start = self.0.len();
        self.0.extend_from_slice(&[0; 4]);
        let mut message = inside(self);
        let length = u16::try_from(message.0.len() - start).expect("attributes of this crate are short");
        message.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        message.0[start + 2..start + 4].copy_from_slice(&(kind | NESTED).to_ne_bytes());
        message
    }

    /// Puts the attributes of another message here.
    pub fn splice(mut self, other: Message) -> Self {
        self.0.extend_from_slice(&other.0[HEADER..]);
        self
    }

    /// What stands behind the netlink header.
    pub fn inside(&self) -> &[u8] {
        &self.0[HEADER..]
    }

    fn pad(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn sealed(mut self, sequence: u32, extra_flags: u16) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).expect("messages of this crate are short");
        self.0[0..4].copy_from_slice(&length.to_ne_bytes());
        let flags = u16::from_ne_bytes([self.0[6], self.0[7]]) | extra_flags;
        self.0[6..8].copy_from_slice(&flags.to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.0
    }
}

/// One message from the kernel: its type, and what follows the netlink header.
#[derive(Debug)]
pub struct Received {
    /// The message type.
    pub kind: u16,
    /// The protocol's header and attributes.
    pub body: Vec<u8>,
}

fn take(turn: &Mutex<()>) -> MutexGuard<'_, ()> {
    turn.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A netlink socket, closed on exec. Its owner is whoever holds a duplicate.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
    /// Whose turn it is among those who share it: answers come to whoever reads.
    turn: Arc<Mutex<()>>,
}

impl Socket {
    /// Opens a socket in the network namespace of the calling thread.
    pub fn open(protocol: SockProtocol) -> Result<Self, NetlinkError> {
        Socket::listen(protocol, 0)
    }

    /// Opens a socket that also hears of what happens to some groups of objects, as a mask of their numbers.
    pub fn listen(protocol: SockProtocol, groups: u32) -> Result<Self, NetlinkError> {
        let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        Ok(Socket::adopt(fd))
    }

    /// Forgets what has been heard, and what was lost of it because there was too much.
    pub fn drain(&self) {
        while self.receive(MsgFlags::MSG_DONTWAIT).is_ok_and(|heard| !heard.is_empty()) {}
    }

    /// Forgets what has been heard; whether that was anything.
    pub fn drained(&self) -> bool {
        let first = self.receive(MsgFlags::MSG_DONTWAIT);
        self.drain();
        // What was lost, because there was too much, was heard, too.
        match first {
            Ok(heard) => !heard.is_empty(),
            Err(error) => error.errno() == Errno::ENOBUFS,
        }
    }

    /// Continues with a socket that another process made.
    pub fn adopt(fd: OwnedFd) -> Self {
        sys::ask_for_error_texts(fd.as_fd());
        // A transaction is one message for the socket, and each of its parts is acknowledged. Best effort: who may not
        // force it has what the host allows.
        let _ = setsockopt(&fd, sockopt::SndBufForce, &BUFFER);
        let _ = setsockopt(&fd, sockopt::RcvBufForce, &BUFFER);
        Socket { fd, sequence: sys::boot_nanos() as u32, turn: Arc::default() }
    }

    /// The same socket for another thread of this process. Who asks waits until the other has its answer.
    pub fn share(&self) -> io::Result<Self> {
        let fd = self.fd.try_clone()?;
        Ok(Socket { fd, sequence: self.sequence, turn: self.turn.clone() })
    }

    /// [`Socket::request`], unless another thread is at it: `None`.
    pub fn request_unless_busy(&mut self, messages: Vec<Message>) -> Option<Result<(), NetlinkError>> {
        let turn = self.turn.clone();
        let _mine = turn.try_lock().ok()?;
        Some(self.exchange(messages).map(drop))
    }

    /// The file descriptor, to hand a duplicate on.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Sends messages as one request and reads their acknowledgements. The first refusal is the answer.
    pub fn request(&mut self, messages: Vec<Message>) -> Result<(), NetlinkError> {
        self.request_echoed(messages).map(drop)
    }

    /// The same, and gives what the kernel echoes of messages with [`FLAG_ECHO`], by their place in the request.
    pub fn request_echoed(&mut self, messages: Vec<Message>) -> Result<Vec<(usize, Received)>, NetlinkError> {
        let turn = self.turn.clone();
        let _mine = take(&turn);
        self.exchange(messages)
    }

    fn exchange(&mut self, messages: Vec<Message>) -> Result<Vec<(usize, Received)>, NetlinkError> {
        let first = self.sequence.wrapping_add(1);
        let count = messages.len();
        let mut bytes = Vec::new();
        for message in messages {
            self.sequence = self.sequence.wrapping_add(1);
            bytes.extend(message.sealed(self.sequence, FLAG_ACK));
        }
        self.send(&bytes)?;
        let mut answered = 0;
        let mut refused = None;
        let mut echoed = Vec::new();
        loop {
            let answers = match self.receive(MsgFlags::MSG_DONTWAIT) {
                Err(error) if error.errno() == Errno::EAGAIN => break,
                answers => answers?,
            };
            for (sequence, flags, received) in answers {
                let index = sequence.wrapping_sub(first) as usize;
                if index >= count {
                    continue;
                }
                if received.kind != ERROR {
                    echoed.push((index, received));
                    continue;
                }
                answered += 1;
                if let Some(error) = refusal(&received.body, flags, index) {
                    refused = refused.or(Some(error));
                }
            }
        }
        match refused {
            Some(error) => Err(error),
            None if answered == 0 => Err(NetlinkError::Io(io::Error::other("the kernel did not answer"))),
            None => Ok(echoed),
        }
    }

    /// Asks for one object; `None` is that it is not there.
    pub fn get(&mut self, message: Message) -> Result<Option<Received>, NetlinkError> {
        match self.request_echoed(vec![message]) {
            Ok(mut objects) => Ok(objects.pop().map(|(_, object)| object)),
            Err(error) if error.errno() == Errno::ENOENT => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Asks for all objects of a kind; asks again while the kernel says that they changed in between.
    pub fn dump(&mut self, message: &Message) -> Result<Vec<Received>, NetlinkError> {
        for _ in 0..20 {
            if let Some(objects) = self.dump_once(message.clone())? {
                return Ok(objects);
            }
        }
        Err(NetlinkError::Io(io::Error::other("the objects kept changing while they were listed")))
    }

    /// Asks for one object.
    pub fn ask(&mut self, message: Message) -> Result<Vec<Received>, NetlinkError> {
        let turn = self.turn.clone();
        let _mine = take(&turn);
        self.sequence = self.sequence.wrapping_add(1);
        let mine = self.sequence;
        self.send(&message.sealed(mine, FLAG_ACK))?;
        let mut objects = Vec::new();
        loop {
            for (sequence, flags, received) in self.receive(MsgFlags::empty())? {
                match received.kind {
                    _ if sequence != mine => {}
                    ERROR => return refusal(&received.body, flags, 0).map_or(Ok(objects), Err),
                    _ => objects.push(received),
                }
            }
        }
    }

    fn dump_once(&mut self, message: Message) -> Result<Option<Vec<Received>>, NetlinkError> {
        let turn = self.turn.clone();
        let _mine = take(&turn);
        self.sequence = self.sequence.wrapping_add(1);
        let mine = self.sequence;
        self.send(&message.sealed(mine, FLAG_DUMP))?;
        let mut objects = Vec::new();
        let mut intact = true;
        loop {
            for (sequence, flags, received) in self.receive(MsgFlags::empty())? {
                if sequence != mine {
                    continue;
                }
                intact &= flags & FLAG_DUMP_INTERRUPTED == 0;
                match received.kind {
                    DONE => return Ok(intact.then_some(objects)),
                    ERROR => {
                        return match refusal(&received.body, flags, 0) {
                            Some(error) => Err(error),
                            None => Ok(intact.then_some(objects)),
                        };
                    }
                    _ => objects.push(received),
                }
            }
        }
    }

    fn send(&self, bytes: &[u8]) -> Result<(), NetlinkError> {
        sendto(self.fd.as_raw_fd(), bytes, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        Ok(())
    }

    fn receive(&self, flags: MsgFlags) -> Result<Vec<(u32, u16, Received)>, NetlinkError> {
        let mut buffer = vec![0; 64 * 1024];
        let length = loop {
            match recv(self.fd.as_raw_fd(), &mut buffer, flags) {
                Err(Errno::EINTR) => {}
                result => break result?,
            }
        };
        let mut rest = &buffer[..length];
        let mut messages = Vec::new();
        while rest.len() >= HEADER {
            let length = u32_at(rest, 0) as usize;
            if length < HEADER || length > rest.len() {
                break;
            }
            let received = Received { kind: u16_at(rest, 4), body: rest[HEADER..length].to_vec() };
            messages.push((u32_at(rest, 8), u16_at(rest, 6), received));
            rest = &rest[length.next_multiple_of(4).min(rest.len())..];
        }
        Ok(messages)
    }
}

/// The error of an acknowledgement; `None` is success. Source: `struct nlmsgerr`, `NLMSGERR_ATTR_MSG`.
fn refusal(body: &[u8], flags: u16, index: usize) -> Option<NetlinkError> {
    const CAPPED: u16 = 0x100;
    const HAS_ATTRIBUTES: u16 = 0x200;
    let code = body.get(..4).map(|bytes| i32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))?;
    if code == 0 {
        return None;
    }
    let mut text = None;
    if flags & HAS_ATTRIBUTES != 0 && body.len() >= 20 {
        let echoed = if flags & CAPPED != 0 { HEADER } else { u32_at(body, 4) as usize };
        let start = (4 + echoed).next_multiple_of(4);
        text = body.get(start..).and_then(|rest| find(rest, 1)).map(text_of);
    }
    Some(NetlinkError::Refused { errno: Errno::from_raw(-code), text, index })
}

/// Walks attributes: type without flags, and value.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.len() < 4 {
            return None;
        }
        let length = u16_at(rest, 0) as usize;
        if length < 4 || length > rest.len() {
            return None;
        }
        let attribute = (u16_at(rest, 2) & TYPE_MASK, &rest[4..length]);
        rest = &rest[length.next_multiple_of(4).min(rest.len())..];
        Some(attribute)
    })
}

/// The first attribute of a type.
pub fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// A text attribute without its NUL.
pub fn text_of(value: &[u8]) -> String {
    String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned()
}

/// A number in host order.
pub fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |bytes| u16::from_ne_bytes([bytes[0], bytes[1]]))
}

/// A number in host order.
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |bytes| u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_nested_is_found_again() {
        let message = Message::new(1, 0).text(1, "table").nest(2, |m| m.attr(7, &[1, 2, 3]).attr(8, &[4]));
        let bytes = message.sealed(1, 0);
        let body = &bytes[HEADER..];
        assert_eq!(find(body, 1).map(text_of).as_deref(), Some("table"));
        let inner = find(body, 2).unwrap();
        assert_eq!(find(inner, 7), Some(&[1, 2, 3][..]));
        assert_eq!(find(inner, 8), Some(&[4][..]));
    }

    #[test]
    fn garbage_ends_the_walk_instead_of_the_process() {
        use rand::Rng;
        use rand::SeedableRng;
        let mut random = rand_chacha::ChaCha12Rng::seed_from_u64(7);
        for length in 0..600 {
            let mut bytes = vec![0u8; length];
            random.fill_bytes(&mut bytes);
            let _ = attributes(&bytes).map(|(_, value)| attributes(value).count()).sum::<usize>();
            let _ = refusal(&bytes, 0x300, 0);
        }
    }
}
