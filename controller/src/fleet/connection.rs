//! The connection of one host, from its greeting to its end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::{SinkExt, StreamExt};
use squall_experiments::fleet::frame::STREAMS;
use squall_experiments::fleet::{Fault, Frame};
use squall_experiments::protocol::Refusal;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{interval, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::authority::Authority;
use super::carry::{self, Lane, Local, Out};
use super::hub::{Order, Seat, unreached};
use super::listener::Terms;
use super::registry::Registry;

/// How many messages of streams may wait for the socket.
const DATA: usize = 8;
/// How many of the others: a host that lets more wait does not read.
const CONTROL: usize = 1024;
/// How long a host may take to open a stream.
const OPENING: Duration = Duration::from_secs(10);
/// How long the last word may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// Who is at the other end, by its certificate.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) host: String,
    pub(super) serial: String,
    /// The uncompressed point.
    pub(super) key: Vec<u8>,
    pub(super) until: SystemTime,
}

/// What a connection needs beside its socket.
pub(super) struct Surroundings {
    pub(super) authority: Arc<Authority>,
    pub(super) registry: Arc<dyn Registry>,
    pub(super) terms: Terms,
}

/// Says a frame, and nothing after it.
pub(super) async fn last_word<S>(socket: &mut WebSocketStream<S>, frame: &Frame)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let said = async {
        socket.send(Message::text(frame.text())).await?;
        socket.close(None).await
    };
    let _ = timeout(FAREWELL, said).await;
}

/// Serves a host that has been welcomed; gives why it ended.
pub(super) async fn serve<S>(
    mut socket: WebSocketStream<S>,
    peer: Peer,
    mut seat: Seat,
    around: &Surroundings,
) -> Refusal
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (data, mut datas) = mpsc::channel::<String>(DATA);
    let (control, mut controls) = mpsc::channel::<String>(CONTROL);
    let out = Out { data, control };
    let why = {
        let (mut sink, mut source) = (&mut socket).split();
        let writing = async {
            loop {
                let message = tokio::select! {
                    biased;
                    Some(message) = controls.recv() => message,
                    Some(message) = datas.recv() => message,
                };
                if let Err(error) = sink.send(Message::text(message)).await {
                    return unreached(&peer.host, &error.to_string());
                }
            }
        };
        let mut host = Host {
            peer: peer.clone(),
            around,
            out,
            lanes: BTreeMap::new(),
            opening: BTreeMap::new(),
            next: 1,
        };
        let silence = around.terms.heartbeat * 3;
        let mut tick = interval(around.terms.heartbeat);
        let reading = async {
            let mut heard = Instant::now();
            loop {
                tokio::select! {
                    // Whoever has been revoked is not heard any more.
                    biased;
                    over = &mut seat.over => {
                        return over.unwrap_or_else(|_| unreached(&peer.host, "its connection was ended"));
                    }
                    message = source.next() => {
                        heard = Instant::now();
                        seat.heard();
                        let frame = match message {
                            Some(Ok(Message::Text(text))) => Frame::read(&text),
                            Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                            Some(Ok(_)) | None => return unreached(&peer.host, "it closed the connection"),
                            Some(Err(error)) => return unreached(&peer.host, &error.to_string()),
                        };
                        let frame = match frame {
                            Ok(Frame::Inventory(inventory)) => {
                                seat.is_now(inventory);
                                continue;
                            }
                            Ok(frame) => frame,
                            Err(error) => return Refusal::bare(error.to_string()),
                        };
                        if let Err(refusal) = host.take(frame).await {
                            return refusal;
                        }
                    }
                    Some(order) = seat.orders.recv() => host.open(order),
                    _ = tick.tick() => {
                        if heard.elapsed() > silence {
                            return unreached(&peer.host, "it says nothing any more");
                        }
                        if SystemTime::now() > host.peer.until {
                            return Refusal::bare(format!("the certificate of `{}` is over", peer.host));
                        }
                        host.give_up();
                    }
                }
            }
        };
        tokio::select! {
            why = reading => why,
            why = writing => why,
        }
    };
    last_word(&mut socket, &Frame::Refused(why.clone())).await;
    why
}

struct Host<'a> {
    peer: Peer,
    around: &'a Surroundings,
    out: Out,
    lanes: BTreeMap<u64, Lane>,
    opening: BTreeMap<u64, Opening>,
    next: u64,
}

struct Opening {
    local: Local,
    opened: oneshot::Sender<Result<(), Refusal>>,
    asked: Instant,
}

impl Host<'_> {
    /// Takes what the host says. An error ends the connection.
    async fn take(&mut self, frame: Frame) -> Result<(), Refusal> {
        match frame {
            Frame::Ping { number } => self.say(&Frame::Pong { number }),
            Frame::Pong { .. } => Ok(()),
            Frame::Data { stream, seq, text } => self.pass(stream, |lane| lane.text(seq, text)),
            Frame::Ack { stream, seq } => self.pass(stream, |lane| lane.acknowledged(seq)),
            Frame::End { stream, seq } => self.pass(stream, |lane| lane.end(seq)),
            Frame::Opened { stream } => {
                self.opened(stream);
                Ok(())
            }
            Frame::Close { stream, why } => {
                self.lanes.remove(&stream);
                if let Some(opening) = self.opening.remove(&stream) {
                    let why = why.unwrap_or_else(|| unreached(&self.peer.host, "it did not open the stream"));
                    let _ = opening.opened.send(Err(why));
                }
                Ok(())
            }
            Frame::Renew => self.renew().await,
            // Only a controller says these, or they come first.
            Frame::Join(_)
            | Frame::Joined(_)
            | Frame::Hello(_)
            | Frame::Welcome(_)
            | Frame::Refused(_)
            | Frame::Inventory(_)
            | Frame::Open { .. }
            | Frame::Renewed { .. } => {
                Err(Refusal::bare(format!("`{}` says what is not a host's to say", self.peer.host)))
            }
        }
    }

    /// Says something without waiting: whoever reads the connection never does.
    fn say(&self, frame: &Frame) -> Result<(), Refusal> {
        let said = self.out.control.try_send(frame.text());
        said.map_err(|_| unreached(&self.peer.host, "it does not read what it is told"))
    }

    /// Hands something to a stream. One that has ended already is passed over; one with a fault ends.
    fn pass(&mut self, stream: u64, put: impl FnOnce(&Lane) -> Result<(), Fault>) -> Result<(), Refusal> {
        let Some(lane) = self.lanes.get(&stream) else { return Ok(()) };
        if let Err(fault) = put(lane) {
            self.lanes.remove(&stream);
            tracing::warn!(host = self.peer.host, stream, %fault, "a stream was ended");
            let why = Some(Refusal::bare(fault.to_string()));
            return self.say(&Frame::Close { stream, why });
        }
        Ok(())
    }

    fn open(&mut self, order: Order) {
        let Order { to, local, opened } = order;
        self.lanes.retain(|_, lane| !lane.is_over());
        if self.lanes.len() + self.opening.len() >= STREAMS {
            let why = format!("{STREAMS} streams to it are open already");
            let _ = opened.send(Err(unreached(&self.peer.host, &why)));
            return;
        }
        let stream = self.next;
        self.next += 1;
        match self.say(&Frame::Open { stream, to }) {
            Ok(()) => {
                self.opening.insert(stream, Opening { local, opened, asked: Instant::now() });
            }
            Err(refusal) => drop(opened.send(Err(refusal))),
        }
    }

    fn opened(&mut self, stream: u64) {
        let Some(Opening { local, opened, .. }) = self.opening.remove(&stream) else { return };
        match carry::begin(stream, local, self.out.clone()) {
            Ok(lane) => {
                self.lanes.insert(stream, lane);
                // Where nobody waits any more, its socket is closed, and with it the stream.
                let _ = opened.send(Ok(()));
            }
            Err(error) => {
                let _ = opened.send(Err(unreached(&self.peer.host, &error.to_string())));
                let _ = self.say(&Frame::Close { stream, why: None });
            }
        }
    }

    /// Gives up streams that the host takes too long to open.
    fn give_up(&mut self) {
        let late = self.opening.extract_if(.., |_, opening| opening.asked.elapsed() > OPENING);
        let late: Vec<_> = late.collect();
        for (stream, opening) in late {
            let _ =
                opening.opened.send(Err(unreached(&self.peer.host, "it did not open the stream in time")));
            let _ = self.say(&Frame::Close { stream, why: None });
        }
    }

    async fn renew(&mut self) -> Result<(), Refusal> {
        let (host, lasts) = (&self.peer.host, self.around.terms.certificates);
        let issued = self.around.authority.issue(host, &self.peer.key, lasts).map_err(|error| {
            tracing::error!(%error, host, "no certificate can be issued");
            Refusal::bare("the controller cannot issue a certificate now")
        })?;
        self.around.registry.renew(host, &issued.serial).await?;
        self.peer.until = SystemTime::now() + lasts;
        tracing::info!(host, "a certificate was renewed");
        self.say(&Frame::Renewed { certificate: issued.certificate })
    }
}
