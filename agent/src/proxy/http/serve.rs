//! One connection that was handed over.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{Interest, copy_bidirectional_with_sizes};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, oneshot, watch};

use super::body::Flow;
use super::exchange::{Exchange, Sender};
use super::far::Far;
use super::handshake::shake;
use super::prefixed::{Duplex, Prefixed};
use super::spoken::Spoken;
use super::{Handed, Seen};
use crate::proxy::link::Place;

/// How much may be on its way in a stream of HTTP/2, and in all streams of a connection together, in bytes.
const STREAM: u32 = 1 << 20;
const STREAMS: u32 = 8 << 20;
/// How many headers a message may have, and how long they may be together, in bytes: more than servers usually take, so
/// that it is the dependency that refuses them.
const HEADERS: usize = 1000;
const HEAD: u32 = 1 << 20;
/// What is read at once of a stream that is only decrypted.
const BUFFER: usize = 64 << 10;

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Http(#[from] hyper::Error),
}

/// Carries it to its end, or to the end of the connection that it belongs to.
pub(super) async fn serve(handed: Handed) {
    let mut alive = handed.alive.clone();
    let name = handed.dependency.name.clone();
    tokio::select! {
        result = carry(handed) => if let Err(error) = result {
            tracing::debug!("`{name}`: a connection ended: {error}");
        },
        _ = alive.changed() => {}
    }
}

async fn carry(handed: Handed) -> Result<(), Ended> {
    handed.near.set_nonblocking(true)?;
    let near = tokio::net::UnixStream::from_std(handed.near)?;
    let idle = super::stream(handed.far.try_clone()?)?;
    let far = Far::new(handed.far, &handed.seen)?;
    let dependency = handed.dependency;
    let place = Place {
        seed: dependency.seed,
        proxy: &dependency.name,
        client: handed.client.ip(),
        ..Place::at(handed.number)
    };
    let (mut near, mut far) = shake(near, far, &dependency, place, &handed.seen).await?;
    if dependency.protocol.is_tcp() {
        let carried = copy_bidirectional_with_sizes(&mut near, &mut far, BUFFER, BUFFER).await;
        carried.inspect_err(|error| handed.seen.failed(error))?;
        return Ok(());
    }
    let mut near = Prefixed::new(near);
    let spoken = tokio::select! {
        spoken = near.look() => spoken?,
        first = speaks_first(&idle, dependency.origin.is_some(), &handed.seen) => match first {
            First::Gone => return Ok(()),
            First::Speaks => Spoken::Other,
        },
    };
    drop(idle);
    if matches!(spoken, Spoken::Other | Spoken::Nothing) {
        if spoken == Spoken::Other {
            dependency.counters.foreign.fetch_add(1, Ordering::Relaxed);
        }
        handed.seen.foreign();
        let carried = copy_bidirectional_with_sizes(&mut near, &mut far, BUFFER, BUFFER).await;
        carried.inspect_err(|error| handed.seen.failed(error))?;
        return Ok(());
    }
    let second = spoken == Spoken::Second;
    let (sender, closed) = if second {
        let (sender, closed) = second_version(far, &handed.alive, &handed.seen).await?;
        (Sender::Second(sender), closed)
    } else {
        let (sender, closed) = first_version(far, &handed.alive, &handed.seen).await?;
        (Sender::First(Mutex::new(sender)), closed)
    };
    let exchange = Arc::new(Exchange {
        toxics: dependency.toxics.subscribe(),
        dependency,
        number: handed.number,
        client: handed.client,
        caller: handed.caller,
        sender,
        alive: handed.alive,
        seen: handed.seen,
        requests: AtomicU64::new(0),
    });
    let service = service_fn(move |request| exchange.clone().answer(request));
    let near = TokioIo::new(near);
    if second {
        let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        builder.auto_date_header(false).initial_stream_window_size(STREAM);
        builder.initial_connection_window_size(STREAMS).max_header_list_size(HEAD);
        let connection = std::pin::pin!(builder.serve_connection(near, service));
        until(connection, closed, |connection| connection.graceful_shutdown()).await
    } else {
        let mut builder = hyper::server::conn::http1::Builder::new();
        // Who has said all may still wait for the answer (RFC 9112 section 9.6).
        builder.half_close(true).preserve_header_case(true).auto_date_header(false);
        builder.max_headers(HEADERS).max_buf_size(HEAD as usize);
        let connection = std::pin::pin!(builder.serve_connection(near, service).with_upgrades());
        until(connection, closed, |connection| connection.graceful_shutdown()).await
    }
}

/// Serves; once the dependency has gone, what was begun is ended and nothing more begun.
async fn until<C>(
    mut connection: std::pin::Pin<&mut C>,
    closed: oneshot::Receiver<()>,
    end: impl Fn(std::pin::Pin<&mut C>),
) -> Result<(), Ended>
where
    C: Future<Output = Result<(), hyper::Error>>,
{
    tokio::select! {
        result = connection.as_mut() => return Ok(result?),
        _ = closed => end(connection.as_mut()),
    }
    Ok(connection.await?)
}

type Opened<S> = Result<(S, oneshot::Receiver<()>), Ended>;

async fn first_version(
    far: Box<dyn Duplex>,
    alive: &watch::Receiver<()>,
    seen: &Seen,
) -> Opened<hyper::client::conn::http1::SendRequest<Flow>> {
    let mut builder = hyper::client::conn::http1::Builder::new();
    builder.preserve_header_case(true).max_headers(HEADERS).max_buf_size(HEAD as usize);
    let (sender, connection) = builder.handshake(TokioIo::new(far)).await?;
    Ok((sender, driven(connection.with_upgrades(), alive, seen)))
}

async fn second_version(
    far: Box<dyn Duplex>,
    alive: &watch::Receiver<()>,
    seen: &Seen,
) -> Opened<hyper::client::conn::http2::SendRequest<Flow>> {
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(STREAM).initial_connection_window_size(STREAMS);
    builder.max_header_list_size(HEAD);
    let (sender, connection) = builder.handshake(TokioIo::new(far)).await?;
    Ok((sender, driven(connection, alive, seen)))
}

/// Drives the connection to the dependency; the answer is when it is over.
fn driven(
    connection: impl Future<Output = Result<(), hyper::Error>> + Send + 'static,
    alive: &watch::Receiver<()>,
    seen: &Seen,
) -> oneshot::Receiver<()> {
    let (closing, closed) = oneshot::channel();
    let (mut alive, seen) = (alive.clone(), seen.clone());
    tokio::spawn(async move {
        tokio::select! {
            result = connection => if let Err(error) = result {
                seen.failed(&error);
                tracing::debug!("a connection to a dependency ended: {error}");
            },
            _ = alive.changed() => {}
        }
        drop(closing);
    });
    closed
}

/// What a dependency does that nobody has asked anything.
enum First {
    /// It has closed the connection.
    Gone,
    /// It says what is not HTTP.
    Speaks,
}

/// How a frame of HTTP/2 begins that holds settings: behind its length, its type (RFC 9113 section 6.5).
const SETTINGS: u8 = 4;

/// Until the dependency does something although nobody has asked it anything. In HTTP/2, and in TLS, it may.
async fn speaks_first(far: &TcpStream, hidden: bool, seen: &Seen) -> First {
    let mut head = [0; 4];
    let said = async {
        far.ready(Interest::READABLE).await?;
        far.peek(&mut head).await
    };
    match said.await {
        Ok(0) => First::Gone,
        Err(error) => {
            seen.failed(&error);
            First::Gone
        }
        Ok(_) if hidden || head[3] == SETTINGS => std::future::pending().await,
        Ok(_) => First::Speaks,
    }
}
