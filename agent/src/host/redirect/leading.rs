//! Addresses that come while a redirect is live: of a name that is asked again, and of name servers.

use std::net::SocketAddr;

use squall_experiments::ailment::Ailment;

use super::{Live, addresses, is_free};
use crate::host::aim::{Aim, News};
use crate::host::means::Means;
use crate::host::sys;

/// After how long an address is tried again that could not be led to the proxy, in nanoseconds.
const AGAIN: u64 = 2_000_000_000;

/// An address that could not be led to the proxy.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unled {
    /// Where the proxy carries it already: it must not be told twice.
    to: Option<SocketAddr>,
    /// When it is tried again, on the boot clock.
    next: u64,
}

impl Live {
    /// A name has been asked again: its new addresses lead to the proxy, too.
    pub fn hear(&mut self, news: &News, means: &Means, aim: &Aim<'_>) {
        if !self.peers.name(&news.name) || self.cut_short.is_some() {
            return;
        }
        let joined = self.peers.join(&news.name, &news.addresses);
        news.incidents(&joined).into_iter().for_each(|what| self.happened(what));
        let (wanted, _) = addresses(&self.peers, aim);
        for address in wanted {
            self.lead(address, means);
        }
    }

    fn is_new(&self, address: SocketAddr) -> bool {
        !self.ways.known.contains_key(&address) && !self.unled.contains_key(&address)
    }

    /// One more address is led to the proxy. Whether it was not before.
    fn lead(&mut self, address: SocketAddr, means: &Means) -> bool {
        if !self.is_new(address) {
            return false;
        }
        let led = self.try_lead(address, None, means);
        if let Some(Err(why)) = &led {
            self.happened(format!("{address} could not be led to the proxy, which is tried again: {why}"));
        }
        matches!(led, Some(Ok(())))
    }

    /// Tries it; `None` where the proxy has gone. What fails is kept, to be tried again.
    fn try_lead(
        &mut self,
        address: SocketAddr,
        carried: Option<SocketAddr>,
        means: &Means,
    ) -> Option<Result<(), String>> {
        let next = sys::boot_nanos() + AGAIN;
        if let Err(who) = self.hold.take(address, &means.held) {
            self.unled.insert(address, Unled { to: carried, next });
            return Some(Err(format!("it is led to the proxy of another outage: run {who}")));
        }
        let to = match carried {
            Some(to) => Ok(to),
            None => means.proxies.with(&self.proxy, |proxy| proxy.carry(address, &self.task))?,
        };
        let to = match to {
            Ok(to) => to,
            Err(refusal) => {
                self.unled.insert(address, Unled { to: None, next });
                return Some(Err(refusal.what));
            }
        };
        let led = self.ways.lead(address, to).map_err(|error| error.to_string());
        match &led {
            Ok(()) => drop(self.unled.remove(&address)),
            Err(_) => drop(self.unled.insert(address, Unled { to: Some(to), next })),
        }
        Some(led)
    }

    /// What could not be led to the proxy may be by now, as when an address of the loopback interface has come.
    pub(super) fn lead_again(&mut self, means: &Means, aim: &Aim<'_>) {
        let now = sys::boot_nanos();
        let due = self.unled.iter().filter(|(_, unled)| unled.next <= now);
        let due: Vec<_> = due.map(|(address, unled)| (*address, unled.to)).collect();
        for (address, carried) in due {
            if is_free(address, aim) && matches!(self.try_lead(address, carried, means), Some(Ok(()))) {
                self.happened(format!("{address} is led to the proxy after all"));
            }
        }
    }

    /// Whom the target asks for names may have changed: new servers are led to the proxy, too, and new search domains are
    /// meant. Those that were stay so.
    pub(super) fn follow_servers(&mut self, means: &Means, aim: &Aim<'_>) {
        let followed = self.followed.as_mut();
        let Some(found) = followed.and_then(|followed| followed.again(sys::boot_nanos())) else { return };
        if let Ailment::Lookup { names, .. } = &mut self.task.ailment {
            let fresh: Vec<String> = found.names.into_iter().filter(|name| !names.contains(name)).collect();
            if !fresh.is_empty() {
                names.extend(fresh.iter().cloned());
                means.proxies.with(&self.proxy, |proxy| proxy.mean(&fresh));
                self.happened(format!("a new search domain: lookups of {} are met, too", fresh.join(", ")));
            }
        }
        for server in found.servers {
            // First what costs nothing: this is asked once a second.
            if self.is_new(server) && is_free(server, aim) && self.lead(server, means) {
                self.happened(format!("a new name server: lookups at {server} are met, too"));
            }
        }
    }
}
