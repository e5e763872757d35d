//! Which addresses are the proxy's own: a dependency that leads back to its proxy would be connected to for ever.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, PoisonError, RwLock};

use super::dependency::Dependency;
use super::names::literal;

/// How many proxies one after the other are followed.
const DEEPEST: usize = 64;

/// The proxies that listen, by port.
#[derive(Clone, Debug, Default)]
pub struct Routes(Arc<RwLock<HashMap<u16, Vec<Arc<Dependency>>>>>);

impl Routes {
    /// This one listens from now on.
    pub fn add(&self, dependency: Arc<Dependency>) {
        let mut routes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        routes.entry(dependency.listen.port()).or_default().push(dependency);
    }

    /// This one listens no more.
    pub fn remove(&self, dependency: &Dependency) {
        let mut routes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let port = dependency.listen.port();
        if let Some(here) = routes.get_mut(&port) {
            here.retain(|other| other.id != dependency.id);
            if here.is_empty() {
                routes.remove(&port);
            }
        }
    }

    /// Whether a connection to this address, made for this dependency, would come back to it: directly, or through
    /// other proxies here as far as their addresses are written as numbers or as `localhost`.
    pub fn lead_back(&self, dependency: &Dependency, target: SocketAddr) -> bool {
        let routes = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut target = Some(target);
        for _ in 0..DEEPEST {
            let Some(address) = target else { return false };
            let Some(here) = routes.get(&address.port()) else { return false };
            let Some(hit) = here.iter().find(|other| meets(other.listen, address)) else { return false };
            if hit.id == dependency.id {
                return true;
            }
            target = literal(&hit.upstream).and_then(|addresses| addresses.first().copied());
        }
        true
    }
}

/// Whether who connects to an address meets a listener.
fn meets(listen: SocketAddr, target: SocketAddr) -> bool {
    if listen.port() != target.port() {
        return false;
    }
    let target = target.ip().to_canonical();
    if target.is_unspecified() {
        // Linux takes it for loopback (net/ipv4/route.c).
        return listen.ip().is_unspecified() || listen.ip().is_loopback();
    }
    if listen.ip().is_unspecified() { is_local(target) } else { listen.ip().to_canonical() == target }
}

/// Whether an address is one of this host: only then a socket can be bound to it.
fn is_local(address: IpAddr) -> bool {
    address.is_loopback() || UdpSocket::bind((address, 0)).is_ok()
}
