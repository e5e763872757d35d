//! Proxies behind sockets that somebody else has bound, and the end of all connections at once.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use super::{Control, ControlError, Order, Proxy, Shown, Wanted};

impl Control {
    /// Makes a proxy that listens on a socket which is bound to `listen`; what is wanted says nothing of that.
    pub fn adopt(&self, wanted: &Wanted, socket: OwnedFd, listen: SocketAddr) -> Result<Shown, ControlError> {
        wanted.require()?;
        let mut proxy = Proxy::read(wanted)?;
        let mut proxies = self.lock();
        if proxies.contains_key(&wanted.name) {
            return Err(ControlError::ProxyExists);
        }
        self.serve(&mut proxy, socket, listen)?;
        Ok(self.keep(&mut proxies, proxy))
    }

    /// Resets every connection of every proxy: both peers see it.
    pub fn abort(&self) {
        self.tell(|| Order::Abort);
    }
}
