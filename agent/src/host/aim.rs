//! Aiming: peers become networks, scopes become processes; what is protected is left out, and nothing is an error.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use blake3::Hasher;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;
use squall_experiments::flow::Flow;
use squall_experiments::peer::{Peer, PeerHost, Ports};
use squall_experiments::protocol::Refusal;
use squall_experiments::quantity::Pick;
use squall_experiments::scope::Scope;

use super::cgroup::Group;
use super::container::Container;
use super::peers::Peers;
use super::process::{Processes, Target, uid_of};
use super::site::Site;
use super::sockets::{Listed, Sockets};
use super::view::Viewpoint;
use super::witness::{Sight, Sights};
use crate::policy::{FILE, Policy, Wards};
use crate::veto::{self, Veto};

/// What is known of the host and of the request while a change is prepared. The host is looked at when it is asked for.
#[derive(Debug)]
pub struct Aim<'a> {
    /// What the host's owner allows.
    pub policy: &'a Policy,
    /// The addresses of every name in the request.
    pub resolved: &'a Resolved,
    ours: BTreeSet<i32>,
    sights: Option<&'a Sights>,
    from: Viewpoint,
    controllers: &'a [SocketAddr],
    links: OnceCell<BTreeSet<SocketAddr>>,
    veto: OnceCell<Veto>,
    login_ports: OnceCell<BTreeSet<u16>>,
    sockets: OnceCell<Option<Vec<Listed>>>,
}

/// The addresses of every name, as resolved for one request.
pub type Resolved = BTreeMap<String, Vec<IpAddr>>;

/// What was heard when a name was asked again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Which name.
    pub name: String,
    /// From where it was asked.
    pub from: Viewpoint,
    /// All its addresses now.
    pub addresses: Vec<IpAddr>,
    /// Those that have left the answer since it was asked before.
    pub left: Vec<IpAddr>,
    /// Those that a fault does not meet, and what is in the way.
    pub held: Vec<(IpAddr, String)>,
    /// How it was, where that has changed: it cannot be asked any more, or can be again.
    pub asking: Option<String>,
}

impl News {
    /// For the report. `joined` are the addresses that a fault had not met before.
    pub fn incidents(&self, joined: &[IpAddr]) -> Vec<String> {
        let name = &self.name;
        let asking = self.asking.iter().map(|how| format!("{name}: {how}"));
        let joined = joined.iter().map(|address| format!("{name}: {address} joined"));
        let left = self
            .left
            .iter()
            .map(|address| format!("{name}: {address} left the answer, and is met until the fault ends"));
        let held = self.held.iter().map(|(address, why)| format!("{name}: {address} is left out: {why}"));
        asking.chain(joined).chain(held).chain(left).collect()
    }
}

/// A peer after names have been resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// The network; `None` is every address.
    pub network: Option<(IpAddr, u8)>,
    /// Which ports.
    pub ports: Option<Ports>,
    /// The name that was resolved.
    pub name: Option<String>,
}

impl Network {
    /// Everything contains loopback without naming it.
    pub fn leaves_out_loopback(&self) -> bool {
        self.network.is_none_or(|(_, bits)| bits == 0)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.network.map_or(PeerHost::Any, |(address, bits)| PeerHost::Net(address, bits));
        write!(f, "{}", Peer { host, ports: self.ports })?;
        self.name.as_ref().map_or(Ok(()), |name| write!(f, " ({name})"))
    }
}

/// What a scope came to.
#[derive(Debug)]
pub struct Chosen {
    /// The processes, never none.
    pub targets: Vec<Target>,
    /// What was left out.
    pub notes: Vec<String>,
}

impl<'a> Aim<'a> {
    /// `ours` are the pids of the guardian and of the commands that are connected.
    pub fn new(policy: &'a Policy, resolved: &'a Resolved, ours: BTreeSet<i32>) -> Self {
        Aim {
            policy,
            resolved,
            ours,
            sights: None,
            from: Viewpoint::Host,
            controllers: &[],
            links: OnceCell::new(),
            veto: OnceCell::new(),
            login_ports: OnceCell::new(),
            sockets: OnceCell::new(),
        }
    }

    /// The same, with what probes have seen before.
    pub fn having_seen(self, sights: &'a Sights) -> Self {
        Aim { sights: Some(sights), ..self }
    }

    /// The same, knowing by which addresses the agent is led.
    pub fn led_by(self, controllers: &'a [SocketAddr]) -> Self {
        Aim { controllers, ..self }
    }

    /// The same, for a change whose names are seen from there.
    pub fn seen_from(self, from: Viewpoint) -> Self {
        Aim { from, ..self }
    }

    /// What probes have seen of a flow before its fault.
    pub fn sight(&self, flow: &Flow) -> Option<&'a Sight> {
        self.sights?.get(&(self.from.clone(), flow.clone()))
    }

    /// The same, with nothing seen yet of processes and ports: for another network namespace.
    pub fn anew(&self) -> Self {
        self.with(self.resolved)
    }

    /// The same, with names resolved at another time.
    pub fn with<'b>(&self, resolved: &'b Resolved) -> Aim<'b>
    where
        'a: 'b,
    {
        let Aim { sights, controllers, .. } = *self;
        let from = self.from.clone();
        Aim { sights, from, controllers, ..Aim::new(self.policy, resolved, self.ours.clone()) }
    }

    fn veto(&self) -> &Veto {
        self.veto.get_or_init(|| Veto::now(self.policy, &self.ours))
    }

    /// Whether a process that has just been found may be hit.
    pub fn may_hit(&self, target: &Target) -> bool {
        !veto::protects(self.policy, target)
    }

    /// The ports of remote logins.
    pub fn login_ports(&self) -> &BTreeSet<u16> {
        self.login_ports.get_or_init(|| veto::login_ports(self.sockets()))
    }

    /// All sockets of this network namespace, listed once: the kernel goes through its whole table for each list.
    pub(super) fn sockets(&self) -> Option<&[Listed]> {
        self.sockets.get_or_init(|| Sockets::open().and_then(|mut all| all.all()).ok()).as_deref()
    }

    /// Where Squall's own connections lead: to the controllers of the agent, and from the commands that are connected to it.
    pub fn links(&self) -> &BTreeSet<SocketAddr> {
        self.links.get_or_init(|| {
            let own = veto::connections(&self.ours, self.sockets().unwrap_or_default()).into_iter();
            own.chain(self.controllers.iter().copied()).collect()
        })
    }

    /// The processes of a scope without the protected ones. None left is an error that says why.
    pub fn processes(&self, processes: &Processes, scope: &Scope) -> Result<Chosen, Refusal> {
        let found = processes.of(scope)?;
        if found.is_empty() {
            return Err(Refusal::new(
                format!("no process here matches {scope}"),
                "look with `ps`; names are exact (at most 15 bytes), and only this network namespace is searched",
            ));
        }
        let (targets, notes) = self.veto().apply(found);
        if targets.is_empty() {
            return Err(Refusal::new(
                format!("every process that matches {scope} is protected: {}", notes.join("; ")),
                "choose another target; protection cannot be switched off",
            ));
        }
        Ok(Chosen { targets, notes })
    }

    /// That nobody whom the policy protects sends or gets what a change touches as a whole: a scope that is not made of processes
    /// cannot leave one out.
    pub fn spares(&self, site: &Site) -> Result<(), Refusal> {
        let wards = Wards::of(self.policy)?;
        let Some(flow) = site.change.flow().filter(|_| !wards.are_none()) else { return Ok(()) };
        let within = |members: Vec<Target>| wards.among(&members);
        let found = match (site.at, &flow.scope) {
            (Some(network), _) => wards.inside(network.inode),
            (None, Some(Scope::User(user))) => wards.of_user(uid_of(user)?),
            (None, Some(scope @ (Scope::Cgroup(_) | Scope::Unit(_)))) => {
                within(Group::of(scope)?.processes())
            }
            (None, Some(Scope::Container(name))) => within(Container::find(name)?.processes()),
            (None, _) => None,
        };
        found.map_or(Ok(()), |why| {
            Err(Refusal::new(
                format!(
                    "the traffic of a process that is protected cannot be left out of this fault's: {why}"
                ),
                format!("choose another target; the owner of this host decides, in `{FILE}`"),
            ))
        })
    }

    /// Peers with every name resolved.
    pub fn networks(&self, peers: &[Peer]) -> Result<Vec<Network>, Refusal> {
        let mut networks = Vec::new();
        for Peer { host, ports } in peers {
            let ports = *ports;
            match host {
                PeerHost::Any => networks.push(Network { network: None, ports, name: None }),
                PeerHost::Net(address, bits) => {
                    networks.push(Network { network: Some((*address, *bits)), ports, name: None });
                }
                PeerHost::Name(name) => {
                    let addresses = self.resolved.get(name).filter(|addresses| !addresses.is_empty());
                    let addresses = addresses.ok_or_else(|| {
                        Refusal::new(
                            format!("the name `{name}` does not resolve on this host"),
                            "check the spelling and this host's resolver (`getent ahosts NAME`)",
                        )
                    })?;
                    networks.extend(addresses.iter().map(|address| {
                        let bits = if address.is_ipv4() { 32 } else { 128 };
                        Network { network: Some((*address, bits)), ports, name: Some(name.clone()) }
                    }));
                }
            }
        }
        Ok(networks)
    }

    /// Whether a connection belongs to a flow's peers and may be touched.
    pub fn hits(&self, socket: &Listed, peers: &Peers) -> bool {
        let carved = || {
            self.login_ports().contains(&socket.local.1)
                || self.policy.protects_port(socket.local.1)
                || self.links().contains(&socket.remote.into())
                || self.protects(socket.remote)
        };
        peers.hit(socket) && !carved()
    }

    /// Whether the remote end of a packet is one that the host's policy protects.
    pub fn protects(&self, (address, port): (IpAddr, u16)) -> bool {
        if self.policy.protects_port(port) && is_here(address) {
            return true;
        }
        let protected = self.networks(&self.policy.protect_addresses);
        protected.is_ok_and(|list| list.iter().any(|network| network.has(address, port)))
    }
}

/// Whether an address is one of this network namespace: who calls such a one has it as its own, too. Nothing is sent.
fn is_here(address: IpAddr) -> bool {
    let any: IpAddr =
        if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let own = || -> std::io::Result<IpAddr> {
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect((address, 9))?;
        Ok(socket.local_addr()?.ip())
    };
    address.is_loopback() || own().is_ok_and(|own| own == address)
}

/// Chooses from sorted things with the run's seed: the same seed, place and things give the same choice.
///
/// `place` names the choice in the run, such as `part 2, change 0, round 1`.
pub fn choose<T: Clone>(things: &[T], pick: Pick, seed: u64, place: &str) -> Result<Vec<T>, Refusal> {
    let Some(wanted) = pick.of(things.len()) else {
        return Err(Refusal::new(
            format!("{pick} are asked for, but {} match", things.len()),
            "ask for fewer, or for a share such as `50%`",
        ));
    };
    if wanted == things.len() {
        return Ok(things.to_vec());
    }
    let key = Hasher::new().update(&seed.to_le_bytes()).update(place.as_bytes()).finalize();
    let mut random = ChaCha12Rng::from_seed(*key.as_bytes());
    let mut indices: Vec<usize> = (0..things.len()).collect();
    for index in 0..wanted {
        let other = random.random_range(index..indices.len());
        indices.swap(index, other);
    }
    indices.truncate(wanted);
    indices.sort_unstable();
    Ok(indices.into_iter().map(|index| things[index].clone()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_chooses_the_same_and_another_seed_sometimes_not() {
        let things: Vec<u32> = (0..20).collect();
        let five = |seed, place: &str| choose(&things, "5".parse().unwrap(), seed, place).unwrap();
        assert_eq!(five(1, "a"), five(1, "a"));
        assert!((2..10).any(|seed| five(seed, "a") != five(1, "a")));
        assert_ne!(five(1, "a"), five(1, "b"));
        assert!(choose(&things, "21".parse().unwrap(), 1, "a").is_err());
        assert!(choose(&Vec::<u32>::new(), Pick::All, 1, "a").is_err());
    }

    #[test]
    fn every_thing_is_chosen_equally_often() {
        let things: Vec<usize> = (0..10).collect();
        let mut counts = [0u32; 10];
        for seed in 0..10_000 {
            for thing in choose(&things, "3".parse().unwrap(), seed, "x").unwrap() {
                counts[thing] += 1;
            }
        }
        // Binomial(10000, 0.3): five standard deviations are 229.
        assert!(counts.iter().all(|count| count.abs_diff(3000) < 229), "{counts:?}");
    }
}
