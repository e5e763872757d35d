//! What is noted of a connection while it lives.

use std::net::SocketAddr;

use super::caller::Asked;
use super::connection::Side;
use super::observations::Connection;
use super::toxic::Stream;

/// Notes. Times are those of the shard, in nanoseconds of the monotonic clock; 0 is never.
#[derive(Debug)]
pub struct Observed {
    client: SocketAddr,
    open: u64,
    accepted: u64,
    connected: u64,
    first: [u64; 2],
    last: [u64; 2],
    ended: [u64; 2],
    broken: [bool; 2],
    bytes: [u64; 2],
    faults: Vec<String>,
    by_proxy: Option<&'static str>,
    /// Which process is on the other end.
    pub caller: Asked,
}

impl Observed {
    /// Of a connection that was accepted now.
    pub fn new(client: SocketAddr, open: u64, now: u64) -> Self {
        Observed {
            client,
            open,
            accepted: now,
            connected: 0,
            first: [0; 2],
            last: [0; 2],
            ended: [0; 2],
            broken: [false; 2],
            bytes: [0; 2],
            faults: Vec::new(),
            by_proxy: None,
            caller: Asked::default(),
        }
    }

    /// Who made it.
    pub fn client(&self) -> SocketAddr {
        self.client
    }

    /// The dependency has answered.
    pub fn connected(&mut self, now: u64) {
        self.connected = now;
    }

    /// So many bytes were read.
    pub fn data(&mut self, stream: Stream, now: u64, bytes: usize) {
        let at = stream as usize;
        if self.first[at] == 0 {
            self.first[at] = now;
        }
        self.last[at] = now;
        self.bytes[at] += bytes as u64;
    }

    /// A peer will send no more; `broken`: it has reset the connection.
    pub fn ended(&mut self, side: Side, now: u64, broken: bool) {
        let at = side as usize;
        if self.ended[at] == 0 {
            self.ended[at] = now;
        }
        self.broken[at] |= broken;
    }

    /// The proxy itself ends it, for this reason; the first one counts.
    pub fn ended_by_proxy(&mut self, how: &'static str) {
        self.by_proxy.get_or_insert(how);
    }

    /// These toxics did something.
    pub fn faults(&mut self, names: impl IntoIterator<Item = String>) {
        self.faults.extend(names);
    }

    /// What is kept of it.
    pub fn record(&mut self, proxy: &str, number: u64, now: u64) -> Connection {
        let us = |ns: u64| ns / 1000;
        let (closed_by, how) = self.end();
        Connection {
            proxy: proxy.to_owned(),
            connection: number,
            client: self.client.to_string(),
            open: self.open,
            accepted_us: us(self.accepted),
            connected_us: us(self.connected),
            first_upstream_us: us(self.first[0]),
            last_upstream_us: us(self.last[0]),
            first_downstream_us: us(self.first[1]),
            last_downstream_us: us(self.last[1]),
            closed_us: us(now),
            client_ended_us: us(self.ended[0]),
            dependency_ended_us: us(self.ended[1]),
            upstream_bytes: self.bytes[0],
            downstream_bytes: self.bytes[1],
            faults: std::mem::take(&mut self.faults),
            closed_by,
            how,
        }
    }

    /// Who ended it first, and how.
    fn end(&self) -> (&'static str, &'static str) {
        if let Some(how) = self.by_proxy {
            return ("proxy", how);
        }
        let [client, dependency] = self.ended;
        let how = |side: Side| if self.broken[side as usize] { "reset" } else { "fin" };
        match (client, dependency) {
            (0, 0) => ("proxy", "stopped"),
            (_, 0) => ("client", how(Side::Client)),
            (0, _) => ("dependency", how(Side::Server)),
            (client, dependency) if client <= dependency => ("client", how(Side::Client)),
            _ => ("dependency", how(Side::Server)),
        }
    }
}
