//! The events of a run or of a game day as they come: server-sent events, as the HTML standard has them (section 9.2).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use tokio::time::Instant;

use super::Api;
use super::problem::Problem;
use super::routes::{Answer, Call};
use super::sse::{self, Sends, Waiting};
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
    beat: Instant,
    waiting: Waiting,
}

/// Follows a run or a game day from an event on until it has ended, the token is no longer valid, or the server closes.
pub(crate) fn of(api: &Arc<Api>, of: Of, from: u64, who: Option<&Token>) -> Result<Answer, Problem> {
    let waiting = Waiting::on(api, "try again, or page through events")?;
    let (api, token) = (Arc::clone(api), who.map(|who| who.id.clone()));
    let (ready, beat) = (VecDeque::new(), Instant::now());
    let following = Following { api, of, next: from, token, ready, ended: false, beat, waiting };
    Ok(Answer::Other(sse::response(following)))
}

impl Sends for Following {
    async fn chunk(&mut self) -> Option<String> {
        loop {
            if let Some(chunk) = self.ready.pop_front() {
                return Some(chunk);
            }
            if self.ended || self.waiting.is_over() {
                return None;
            }
            self.waiting.begin();
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
            self.waiting.wait(LOOK).await;
        }
    }
}

impl Following {
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
