//! Which addresses are led to a proxy, and for whose callers: an address leads to one proxy only. Faults are told apart by what
//! they name; that two names come to the same address is known only here.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use squall_experiments::flow::Flow;
use squall_experiments::scope::Scope;

use crate::host::reach;

/// What one redirect holds. Dropped, it holds nothing.
#[derive(Debug)]
pub(super) struct Hold(Arc<Mutex<Holding>>);

#[derive(Debug)]
struct Holding {
    /// The cookie of the network namespace in which the addresses mean something.
    network: u64,
    /// Whose connections.
    flow: Flow,
    /// Who is asked about it: the run, and the dependency.
    who: String,
    addresses: BTreeSet<SocketAddr>,
}

impl Holding {
    /// Whether a connection to an address could be meant by both.
    fn meets(&self, network: u64, flow: &Flow, address: SocketAddr) -> bool {
        let callers = |flow: &Flow| Flow { scope: flow.scope.clone(), ..Flow::default() };
        // What a host alone can tell was told before, of all that is live: here only what has come to an address since.
        let apart = |new: &Scope, old: &Scope| new.apart(old) || reach::apart(new, old, || None);
        self.network == network
            && self.addresses.contains(&address)
            && callers(flow).meets(&callers(&self.flow), &apart).is_some()
    }
}

/// What all redirects of a worker hold. A clone is the same.
#[derive(Clone, Debug, Default)]
pub struct Held(Arc<Mutex<Vec<Weak<Mutex<Holding>>>>>);

impl Held {
    fn all(&self) -> Vec<Arc<Mutex<Holding>>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|holding| holding.strong_count() > 0);
        all.iter().filter_map(Weak::upgrade).collect()
    }

    /// Who holds an address in a network for callers that could be these, if anybody does.
    pub(super) fn by(&self, network: u64, flow: &Flow, address: SocketAddr) -> Option<String> {
        self.all().into_iter().find_map(|holding| {
            let holding = holding.lock().unwrap_or_else(PoisonError::into_inner);
            holding.meets(network, flow, address).then(|| holding.who.clone())
        })
    }

    /// A redirect that holds nothing yet.
    pub(super) fn begin(&self, network: u64, flow: &Flow, who: String) -> Hold {
        let holding = Holding { network, flow: flow.clone(), who, addresses: BTreeSet::new() };
        let holding = Arc::new(Mutex::new(holding));
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&holding));
        Hold(holding)
    }
}

impl Hold {
    /// Holds one more address, unless somebody else does: then who.
    pub(super) fn take(&self, address: SocketAddr, held: &Held) -> Result<(), String> {
        let (network, flow) = {
            let mine = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if mine.addresses.contains(&address) {
                return Ok(());
            }
            (mine.network, mine.flow.clone())
        };
        if let Some(who) = held.by(network, &flow, address) {
            return Err(who);
        }
        self.0.lock().unwrap_or_else(PoisonError::into_inner).addresses.insert(address);
        Ok(())
    }

    /// Nothing is led anywhere any more.
    pub(super) fn let_go(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).addresses.clear();
    }
}

#[cfg(test)]
mod tests {
    use squall_experiments::scope::Scope;

    use super::*;

    fn of(user: Option<&str>) -> Flow {
        Flow { scope: user.map(|user| Scope::User(user.to_owned())), ..Flow::default() }
    }

    #[test]
    fn an_address_is_held_once_for_the_same_callers_and_as_long_as_its_redirect_lives() {
        let held = Held::default();
        let address: SocketAddr = "10.0.0.7:5432".parse().expect("an address");
        let first = held.begin(1, &of(None), "run one".to_owned());
        assert_eq!((first.take(address, &held), first.take(address, &held)), (Ok(()), Ok(())));
        assert_eq!(held.by(1, &of(Some("shop")), address), Some("run one".to_owned()));
        let second = held.begin(1, &of(None), "run two".to_owned());
        assert_eq!(second.take(address, &held), Err("run one".to_owned()));
        assert_eq!(held.begin(2, &of(None), String::new()).take(address, &held), Ok(()), "another network");
        drop(first);
        assert_eq!(second.take(address, &held), Ok(()));
        second.let_go();
        let mine = held.begin(1, &of(Some("shop")), "run three".to_owned());
        assert_eq!(mine.take(address, &held), Ok(()));
        let theirs = held.begin(1, &of(Some("mail")), "run four".to_owned());
        assert_eq!(theirs.take(address, &held), Ok(()), "other callers");
    }
}
