//! Opening TCP connections: a probe of its own, and the first half of every HTTP probe.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use squall_experiments::probe::{Expect, TcpProbe};
use squall_experiments::quantity::Period;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::expect::{Seen, in_time};
use super::looks::shorter;
use super::reach;

/// A host and a port.
pub(super) struct Address {
    pub(super) host: String,
    port: u16,
}

impl Address {
    /// Understands `db.internal:5432` and `[::1]:80`; an error says why not.
    pub(super) fn new(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a host and a port: write `db.internal:5432`");
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        if host.is_empty() || bare.is_none() && host.contains(':') {
            return Err(wrong());
        }
        Ok(Address {
            host: bare.unwrap_or(host).to_owned(),
            port: port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?,
        })
    }

    /// See [`connect`].
    pub(super) async fn connect(&self, stage: &Stage) -> Result<TcpStream, String> {
        connect(&self.host, self.port, stage).await
    }
}

/// A TCP probe, ready to be sampled.
pub(super) struct TcpLook {
    address: Address,
    timeout: Period,
    within: Option<Period>,
}

/// What a sample was doing when its time was up.
pub(super) type Stage = Cell<&'static str>;

/// What a stage is called in `timed out after 2s connecting`.
pub(super) const RESOLVING: &str = "resolving the name";
pub(super) const WAITING: &str = "waiting for the answer";
pub(super) const READING: &str = "reading the body";
pub(super) const CONNECTING: &str = "connecting";

impl TcpLook {
    /// Understands the address; an error says why not.
    pub(super) fn new(probe: &TcpProbe, expect: &Expect) -> Result<Self, String> {
        Ok(TcpLook { address: Address::new(&probe.address)?, timeout: probe.timeout, within: expect.within })
    }

    /// Opens a connection and closes it.
    pub(super) async fn look(&self, left: Option<Duration>) -> Seen {
        let begun = Instant::now();
        let stage = Stage::new(RESOLVING);
        match limited(shorter(self.timeout.get(), left), &stage, self.address.connect(&stage)).await {
            Err(failure) => Seen::bad(failure),
            Ok(_) => in_time("connected", begun.elapsed(), self.within),
        }
    }
}

/// Does something within a limit; an error says what it was doing when the time was up. Dropped then, it goes no further.
pub(super) async fn limited<T, E: From<String>>(
    limit: Duration,
    stage: &Stage,
    exchange: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    timeout(limit, exchange).await.unwrap_or_else(|_| Err(timed_out(limit.into(), stage).into()))
}

/// What is said when the time is up.
pub(super) fn timed_out(after: Period, stage: &Stage) -> String {
    format!("timed out after {after} {}", stage.get())
}

/// Resolves a name and connects to the first of its addresses that answers. Has no time-out of its own.
pub(super) async fn connect(host: &str, port: u16, stage: &Stage) -> Result<TcpStream, String> {
    stage.set(RESOLVING);
    reach::was_refused(false);
    let addresses = lookup_host((host, port)).await.map_err(|error| {
        let why = words(&error);
        let why = why.strip_prefix("failed to lookup address information: ").unwrap_or(&why);
        format!("cannot resolve `{host}`: {}", uncapitalised(why))
    })?;
    stage.set(CONNECTING);
    let stream = first_of(addresses, reach::permits).await;
    let stream =
        stream.map_err(|why| why.unwrap_or_else(|| format!("cannot resolve `{host}`: no address")))?;
    // Small requests must not wait for an acknowledgement.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

/// Connects to the first address that answers, of those that may be reached. Why the last of them did not goes before
/// that others may not be: it is refused only where there is none that may be. An error without words: no address.
async fn first_of(
    addresses: impl Iterator<Item = SocketAddr>,
    permits: impl Fn(SocketAddr) -> Result<(), String>,
) -> Result<TcpStream, Option<String>> {
    let (mut failed, mut refused) = (None, None);
    for address in addresses {
        match permits(address) {
            Err(why) => refused = Some(why),
            Ok(()) => match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failed = Some(words(&error)),
            },
        }
    }
    reach::was_refused(failed.is_none() && refused.is_some());
    Err(failed.or(refused))
}

/// An operating system's error in a few words, without its number: `connection refused`.
pub(super) fn words(error: &io::Error) -> String {
    let fixed = match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused",
        io::ErrorKind::ConnectionReset => "connection reset",
        io::ErrorKind::ConnectionAborted => "connection aborted",
        io::ErrorKind::BrokenPipe => "connection closed by the server",
        io::ErrorKind::HostUnreachable => "no route to host",
        io::ErrorKind::NetworkUnreachable => "network unreachable",
        io::ErrorKind::NotFound => "no such file or directory",
        io::ErrorKind::PermissionDenied => "permission denied",
        io::ErrorKind::UnexpectedEof => "connection closed by the server",
        _ => {
            let text = error.to_string();
            return uncapitalised(text.split(" (os error").next().unwrap_or_default());
        }
    };
    fixed.to_owned()
}

fn uncapitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_service_that_is_down_is_not_refused_because_another_of_its_addresses_is() {
        // Nobody listens there any more.
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let other: SocketAddr = "127.0.0.2:9".parse().unwrap();
        let only = |address: SocketAddr| if address == closed { Ok(()) } else { Err("not there".to_owned()) };
        for addresses in [[closed, other], [other, closed]] {
            let (failed, refused) = reach::watched(first_of(addresses.into_iter(), only)).await;
            assert_eq!((failed.unwrap_err().as_deref(), refused), (Some("connection refused"), false));
        }
        let (failed, refused) = reach::watched(first_of([other, other].into_iter(), only)).await;
        assert_eq!((failed.unwrap_err().as_deref(), refused), (Some("not there"), true));
        let (failed, refused) = reach::watched(first_of(std::iter::empty(), only)).await;
        assert_eq!((failed.unwrap_err(), refused), (None, false));
    }
}
