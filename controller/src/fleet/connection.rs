//! The connection of one host, from its greeting to its end.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::{SinkExt, StreamExt};
use squall_experiments::fleet::frame::STREAMS;
use squall_experiments::fleet::{Fault, Frame};
use squall_experiments::protocol::Refusal;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, interval, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::authority::{Authority, Serial};
use super::carry::{self, Lane, Out};
use super::hub::{Order, Seat, unreached};
use super::listener::Terms;
use super::registry::{Registry, revoked};
use super::session::{Kept, Session};
use crate::rate::Rates;

/// How many messages of streams may wait for the socket.
const DATA: usize = 8;
/// How many of the others: a host that lets more wait does not read.
const CONTROL: usize = 1024;
/// How long a host may take to open a stream.
const OPENING: Duration = Duration::from_secs(10);
/// How often a host is given another certificate at most; who was not answered asks again after a minute.
const RENEWALS: Duration = Duration::from_secs(50);
/// How long the last word may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// Who is at the other end, by its certificate.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The host's name.
    pub host: String,
    /// The certificate's serial number, in hexadecimal digits.
    pub serial: String,
    /// The public key: the uncompressed point.
    pub key: Vec<u8>,
    /// When the certificate ends.
    pub until: SystemTime,
}

/// What a connection needs beside its socket.
pub(super) struct Surroundings {
    pub(super) authority: Arc<Authority>,
    pub(super) registry: Arc<dyn Registry>,
    pub(super) terms: Terms,
    /// How often hosts wanted to join, by their address.
    pub(super) joins: Rates<IpAddr>,
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

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// By itself: the host may come back, and its streams wait for it.
    Lost,
    /// By us: the host is told, and its streams are over.
    Over,
}

/// Serves a host that has been welcomed; gives why it ended.
pub(super) async fn serve<S>(
    mut socket: Box<WebSocketStream<S>>,
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
    seat.session.resume(seat.number, &out, &std::mem::take(&mut seat.theirs));
    let (why, ending) = {
        let (mut sink, mut source) = (&mut *socket).split();
        let writing = async {
            loop {
                let message = tokio::select! {
                    biased;
                    Some(message) = controls.recv() => message,
                    Some(message) = datas.recv() => message,
                };
                // What waits already goes with it.
                let mut said = sink.feed(Message::text(message)).await;
                while said.is_ok()
                    && let Ok(message) = controls.try_recv()
                {
                    said = sink.feed(Message::text(message)).await;
                }
                if said.is_ok() {
                    said = sink.flush().await;
                }
                if let Err(error) = said {
                    return (unreached(&peer.host, &error.to_string()), Ending::Lost);
                }
            }
        };
        let mut host = Host {
            peer: peer.clone(),
            around,
            out,
            session: seat.session.clone(),
            number: seat.number,
            opening: BTreeMap::new(),
            renewing: None,
            renewed: None,
        };
        let beat = around.terms.beat(seat.fleet);
        let silence = beat * 3;
        let mut tick = interval(beat);
        let reading = async {
            let mut heard = Instant::now();
            loop {
                tokio::select! {
                    // Whoever has been revoked is not heard any more.
                    biased;
                    over = &mut seat.over => {
                        let why = over.unwrap_or_else(|_| unreached(&peer.host, "its connection was ended"));
                        return (why, Ending::Over);
                    }
                    message = source.next() => {
                        heard = Instant::now();
                        seat.heard();
                        let frame = match message {
                            Some(Ok(Message::Text(text))) => Frame::read(&text),
                            Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                            Some(Ok(_)) | None => {
                                return (unreached(&peer.host, "it closed the connection"), Ending::Lost);
                            }
                            Some(Err(error)) => {
                                return (unreached(&peer.host, &error.to_string()), Ending::Lost);
                            }
                        };
                        let frame = match frame {
                            Ok(Frame::Inventory(inventory)) => {
                                seat.is_now(inventory);
                                continue;
                            }
                            Ok(frame) => frame,
                            Err(error) => return (Refusal::bare(error.to_string()), Ending::Over),
                        };
                        if let Err(refusal) = host.take(frame).await {
                            return (refusal, Ending::Over);
                        }
                    }
                    Some(order) = seat.orders.recv() => host.open(*order),
                    given = certificate(&mut host.renewing) => {
                        if let Err(refusal) = host.given(given) {
                            return (refusal, Ending::Over);
                        }
                    }
                    _ = tick.tick() => {
                        if heard.elapsed() > silence {
                            return (unreached(&peer.host, "it says nothing any more"), Ending::Lost);
                        }
                        if SystemTime::now() > host.peer.until {
                            let why = format!("the certificate of `{}` is over", peer.host);
                            return (Refusal::bare(why), Ending::Over);
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
    if ending == Ending::Over {
        seat.session.end(Some(seat.number));
        last_word(&mut socket, &Frame::Refused(why.clone())).await;
    }
    why
}

struct Host<'a> {
    peer: Peer,
    around: &'a Surroundings,
    out: Out,
    session: Session,
    /// Of this connection.
    number: u64,
    opening: BTreeMap<u64, Opening>,
    /// A certificate that is being made.
    renewing: Option<oneshot::Receiver<Certified>>,
    /// When the host last asked for one.
    renewed: Option<Instant>,
}

/// A new certificate, and when it ends.
type Certified = Result<(String, SystemTime), Refusal>;

/// Waits for one that is being made.
async fn certificate(renewing: &mut Option<oneshot::Receiver<Certified>>) -> Certified {
    match renewing {
        Some(made) => made.await.unwrap_or_else(|_| Err(Refusal::bare("no certificate was made"))),
        None => std::future::pending().await,
    }
}

struct Opening {
    local: DuplexStream,
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
                self.kept(|kept| kept.lanes.remove(&stream))?;
                if let Some(opening) = self.opening.remove(&stream) {
                    let why = why.unwrap_or_else(|| unreached(&self.peer.host, "it did not open the stream"));
                    let _ = opening.opened.send(Err(why));
                }
                Ok(())
            }
            Frame::Renew => {
                self.renew();
                Ok(())
            }
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

    /// Does something with the streams, which only the newest connection of the host may.
    fn kept<T>(&self, work: impl FnOnce(&mut Kept) -> T) -> Result<T, Refusal> {
        let done = self.session.with(Some(self.number), work);
        done.ok_or_else(|| Refusal::bare(format!("`{}` has connected anew", self.peer.host)))
    }

    /// Hands something to a stream. One that has ended already is passed over; one with a fault ends.
    fn pass(&mut self, stream: u64, put: impl FnOnce(&Lane) -> Result<(), Fault>) -> Result<(), Refusal> {
        let handed = self.kept(|kept| match kept.lanes.get(&stream).map(put) {
            Some(Err(fault)) => {
                kept.lanes.remove(&stream);
                Err(fault)
            }
            _ => Ok(()),
        })?;
        if let Err(fault) = handed {
            tracing::warn!(host = self.peer.host, stream, %fault, "a stream was ended");
            let why = Some(Refusal::bare(fault.to_string()));
            return self.say(&Frame::Close { stream, why });
        }
        Ok(())
    }

    fn open(&mut self, order: Order) {
        let Order { to, local, opened } = order;
        let under_way = self.opening.len();
        let stream = self.kept(|kept| {
            kept.lanes.retain(|_, lane| !lane.is_over());
            (kept.lanes.len() + under_way < STREAMS).then(|| kept.next())
        });
        let full = || unreached(&self.peer.host, &format!("{STREAMS} streams to it are open already"));
        let stream = match stream.and_then(|stream| stream.ok_or_else(full)) {
            Ok(stream) => stream,
            Err(refusal) => return drop(opened.send(Err(refusal))),
        };
        match self.say(&Frame::Open { stream, to }) {
            Ok(()) => {
                self.opening.insert(stream, Opening { local, opened, asked: Instant::now() });
            }
            Err(refusal) => drop(opened.send(Err(refusal))),
        }
    }

    fn opened(&mut self, stream: u64) {
        let Some(Opening { local, opened, .. }) = self.opening.remove(&stream) else { return };
        let lane = carry::begin(stream, local, self.out.clone());
        // Where nobody waits any more, its other end is dropped, and with it the stream.
        let kept = self.kept(|kept| kept.lanes.insert(stream, lane)).map(drop);
        let _ = opened.send(kept);
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

    /// Begins to make another certificate, beside everything else: a store that hangs keeps no halt from this host. Whoever asks
    /// too often is not answered.
    fn renew(&mut self) {
        let lasts = self.around.terms.certificates;
        let soonest = RENEWALS.min(lasts / 2);
        if self.renewing.is_some() || self.renewed.is_some_and(|asked| asked.elapsed() < soonest) {
            return;
        }
        self.renewed = Some(Instant::now());
        let (authority, registry) = (self.around.authority.clone(), self.around.registry.clone());
        let (peer, (tell, made)) = (self.peer.clone(), oneshot::channel());
        self.renewing = Some(made);
        tokio::spawn(async move {
            let made = async {
                let serial = Serial::new();
                registry.renew(&peer.host, &peer.serial, &serial.digits()).await?;
                let signed = authority.sign(&peer.host, &peer.key, lasts, &serial).map_err(|error| {
                    tracing::error!(%error, host = peer.host, "no certificate can be issued");
                    Refusal::bare("the controller cannot issue a certificate now")
                })?;
                Ok((signed, SystemTime::now() + lasts))
            };
            let _ = tell.send(made.await);
        });
    }

    /// A certificate was made, or could not be. An error ends the connection.
    fn given(&mut self, made: Certified) -> Result<(), Refusal> {
        self.renewing = None;
        let host = &self.peer.host;
        match made {
            Ok((certificate, until)) => {
                self.peer.until = until;
                tracing::info!(host, "a certificate was renewed");
                self.say(&Frame::Renewed { certificate })
            }
            Err(refusal) if refusal == revoked(host) => Err(refusal),
            Err(refusal) => {
                // Its streams, and the runs on them, need none: it asks again.
                tracing::warn!(host, why = refusal.what, "a certificate was not renewed");
                Ok(())
            }
        }
    }
}
