//! One connection to a controller, from its greeting to its end.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use rcgen::KeyPair;
use squall_experiments::fleet::frame::STREAMS;
use squall_experiments::fleet::{
    Fault, Frame, Hello, Inventory, Joined, Kind, Session, Welcome, agreed, frame,
};
use squall_experiments::protocol::{
    Active, Call, LONGEST_LINE, Message as Line, Refusal, Reply, Request, VERSION,
};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_tungstenite::tungstenite::Message;

use super::carry::{self, Lane, Out};
use super::dial::{Socket, ask, unreached};
use super::errand::{Ask, Errands, Told};
use super::identity::Membership;
use crate::talk;

/// How many messages of streams may wait for the socket.
const DATA: usize = 8;
/// How many of the others: a controller that lets more wait does not read.
const CONTROL: usize = 1024;
/// How often the agent is asked what it holds.
const LOOK: Duration = Duration::from_secs(5);
/// The shortest beat that a controller may ask for.
const FASTEST: Duration = Duration::from_millis(100);

/// What goes from one connection to the next.
#[derive(Debug)]
pub struct Lasting {
    /// To the worker.
    pub errands: Errands,
    /// Of the last errand: a number is never used again, so that an answer for an earlier connection is not taken for one.
    pub errand: u64,
    /// Of this host.
    pub key: KeyPair,
    /// What it belongs to, once it does.
    pub membership: Option<Membership>,
    /// That with a new certificate, until it is kept.
    pub unkept: Option<Membership>,
    /// What this host is; what it holds is looked at anew.
    pub inventory: Inventory,
    /// The streams, which outlive a connection for a while.
    pub streams: Streams,
}

/// The streams of this host's session with a controller.
#[derive(Debug, Default)]
pub struct Streams {
    /// By which the controller knows it; empty where it knows of no sessions.
    number: String,
    lanes: BTreeMap<u64, Lane>,
}

impl Streams {
    /// Whether something waits for another connection.
    pub fn wait(&self) -> bool {
        self.lanes.values().any(|lane| !lane.is_over())
    }

    /// What the controller is told of them.
    fn told(&mut self) -> Option<Session> {
        self.lanes.retain(|_, lane| !lane.is_over());
        let streams = self.lanes.iter().map(|(stream, lane)| lane.held(*stream)).collect();
        (!self.number.is_empty()).then(|| Session { number: self.number.clone(), streams })
    }

    /// The controller has answered: those that it has too go on, all others end.
    fn go_on(&mut self, answer: Option<Session>, out: &Out) {
        let Session { number, streams } = answer.unwrap_or_default();
        if number != self.number {
            self.lanes.clear();
        }
        self.number = number;
        self.lanes.retain(|stream, lane| match streams.iter().find(|held| held.stream == *stream) {
            Some(theirs) => {
                lane.resume(out.clone(), *theirs);
                true
            }
            None => false,
        });
    }

    /// The connection is gone.
    fn lost(&mut self) {
        if self.number.is_empty() {
            self.lanes.clear();
        }
        self.lanes.values().for_each(Lane::lost);
    }
}

/// How a connection ended.
#[derive(Debug)]
pub enum Ending {
    /// By itself, or it was not well: this host dials again, and its streams wait for that.
    Lost(Refusal),
    /// The controller has ended it: its streams are over.
    Refused(Refusal),
    /// The worker has ended, and with it everything.
    Agent,
}

/// Serves a connection until it ends.
pub async fn serve(socket: Socket, lasting: &mut Lasting) -> Ending {
    let ending = connected(socket, lasting).await;
    match ending {
        Ending::Lost(_) => lasting.streams.lost(),
        Ending::Refused(_) | Ending::Agent => lasting.streams = Streams::default(),
    }
    ending
}

async fn connected(mut socket: Socket, lasting: &mut Lasting) -> Ending {
    let versions = frame::VERSIONS.to_vec();
    let session = lasting.streams.told();
    let hello = Frame::Hello(Hello { versions, inventory: lasting.inventory.clone(), session });
    let welcome = match ask(&mut socket, &hello).await {
        Ok(Frame::Welcome(welcome)) => welcome,
        Ok(Frame::Refused(refusal)) => return Ending::Refused(refusal),
        Err(refusal) => return Ending::Lost(refusal),
        Ok(_) => return Ending::Refused(unreached("it gave another answer than was asked for")),
    };
    let Welcome { version, host, heartbeat_ms, session } = welcome;
    if agreed(&[version]).is_none() {
        let what = format!("it speaks version {version}, which this agent does not");
        return Ending::Refused(unreached(what));
    }
    talk::notice(format_args!("squall-agent is connected to its controller as `{host}`"), &[("host", &host)]);
    let heartbeat = Duration::from_millis(heartbeat_ms).max(FASTEST);
    let (data, mut datas) = mpsc::channel::<String>(DATA);
    let (control, mut controls) = mpsc::channel::<String>(CONTROL);
    let (holds, mut held) = mpsc::channel(1);
    let out = Out { data, control };
    lasting.streams.go_on(session, &out);
    let (mut sink, mut source) = socket.split();
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
                return Ending::Lost(unreached(error));
            }
        }
    };
    let reading = async {
        let mut link =
            Link { lasting, out, opening: BTreeMap::new(), holds: None, holds_to: holds, renewing: None };
        let mut heard = Instant::now();
        let mut number = 0;
        let lost = |error: &dyn std::fmt::Display| Err(Ending::Lost(unreached(error)));
        let mut tick = interval(heartbeat);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let done = tokio::select! {
                message = source.next() => {
                    heard = Instant::now();
                    match message {
                        Some(Ok(Message::Text(text))) => match Frame::read(&text) {
                            Ok(frame) => link.take(frame).map_err(Ending::Refused),
                            Err(error) => Err(Ending::Refused(unreached(error))),
                        },
                        Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(()),
                        Some(Ok(_)) | None => lost(&"it closed the connection"),
                        Some(Err(error)) => lost(&error),
                    }
                }
                told = link.lasting.errands.hear::<Told>() => match told {
                    Ok(Some((Told::Opened { number, refused }, socket))) => {
                        link.given(number, refused, socket).map_err(Ending::Lost)
                    }
                    Ok(Some((Told::Kept { until, done }, _))) => {
                        link.kept(until, done);
                        Ok(())
                    }
                    Ok(Some((Told::Begin(_), _))) => Ok(()),
                    Ok(None) | Err(_) => Err(Ending::Agent),
                },
                Some(holds) = held.recv() => link.holds(holds).map_err(Ending::Lost),
                _ = tick.tick() => {
                    if heard.elapsed() > heartbeat * 3 {
                        lost(&"it says nothing any more")
                    } else {
                        number += 1;
                        let told = link.look().and_then(|()| link.renew_in_time());
                        told.and_then(|()| link.say(&Frame::Ping { number })).map_err(Ending::Lost)
                    }
                }
            };
            if let Err(ending) = done {
                return ending;
            }
        }
    };
    tokio::select! {
        why = reading => why,
        why = writing => why,
    }
}

struct Link<'a> {
    lasting: &'a mut Lasting,
    out: Out,
    /// Errands under way, and the streams that they are for.
    opening: BTreeMap<u64, u64>,
    /// The errand for a socket of the link's own to the agent; `Some(0)` once it has one.
    holds: Option<u64>,
    holds_to: mpsc::Sender<Vec<Active>>,
    /// Since when a certificate is waited for.
    renewing: Option<Instant>,
}

impl Link<'_> {
    /// Takes what the controller says. An error ends the connection.
    fn take(&mut self, frame: Frame) -> Result<(), Refusal> {
        match frame {
            Frame::Ping { number } => self.say(&Frame::Pong { number }),
            Frame::Pong { .. } => Ok(()),
            Frame::Open { stream, to } => self.open(stream, to),
            Frame::Data { stream, seq, text } => self.pass(stream, |lane| lane.text(seq, text)),
            Frame::Ack { stream, seq } => self.pass(stream, |lane| lane.acknowledged(seq)),
            Frame::End { stream, seq } => self.pass(stream, |lane| lane.end(seq)),
            Frame::Close { stream, .. } => {
                self.lasting.streams.lanes.remove(&stream);
                self.opening.retain(|_, opening| *opening != stream);
                Ok(())
            }
            Frame::Renewed { certificate } => self.renewed(certificate),
            Frame::Refused(refusal) => Err(refusal),
            Frame::Join(_)
            | Frame::Joined(_)
            | Frame::Hello(_)
            | Frame::Welcome(_)
            | Frame::Inventory(_)
            | Frame::Opened { .. }
            | Frame::Renew => Err(unreached("it says what is not a controller's to say")),
        }
    }

    /// Says something without waiting: whoever reads the connection never does.
    fn say(&self, frame: &Frame) -> Result<(), Refusal> {
        let said = self.out.control.try_send(frame.text());
        said.map_err(|_| unreached("it does not read what it is told"))
    }

    /// Hands something to a stream. One that has ended already is passed over; one with a fault ends.
    fn pass(&mut self, stream: u64, put: impl FnOnce(&Lane) -> Result<(), Fault>) -> Result<(), Refusal> {
        let Some(lane) = self.lasting.streams.lanes.get(&stream) else { return Ok(()) };
        if let Err(fault) = put(lane) {
            self.lasting.streams.lanes.remove(&stream);
            return self.close(stream, Refusal::bare(fault.to_string()));
        }
        Ok(())
    }

    fn close(&self, stream: u64, why: Refusal) -> Result<(), Refusal> {
        self.say(&Frame::Close { stream, why: Some(why) })
    }

    fn open(&mut self, stream: u64, to: Kind) -> Result<(), Refusal> {
        self.lasting.streams.lanes.retain(|_, lane| !lane.is_over());
        if self.lasting.streams.lanes.contains_key(&stream)
            || self.opening.values().any(|opening| *opening == stream)
        {
            return Err(unreached("it opened a stream twice"));
        }
        if self.lasting.streams.lanes.len() + self.opening.len() >= STREAMS {
            return self
                .close(stream, Refusal::bare(format!("{STREAMS} streams to this host are open already")));
        }
        let errand = self.errand(to)?;
        self.opening.insert(errand, stream);
        Ok(())
    }

    fn errand(&mut self, to: Kind) -> Result<u64, Refusal> {
        self.lasting.errand += 1;
        let number = self.lasting.errand;
        let asked = self.lasting.errands.say(&Ask::Open { number, to }, None);
        asked.map_err(|error| Refusal::bare(format!("the agent does not answer its link: {error}")))?;
        Ok(number)
    }

    /// The worker has answered.
    fn given(
        &mut self,
        number: u64,
        refused: Option<Refusal>,
        socket: Option<OwnedFd>,
    ) -> Result<(), Refusal> {
        if self.holds == Some(number) {
            self.holds = socket.map(|socket| {
                tokio::spawn(held(StdStream::from(socket), self.holds_to.clone()));
                0
            });
            return Ok(());
        }
        // Of a stream that was closed meanwhile, or an earlier connection: the socket goes with this.
        let Some(stream) = self.opening.remove(&number) else { return Ok(()) };
        let Some(socket) = socket else {
            let why = refused.unwrap_or_else(|| Refusal::bare("the agent gave no reason"));
            return self.close(stream, why);
        };
        match carry::begin(stream, StdStream::from(socket), self.out.clone()) {
            Ok(lane) => {
                self.lasting.streams.lanes.insert(stream, lane);
                self.say(&Frame::Opened { stream })
            }
            Err(error) => self.close(stream, Refusal::bare(format!("no socket for the stream: {error}"))),
        }
    }

    /// Sees to it that somebody looks at what the agent holds.
    fn look(&mut self) -> Result<(), Refusal> {
        if self.holds.is_none() {
            self.holds = Some(self.errand(Kind::Agent)?);
        }
        Ok(())
    }

    fn holds(&mut self, holds: Vec<Active>) -> Result<(), Refusal> {
        if holds == self.lasting.inventory.holds {
            return Ok(());
        }
        self.lasting.inventory.holds = holds;
        // What works here has been said, and does not change.
        let inventory = Inventory { preflight: serde_json::Value::Null, ..self.lasting.inventory.clone() };
        self.say(&Frame::Inventory(inventory))
    }

    fn renew_in_time(&mut self) -> Result<(), Refusal> {
        let asked = self.renewing.is_some_and(|since| since.elapsed() < Duration::from_secs(60));
        let due = self.lasting.membership.as_ref().is_some_and(Membership::is_to_be_renewed);
        if asked || !due {
            return Ok(());
        }
        self.renewing = Some(Instant::now());
        self.say(&Frame::Renew)
    }

    fn renewed(&mut self, certificate: String) -> Result<(), Refusal> {
        if self.renewing.is_none() || self.lasting.unkept.is_some() {
            return Err(unreached("it renewed a certificate that nobody had asked for"));
        }
        let Some(membership) = &self.lasting.membership else { return Ok(()) };
        let joined = Joined { certificate, ..membership.joined.clone() };
        let membership = Membership::new(joined).map_err(unreached)?;
        self.lasting.try_to_keep(membership)
    }

    /// The worker has kept a new certificate, or could not. One that is not on the disk is not used: from its first use on the one
    /// that is there would be over, and this host could not come back after its next start.
    fn kept(&mut self, until: u64, done: bool) {
        let Some(membership) = self.lasting.unkept.take_if(|unkept| unkept.until == until) else { return };
        if done {
            self.lasting.membership = Some(membership);
            self.renewing = None;
        } else {
            self.renewing = Some(Instant::now());
        }
    }
}

impl Lasting {
    /// This host belongs to a fleet from now on.
    pub fn keep(&mut self, membership: Membership) -> Result<(), Refusal> {
        self.membership = Some(membership.clone());
        self.ask_to_keep(membership)
    }

    /// It has a new certificate, as soon as that is kept.
    fn try_to_keep(&mut self, membership: Membership) -> Result<(), Refusal> {
        self.unkept = Some(membership.clone());
        self.ask_to_keep(membership)
    }

    fn ask_to_keep(&self, membership: Membership) -> Result<(), Refusal> {
        let asked = self.errands.say(&Ask::Keep(membership), None);
        asked.map_err(|error| Refusal::bare(format!("the agent does not answer its link: {error}")))
    }
}

/// Asks the agent again and again what it holds, until one of the two has gone.
async fn held(socket: StdStream, holds: mpsc::Sender<Vec<Active>>) {
    let asked = async {
        socket.set_nonblocking(true)?;
        let (reader, mut writer) = UnixStream::from_std(socket)?.into_split();
        let mut reader = BufReader::new(reader);
        for number in 1.. {
            let request = if number == 1 { Request::Hello { version: VERSION } } else { Request::Status };
            let line = serde_json::to_string(&Call { number, request })? + "\n";
            writer.write_all(line.as_bytes()).await?;
            let mut line = Vec::new();
            let mut limited = (&mut reader).take(LONGEST_LINE as u64 + 1);
            limited.read_until(b'\n', &mut line).await?;
            if let Line::Answer { reply: Reply::Status(active), .. } = serde_json::from_slice(&line)?
                && holds.send(active).await.is_err()
            {
                break;
            }
            if number > 1 {
                sleep(LOOK).await;
            }
        }
        io::Result::Ok(())
    };
    tokio::select! {
        _ = asked => {}
        () = holds.closed() => {}
    }
}
