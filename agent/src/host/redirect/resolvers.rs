//! Whom a target asks for names: the servers of its resolv.conf(5).

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use hickory_resolver::system_conf::parse_resolv_conf;
use squall_experiments::flow::Flow;
use squall_experiments::protocol::Refusal;

use crate::host::view::{View, Viewpoint};

/// The port of DNS.
const PORT: u16 = 53;
/// How often the files are looked at again, in nanoseconds.
const AGAIN: u64 = 1_000_000_000;
/// Where systemd-resolved answers those who ask it without DNS (nss-resolve(8)).
const RESOLVED: &str = "/run/systemd/resolve/io.systemd.Resolve";
/// Where nscd(8) does.
const CACHE: &str = "/run/nscd/socket";

/// Whom a target asks, for what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Resolvers {
    /// The servers.
    pub(super) servers: BTreeSet<SocketAddr>,
    /// The name, and the name in each search domain.
    pub(super) names: Vec<String>,
    /// What is asked by other ways.
    pub(super) notes: Vec<String>,
}

/// The files that say so, looked at again while the fault lasts: who is asked may change, as when a machine comes to
/// another network.
#[derive(Debug)]
pub(super) struct Followed {
    flow: Flow,
    name: String,
    /// When they are looked at next, on the boot clock.
    next: u64,
}

impl Followed {
    /// For lookups of this name.
    pub(super) fn new(flow: &Flow, name: &str, now: u64) -> Self {
        Followed { flow: flow.clone(), name: name.to_owned(), next: now + AGAIN }
    }

    /// What they say now; `None` where it is not yet time, or where they name no server, cannot be read or are not there,
    /// as while somebody writes them: what they said last holds.
    pub(super) fn again(&mut self, now: u64) -> Option<Resolvers> {
        if now < self.next {
            return None;
        }
        self.next = now + AGAIN;
        named(&self.flow, &self.name).ok().filter(|resolvers| !resolvers.servers.is_empty())
    }
}

/// Reads the files of the place from which names are seen.
pub(super) fn of(flow: &Flow, name: &str) -> Result<Resolvers, Refusal> {
    let mut resolvers = named(flow, name)?;
    if resolvers.servers.is_empty() {
        // Without any, this host is asked (resolv.conf(5)).
        resolvers.servers.insert(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), PORT));
    }
    Ok(resolvers)
}

/// What of this host's own lookups no packet will be seen of, where somebody else answers the C library.
pub fn unseen() -> Vec<String> {
    let order = fs::read("/etc/nsswitch.conf").unwrap_or_default();
    other_ways(&String::from_utf8_lossy(&order), (Path::new(RESOLVED).exists(), Path::new(CACHE).exists()))
}

/// The same, with those servers only that are named there.
fn named(flow: &Flow, name: &str) -> Result<Resolvers, Refusal> {
    let viewpoint = Viewpoint::at(flow.scope.as_ref());
    let view = View::from(&viewpoint).map_err(|why| {
        Refusal::new(
            format!("it cannot be told who is asked for names {viewpoint}: {why}"),
            "look at its `/etc/resolv.conf`",
        )
    })?;
    let here = view.is_none();
    let (servers, order) = match view {
        Some(view) => (view.servers, view.order),
        None => (
            fs::read("/etc/resolv.conf").unwrap_or_default(),
            fs::read("/etc/nsswitch.conf").unwrap_or_default(),
        ),
    };
    let exists = |path: &str| here && Path::new(path).exists();
    Ok(read(name, &servers, &String::from_utf8_lossy(&order), (exists(RESOLVED) || !here, exists(CACHE))))
}

fn read(name: &str, servers: &[u8], order: &str, (resolved, cache): (bool, bool)) -> Resolvers {
    let parsed = parse_resolv_conf(servers).map(|(config, _)| config).ok();
    let mut found: BTreeSet<SocketAddr> = BTreeSet::new();
    let mut names = vec![name.trim_end_matches('.').to_owned()];
    if let Some(config) = parsed {
        found.extend(config.name_servers().iter().map(|server| SocketAddr::new(server.ip, PORT)));
        if !name.ends_with('.') {
            let domains = config.search().iter().chain(config.domain());
            let domains = domains.map(|domain| domain.to_utf8().trim_matches('.').to_owned());
            for domain in domains.filter(|domain| !domain.is_empty()) {
                let full = format!("{name}.{domain}");
                if !names.contains(&full) {
                    names.push(full);
                }
            }
        }
    }
    let notes = other_ways(order, (resolved, cache));
    Resolvers { servers: found, names, notes }
}

/// Who answers the C library beside name servers, by its order of ways.
fn other_ways(order: &str, (resolved, cache): (bool, bool)) -> Vec<String> {
    let hosts = order.lines().filter_map(|line| line.trim().strip_prefix("hosts:"));
    let by_resolve = hosts.flat_map(str::split_whitespace).any(|way| way == "resolve");
    let mut notes = Vec::new();
    if by_resolve && resolved {
        notes.push(
            "lookups by the C library go to systemd-resolved over a unix socket (`resolve` in `/etc/nsswitch.conf`): no \
             packet of them will be seen, and they are not harmed"
                .to_owned(),
        );
    }
    if cache {
        notes.push(
            "nscd runs: it answers lookups of the C library from what it keeps, and asks as a process of its own"
                .to_owned(),
        );
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_search_domains_and_other_ways_are_read() {
        let file =
            b"nameserver 127.0.0.53\nnameserver 2001:db8::1\nsearch prod.internal internal\noptions edns0\n";
        let read =
            read("shop", file, "passwd: files\nhosts: files resolve [!UNAVAIL=return] dns\n", (true, false));
        let servers: Vec<String> = read.servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["127.0.0.53:53", "[2001:db8::1]:53"]);
        assert_eq!(read.names, ["shop", "shop.prod.internal", "shop.internal"]);
        assert!(read.notes.len() == 1 && read.notes[0].contains("no packet"), "{:?}", read.notes);
    }

    #[test]
    fn a_file_without_servers_names_none_and_a_last_dot_ends_a_name() {
        let read = read("shop.", b"search internal\n", "", (true, true));
        assert!(read.servers.is_empty(), "{:?}", read.servers);
        assert_eq!(read.names, ["shop"]);
        assert!(read.notes.len() == 1 && read.notes[0].starts_with("nscd"), "{:?}", read.notes);
    }
}
