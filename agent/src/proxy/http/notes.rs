//! What is noted of one request; it is kept when nobody has anything more to note.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;
use hyper::http::request::Parts;
use tokio::sync::watch;

use super::Seen;
use super::body::Broken;
use crate::host::queue::pace::now;
use crate::proxy::caller::Asked;
use crate::proxy::dependency::Dependency;
use crate::proxy::observations::{Record, Request, cut};

/// Headers that tell requests of one cause. None of them is a secret.
const CORRELATION: [&str; 8] = [
    "traceparent",
    "x-request-id",
    "x-correlation-id",
    "idempotency-key",
    "amz-sdk-invocation-id",
    "amz-sdk-request",
    "grpc-previous-rpc-attempts",
    "x-envoy-attempt-count",
];

/// Which of the two bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Request,
    Answer,
}

struct Open {
    record: Request,
    body: blake3::Hasher,
    whole: blake3::Hasher,
}

impl Open {
    /// The first end counts.
    fn end(&mut self, how: &'static str) {
        if self.record.answer_end_us == 0 {
            (self.record.how, self.record.answer_end_us) = (how, now() / 1000);
        }
    }
}

/// Notes on one request.
pub(super) struct Notes {
    dependency: Arc<Dependency>,
    caller: Asked,
    in_flight: Arc<AtomicU64>,
    alive: watch::Receiver<()>,
    seen: Seen,
    open: Mutex<Open>,
}

impl Notes {
    /// On a request that has just arrived.
    pub(super) fn new(
        dependency: Arc<Dependency>,
        caller: Asked,
        (client, connection, number): (String, u64, u64),
        head: &Parts,
        (alive, seen): (watch::Receiver<()>, Seen),
    ) -> Arc<Self> {
        let in_flight = dependency.counters.requests_open.clone();
        let count = in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        dependency.counters.requests.fetch_add(1, Ordering::Relaxed);
        let hasher = dependency.observations.hasher();
        let mut whole = hasher.clone();
        let query = head.uri.query().unwrap_or_default();
        let authorization = head.headers.get(AUTHORIZATION).map_or(&b""[..], |value| value.as_bytes());
        for part in
            [head.method.as_str().as_bytes(), head.uri.path().as_bytes(), query.as_bytes(), authorization]
        {
            whole.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
        let correlation = CORRELATION.iter().filter_map(|name| {
            let value = head.headers.get(*name)?.to_str().ok()?;
            Some(((*name).to_owned(), cut(value)))
        });
        let query_hash =
            if query.is_empty() { String::new() } else { short(hasher.clone().update(query.as_bytes())) };
        let record = Request {
            proxy: dependency.name.clone(),
            connection,
            request: number,
            client,
            in_flight: count,
            version: format!("{:?}", head.version),
            method: cut(head.method.as_str()),
            target: cut(head.uri.path()),
            query_hash,
            correlation: correlation.collect(),
            begun_us: now() / 1000,
            how: "client",
            ..Request::default()
        };
        let open = Mutex::new(Open { record, body: hasher, whole });
        Arc::new(Notes { dependency, caller, in_flight, alive, seen, open })
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A toxic does something to it.
    pub(super) fn fault(&self, name: &str) {
        let mut open = self.open();
        if open.record.faults.is_empty() {
            self.dependency.counters.requests_harmed.fetch_add(1, Ordering::Relaxed);
        }
        open.record.faults.push(cut(name));
    }

    /// Bytes of a body pass.
    pub(super) fn data(&self, part: Part, bytes: &[u8]) {
        let mut open = self.open();
        match part {
            Part::Request => {
                open.record.request_bytes += bytes.len() as u64;
                open.body.update(bytes);
                open.whole.update(bytes);
            }
            Part::Answer => open.record.answer_bytes += bytes.len() as u64,
        }
    }

    /// A body has passed to its end.
    pub(super) fn over(&self, part: Part) {
        let mut open = self.open();
        let now = now() / 1000;
        match part {
            Part::Request if open.record.request_end_us == 0 => {
                open.record.request_end_us = now;
                if open.record.request_bytes > 0 {
                    open.record.body_hash = short(&open.body);
                }
                open.record.fingerprint = short(&open.whole);
            }
            Part::Answer => open.end("answered"),
            Part::Request => {}
        }
    }

    /// Who sends a body went away.
    pub(super) fn broken(&self, part: Part, error: &Broken) {
        if part == Part::Answer {
            self.seen.failed(error);
        }
        // Where the whole connection was let go of, the dependency is not to blame.
        if self.alive.has_changed().is_err() {
            return;
        }
        self.ended(match part {
            Part::Request => "client",
            Part::Answer => "dependency",
        });
    }

    /// The head of the answer goes to the client.
    pub(super) fn answer(&self, status: u16, headers: &HeaderMap) {
        let mut open = self.open();
        open.record.status = status;
        open.record.answer_begun_us = now() / 1000;
        drop(open);
        self.grpc(headers);
    }

    /// Headers or trailers, which may hold a status of gRPC.
    pub(super) fn grpc(&self, headers: &HeaderMap) {
        if let Some(status) = headers.get("grpc-status").and_then(|status| status.to_str().ok()) {
            self.open().record.grpc_status = Some(cut(status));
        }
    }

    /// It ended so.
    pub(super) fn ended(&self, how: &'static str) {
        self.open().end(how);
    }
}

impl Drop for Notes {
    fn drop(&mut self) {
        if self.dependency.observations.on() {
            let mut record = std::mem::take(&mut self.open().record);
            if record.answer_end_us == 0 {
                record.answer_end_us = now() / 1000;
            }
            let caller = std::mem::take(&mut self.caller);
            self.dependency.observations.push(Record::Request(record), caller);
        }
        // Where none is under way, all have been noted.
        self.in_flight.fetch_sub(1, Ordering::Release);
    }
}

/// Sixteen hexadecimal digits: equal ones among a few thousand are of equal bytes.
fn short(hasher: &blake3::Hasher) -> String {
    hasher.finalize().to_hex()[..16].to_owned()
}
