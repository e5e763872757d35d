//! One request after the other: from the client, through the toxics, to the dependency, and the answer back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::header::UPGRADE;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode, Version};
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;
use tokio::sync::{Mutex, watch};

use super::Seen;
use super::body::{Broken, Flow, Noted};
use super::drain::drain;
use super::faults::{Faults, Toxics, full, has_body};
use super::notes::{Notes, Part};
use crate::proxy::caller::Asked;
use crate::proxy::dependency::Dependency;
use crate::proxy::link::Place;
use crate::proxy::toxic::Stream;

/// How requests go on to the dependency.
pub(super) enum Sender {
    /// One after the other.
    First(Mutex<http1::SendRequest<Flow>>),
    /// All at once.
    Second(http2::SendRequest<Flow>),
}

/// The requests of one connection.
pub(super) struct Exchange {
    pub(super) dependency: Arc<Dependency>,
    pub(super) number: u64,
    pub(super) client: SocketAddr,
    pub(super) caller: Asked,
    pub(super) sender: Sender,
    pub(super) toxics: Toxics,
    pub(super) alive: watch::Receiver<()>,
    pub(super) seen: Seen,
    pub(super) requests: AtomicU64,
}

impl Exchange {
    /// The answer to a request. An error ends the connection; in HTTP/2 only the stream.
    pub(super) async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Flow>, Broken> {
        let number = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        let (mut head, incoming) = request.into_parts();
        let who = (self.client.to_string(), self.number, number);
        let ending = (self.alive.clone(), self.seen.clone());
        let notes = Notes::new(self.dependency.clone(), self.caller.clone(), who, &head, ending);
        let place = Place {
            seed: self.dependency.seed,
            proxy: &self.dependency.name,
            client: self.client.ip(),
            ..Place::at(self.number)
        };
        let faults = Faults::choose(&self.toxics, &head, place, number);
        let method = head.method.clone();
        faults.wait(Stream::Upstream, &self.toxics, &notes).await;
        let incoming = incoming.map_err(Broken::Peer).boxed_unsync();
        let mut response = match faults.answer(&notes) {
            Some(response) => {
                let rest = drain(Noted::around(incoming, notes.clone(), Part::Request, None));
                if head.version < Version::HTTP_2 {
                    rest.await;
                } else {
                    // A call may send its next message only when it has seen the head of the answer.
                    tokio::spawn(rest);
                }
                response
            }
            None => {
                faults.headers(Stream::Upstream, &mut head.headers, &notes);
                let cut = faults.body(Stream::Upstream, &mut head.headers, false, &notes);
                let body = match cut.replace {
                    Some(bytes) => {
                        tokio::spawn(drain(incoming));
                        full(bytes)
                    }
                    None => incoming,
                };
                let body = Noted::around(body, notes.clone(), Part::Request, cut.truncate);
                let response = self.send(Request::from_parts(head, body)).await;
                response.inspect_err(|error| notes.broken(Part::Answer, error))?
            }
        };
        faults.wait(Stream::Downstream, &self.toxics, &notes).await;
        faults.headers(Stream::Downstream, response.headers_mut(), &notes);
        let status = response.status();
        let bare = method == Method::HEAD || !has_body(status) || is_tunnel(&method, status);
        let cut = faults.body(Stream::Downstream, response.headers_mut(), bare, &notes);
        notes.answer(status.as_u16(), response.headers());
        Ok(response.map(|body| {
            let body = cut.replace.map_or(body, full);
            Noted::around(body, notes, Part::Answer, cut.truncate)
        }))
    }

    /// Passes a request on. Where both sides agree on another protocol, their bytes are carried from then on.
    async fn send(&self, mut request: Request<Flow>) -> Result<Response<Flow>, Broken> {
        let first = request.version() < Version::HTTP_2;
        let method = request.method().clone();
        let asks = first && (method == Method::CONNECT || request.headers().contains_key(UPGRADE));
        let near = asks.then(|| hyper::upgrade::on(&mut request));
        let mut response = match &self.sender {
            Sender::First(sender) => {
                let mut sender = sender.lock().await;
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Sender::Second(sender) => {
                let mut sender = sender.clone();
                sender.ready().await?;
                sender.send_request(request).await?
            }
        };
        if let Some(near) = near
            && is_tunnel(&method, response.status())
        {
            let far = hyper::upgrade::on(&mut response);
            tokio::spawn(tunnel(near, far, self.alive.clone(), self.seen.clone()));
        }
        Ok(response.map(|incoming| incoming.map_err(Broken::Peer).boxed_unsync()))
    }
}

/// Whether what follows an answer is no longer HTTP (RFC 9110 sections 7.8 and 9.3.6).
fn is_tunnel(method: &Method, status: StatusCode) -> bool {
    status == StatusCode::SWITCHING_PROTOCOLS || (*method == Method::CONNECT && status.is_success())
}

/// Carries bytes until one side ends, or the connection is over.
async fn tunnel(near: OnUpgrade, far: OnUpgrade, mut alive: watch::Receiver<()>, seen: Seen) {
    let carried = async {
        let (near, far) = tokio::try_join!(near, far)?;
        let (mut near, mut far) = (TokioIo::new(near), TokioIo::new(far));
        if let Err(error) = copy_bidirectional(&mut near, &mut far).await {
            seen.failed(&error);
            tracing::debug!("a tunnel ended: {error}");
        }
        Ok::<(), hyper::Error>(())
    };
    tokio::select! {
        result = carried => if let Err(error) = result {
            tracing::debug!("a tunnel did not begin: {error}");
        },
        _ = alive.changed() => {}
    }
}
