//! The events of a run or of a game day as they come: server-sent events, as the HTML standard has them (section 9.2).

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use futures_util::stream::unfold;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, timeout};

use super::Api;
use super::problem::Problem;
use super::routes::{Answer, Call};
use crate::store::{LIVE, Token};

/// How many events are read at a time.
const PAGE: u64 = 500;
/// How long nothing is heard before the store is looked at: another controller may have added something.
const LOOK: Duration = Duration::from_secs(1);
/// How often a quiet stream says that it lives, and looks whether its token is still valid.
const BEAT: Duration = Duration::from_secs(10);

/// What is followed, by its id.
pub(crate) enum Of {
    /// A run.
    Run(String),
    /// A game day.
    GameDay(String),
}

/// From which event on a stream is wanted: `Last-Event-ID` is what a client had; a client that never had anything says where it
/// begins.
pub(crate) fn from(call: &Call) -> Result<u64, Problem> {
    match call.last_event.as_deref().map(str::parse::<u64>) {
        Some(Ok(last)) => Ok(last.saturating_add(1)),
        Some(Err(_)) => Err(Problem::bare(StatusCode::BAD_REQUEST, "`Last-Event-ID` is not a number")),
        None => call.number("from", 0, u64::MAX >> 1),
    }
}

struct Following {
    api: Arc<Api>,
    of: Of,
    next: u64,
    token: Option<String>,
    ready: VecDeque<String>,
    ended: bool,
    changes: watch::Receiver<u64>,
    closing: watch::Receiver<bool>,
    beat: Instant,
    _permit: OwnedSemaphorePermit,
}

/// Follows a run or a game day from an event on until it has ended, the token is no longer valid, or the server closes.
pub(crate) fn of(api: &Arc<Api>, of: Of, from: u64, who: Option<&Token>) -> Result<Answer, Problem> {
    let permit = Arc::clone(&api.streams).try_acquire_owned().map_err(|_| {
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too many streams are open",
            "try again, or page through events",
        )
    })?;
    let following = Following {
        api: Arc::clone(api),
        of,
        next: from,
        token: who.map(|who| who.id.clone()),
        ready: VecDeque::new(),
        ended: false,
        changes: api.store.changes(),
        closing: api.closing.subscribe(),
        beat: Instant::now(),
        _permit: permit,
    };
    let chunks = unfold(following, |mut following| async move {
        let chunk = following.chunk().await?;
        Some((Ok::<_, Infallible>(chunk), following))
    });
    let mut response = Response::new(Body::from_stream(chunks));
    let kind = HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(Answer::Other(response))
}

impl Following {
    /// What is sent next; `None`: this was all.
    async fn chunk(&mut self) -> Option<String> {
        loop {
            if let Some(chunk) = self.ready.pop_front() {
                return Some(chunk);
            }
            if self.ended || *self.closing.borrow() {
                return None;
            }
            self.changes.mark_unchanged();
            // The state is read before the events: what is added between the two is not missed by the end.
            let (state, events) = match self.look().await {
                Ok(Some(seen)) => seen,
                Ok(None) => return None,
                // The store may come back; the client continues where it was.
                Err(_) => return None,
            };
            for (seq, event) in events {
                // An event is one line; should it ever hold more, each needs its own field.
                let lines: Vec<&str> = event.lines().collect();
                self.ready.push_back(format!("id: {seq}\ndata: {}\n\n", lines.join("\ndata: ")));
                self.next = seq + 1;
            }
            if !self.ready.is_empty() {
                continue;
            }
            if !LIVE.contains(&state.as_str()) && state != "open" && state != "stopping" {
                self.ended = true;
                return Some(format!("event: end\ndata: {}\n\n", serde_json::json!({ "state": state })));
            }
            if self.beat.elapsed() >= BEAT {
                self.beat = Instant::now();
                if !self.still_valid().await {
                    return None;
                }
                return Some(": still here\n\n".to_owned());
            }
            let changed = async {
                tokio::select! {
                    _ = self.changes.changed() => {}
                    _ = self.closing.changed() => {}
                }
            };
            let _ = timeout(LOOK, changed).await;
        }
    }

    async fn look(&self) -> Result<Option<(String, Vec<(u64, String)>)>, crate::store::StoreError> {
        let store = &self.api.store;
        Ok(match &self.of {
            Of::Run(id) => match store.run(id).await? {
                Some(run) => Some((run.state, store.events(id, self.next, PAGE).await?)),
                None => None,
            },
            Of::GameDay(id) => match store.game_day(id).await? {
                Some(day) => Some((day.state, store.game_day_events(id, self.next, PAGE).await?)),
                None => None,
            },
        })
    }

    async fn still_valid(&self) -> bool {
        let Some(id) = &self.token else { return true };
        let now = crate::store::now_ms();
        let tokens = self.api.store.tokens().await.unwrap_or_default();
        tokens.iter().any(|token| {
            token.id == *id && token.revoked_at.is_none() && token.expires_at.is_none_or(|end| end > now)
        })
    }
}
