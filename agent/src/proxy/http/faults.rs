//! What toxics do to one request and its answer.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full};
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::body::{Broken, Flow};
use super::notes::Notes;
use crate::proxy::link::Place;
use crate::proxy::matcher::is_grpc;
use crate::proxy::toxic::{Stream, Toxic};
use crate::proxy::toxics::{Dice, Message, Work};

/// Headers that say where a message ends: altering them would make another message of it.
const FRAMING: [HeaderName; 6] = [CONNECTION, CONTENT_LENGTH, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];

/// The toxics of a proxy as they are now.
pub(super) type Toxics = watch::Receiver<Vec<Arc<Toxic>>>;

/// The toxics that were chosen for a request.
pub(super) struct Faults {
    chosen: Vec<(Arc<Toxic>, Message, f64)>,
    /// It is a call of gRPC.
    grpc: bool,
}

/// Where a body breaks off.
pub(super) struct Cut {
    /// After so many bytes.
    pub(super) after: u64,
    toxic: Arc<Toxic>,
}

impl Cut {
    /// It breaks off now.
    pub(super) fn hit(&self, notes: &Notes) {
        hit(&self.toxic, notes);
    }
}

/// What becomes of a body.
pub(super) struct BodyFault {
    /// It is this instead.
    pub(super) replace: Option<Bytes>,
    /// It breaks off.
    pub(super) truncate: Option<Cut>,
}

impl Faults {
    /// Chooses: by matcher, by number, by a draw against the toxicity.
    pub(super) fn choose(toxics: &Toxics, head: &Parts, place: Place<'_>, request: u64) -> Self {
        let mut chosen = Vec::new();
        let grpc = is_grpc(&head.headers);
        for toxic in toxics.borrow().iter() {
            let Work::Message(message) = toxic.kind.work else { continue };
            let concerns = &toxic.concerns;
            let meant = concerns.client(place.client)
                && concerns.request(head)
                && (message != Message::GrpcStatus || grpc);
            if meant && (!concerns.counts() || toxic.count()) {
                let mut dice = Dice::new(
                    place.seed,
                    &[
                        place.proxy.as_bytes(),
                        &place.number.to_le_bytes(),
                        &request.to_le_bytes(),
                        toxic.name.as_bytes(),
                        &toxic.version.to_le_bytes(),
                    ],
                );
                if toxic.draw(&mut dice) {
                    chosen.push((toxic.clone(), message, dice.share()));
                }
            }
        }
        Faults { chosen, grpc }
    }

    fn of(&self, wanted: Message, stream: Stream) -> impl Iterator<Item = &Arc<Toxic>> {
        let chosen = self.chosen.iter();
        chosen
            .filter(move |(toxic, message, _)| *message == wanted && toxic.stream == stream)
            .map(|(toxic, ..)| toxic)
    }

    /// Waits as long as delays of this direction say. A change of them counts for who waits, too.
    pub(super) async fn wait(&self, stream: Stream, toxics: &Toxics, notes: &Notes) {
        if self.of(Message::Delay, stream).next().is_none() {
            return;
        }
        let (begun, mut toxics) = (Instant::now(), toxics.clone());
        let mut noted = false;
        loop {
            let due: Duration = {
                let present = toxics.borrow_and_update();
                let delays = self
                    .chosen
                    .iter()
                    .filter(|(toxic, message, _)| *message == Message::Delay && toxic.stream == stream);
                let now = delays.filter_map(|(toxic, _, share)| {
                    let same = present.iter().find(|other| Arc::ptr_eq(&other.hits, &toxic.hits))?;
                    Some(delay(same, *share))
                });
                now.fold(Duration::ZERO, Duration::saturating_add)
            };
            if !due.is_zero() && !std::mem::replace(&mut noted, true) {
                self.of(Message::Delay, stream).for_each(|toxic| hit(toxic, notes));
            }
            let Some(left) = due.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()) else { return };
            tokio::select! {
                () = sleep(left) => {}
                changed = toxics.changed() => if changed.is_err() { return },
            }
        }
    }

    /// The answer that is given instead of the dependency's.
    pub(super) fn answer(&self, notes: &Notes) -> Option<Response<Flow>> {
        let mut chosen = self.chosen.iter();
        let (toxic, message, _) =
            chosen.find(|(_, message, _)| matches!(message, Message::Status | Message::GrpcStatus))?;
        hit(toxic, notes);
        let mut response = Response::new(empty());
        let headers = response.headers_mut();
        let status = match message {
            Message::GrpcStatus => Some(toxic.values.count(0)),
            _ => toxic.values.optional_count(2).filter(|_| self.grpc),
        };
        if let Some(status) = status {
            // "Trailers-Only" of the protocol: there is no message before the status.
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert("grpc-status", HeaderValue::from(status));
            if let Ok(words) = HeaderValue::from_str(&percent(toxic.values.text(1))) {
                headers.insert("grpc-message", words);
            }
            return Some(response);
        }
        let status = u16::try_from(toxic.values.count(0)).ok().filter(|status| *status >= 200);
        let status = status.and_then(|status| StatusCode::from_u16(status).ok());
        let status = status.unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        let words = toxic.values.text(1);
        if !words.is_empty() && has_body(status) {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
            *response.body_mut() = full(Bytes::copy_from_slice(words.as_bytes()));
        }
        *response.status_mut() = status;
        Some(response)
    }

    /// Alters headers of this direction.
    pub(super) fn headers(&self, stream: Stream, headers: &mut HeaderMap, notes: &Notes) {
        for toxic in self.of(Message::Header, stream) {
            let Ok(name) = HeaderName::from_bytes(toxic.values.text(0).as_bytes()) else { continue };
            if FRAMING.contains(&name) {
                continue;
            }
            match toxic.values.text(1) {
                "" => drop(headers.remove(&name)),
                value => match HeaderValue::from_str(value) {
                    Ok(value) => drop(headers.insert(name, value)),
                    Err(_) => continue,
                },
            }
            hit(toxic, notes);
        }
    }

    /// What becomes of the body of this direction; the headers say so, too. `bare`: there is none whatever they say.
    pub(super) fn body(
        &self,
        stream: Stream,
        headers: &mut HeaderMap,
        bare: bool,
        notes: &Notes,
    ) -> BodyFault {
        let mut fault = BodyFault { replace: None, truncate: None };
        for toxic in self.of(Message::Body, stream).filter(|_| !bare) {
            let words = toxic.values.text(1);
            if !words.is_empty() {
                fault.replace = Some(Bytes::copy_from_slice(words.as_bytes()));
                headers.remove(TRANSFER_ENCODING);
                headers.insert(CONTENT_LENGTH, HeaderValue::from(words.len()));
                hit(toxic, notes);
            }
            if let Some(most) = toxic.values.optional_count(0) {
                let cut = Cut { after: most, toxic: toxic.clone() };
                fault.truncate = Some(match fault.truncate {
                    Some(other) if other.after < most => other,
                    _ => cut,
                });
            }
        }
        fault
    }
}

/// Whether an answer with this status has a body (RFC 9110 section 6.4.1).
pub(super) fn has_body(status: StatusCode) -> bool {
    !status.is_informational() && status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED
}

/// A body that is known.
pub(super) fn full(bytes: Bytes) -> Flow {
    Full::new(bytes).map_err(|never| -> Broken { match never {} }).boxed_unsync()
}

/// No body.
pub(super) fn empty() -> Flow {
    Empty::new().map_err(|never| -> Broken { match never {} }).boxed_unsync()
}

fn hit(toxic: &Toxic, notes: &Notes) {
    toxic.hits.fetch_add(1, Ordering::Relaxed);
    notes.fault(&toxic.name);
}

/// The delay of a toxic for who has drawn this share: `delay` ± `jitter`, at least 0, at most a year.
fn delay(toxic: &Toxic, share: f64) -> Duration {
    let (delay, jitter) = (toxic.values.count(0) as f64, toxic.values.count(1) as f64);
    let milliseconds = (delay + jitter * (2.0 * share - 1.0)).clamp(0.0, 365.0 * 86_400_000.0);
    Duration::from_secs_f64(milliseconds / 1000.0)
}

/// Words in a header of gRPC: what is not printable ASCII, and `%`, is escaped (gRPC over HTTP2, "Status-Message").
fn percent(words: &str) -> String {
    let escape = |byte| match byte {
        b' '..=b'$' | b'&'..=b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    words.bytes().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::percent;

    #[test]
    fn words_of_grpc_are_printable() {
        assert_eq!(percent("out of stock: 100 %\n"), "out of stock: 100 %25%0A");
        assert_eq!(percent("ä"), "%C3%A4");
    }
}
