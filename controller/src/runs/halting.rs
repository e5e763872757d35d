//! Halts over controllers that share a store: a host is connected to one of them, and a halt may be asked of any.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use squall_experiments::protocol::{Lifted, Refusal};
use tokio::time::{Instant, timeout};

use super::Runs;
use super::takeover::HALTS;
use crate::fleet::unreached;
use crate::store::{HostHalt, StoreError};

/// How long the controller that has a host may take to say that it does; where none does, the host is connected to none.
const TAKEN: Duration = Duration::from_secs(3);
/// How long it may take to say what it did.
const DONE: Duration = Duration::from_secs(35);

impl Runs {
    /// Begins the halts of hosts that another controller was asked for, of those that are connected here and are not in `begun`,
    /// where they are put.
    pub(super) fn halt_for_others(&self, wanted: Vec<HostHalt>, begun: &mut BTreeSet<HostHalt>) {
        let wanted: BTreeSet<HostHalt> = wanted.into_iter().collect();
        begun.retain(|of| wanted.contains(of));
        for of in wanted {
            if self.0.hub.has(&of.host) && begun.insert(of.clone()) {
                tracing::warn!(host = of.host, "a host is halted, as another controller was asked to");
                tokio::spawn(self.clone().halt_for_another(of));
            }
        }
    }

    async fn halt_for_another(self, of: HostHalt) {
        let (store, hub, hosts) = (&self.0.store, &self.0.hub, [of.host.clone()]);
        // What is undone does not wait until it is kept that it is.
        let (taken, did) = tokio::join!(store.take_host_halt(&of), hub.halt(Some(&hosts)));
        let did = did.get(&of.host).map(serde_json::to_string).and_then(Result::ok).unwrap_or_default();
        if let Err(error) = taken.and(store.host_halted(&of, &did).await) {
            tracing::warn!(host = of.host, %error, "who asked for the halt of a host is not told what became of it");
        }
    }

    /// Halts hosts, whichever controller they are connected to; gives what became of each.
    pub(super) async fn halt_hosts(&self, hosts: &[String]) -> BTreeMap<String, Result<Lifted, Refusal>> {
        let has = |host: &String| !self.0.store.is_shared() || self.0.hub.has(host);
        let (here, elsewhere): (Vec<String>, Vec<String>) = hosts.iter().cloned().partition(has);
        // At the same time: a store that does not answer does not keep a fault alive.
        let (mut did, others) =
            tokio::join!(self.0.hub.halt(Some(here.as_slice())), self.halt_elsewhere(&elsewhere));
        did.extend(others);
        // A connection that was thought to be here may be dead, and its host with another controller by now.
        if self.0.store.is_shared() {
            let lost = |host: &&String| did.get(*host).is_none_or(Result::is_err);
            let lost: Vec<String> = here.iter().filter(lost).cloned().collect();
            let found = self.halt_elsewhere(&lost).await;
            did.extend(found.into_iter().filter(|(_, said)| said.is_ok()));
        }
        did
    }

    /// Has hosts halted by the controllers that are connected to them.
    async fn halt_elsewhere(&self, hosts: &[String]) -> BTreeMap<String, Result<Lifted, Refusal>> {
        if hosts.is_empty() {
            return BTreeMap::new();
        }
        let mut did = BTreeMap::new();
        let mut taken = BTreeSet::new();
        let why = match timeout(DONE, self.ask_elsewhere(hosts, &mut did, &mut taken)).await {
            Ok(Ok(())) => "no controller on this database is connected to it".to_owned(),
            Ok(Err(error)) => format!("it is not connected here, and {error}"),
            Err(_) => "it is not connected here, and the store does not answer".to_owned(),
        };
        for host in hosts {
            let why = match taken.contains(host) {
                true => "the controller that is connected to it has not said what it did",
                false => why.as_str(),
            };
            did.entry(host.clone()).or_insert_with(|| Err(unreached(host, why)));
        }
        did
    }

    /// Puts what others did into `did`, and whom they have into `taken`, until nothing more can come.
    async fn ask_elsewhere(
        &self,
        hosts: &[String],
        did: &mut BTreeMap<String, Result<Lifted, Refusal>>,
        taken: &mut BTreeSet<String>,
    ) -> Result<(), StoreError> {
        let mut orders = self.0.store.orders();
        let asked = timeout(TAKEN, self.0.store.want_host_halts(hosts)).await;
        let halt = asked.map_err(|_| StoreError::Away("no answer in time".to_owned()))??;
        let begun = Instant::now();
        loop {
            orders.mark_unchanged();
            for of in self.0.store.host_halts(&halt).await? {
                if of.taken {
                    taken.insert(of.host.clone());
                }
                if let Some(said) = of.did.filter(|_| !did.contains_key(&of.host)) {
                    let said = serde_json::from_str(&said);
                    let odd =
                        |error| Err(unreached(&of.host, &format!("what it did is not understood: {error}")));
                    did.insert(of.host.clone(), said.unwrap_or_else(odd));
                }
            }
            let open = hosts.iter().filter(|host| !did.contains_key(*host));
            let waits = |host: &String| taken.contains(host) || begun.elapsed() < TAKEN;
            if !open.into_iter().any(waits) {
                return Ok(());
            }
            let _ = timeout(HALTS, orders.changed()).await;
        }
    }
}
