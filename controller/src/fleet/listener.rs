//! Connections as they come in, until it is known whose they are.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use futures_util::{SinkExt, StreamExt};
use squall_experiments::fleet::frame::{LONGEST_FRAME, RESUMES};
use squall_experiments::fleet::{Frame, Hello, Welcome, agreed, hex};
use squall_experiments::protocol::Refusal;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::error::Elapsed;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use x509_cert::Certificate;
use x509_cert::der::Decode;

use super::authority::{Authority, AuthorityError};
pub use super::connection::Peer;
use super::connection::{Surroundings, last_word, serve};
use super::hub::Hub;
use super::join::join;
use super::registry::Registry;
use crate::rate::{OF_JOINS, Rates};

/// How long it may take until it is known who has come.
const GREETING: Duration = Duration::from_secs(10);
/// How many may be on their way to that at once; the others wait in the kernel's queue.
const STRANGERS: usize = 2048;
/// How many the kernel is asked to keep there; it keeps no more than `net.core.somaxconn`, 4,096 by default. Of those that find it full each
/// tries again after a second, then two, four and eight (RFC 6298): a whole fleet that dials again would take as long.
const QUEUE: u32 = 16_384;
/// How many of those are greeted at the same time. A greeting needs some 100 KiB for a moment, which the allocator keeps: when a whole fleet
/// dials again that is more than what its connections need later. With 100 ms to and fro these are still 600 hosts a second.
const GREETED: usize = if cfg!(test) { 4 } else { 256 };
/// How long a greeting may take once it is its turn: who stops in the middle of it keeps others waiting.
const TURN: Duration = Duration::from_secs(5);
/// Between the heartbeats of any two hosts, on average: to hear one costs some 40 µs of a processor.
const BETWEEN_BEATS: Duration = Duration::from_millis(1);
/// The longest message of somebody without a certificate.
const LONGEST_JOIN: usize = 32 << 10;
/// The common name's object identifier (X.520).
const COMMON_NAME: &str = "2.5.4.3";

/// On which terms hosts are connected.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// How often each side shows that it is there at least; who is silent for three times as long is gone. Of a large fleet each
    /// does so less often.
    pub heartbeat: Duration,
    /// How long a host's certificate is good for. It is renewed after two thirds of that.
    pub certificates: Duration,
}

impl Default for Terms {
    fn default() -> Self {
        Terms { heartbeat: Duration::from_secs(5), certificates: Duration::from_secs(7 * 86_400) }
    }
}

impl Terms {
    /// How often each of so many hosts shows that it is there.
    pub(super) fn beat(&self, hosts: usize) -> Duration {
        self.heartbeat.max(BETWEEN_BEATS * u32::try_from(hosts).unwrap_or(u32::MAX))
    }
}

/// Lets hosts in.
pub struct Listener {
    tls: TlsAcceptor,
    around: Arc<Surroundings>,
    hub: Hub,
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listener").field("terms", &self.around.terms).finish_non_exhaustive()
    }
}

impl Listener {
    /// One that seats hosts in this hub.
    pub fn new(
        authority: Arc<Authority>,
        registry: Arc<dyn Registry>,
        hub: Hub,
        terms: Terms,
    ) -> Result<Self, AuthorityError> {
        let tls = TlsAcceptor::from(authority.for_agents()?);
        let joins = Rates::new(OF_JOINS);
        Ok(Listener { tls, around: Arc::new(Surroundings { authority, registry, terms, joins }), hub })
    }

    /// Serves until it is dropped. Connections go on after that, until the runtime ends.
    pub async fn serve(&self, listener: TcpListener) {
        let strangers = Arc::new(Semaphore::new(STRANGERS));
        let turns = Arc::new(Semaphore::new(GREETED));
        loop {
            let Ok(stranger) = strangers.clone().acquire_owned().await else { return };
            let (stream, from) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, most likely: that passes.
                    tracing::warn!(%error, "a connection cannot be accepted");
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (tls, around, hub) = (self.tls.clone(), self.around.clone(), self.hub.clone());
            let turns = Arc::clone(&turns);
            let seated = hub.room().host();
            let full = seated.is_none();
            // Nobody keeps others from coming by saying nothing: further ones are closed without a word.
            let Some(place) = (if full { hub.room().away() } else { seated }) else { continue };
            tokio::spawn(async move {
                // Who says nothing has no turn, and takes none from others.
                let Ok(Ok(1..)) = timeout(GREETING, stream.peek(&mut [0])).await else {
                    return tracing::info!(%from, "a connection said nothing in time");
                };
                let Ok(turn) = turns.acquire_owned().await else { return };
                // In a box: what a greeting needs is not kept for as long as its connection lasts.
                let greeted = Box::pin(timeout(TURN, greet(stream, &tls, &around, &hub, full))).await;
                drop((stranger, turn));
                stay(greeted, from, &around).await;
                drop(place);
            });
        }
    }

    /// Serves one connection to its end, of which it is known by other means than TLS whose it is.
    pub async fn serve_known<S>(&self, stream: S, peer: Peer, from: SocketAddr)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let greeting = introduce(stream, Some(peer), from, &self.around, &self.hub, false);
        stay(Box::pin(timeout(GREETING, greeting)).await, from, &self.around).await;
    }
}

/// Listens for hosts. An error where the address is taken, or not this machine's. Must be called inside a runtime.
pub fn listen(at: SocketAddr) -> io::Result<TcpListener> {
    let socket = if at.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(at)?;
    socket.listen(QUEUE)
}

/// Who has come, with its place; nobody, where it has joined or was refused.
type Greeted<S> = io::Result<Option<(Fresh<S>, Peer, super::hub::Seat)>>;
/// In a box: it is large, and a future keeps room for every place that it is moved through.
type Fresh<S> = Box<WebSocketStream<S>>;

/// Serves a host that has been welcomed, to its end.
async fn stay<S>(greeted: Result<Greeted<S>, Elapsed>, from: SocketAddr, around: &Surroundings)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    match greeted {
        Ok(Ok(Some((socket, peer, seat)))) => {
            let host = peer.host.clone();
            tracing::info!(host, %from, "a host is connected");
            let why = serve(socket, peer, seat, around).await;
            tracing::info!(host, why = why.what, "a host is not connected any more");
        }
        Ok(Ok(None)) => {}
        Ok(Err(why)) => tracing::info!(%from, %why, "a connection was refused"),
        Err(_) => tracing::info!(%from, "a connection said nothing in time"),
    }
}

/// Finds out who has come: a host with its place, or nobody, where it has joined or was refused.
async fn greet(
    stream: TcpStream,
    tls: &TlsAcceptor,
    around: &Surroundings,
    hub: &Hub,
    full: bool,
) -> Greeted<TlsStream<TcpStream>> {
    stream.set_nodelay(true)?;
    let from = stream.peer_addr()?;
    let stream = tls.accept(stream).await?;
    let peer = match stream.get_ref().1.peer_certificates() {
        Some([first, ..]) => Some(peer(first).ok_or_else(|| other("a certificate is not understood"))?),
        _ => None,
    };
    introduce(stream, peer, from, around, hub, full).await
}

/// Hears what somebody wants, of whom TLS has said who it is. Where there is no room for a host it is told so, and its token is
/// not used up.
async fn introduce<S>(
    stream: S,
    peer: Option<Peer>,
    from: SocketAddr,
    around: &Surroundings,
    hub: &Hub,
    full: bool,
) -> Greeted<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let longest = if peer.is_some() { LONGEST_FRAME } else { LONGEST_JOIN };
    let accepted = tokio_tungstenite::accept_async_with_config(stream, Some(buffers(longest))).await;
    let mut socket = accepted.map_err(io::Error::other)?;
    let frame = match socket.next().await {
        Some(Ok(Message::Text(text))) => Frame::read(&text).map_err(io::Error::other)?,
        Some(Err(error)) => return Err(io::Error::other(error)),
        _ => return Err(other("it did not say what it wants")),
    };
    let answer = match (peer, frame) {
        (Some(peer), Frame::Hello(_)) if full => refused(hub.room().full(&peer.host), from),
        (None, Frame::Join(wanted)) if full => refused(hub.room().full(&wanted.name), from),
        (Some(peer), Frame::Hello(Hello { versions, inventory, session })) => {
            let cut_offs = hub.cut_offs();
            match welcome(&peer, &versions, around).await {
                Ok(mut welcome) => {
                    let (seat, session) =
                        hub.seat(&peer.host, inventory, welcome.version >= RESUMES, session);
                    welcome.session = session;
                    welcome.heartbeat_ms = whole_ms(around.terms.beat(seat.fleet));
                    // Whoever was revoked since it was let in had no place yet, of which it could have been cut off.
                    if hub.cut_offs() != cut_offs
                        && let Err(refusal) = around.registry.admit(&peer.host, &peer.serial).await
                    {
                        drop(seat);
                        last_word(&mut socket, &refused(refusal, from)).await;
                        return Ok(None);
                    }
                    let said = socket.send(Message::text(Frame::Welcome(welcome).text())).await;
                    said.map_err(io::Error::other)?;
                    return Ok(Some((anew(socket).await, peer, seat)));
                }
                Err(refusal) => refused(refusal, from),
            }
        }
        (None, Frame::Join(wanted)) => {
            match around.joins.one_more(from.ip().to_canonical(), Instant::now()) {
                Err(wait) => refused(too_many(wait), from),
                Ok(()) => {
                    let (authority, registry) = (&around.authority, around.registry.as_ref());
                    let joined = join(wanted, authority, registry, around.terms.certificates);
                    joined.await.map_or_else(|refusal| refused(refusal, from), Frame::Joined)
                }
            }
        }
        (Some(_), _) => refused(Refusal::bare("a host begins with its greeting"), from),
        (None, _) => {
            let help = "give the agent a join token: `--join-file FILE`";
            refused(Refusal::new("without a certificate of this fleet a host can only join it", help), from)
        }
    };
    last_word(&mut socket, &answer).await;
    Ok(None)
}

/// What somebody is told who wants to join too often: nothing was looked at, and no token was used.
fn too_many(wait: Duration) -> Refusal {
    let wait = wait.as_secs() + 1;
    Refusal::new(
        "too many hosts have asked to join from this address",
        format!("try again in {wait} s; the token was not looked at and is as good as before"),
    )
}

/// How much is written together at most.
const WRITTEN: usize = 4 << 10;
/// How much is read at once: what hosts say is short.
const READ: usize = 1 << 10;

/// By default each connection has 128 KiB of buffers. Those for writing grow to what was written at once so far.
fn buffers(longest: usize) -> WebSocketConfig {
    let buffers = WebSocketConfig::default().read_buffer_size(READ).write_buffer_size(WRITTEN);
    buffers.max_message_size(Some(longest)).max_frame_size(Some(longest))
}

/// The same connection with new buffers: those of a greeting are as long as that was, and stay so. A host says nothing
/// between its greeting and its welcome.
async fn anew<S>(socket: WebSocketStream<S>) -> Fresh<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (stream, buffers) = (socket.into_inner(), buffers(LONGEST_FRAME));
    Box::new(WebSocketStream::from_raw_socket(stream, Role::Server, Some(buffers)).await)
}

fn refused(refusal: Refusal, from: SocketAddr) -> Frame {
    tracing::info!(%from, why = refusal.what, "a host was refused");
    Frame::Refused(refusal)
}

fn whole_ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn other(what: &str) -> io::Error {
    io::Error::other(what.to_owned())
}

async fn welcome(peer: &Peer, versions: &[u32], around: &Surroundings) -> Result<Welcome, Refusal> {
    around.registry.admit(&peer.host, &peer.serial).await?;
    let version = agreed(versions).ok_or_else(|| {
        Refusal::new(
            format!("`{}` speaks none of the versions of this controller", peer.host),
            "use the same release of squall and squall-agent, or the one before",
        )
    })?;
    let heartbeat_ms = whole_ms(around.terms.heartbeat);
    Ok(Welcome { version, host: peer.host.clone(), heartbeat_ms, session: None })
}

/// Who a certificate is for. TLS has verified it.
fn peer(certificate: &[u8]) -> Option<Peer> {
    let certificate = Certificate::from_der(certificate).ok()?.tbs_certificate;
    let attributes = certificate.subject.0.iter().flat_map(|relative| relative.0.iter());
    let mut names = attributes.filter(|attribute| attribute.oid.to_string() == COMMON_NAME);
    let name = names.next()?;
    Some(Peer {
        host: std::str::from_utf8(name.value.value()).ok()?.to_owned(),
        serial: hex(certificate.serial_number.as_bytes()),
        key: certificate.subject_public_key_info.subject_public_key.as_bytes()?.to_vec(),
        until: UNIX_EPOCH + certificate.validity.not_after.to_unix_duration(),
    })
}
