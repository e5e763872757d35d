//! The way to the collector: spans are gathered for a second, sent together, and sent again where that may help.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::http::Method;
use serde_json::Value;
use squall_experiments::quantity::Period;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::span::{self, Span};
use super::target::Target;
use crate::ask::{self, Asking};

/// How many spans wait at most; of more the newest are dropped.
const WAITING: usize = 4096;
/// How many are sent together at most.
const TOGETHER: usize = 512;
/// How long they are gathered.
const GATHERED: Duration = Duration::from_secs(1);
/// How long the collector may take to answer.
const PATIENCE: Period = Period::from_secs(10);
/// How often spans are tried.
const ATTEMPTS: u32 = 5;
/// The longest wait between two attempts.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// How long the last spans may take at the end.
const FAREWELL: Duration = Duration::from_secs(5);

/// Where spans are put to be sent. They are sent by a task, which ends with this.
pub(super) struct Export {
    spans: mpsc::Sender<Span>,
    dropped: AtomicU64,
    closing: watch::Sender<bool>,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// What became of some spans.
enum Sent {
    Taken,
    Refused(String),
    Later { why: String, after: Option<Duration> },
}

impl Export {
    /// Begins to send; needs a runtime.
    pub(super) fn to(target: Target) -> Export {
        let (spans, waiting) = mpsc::channel(WAITING);
        let closing = watch::Sender::new(false);
        let task = tokio::spawn(send_all(target, waiting, closing.subscribe()));
        Export { spans, dropped: AtomicU64::new(0), closing, task: Mutex::new(Some(task)) }
    }

    /// Puts a span to the others; where too many wait it is dropped.
    pub(super) fn put(&self, span: Span) {
        if self.spans.try_send(span).is_ok() {
            return;
        }
        let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
        // Once for each ten times as many.
        if dropped.checked_ilog10().is_some_and(|digits| dropped == 10u64.pow(digits)) {
            tracing::warn!(
                dropped,
                "spans are dropped: the collector of traces takes them too slowly, or not at all"
            );
        }
    }

    /// Sends what waits, for 5 s at most, and ends.
    pub(super) async fn close(&self) {
        self.closing.send_replace(true);
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task
            && timeout(FAREWELL, task).await.is_err()
        {
            tracing::warn!("the last spans were not sent in time");
        }
    }
}

async fn send_all(target: Target, mut spans: mpsc::Receiver<Span>, closing: watch::Receiver<bool>) {
    let mut over = closing.clone();
    let mut over = std::pin::pin!(async move { drop(over.wait_for(|closing| *closing).await) });
    let (mut ending, mut failing) = (false, false);
    let mut batch = Vec::new();
    loop {
        if !ending {
            tokio::select! {
                first = spans.recv_many(&mut batch, TOGETHER), if batch.is_empty() => ending = first == 0,
                () = sleep(GATHERED), if !batch.is_empty() => {}
                () = &mut over => ending = true,
            }
        }
        while batch.len() < TOGETHER
            && let Ok(span) = spans.try_recv()
        {
            batch.push(span);
        }
        if batch.is_empty() {
            if ending {
                return;
            }
            continue;
        }
        let sent = send(&target, &batch, &closing).await;
        let count = batch.len();
        batch.clear();
        match sent {
            Ok(()) if std::mem::take(&mut failing) => tracing::info!("the collector takes spans again"),
            Ok(()) => {}
            // Once, until it works again.
            Err(why) if !std::mem::replace(&mut failing, true) => {
                tracing::warn!(spans = count, why, "spans are dropped");
            }
            Err(_) => {}
        }
    }
}

/// Sends spans, again where that may help and nobody waits for the end.
async fn send(target: &Target, batch: &[Span], closing: &watch::Receiver<bool>) -> Result<(), String> {
    let body = span::request(&target.resource, batch).to_string();
    let mut wait = Duration::from_secs(1);
    let mut attempts = 0;
    loop {
        attempts += 1;
        // What was begun before the end was near is tried once more.
        let last = attempts == ATTEMPTS || *closing.borrow();
        let (why, after) = match once(target, body.clone()).await {
            Sent::Taken => return Ok(()),
            Sent::Refused(why) => return Err(why),
            Sent::Later { why, after } => (why, after),
        };
        if last {
            return Err(why);
        }
        let mut closing = closing.clone();
        tokio::select! {
            () = sleep(after.unwrap_or(wait).min(LONGEST_WAIT)) => {}
            _ = closing.wait_for(|closing| *closing) => {}
        }
        wait *= 2;
    }
}

async fn once(target: &Target, body: String) -> Sent {
    let asking = Asking {
        method: Method::POST,
        url: &target.url,
        body: Some(body),
        token: None,
        headers: target.headers.clone(),
        ca: target.ca.as_deref(),
        timeout: PATIENCE,
    };
    let answered = match ask::once(asking).await {
        Ok(answered) => answered,
        Err(error) => return Sent::Later { why: error.to_string(), after: None },
    };
    match answered.status {
        200..300 => match rejected(&answered.body) {
            Some(why) => Sent::Refused(why),
            None => Sent::Taken,
        },
        // Those that the standard says to try again.
        status @ (429 | 502 | 503 | 504) => {
            let after = answered.retry_after.and_then(|after| after.trim().parse().ok());
            let why = format!("the collector answered {status}");
            Sent::Later { why, after: after.map(Duration::from_secs) }
        }
        status => Sent::Refused(format!("the collector answered {status}")),
    }
}

/// What a collector says that it has not taken, though it answers that all is well.
fn rejected(body: &[u8]) -> Option<String> {
    let said: Value = serde_json::from_slice(body).ok()?;
    let partial = &said["partialSuccess"];
    let count = &partial["rejectedSpans"];
    let count = count.as_u64().or_else(|| count.as_str()?.parse().ok()).filter(|count| *count > 0)?;
    let why = partial["errorMessage"].as_str().unwrap_or("without a reason");
    let why: String = why.chars().filter(|c| !c.is_control()).take(200).collect();
    Some(format!("the collector has rejected {count} spans: {why}"))
}
