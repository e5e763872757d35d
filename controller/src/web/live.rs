//! Pieces of a page as they change: server-sent events, as the HTML standard has them (section 9.2).
//!
//! Each stream remembers what it has sent, so that a piece that did not change is not sent again. A client that comes back
//! gets every piece once: nothing has to be counted.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Response;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::gamedays::{self, Hand};
use super::visit::{self, Visit};
use super::{overview, run};
use crate::api::Api;
use crate::api::problem::Problem;
use crate::api::sse::{self, Sends, Waiting};
use crate::report::html::Piece;

/// How long nothing is heard before it is looked anyway: hosts come and go, and another controller may have added something.
const LOOK: Duration = Duration::from_secs(1);
/// The least time between two looks: a browser draws no faster than one can read.
const PAUSE: Duration = Duration::from_millis(200);
/// How often a quiet stream says that it lives, and every stream looks whether its session is still valid.
const BEAT: Duration = Duration::from_secs(10);

/// What is followed.
pub(super) enum Source {
    /// What is active now.
    Overview {
        /// Whether who looks may lift a halt.
        may_lift: bool,
    },
    /// A run, on one of its hosts.
    Run {
        /// Its name.
        id: String,
        /// The host; empty: the one that says most.
        host: String,
    },
    /// A game day.
    GameDay {
        /// Its name.
        id: String,
        /// What who looks may do.
        hand: Hand,
    },
}

struct Following {
    api: Arc<Api>,
    source: Source,
    secret: Option<String>,
    sent: HashMap<&'static str, blake3::Hash>,
    ready: VecDeque<String>,
    ended: bool,
    beat: Instant,
    waiting: Waiting,
}

/// Follows it until it has ended, the session is over, or the server closes.
pub(super) fn of(api: &Arc<Api>, visit: &Visit, source: Source) -> Result<Response<Body>, Problem> {
    let waiting = Waiting::on(api, "close some, or load the page again from time to time")?;
    Ok(sse::response(Following {
        api: Arc::clone(api),
        source,
        secret: visit.secret.clone(),
        sent: HashMap::new(),
        // After how long a browser comes back.
        ready: VecDeque::from(["retry: 1000\n\n".to_owned()]),
        ended: false,
        beat: Instant::now(),
        waiting,
    }))
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
            if self.beat.elapsed() >= BEAT {
                self.beat = Instant::now();
                // The browser asks again, and is told to sign in.
                visit::who(&self.api, self.secret.as_deref(), false).await.ok()??;
                self.ready.push_back(": still here\n\n".to_owned());
            }
            self.waiting.begin();
            // The store may come back; so does the browser.
            let (pieces, ended) = self.look().await.ok()?;
            for (name, markup) in pieces {
                let hash = blake3::hash(markup.as_bytes());
                if self.sent.insert(name, hash) != Some(hash) {
                    // JSON has no line ends of its own.
                    let data = json!({ "piece": name, "markup": markup });
                    self.ready.push_back(format!("event: piece\ndata: {data}\n\n"));
                }
            }
            if ended {
                self.ended = true;
                self.ready.push_back("event: end\ndata: {}\n\n".to_owned());
            }
            if !self.ready.is_empty() {
                continue;
            }
            self.waiting.wait(LOOK).await;
            sleep(PAUSE).await;
        }
    }
}

impl Following {
    async fn look(&self) -> Result<(Vec<Piece>, bool), Problem> {
        match &self.source {
            Source::Overview { may_lift } => {
                let now = self.api.views.now(&self.api).await?;
                Ok((overview::pieces(&now, *may_lift), false))
            }
            Source::Run { id, host } => {
                let shown = run::shown(&self.api, id, host).await?;
                Ok((shown.pieces.clone(), shown.ended))
            }
            Source::GameDay { id, hand } => gamedays::shown(&self.api, id, hand).await,
        }
    }
}
