//! How a connection begins: accepted, let through its gate, connected on.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{SocketAddrAny, SocketFlags, acceptfrom_with};

use super::{CLIENT, GATE, LISTENER, Order, REST, SERVER, Shard};
use crate::host::queue::pace::now;
use crate::proxy::connection::{Connection, Side};
use crate::proxy::gate::Verdict;
use crate::proxy::names::literal;
use crate::proxy::slab::Key;

impl Shard {
    pub(super) fn accept(&mut self, key: Key) {
        let Some(listener) = self.listeners.get(key) else { return };
        let (client, address) =
            match acceptfrom_with(&listener.socket, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok((client, address)) => (client, from(address)),
                Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                    tracing::warn!(
                        "`{}`: no descriptors are left for more connections",
                        listener.dependency.name
                    );
                    let _ = epoll::delete(&self.poll, &listener.socket);
                    return self.timers.add(now() + REST, key.mark(LISTENER));
                }
                // Another shard was faster, or the client has left.
                Err(_) => return,
            };
        let dependency = listener.dependency.clone();
        let connection = Connection::new(dependency, (client, address), &listener.toxics, now());
        let key = self.connections.insert(connection);
        if self.watch(key, Side::Client) {
            self.admit(key, now());
        }
    }

    /// Lets a connection through its gate, if the time has come.
    fn admit(&mut self, key: Key, now: u64) {
        let Some(connection) = self.connections.get(key) else { return };
        match connection.gate.as_ref().map_or(Verdict::Open, |gate| gate.verdict(now)) {
            Verdict::Until(time) => self.timers.add(time, key.mark(GATE)),
            Verdict::Refuse => {
                connection.dependency.counters.refused.fetch_add(1, Ordering::Relaxed);
                if let Some(gate) = connection.gate.take() {
                    connection.observed.faults(gate.passed());
                }
                connection.observed.ended_by_proxy("refused");
                connection.abort();
                self.forget(key);
            }
            Verdict::Open => {
                if let Some(gate) = connection.gate.take() {
                    connection.observed.faults(gate.passed());
                }
                self.reach(key);
            }
        }
    }

    /// As [`Self::admit`], where it has not been let through yet.
    pub(super) fn admit_waiting(&mut self, key: Key, now: u64) {
        if self.connections.get(key).is_some_and(|connection| connection.gate.is_some()) {
            self.admit(key, now);
        }
    }

    /// Begins to connect to the dependency, once its addresses are known.
    fn reach(&mut self, key: Key) {
        let Some(connection) = self.connections.get(key) else { return };
        let upstream = connection.dependency.upstream.clone();
        if let Some(addresses) = literal(&upstream) {
            return self.try_addresses(key, addresses);
        }
        if let Some((until, addresses)) = self.known.get(&upstream)
            && *until > now()
        {
            let addresses = addresses.clone();
            return self.try_addresses(key, addresses);
        }
        let handle = self.handle.clone();
        self.names.ask(upstream.clone(), move |addresses| {
            handle.send(Order::Resolved(key, upstream, addresses), None);
        });
    }

    /// Waits for events of a socket. Where that cannot be done the connection is closed.
    fn watch(&mut self, key: Key, side: Side) -> bool {
        let Some(socket) = self.connections.get(key).and_then(|connection| connection.socket(side)) else {
            return false;
        };
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        let data = EventData::new_u64(key.mark(if side == Side::Client { CLIENT } else { SERVER }));
        let watched = epoll::add(&self.poll, socket.as_fd(), data, flags).is_ok();
        if !watched {
            self.forget(key);
        }
        watched
    }

    pub(super) fn try_addresses(&mut self, key: Key, mut addresses: Vec<SocketAddr>) {
        let Some(connection) = self.connections.get(key) else { return };
        let dependency = connection.dependency.clone();
        if addresses.iter().any(|address| self.routes.lead_back(&dependency, *address)) {
            dependency.counters.looped.fetch_add(1, Ordering::Relaxed);
            connection.observed.ended_by_proxy("looped");
            tracing::warn!(
                "`{}`: its upstream `{}` leads back to it; the connection is closed",
                dependency.name,
                dependency.upstream
            );
            self.forget(key);
            return;
        }
        addresses.reverse();
        connection.untried = addresses;
        self.dial(key, None);
    }

    /// Tries the next address; where none is left the client sees its connection end.
    pub(super) fn dial(&mut self, key: Key, failed: Option<io::Error>) {
        let Some(connection) = self.connections.get(key) else { return };
        let mut last = failed;
        while let Some(begun) = connection.dial() {
            match begun {
                Ok(()) => {
                    self.watch(key, Side::Server);
                    return;
                }
                Err(error) => last = Some(error),
            }
        }
        connection.observed.ended_by_proxy("unreached");
        let dependency = &connection.dependency;
        dependency.counters.unreached.fetch_add(1, Ordering::Relaxed);
        let why = last.map_or_else(|| "it has no address".to_owned(), |error| error.to_string());
        tracing::info!("`{}`: `{}` cannot be reached: {why}", dependency.name, dependency.upstream);
        self.forget(key);
    }

    /// Whoever understands requests takes the dependency's place.
    pub(super) fn hand_over(&mut self, key: Key) {
        let Some(connection) = self.connections.get(key) else { return };
        if let Some(socket) = connection.socket(Side::Server) {
            let _ = epoll::delete(&self.poll, socket);
        }
        match (connection.hand_over(), self.http.get()) {
            (Ok(Some(handed)), Some(http)) => {
                http.give(handed);
                self.watch(key, Side::Server);
            }
            _ => self.forget(key),
        }
    }
}

/// Whose address it is; every socket here has one.
fn from(address: Option<SocketAddrAny>) -> SocketAddr {
    let address = address.and_then(|address| SocketAddr::try_from(address).ok());
    address.unwrap_or((Ipv4Addr::UNSPECIFIED, 0).into())
}
