//! Addresses as they are typed, and what is wrong with them in the words that clients know.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::OwnedFd;

/// How many connections the kernel keeps for a listener until they are taken.
const BACKLOG: i32 = 4096;

/// Host and port of `host:port`, `[v6]:port` or `:port`.
fn split(text: &str) -> Result<(&str, u16), String> {
    let bad = |why: &str| format!("listen tcp: address {text}: {why}");
    let (host, port) = text.rsplit_once(':').ok_or_else(|| bad("missing port in address"))?;
    let host = match host.strip_prefix('[').map(|host| host.strip_suffix(']')) {
        Some(Some(host)) => host,
        Some(None) => return Err(bad("missing ']' in address")),
        None if host.contains(':') => return Err(bad("too many colons in address")),
        None => host,
    };
    let port = match port {
        "" => 0,
        port if port.bytes().all(|digit| digit.is_ascii_digit()) => {
            port.parse().map_err(|_| bad("invalid port"))?
        }
        port => return Err(format!("listen tcp: lookup tcp/{port}: unknown port")),
    };
    Ok((host, port))
}

/// The addresses that a listen text stands for, the first choice first. May ask the system's resolver.
pub fn resolve(text: &str) -> Result<Vec<SocketAddr>, String> {
    if text.is_empty() {
        return resolve(":0");
    }
    let (host, port) = split(text)?;
    if host.is_empty() {
        // All addresses of both families; where the host has no IPv6, those of IPv4.
        return Ok(vec![(Ipv6Addr::UNSPECIFIED, port).into(), (Ipv4Addr::UNSPECIFIED, port).into()]);
    }
    let found = (host, port).to_socket_addrs();
    let mut addresses: Vec<SocketAddr> =
        found.map_err(|_| format!("listen tcp: lookup {host}: no such host"))?.collect();
    addresses.sort_by_key(SocketAddr::is_ipv6);
    addresses.dedup();
    Ok(addresses)
}

/// Listens at the first of these addresses that can be had.
pub fn listen(addresses: &[SocketAddr]) -> Result<(OwnedFd, SocketAddr), String> {
    let mut failed = "listen tcp: no address".to_owned();
    for address in addresses {
        match bind(*address) {
            Ok(bound) => return Ok(bound),
            Err(error) => {
                failed = format!("listen tcp {address}: bind: {}", reason(&error));
                // Another family is a second choice only where this one does not exist.
                if error.kind() == io::ErrorKind::AddrInUse {
                    break;
                }
            }
        }
    }
    Err(failed)
}

fn bind(address: SocketAddr) -> io::Result<(OwnedFd, SocketAddr)> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let bound = listener.local_addr()?;
    let socket = OwnedFd::from(listener);
    rustix::net::listen(&socket, BACKLOG)?;
    Ok((socket, bound))
}

/// Whether a text stands for an address that is listened at.
pub fn is_same(shown: &str, addresses: &[SocketAddr]) -> bool {
    shown.parse().is_ok_and(|shown: SocketAddr| addresses.first() == Some(&shown))
}

/// The system's words, without its number, as the reference writes them.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::{is_same, listen, resolve};

    #[test]
    fn what_is_wrong_is_said_in_the_words_that_clients_know() {
        let said = |text| resolve(text).unwrap_err();
        assert_eq!(said("bogus"), "listen tcp: address bogus: missing port in address");
        assert_eq!(said("::1:80"), "listen tcp: address ::1:80: too many colons in address");
        assert_eq!(said("localhost:99999"), "listen tcp: address localhost:99999: invalid port");
        assert_eq!(said("localhost:x"), "listen tcp: lookup tcp/x: unknown port");
    }

    #[test]
    fn a_free_port_is_found_and_a_taken_one_refused() {
        let (_held, bound) = listen(&resolve("localhost:0").unwrap()).unwrap();
        assert!(bound.ip().is_loopback() && bound.port() > 0, "{bound}");
        let taken = resolve(&format!("localhost:{}", bound.port())).unwrap();
        assert!(is_same(&bound.to_string(), &taken));
        let error = listen(&taken).unwrap_err();
        assert_eq!(error, format!("listen tcp {bound}: bind: address already in use"));
    }

    #[test]
    fn no_host_means_every_address() {
        let (_held, bound) = listen(&resolve("").unwrap()).unwrap();
        assert!(bound.ip().is_unspecified() && bound.port() > 0, "{bound}");
    }
}
