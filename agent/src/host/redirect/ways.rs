//! What stands in the kernel for a redirect: maps that say whose connections lead where, and the programs that read them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use squall_experiments::protocol::Refusal;

use super::lease::Lease;
use super::program::{self, Callers, Family, Maps, Protocols};
use crate::host::means::Means;
use crate::host::process::Cgroup;
use crate::host::sys;

/// `BPF_MAP_TYPE_HASH`.
const HASH: u32 = 1;
/// A family, and for it two of `enum bpf_attach_type`: on the way out, and on the way back.
pub(super) type Hook = (Family, u32, u32);
/// For connect(2), and for getpeername(2).
pub(super) const CONNECTIONS: [Hook; 2] = [(Family::V4, 10, 29), (Family::V6, 11, 30)];
/// For datagrams of sockets that are not connected: where they go, and whom those that come are from.
pub(super) const DATAGRAMS: [Hook; 2] = [(Family::V4, 14, 19), (Family::V6, 15, 20)];
/// As many addresses of a dependency are led elsewhere.
const MOST: u32 = 1024;

/// The key or the value by which the programs know an address: 16 bytes of it, and the port as it is on the wire.
pub(super) fn entry(address: SocketAddr) -> [u8; 20] {
    let mut entry = [0; 20];
    let v6 = match address.ip() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    entry[..16].copy_from_slice(&v6.octets());
    entry[16..18].copy_from_slice(&address.port().to_be_bytes());
    entry
}

/// Where an address leads, with a counter behind it.
fn way(to: SocketAddr) -> [u8; 32] {
    let mut value = [0; 32];
    value[..20].copy_from_slice(&entry(to));
    value
}

/// What stands in the kernel for it.
#[derive(Debug)]
pub(super) struct Ways {
    lease: Lease,
    ways: OwnedFd,
    back: OwnedFd,
    groups: OwnedFd,
    /// The programs act while these are open.
    pub(super) links: Vec<OwnedFd>,
    pub(super) known: BTreeMap<SocketAddr, SocketAddr>,
    grouped: BTreeSet<u64>,
}

pub(super) fn refused(what: &'static str) -> impl Fn(io::Error) -> Refusal {
    move |error| {
        Refusal::new(
            format!("connections cannot be led to the proxy: cannot {what}: {error}"),
            "it needs root on the host itself (CAP_BPF and CAP_NET_ADMIN, no user namespace) and a kernel with \
             CONFIG_CGROUP_BPF (Linux 5.14 or newer)",
        )
    }
}

impl Ways {
    pub(super) fn new() -> Result<Self, Refusal> {
        let map = |key, value| sys::bpf_map(HASH, key, value, MOST).map_err(refused("make a BPF map"));
        Ok(Ways {
            lease: Lease::new().map_err(refused("make a BPF map"))?,
            ways: map(20, 32)?,
            back: map(20, 20)?,
            groups: map(8, 4)?,
            links: Vec::new(),
            known: BTreeMap::new(),
            grouped: BTreeSet::new(),
        })
    }

    /// One more address leads elsewhere.
    pub(super) fn lead(&mut self, from: SocketAddr, to: SocketAddr) -> io::Result<()> {
        sys::bpf_put(self.back.as_fd(), &entry(to), &entry(from))?;
        sys::bpf_put(self.ways.as_fd(), &entry(from), &way(to))?;
        self.known.insert(from, to);
        Ok(())
    }

    /// The control groups of the callers are these, and those that were.
    pub(super) fn group(&mut self, groups: &BTreeSet<u64>) -> io::Result<()> {
        for id in groups {
            if self.grouped.insert(*id) {
                sys::bpf_put(self.groups.as_fd(), &id.to_ne_bytes(), &1u32.to_ne_bytes())?;
            }
        }
        Ok(())
    }

    /// The programs act from now on.
    pub(super) fn open(&mut self, callers: Callers, hooks: &[Hook], means: &Means) -> Result<(), Refusal> {
        let cookie = sys::netns_cookie().map_err(refused("read the namespace's cookie"))?;
        let root = File::open(Cgroup::root()?).map_err(refused("open the root control group"))?;
        means.leases.hold(&self.lease).map_err(refused("fill a BPF map"))?;
        let maps = Maps {
            lease: self.lease.as_fd(),
            ways: self.ways.as_fd(),
            back: self.back.as_fd(),
            groups: self.groups.as_fd(),
        };
        let protocols = if hooks.len() > CONNECTIONS.len() { Protocols::Both } else { Protocols::Tcp };
        let mut links = Vec::new();
        for (family, connect, peername) in hooks.iter().copied() {
            let programs = [
                (peername, program::asking(family, maps, cookie, protocols)),
                (connect, program::connecting(family, callers, maps, cookie, protocols)),
            ];
            for (hook, program) in programs {
                let program = sys::bpf_load(sys::SOCK_ADDR, hook, *b"squall_lead\0\0\0\0\0", &program)
                    .map_err(refused("load a BPF program"))?;
                links.push(
                    sys::bpf_link(program.as_fd(), root.as_fd(), hook)
                        .map_err(refused("attach a BPF program"))?,
                );
            }
        }
        self.links = links;
        Ok(())
    }

    /// How many connections were led elsewhere so far.
    pub(super) fn led(&self) -> u64 {
        let count = |from: &SocketAddr| {
            let mut value = [0; 32];
            let found = sys::bpf_get(self.ways.as_fd(), &entry(*from), &mut value);
            let counter = value[24..].try_into().map(u64::from_ne_bytes).unwrap_or(0);
            if matches!(found, Ok(true)) { counter } else { 0 }
        };
        self.known.keys().map(count).sum()
    }
}

/// Whether this kernel takes the programs: loaded, never attached.
pub fn trial() -> Result<(), Refusal> {
    let ways = Ways::new()?;
    let maps = Maps {
        lease: ways.lease.as_fd(),
        ways: ways.ways.as_fd(),
        back: ways.back.as_fd(),
        groups: ways.groups.as_fd(),
    };
    let callers = Callers { bit: 1 << 20, level: Some(1), except: 65_520 };
    for (family, connect, peername) in CONNECTIONS.into_iter().chain(DATAGRAMS) {
        for (hook, program) in [
            (connect, program::connecting(family, callers, maps, 1, Protocols::Both)),
            (peername, program::asking(family, maps, 1, Protocols::Both)),
        ] {
            sys::bpf_load(sys::SOCK_ADDR, hook, *b"squall_trial\0\0\0\0", &program)
                .map_err(refused("load a BPF program"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn an_address_is_known_by_sixteen_bytes_and_its_port() {
        let v4 = entry("10.1.2.3:443".parse().unwrap());
        assert_eq!(v4[..12], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
        assert_eq!(v4[12..], [10, 1, 2, 3, 1, 187, 0, 0]);
        let v6 = entry(SocketAddr::new(Ipv6Addr::LOCALHOST.into(), 80));
        assert_eq!((v6[15], &v6[16..]), (1, [0u8, 80, 0, 0].as_slice()));
        assert_eq!(way(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 80))[12..20], [127, 0, 0, 1, 0, 80, 0, 0]);
    }

    #[test]
    fn the_kernel_takes_the_programs_of_every_scope() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        trial().unwrap();
    }
}
