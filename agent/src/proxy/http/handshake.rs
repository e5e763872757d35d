//! The handshakes of TLS, on the client's side and on the dependency's.
//!
//! What is spoken inside has to be the same on both sides, so the client's greeting is read first, then the dependency is
//! asked for one of the protocols that the client offers, and the client is told the one that the dependency chose.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustls::server::Acceptor;
use rustls::{ServerConfig, pki_types::ServerName};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::{LazyConfigAcceptor, TlsConnector};

use super::Seen;
use super::prefixed::Duplex;
use crate::proxy::dependency::{Dependency, Protocol};
use crate::proxy::link::Place;
use crate::proxy::tls;
use crate::proxy::toxics::{Handshake, Work};

/// The protocols that are understood, the preferred one first (RFC 7301, RFC 9113 section 3.2).
const UNDERSTOOD: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Both streams, as what flows in them is to be read.
pub(super) type Both = (Box<dyn Duplex>, Box<dyn Duplex>);

/// Shakes hands where TLS is spoken. An error ends the connection.
pub(super) async fn shake(
    near: UnixStream,
    far: TcpStream,
    dependency: &Dependency,
    place: Place<'_>,
    seen: &Seen,
) -> io::Result<Both> {
    let Some(config) = &dependency.tls else {
        // Nobody offers anything: what a client speaks without TLS shows only later.
        return Ok((Box::new(near), origin(far, dependency, None, Vec::new()).await?.0));
    };
    let config = chosen(dependency, place, seen)?.unwrap_or_else(|| config.clone());
    let started = LazyConfigAcceptor::new(Acceptor::default(), near).await?;
    let hello = started.client_hello();
    let offered: Vec<Vec<u8>> = hello.alpn().into_iter().flatten().map(<[u8]>::to_vec).collect();
    let offered = match dependency.protocol {
        Protocol::Tcp => offered,
        Protocol::Http => {
            let understood = UNDERSTOOD.into_iter().filter(|known| offered.iter().any(|one| one == known));
            understood.map(<[u8]>::to_vec).collect()
        }
    };
    let name = hello.server_name().and_then(tls::server_name);
    let (far, agreed) = origin(far, dependency, name, offered.clone()).await?;
    let mut config = ServerConfig::clone(&config);
    config.alpn_protocols = match (agreed, &dependency.origin) {
        (Some(agreed), _) => vec![agreed],
        (None, Some(_)) => Vec::new(),
        // The dependency speaks without TLS: most likely the older version, unless the client insists on the other.
        (None, None) => offered.into_iter().rev().take(1).collect(),
    };
    Ok((Box::new(started.into_stream(config.into()).await?), far))
}

/// Shakes hands with the dependency, where it speaks TLS, and says which protocol was agreed upon.
async fn origin(
    far: TcpStream,
    dependency: &Dependency,
    asked: Option<ServerName<'static>>,
    offered: Vec<Vec<u8>>,
) -> io::Result<(Box<dyn Duplex>, Option<Vec<u8>>)> {
    let Some(origin) = &dependency.origin else { return Ok((Box::new(far), None)) };
    let host = || tls::server_name(dependency.upstream.rsplit_once(':').map_or("", |(host, _)| host));
    let name = origin.name.clone().or(asked).or_else(host);
    let name = name.ok_or_else(|| io::Error::other("the dependency has no name to ask for"))?;
    let stream = TlsConnector::from(origin.config(offered)).connect(name, far).await?;
    let agreed = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
    Ok((Box::new(stream), agreed))
}

/// What a toxic shows the client instead of the proxy's certificate.
fn chosen(dependency: &Dependency, place: Place<'_>, seen: &Seen) -> io::Result<Option<Arc<ServerConfig>>> {
    for toxic in dependency.toxics.borrow().iter() {
        let Work::Handshake(handshake) = toxic.kind.work else { continue };
        if !toxic.means(place) || !toxic.draw(&mut toxic.dice(place)) {
            continue;
        }
        toxic.hits.fetch_add(1, Ordering::Relaxed);
        seen.fault(&toxic.name);
        let config = match handshake {
            Handshake::Refuse => tls::refusing(),
            Handshake::Certificate => tls::server(toxic.values.text(0), toxic.values.text(1)),
        };
        return config.map(Some).map_err(io::Error::other);
    }
    Ok(None)
}
