//! What is looked at before each run begins, scheduled or not. Whatever cannot be told refuses: every gate fails closed.
//!
//! | file | what it is for |
//! |---|---|
//! | `hook` | what others say: an HTTP hook, a figure of Prometheus |
//! | `hosts` | the hosts that the plan touches are well and clean |

mod hook;
mod hosts;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;
use squall_experiments::schedule::{Bars, Calendar};

use crate::api::engine::{Engine, Planned};
use crate::config::Config;
use crate::store::Store;

pub use hook::Hook;

/// What one gate said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Outcome {
    /// Its name.
    pub gate: String,
    /// Whether a run may begin.
    pub passed: bool,
    /// Why, or why not.
    pub why: String,
}

impl Outcome {
    /// One that lets pass.
    pub fn passes(gate: impl Into<String>, why: impl Into<String>) -> Self {
        Outcome { gate: gate.into(), passed: true, why: why.into() }
    }

    /// One that does not.
    pub fn refuses(gate: impl Into<String>, why: impl Into<String>) -> Self {
        Outcome { gate: gate.into(), passed: false, why: why.into() }
    }
}

/// The gates of a controller.
#[derive(Clone)]
pub struct Gates {
    config: Arc<Config>,
    store: Store,
    engine: Arc<dyn Engine>,
}

impl Gates {
    /// Those of a configuration.
    pub fn new(config: Arc<Config>, store: Store, engine: Arc<dyn Engine>) -> Self {
        Gates { config, store, engine }
    }

    /// Asks every gate, those that refuse too, so that all reasons are known at once. Takes as long as the slowest hook.
    pub async fn ask(&self, planned: &Planned, now: Timestamp) -> Vec<Outcome> {
        let known = self.engine.hosts().await;
        let mut outcomes = vec![hosts::well(planned, &known)];
        outcomes.push(hosts::clean(planned, &known, &self.store).await);
        if !self.config.freezes.is_empty() {
            outcomes.push(self.freezes(now).await);
        }
        let hooks = self.config.gates.iter().map(|hook| hook.ask(planned));
        outcomes.extend(futures_util::future::join_all(hooks).await);
        outcomes
    }

    /// What the freezes bar between two instants.
    ///
    /// Errors: a calendar that cannot be told, in a sentence.
    pub fn frozen(
        config: &Config,
        calendars: &BTreeMap<String, Calendar>,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Bars, String> {
        let mut bars = Vec::new();
        for name in &config.freezes {
            let calendar = calendars.get(name).ok_or_else(|| format!("there is no calendar `{name}`"))?;
            bars.extend(
                calendar
                    .bars(&config.zone, from, to)
                    .map_err(|error| format!("the calendar `{name}`: {error}"))?,
            );
        }
        Ok(Bars::new(bars))
    }

    async fn freezes(&self, now: Timestamp) -> Outcome {
        let config = Arc::clone(&self.config);
        let second = jiff::SignedDuration::from_secs(1);
        let told = tokio::task::spawn_blocking(move || {
            let calendars = config.calendars().map_err(|error| error.to_string())?;
            let until = now.checked_add(second).unwrap_or(now);
            let bars = Gates::frozen(&config, &calendars, now, until)?;
            Ok::<_, String>(bars.at(now).map(|bar| bar.why.clone()))
        });
        match told.await {
            Ok(Ok(None)) => Outcome::passes("freezes", "no change freeze goes on"),
            Ok(Ok(Some(why))) => Outcome::refuses("freezes", format!("a change freeze goes on: {why}")),
            Ok(Err(why)) => Outcome::refuses("freezes", why),
            Err(error) => Outcome::refuses("freezes", error.to_string()),
        }
    }
}
