//! What all network namespaces of one worker have in common.

use super::redirect::held::Held;
use super::redirect::lease::Leases;
use super::redirect::proxy::Proxies;
use super::watch::Watch;
use crate::deputy::Hand;

/// See the module. A clone is the same.
#[derive(Clone, Debug)]
pub struct Means {
    /// Wakes the worker when something happens to a target.
    pub watch: Watch,
    /// What redirects hold by.
    pub leases: Leases,
    /// Which addresses they lead elsewhere.
    pub held: Held,
    /// What they lead to.
    pub proxies: Proxies,
    /// Shows itself while it waits.
    pub hand: Hand,
}

impl Means {
    /// Nothing is held yet.
    pub fn new(watch: Watch) -> Self {
        Means {
            watch,
            leases: Leases::default(),
            held: Held::default(),
            proxies: Proxies::default(),
            hand: Hand::default(),
        }
    }
}
