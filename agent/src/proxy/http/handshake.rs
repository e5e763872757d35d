//! The handshakes of TLS, on the client's side and on the dependency's.
//!
//! What is spoken inside has to be the same on both sides, so the client's greeting is read first, then the dependency is
//! asked for one of the protocols that the client offers, and the client is told the one that the dependency chose.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustls::server::Acceptor;
use rustls::{ServerConfig, pki_types::ServerName};
use tokio::net::UnixStream;
use tokio_rustls::{LazyConfigAcceptor, TlsConnector};

use super::Seen;
use super::far::Far;
use super::prefixed::{Duplex, Prefixed};
use crate::proxy::dependency::{Dependency, Protocol};
use crate::proxy::link::Place;
use crate::proxy::tls::{self, Issue, Origin, WantedOrigin};
use crate::proxy::toxic::Toxic;
use crate::proxy::toxics::{Handshake, Work};

/// The protocols that are understood, the preferred one first (RFC 7301, RFC 9113 section 3.2).
const UNDERSTOOD: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// How a record of TLS begins that holds a handshake (RFC 8446 section 5.1).
const RECORD: u8 = 22;

/// Both streams, as what flows in them is to be read.
pub(super) type Both = (Box<dyn Duplex>, Box<dyn Duplex>);

/// Shakes hands where TLS is spoken. An error ends the connection.
pub(super) async fn shake(
    near: UnixStream,
    far: Far,
    dependency: &Dependency,
    place: Place<'_>,
    seen: &Seen,
) -> io::Result<Both> {
    let Some(config) = &dependency.tls else {
        if dependency.handshakes {
            return beside(near, far, dependency, place, seen).await;
        }
        // Nobody offers anything: what a client speaks without TLS shows only later.
        let far = reach(far, dependency, None, Vec::new()).await?.0;
        return Ok((Box::new(near), far));
    };
    let chosen = chosen(dependency, place, seen);
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
    let shown = match chosen {
        Some((wrong, toxic)) => shown(wrong, &toxic, hello.server_name(), &dependency.upstream)?,
        None => config.clone(),
    };
    let (far, agreed) = reach(far, dependency, name, offered.clone()).await?;
    let mut config = ServerConfig::clone(&shown);
    config.alpn_protocols = match (agreed, &dependency.origin) {
        (Some(agreed), _) => vec![agreed],
        (None, Some(_)) => Vec::new(),
        // The dependency speaks without TLS: most likely the older version, unless the client insists on the other.
        (None, None) => offered.into_iter().rev().take(1).collect(),
    };
    Ok((Box::new(started.into_stream(config.into()).await?), far))
}

/// Leaves TLS to client and dependency, but for a handshake that a toxic concerns.
async fn beside(
    near: UnixStream,
    far: Far,
    dependency: &Dependency,
    place: Place<'_>,
    seen: &Seen,
) -> io::Result<Both> {
    let mut near = Prefixed::new(Box::new(near));
    let is_tls = tokio::select! {
        first = near.first() => first? == Some(RECORD),
        // Who offers TLS waits for the client; what speaks first is something else.
        said = far.said() => said.map(|()| false)?,
    };
    if !is_tls {
        dependency.counters.foreign.fetch_add(1, Ordering::Relaxed);
        return Ok((Box::new(near), Box::new(far)));
    }
    let Some((handshake, toxic)) = chosen(dependency, place, seen) else {
        return Ok((Box::new(near), Box::new(far)));
    };
    let started = LazyConfigAcceptor::new(Acceptor::default(), near).await?;
    let hello = started.client_hello();
    let offered: Vec<Vec<u8>> = hello.alpn().into_iter().flatten().map(<[u8]>::to_vec).collect();
    let name = hello.server_name().and_then(tls::server_name);
    let config = shown(handshake, &toxic, hello.server_name(), &dependency.upstream)?;
    if handshake == Handshake::Refuse {
        started.into_stream(config).await?;
        return Err(io::Error::other("a handshake that was to fail did not"));
    }
    // A client that believes what it is shown would have believed anybody there: so may the proxy.
    let origin = WantedOrigin { insecure: true, ..WantedOrigin::default() };
    let origin = Origin::new(&origin).map_err(io::Error::other)?;
    let (far, agreed) = origin_of(far, &origin, &dependency.upstream, name, offered).await?;
    let mut config = ServerConfig::clone(&config);
    config.alpn_protocols = agreed.into_iter().collect();
    let near = started.into_stream(config.into()).await?;
    dependency.counters.believed.fetch_add(1, Ordering::Relaxed);
    Ok((Box::new(near), far))
}

type Reached = io::Result<(Box<dyn Duplex>, Option<Vec<u8>>)>;

/// Shakes hands with the dependency, where it speaks TLS, and says which protocol was agreed upon.
async fn reach(
    far: Far,
    dependency: &Dependency,
    asked: Option<ServerName<'static>>,
    offered: Vec<Vec<u8>>,
) -> Reached {
    let Some(origin) = &dependency.origin else { return Ok((Box::new(far), None)) };
    let reached = origin_of(far, origin, &dependency.upstream, asked, offered).await;
    reached.inspect_err(|error| {
        dependency.counters.unreached.fetch_add(1, Ordering::Relaxed);
        tracing::info!("`{}`: no handshake with the dependency: {error}", dependency.name);
    })
}

async fn origin_of(
    far: Far,
    origin: &Origin,
    upstream: &str,
    asked: Option<ServerName<'static>>,
    offered: Vec<Vec<u8>>,
) -> Reached {
    let host = || tls::server_name(tls::host(upstream));
    let name = origin.name.clone().or(asked).or_else(host);
    let name = name.ok_or_else(|| io::Error::other("the dependency has no name to ask for"))?;
    let stream = TlsConnector::from(origin.config(offered)).connect(name, far).await?;
    let agreed = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
    Ok((Box::new(stream), agreed))
}

/// What a toxic does to the handshake instead of the proxy.
fn chosen(dependency: &Dependency, place: Place<'_>, seen: &Seen) -> Option<(Handshake, Arc<Toxic>)> {
    for toxic in dependency.toxics.borrow().iter() {
        let Work::Handshake(handshake) = toxic.kind.work else { continue };
        if !toxic.means(place) || !toxic.draw(&mut toxic.dice(place)) {
            continue;
        }
        toxic.hits.fetch_add(1, Ordering::Relaxed);
        dependency.counters.harmed.fetch_add(1, Ordering::Relaxed);
        seen.fault(&toxic.name);
        return Some((handshake, toxic.clone()));
    }
    None
}

/// What the client is shown that asks for this name.
fn shown(
    handshake: Handshake,
    toxic: &Toxic,
    asked: Option<&str>,
    upstream: &str,
) -> io::Result<Arc<ServerConfig>> {
    let text = |at| toxic.values.text(at);
    let config = match handshake {
        Handshake::Refuse => tls::refusing(),
        Handshake::Untrusted => {
            let name = asked.unwrap_or(text(0));
            tls::untrusted(if name.is_empty() { "localhost" } else { name })
        }
        Handshake::Certificate => toxic.shown.of(upstream, || tls::server(text(0), text(1))),
        // What was issued for a name is kept with it.
        Handshake::Issued => toxic.shown.of(upstream, || {
            let (name, instead) = (tls::host(upstream).to_owned(), text(2).to_owned());
            tls::issuing(text(0), text(1), Issue { name, instead, expired: toxic.values.count(3) > 0 })
        }),
    };
    config.map_err(io::Error::other)
}
