//! The interface for people and pipelines: HTTP with JSON, tokens, and one table of routes.
//!
//! The table ([`routes`]) drives everything: the router, who may call what, the OpenAPI document and the tests. Every request
//! passes the same gate ([`gate`]) before a handler sees it: name of this server, origin, token, role, size. What alters
//! something is in the audit log before it is done; a halt comes first, and is written down after.
//!
//! | file | what it is for |
//! |---|---|
//! | [`engine`] | what the interface asks of the rest of the controller: the only seam |
//! | [`routes`] | the table |
//! | [`gate`] | who gets through |
//! | [`server`] | connections, with TLS or on loopback |
//! | [`client`] | the other end, for the command line |
//! | [`openapi`] | the table as an OpenAPI document |
//! | `rate` | how often somebody may ask |
//! | [`problem`] | errors (RFC 9457) |
//! | `access`, `hosts`, `plans`, `runs`, `gamedays`, `schedules`, `halts`, `notify`, `audit`, `state` | the handlers |

mod access;
pub(crate) mod audit;
pub mod client;
pub mod engine;
pub(crate) mod gamedays;
pub mod gate;
pub(crate) mod halts;
pub(crate) mod hosts;
mod metrics;
mod notify;
pub mod openapi;
mod plans;
pub mod problem;
pub mod routes;
pub(crate) mod runs;
pub(crate) mod schedules;
pub mod server;
pub(crate) mod sse;
mod state;
mod stream;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::{Semaphore, watch};

use crate::config::Config;
use crate::gameday::GameDays;
use crate::launch::Launch;
use crate::notify::Notifier;
use crate::rate::{OF_A_TOKEN, OF_AN_ADDRESS, Rates};
use crate::scheduler::Scheduler;
use crate::store::{Minted, NewToken, Role, Secrets, Store, StoreError};
use crate::traces::Traces;
use crate::web::Views;
use engine::Engine;
use gate::{Failures, Known};
pub(crate) use halts::{HALT, blocked, halted};
use metrics::Counts;
pub use plans::Approvals;

/// How many live streams of events there are at most.
const STREAMS: usize = 256;

/// Everything that handlers use.
pub struct Api {
    pub(crate) store: Store,
    pub(crate) secrets: Secrets,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) launch: Launch,
    pub(crate) scheduler: Scheduler,
    pub(crate) notifier: Notifier,
    traces: Traces,
    pub(crate) gamedays: GameDays,
    /// By which names, besides those of loopback, this server may be called.
    names: BTreeSet<String>,
    failures: Failures,
    pub(crate) known: Known,
    addresses: Rates<IpAddr>,
    tokens: Rates<String>,
    pub(crate) counts: Counts,
    pub(crate) streams: Arc<Semaphore>,
    pub(crate) closing: watch::Sender<bool>,
    /// What pages of runs show, made once for all who look.
    pub(crate) views: Views,
}

impl Api {
    /// The interface over a store. `names` are the host names and addresses under which it is reached besides loopback's;
    /// `approvals` is whether runs need one.
    pub fn new(
        store: Store,
        secrets: Secrets,
        engine: Arc<dyn Engine>,
        names: BTreeSet<String>,
        approvals: Approvals,
    ) -> Arc<Self> {
        Api::under(Config::default(), store, secrets, engine, names, approvals)
    }

    /// The same under a configuration: calendars, gates, budget, and who is notified.
    pub fn under(
        config: Config,
        store: Store,
        secrets: Secrets,
        engine: Arc<dyn Engine>,
        names: BTreeSet<String>,
        approvals: Approvals,
    ) -> Arc<Self> {
        let notifier = Notifier::new(config.notify.clone(), config.address.clone(), store.clone());
        let launch = Launch::new(config, approvals, store.clone(), Arc::clone(&engine));
        let scheduler = Scheduler::new(launch.clone(), store.clone());
        Arc::new(Api {
            gamedays: GameDays::new(launch.clone(), scheduler.clone(), store.clone()),
            scheduler,
            launch,
            notifier,
            traces: engine.traces(),
            store,
            secrets,
            engine,
            names: names.into_iter().map(|name| name.to_ascii_lowercase()).collect(),
            failures: Failures::default(),
            known: Known::default(),
            addresses: Rates::new(OF_AN_ADDRESS),
            tokens: Rates::new(OF_A_TOKEN),
            counts: Counts::default(),
            streams: Arc::new(Semaphore::new(STREAMS)),
            closing: watch::Sender::new(false),
            views: Views::default(),
        })
    }

    /// What begins runs by itself.
    pub fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }

    /// What tells people of what happens.
    pub fn notifier(&self) -> &Notifier {
        &self.notifier
    }

    /// What carries game days on.
    pub fn gamedays(&self) -> &GameDays {
        &self.gamedays
    }

    /// Ends live streams and, once they have answered, connections. For a shutdown.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }
}

/// Makes the first administrator's token where there is none yet; it is given once, to be written to a file of its owner.
pub async fn first_token(store: &Store, secrets: &Secrets) -> Result<Option<Minted>, StoreError> {
    if store.tokens().await?.iter().any(|token| token.role == Role::Admin && token.revoked_at.is_none()) {
        return Ok(None);
    }
    let minted = secrets.mint("token");
    let new = NewToken {
        id: access::new_id(),
        hash: minted.hash.clone(),
        name: "first".to_owned(),
        role: Role::Admin,
        made_by: "squall serve".to_owned(),
        expires_at: None,
    };
    store
        .audit("squall serve", serde_json::json!({ "did": "made the first token", "token": new.id }))
        .await?;
    store.new_token(new).await?;
    Ok(Some(minted))
}
