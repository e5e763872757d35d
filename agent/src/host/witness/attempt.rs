//! Attempts to reach peers: TCP connections over which nothing is said, and pings. Many may be under way.

use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, connect, getsockopt, recv,
    send, setsockopt, socket, sockopt,
};

use super::Asked;

/// How often a thread that waits looks whether it may end.
const LOOK: Duration = Duration::from_millis(40);
/// An echo request or its answer: type, code, checksum, identifier, sequence number.
const ECHO: usize = 8;

/// What came of one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Answered, after so many microseconds.
    Answered(u64),
    /// Refused, after so many microseconds.
    Refused(u64),
    /// No answer in time.
    Silent,
}

/// How attempts are made.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// Who is asked, in turn.
    pub asked: Vec<Asked>,
    /// The mark of the scope; 0 is none.
    pub mark: u32,
    /// How many attempts, at most.
    pub most: u32,
    /// How far apart.
    pub every: Duration,
    /// How long an answer is waited for.
    pub patience: Duration,
}

struct Attempt {
    socket: OwnedFd,
    began: Instant,
    /// The answer that a ping waits for.
    echo: Option<(bool, [u8; 4])>,
}

/// Makes attempts in the calling thread's network namespace until all have ended or `stop` is set: what is under way then
/// is not told.
pub(super) fn run(plan: &Plan, stop: &AtomicBool, mut tell: impl FnMut(Outcome)) {
    let mut flying: Vec<Attempt> = Vec::new();
    let mut begun = 0;
    let mut next = Instant::now();
    while !stop.load(Ordering::Acquire) && (begun < plan.most || !flying.is_empty()) {
        if begun < plan.most && next <= Instant::now() {
            match Attempt::begin(&plan.asked[begun as usize % plan.asked.len()], plan.mark) {
                Ok(attempt) => flying.push(attempt),
                Err(outcome) => tell(outcome),
            }
            begun += 1;
            next += plan.every;
        }
        let now = Instant::now();
        let due = flying.iter().map(|attempt| attempt.began + plan.patience);
        let due = due.chain((begun < plan.most).then_some(next)).min().unwrap_or(now);
        let wait = due.saturating_duration_since(now).min(LOOK) + Duration::from_millis(1);
        let ready = await_any(&flying, wait);
        if stop.load(Ordering::Acquire) {
            return;
        }
        let mut index = 0;
        flying.retain(|attempt| {
            let ended = ready[index].then(|| attempt.outcome()).flatten();
            index += 1;
            let late = || (attempt.began.elapsed() >= plan.patience).then_some(Outcome::Silent);
            let ended = ended.or_else(late);
            ended.into_iter().for_each(&mut tell);
            ended.is_none()
        });
    }
}

fn await_any(flying: &[Attempt], wait: Duration) -> Vec<bool> {
    let awaited =
        |attempt: &Attempt| if attempt.echo.is_some() { PollFlags::POLLIN } else { PollFlags::POLLOUT };
    let mut polled: Vec<PollFd<'_>> =
        flying.iter().map(|attempt| PollFd::new(attempt.socket.as_fd(), awaited(attempt))).collect();
    let wait = PollTimeout::try_from(wait).unwrap_or(PollTimeout::ZERO);
    // An interruption looks like nothing ready: the next round asks again.
    let _ = poll(&mut polled, wait);
    polled.iter().map(|fd| fd.any().unwrap_or(false)).collect()
}

impl Attempt {
    fn begin(asked: &Asked, mark: u32) -> Result<Self, Outcome> {
        let began = Instant::now();
        let refused = |errno: Errno| failed(errno, began);
        let open = |kind, protocol| {
            let family = if asked.address().is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
            let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, protocol)?;
            if mark != 0 {
                setsockopt(&socket, sockopt::Mark, &mark)?;
            }
            Ok(socket)
        };
        match asked {
            Asked::Tcp(address) => {
                let socket = open(SockType::Stream, SockProtocol::Tcp).map_err(refused)?;
                match connect(socket.as_raw_fd(), &SockaddrStorage::from(*address)) {
                    Ok(()) | Err(Errno::EINPROGRESS) => Ok(Attempt { socket, began, echo: None }),
                    Err(errno) => Err(refused(errno)),
                }
            }
            Asked::Ping(address) => {
                let v4 = address.is_ipv4();
                let protocol = if v4 { SockProtocol::Icmp } else { SockProtocol::IcmpV6 };
                let socket = open(SockType::Raw, protocol).map_err(refused)?;
                connect(socket.as_raw_fd(), &SockaddrStorage::from(std::net::SocketAddr::new(*address, 0)))
                    .map_err(refused)?;
                let name = name();
                match send(socket.as_raw_fd(), &request(v4, name), MsgFlags::empty()) {
                    // A rule that drops what leaves says so (`EPERM`): for the sender that is silence.
                    Ok(_) | Err(Errno::EPERM) => Ok(Attempt { socket, began, echo: Some((v4, name)) }),
                    Err(errno) => Err(refused(errno)),
                }
            }
        }
    }

    /// What came of it; `None` where that is still open.
    fn outcome(&self) -> Option<Outcome> {
        let took = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let Some((v4, name)) = self.echo else {
            return match getsockopt(&self.socket, sockopt::SocketError) {
                Ok(0) => Some(Outcome::Answered(took)),
                Ok(error) => Some(failed(Errno::from_raw(error), self.began)),
                Err(_) => None,
            };
        };
        let mut bytes = [0; 128];
        while let Ok(length) = recv(self.socket.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT) {
            if answers(&bytes[..length], v4, name) {
                return Some(Outcome::Answered(took));
            }
        }
        None
    }
}

/// What an error means.
fn failed(errno: Errno, began: Instant) -> Outcome {
    let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
    match errno {
        Errno::ECONNREFUSED
        | Errno::ECONNRESET
        | Errno::EHOSTUNREACH
        | Errno::ENETUNREACH
        | Errno::EACCES => Outcome::Refused(took),
        _ => Outcome::Silent,
    }
}

/// An identifier and a sequence number that no other ping of this process has.
fn name() -> [u8; 4] {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let [a, b] = (std::process::id() as u16).to_be_bytes();
    let [c, d] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    [a, b, c, d]
}

/// An echo request without data. The checksum of ICMPv6 is the kernel's business. Source: RFC 792, RFC 4443.
fn request(v4: bool, name: [u8; 4]) -> [u8; ECHO] {
    let mut bytes = [if v4 { 8 } else { 128 }, 0, 0, 0, name[0], name[1], name[2], name[3]];
    if v4 {
        let sum: u32 = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        let folded = (folded & 0xffff) + (folded >> 16);
        bytes[2..4].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    }
    bytes
}

/// Whether a packet is the answer to this ping. Raw IPv4 sockets show the network header too.
fn answers(packet: &[u8], v4: bool, name: [u8; 4]) -> bool {
    let header = if v4 { packet.first().map_or(0, |first| usize::from(first & 0xf) * 4) } else { 0 };
    let wanted = if v4 { 0 } else { 129 };
    packet.get(header..header + ECHO).is_some_and(|echo| echo[0] == wanted && echo[4..] == name)
}

impl Asked {
    fn address(&self) -> IpAddr {
        match self {
            Asked::Tcp(address) => address.ip(),
            Asked::Ping(address) => *address,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn outcomes(asked: Vec<Asked>, most: u32, patience: Duration) -> Vec<Outcome> {
        let plan = Plan { asked, mark: 0, most, every: Duration::from_millis(1), patience };
        let mut seen = Vec::new();
        run(&plan, &AtomicBool::new(false), |outcome| seen.push(outcome));
        seen
    }

    #[test]
    fn connections_are_answered_refused_or_neither() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let open = listener.local_addr().unwrap();
        let long = Duration::from_secs(5);
        let answered = outcomes(vec![Asked::Tcp(open)], 3, long);
        assert!(matches!(answered[..], [Outcome::Answered(_), Outcome::Answered(_), Outcome::Answered(_)]));
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(matches!(outcomes(vec![Asked::Tcp(closed)], 1, long)[..], [Outcome::Refused(_)]));
        // A backlog of nobody: the kernel drops what comes then.
        let full =
            socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), SockProtocol::Tcp).unwrap();
        nix::sys::socket::bind(full.as_raw_fd(), &SockaddrStorage::from(closed)).unwrap();
        nix::sys::socket::listen(&full, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
        let _first = TcpStream::connect(closed).unwrap();
        let silent = outcomes(vec![Asked::Tcp(closed)], 1, Duration::from_millis(50));
        assert_eq!(silent, [Outcome::Silent]);
    }

    #[test]
    fn who_is_stopped_tells_nothing_more() {
        let plan = Plan {
            asked: vec![Asked::Tcp("127.0.0.1:1".parse().unwrap())],
            mark: 0,
            most: 5,
            every: Duration::ZERO,
            patience: Duration::from_secs(1),
        };
        run(&plan, &AtomicBool::new(true), |outcome| panic!("{outcome:?}"));
    }

    #[test]
    fn only_the_answer_to_the_very_ping_is_one() {
        let name = [0x12, 0x34, 0, 7];
        assert_eq!(request(true, name), [8, 0, 0xe5, 0xc4, 0x12, 0x34, 0, 7]);
        let mut packet = vec![0x45; 20];
        packet.extend([0, 0, 0xed, 0xc4, 0x12, 0x34, 0, 7]);
        assert!(answers(&packet, true, name));
        assert!(!answers(&packet, true, [0x12, 0x34, 0, 8]));
        assert!(!answers(&packet[..24], true, name));
        assert!(answers(&[129, 0, 1, 2, 0x12, 0x34, 0, 7], false, name));
        assert!(!answers(&[128, 0, 1, 2, 0x12, 0x34, 0, 7], false, name));
    }

    #[test]
    fn loopback_answers_pings() {
        if nix::unistd::geteuid().is_root() {
            for address in ["127.0.0.1", "::1"] {
                let seen = outcomes(vec![Asked::Ping(address.parse().unwrap())], 2, Duration::from_secs(5));
                assert!(
                    matches!(seen[..], [Outcome::Answered(_), Outcome::Answered(_)]),
                    "{address}: {seen:?}"
                );
            }
        }
    }
}
