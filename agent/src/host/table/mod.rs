//! Squall's nftables table: one per network namespace, owned by the worker's socket.
//!
//! ```text
//! base chain in   (hook input)  ─ family in @live? ─▶ fault-in  ─ remote address in any fault's? ─▶ never-in,  then changes
//! base chain out  (hook output) ─ family in @live? ─▶ fault-out ─ remote address in any fault's? ─▶ never-out, then changes
//! base chain slot1-in …         ─ family in @live? level below? ─▶ shape1-in … as above
//! ```
//!
//! Each change has chains of its own behind that. What `never-in` and `never-out` accept no injection touches. The base
//! chain of a [slot](super::slot) is made when it is first needed, and stays as long as the table: a base chain that goes
//! takes all packets with it that wait in any queue of the namespace, while one that comes harms nobody. What the kernel's
//! own disciplines do with what enters begins earlier, at the interfaces: see `ingress`.
//!
//! The elements of `live` expire after [`LEASE_MS`] unless the worker renews them: rules that nobody renews match
//! nothing, whoever hangs. When the last duplicate of the socket is closed, the kernel removes the table.

mod changes;
mod ingress;

use std::collections::BTreeSet;

use changes::Changes;
pub use changes::{Removed, set_name};
use ingress::Ingress;
pub use ingress::wish;
use nix::errno::Errno;
use nix::sys::socket::SockProtocol;

use super::netlink::{Message, NetlinkError, Socket};
use super::nft::{self, Hook, IPV4, IPV6};
use super::peers::ends;
use super::rule::{Reject, Rule};
use super::set::{Element, Kind, Set};
use super::slot::{Levels, Slot};

/// The table's name, which is Squall's mark on a host.
pub const NAME: &str = "squall";
/// How the names of all other tables of Squall's begin.
pub const PREFIX: &str = "squall-";
/// How long rules match without a renewal.
pub const LEASE_MS: u64 = 1500;
/// The live set's name.
const LIVE: &str = "live";

/// The set of protocol families whose rules match; 2 is nft's own number of `nf_proto`, for listing only.
fn live() -> Set {
    Set { name: LIVE.to_owned(), key: 1, shown_as: 2, kind: Kind::Expiring }
}

/// Both families.
fn families() -> [Element; 2] {
    [Element::key([nft::IPV4]), Element::key([nft::IPV6])]
}

/// Before everything that a firewall usually does (raw is -300), after defragmentation (-400). Slots follow.
const PRIORITY: i32 = -310;
/// A table that is never made, and one that is never there: a transaction that deletes it is refused.
const TRIAL: &str = "squall-trial";
const ABSENT: &str = "squall-absent";
/// What the rules say that lead to those of injections.
const WHILE_ALIVE: &str = "squall: only while the agent is alive";

/// The socket that owns the table, and what may be done with it.
#[derive(Debug)]
pub struct Table {
    socket: Socket,
    slots: BTreeSet<(Slot, Hook)>,
    changes: Changes,
    ingress: Ingress,
}

/// The chain for rules of one kind at a hook.
fn chain(hook: Hook, slot: Option<Slot>) -> String {
    match slot {
        None => format!("fault-{}", hook.suffix()),
        Some(Slot(slot)) => format!("shape{}-{}", slot + 1, hook.suffix()),
    }
}

/// The chain of what is never touched.
fn never(hook: Hook) -> String {
    // What has just come in is for this host or for nobody whom a fault concerns.
    let hook = if hook == Hook::Ingress { Hook::Input } else { hook };
    format!("never-{}", hook.suffix())
}

/// Makes a base chain that leads to a chain for injections, which begins with what is never touched.
fn way_in(hook: Hook, base: &str, priority: i32, slot: Option<Slot>, asked: Rule) -> Vec<Message> {
    let mut messages = inner(hook, slot);
    messages.push(nft::new_base_chain(NAME, base, hook, priority));
    messages.push(asked.jump(&chain(hook, slot)).append(NAME, base));
    messages
}

/// Makes a chain for injections, which begins with what is never touched.
fn inner(hook: Hook, slot: Option<Slot>) -> Vec<Message> {
    let inner = chain(hook, slot);
    let mut messages = vec![nft::new_chain(NAME, &inner)];
    let (remote, _) = ends(hook);
    for (number, family) in [(2, IPV4), (3, IPV6)] {
        let set = filter(hook, slot, family);
        messages.push(set.create(NAME, number));
        let rule = Rule::commented("squall: only what some fault names");
        messages.push(rule.address_outside(remote, family, &set.name).leave().append(NAME, &inner));
    }
    messages.push(Rule::commented("squall: what is never touched").jump(&never(hook)).append(NAME, &inner));
    messages
}

/// The set of remote addresses that any change behind a chain concerns: packets of all others leave it at once.
fn filter(hook: Hook, slot: Option<Slot>, family: u8) -> Set {
    let (number, key, shown_as) = if family == IPV4 { (4, 4, 7) } else { (6, 16, 8) };
    Set { name: format!("{}-{number}", chain(hook, slot)), key, shown_as, kind: Kind::Ranges }
}

/// What keeps a table's rules matching, for another thread.
#[derive(Debug)]
pub struct Lease {
    socket: Socket,
}

impl Lease {
    /// [`Table::renew`], unless the table's own thread is using its socket at this moment.
    pub fn renew_unless_busy(&mut self) -> Option<Result<(), NetlinkError>> {
        self.socket.request_unless_busy(renewal())
    }
}

/// In one transaction, which fails where the elements have expired.
fn renewal() -> Vec<Message> {
    nft::batch(vec![live().remove(NAME, &families()), live().add(NAME, &families(), Some(LEASE_MS))])
}

impl Table {
    /// Opens the socket that will own the table; nothing is changed yet.
    pub fn open() -> Result<Self, NetlinkError> {
        Ok(Table {
            socket: Socket::open(SockProtocol::NetlinkNetFilter)?,
            slots: BTreeSet::new(),
            changes: Changes::default(),
            ingress: Ingress::default(),
        })
    }

    /// Continues with a duplicate of another process's socket: the same owner, for the kernel.
    pub fn adopt(socket: std::os::fd::OwnedFd) -> Self {
        Table {
            socket: Socket::adopt(socket),
            slots: BTreeSet::new(),
            changes: Changes::default(),
            ingress: Ingress::Unknown,
        }
    }

    /// The socket, to hand a duplicate to the guardian.
    pub fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Whether a table of our name exists, and the netlink port that owns it.
    pub fn existing(&mut self) -> Result<Option<Option<u32>>, NetlinkError> {
        let tables = self.socket.dump(&nft::list_tables())?;
        let mine = |(family, name, owner)| (family == nft::INET && name == NAME).then_some(owner);
        Ok(tables.iter().map(nft::listed_table).find_map(mine))
    }

    /// Whether a second table of our name exists, that of what enters, and the netlink port that owns it.
    pub fn existing_second(&mut self) -> Result<Option<Option<u32>>, NetlinkError> {
        let tables = self.socket.dump(&nft::list_tables())?;
        let mine = |(family, name, owner)| (family == nft::NETDEV && name == NAME).then_some(owner);
        Ok(tables.iter().map(nft::listed_table).find_map(mine))
    }

    /// Whether a table of our name has the chains that only ours has.
    pub fn is_built_as_ours(&mut self) -> Result<bool, NetlinkError> {
        let chains = self.socket.dump(&nft::list_chains())?;
        let chains: BTreeSet<_> = chains.iter().map(nft::listed_chain).collect();
        let has = |name| chains.contains(&(nft::INET, NAME.to_owned(), name));
        Ok([Hook::Input, Hook::Output].into_iter().all(|hook| has(never(hook)) && has(chain(hook, None))))
    }

    /// Makes the table with its chains, its live set and the carve-outs, in one transaction.
    ///
    /// Carve-outs are accepted before any injection's rule is asked.
    pub fn create(&mut self, carve_outs: Vec<(Hook, Rule)>) -> Result<(), NetlinkError> {
        let mut messages = vec![nft::new_owned_table(NAME), live().create(NAME, 1)];
        messages.extend([Hook::Input, Hook::Output].map(|hook| nft::new_chain(NAME, &never(hook))));
        for (hook, rule) in carve_outs {
            messages.push(rule.accept().append(NAME, &never(hook)));
        }
        for hook in [Hook::Input, Hook::Output] {
            let alive = Rule::commented(WHILE_ALIVE).family_in(LIVE);
            messages.extend(way_in(hook, hook.suffix(), PRIORITY, None, alive));
        }
        messages.push(live().add(NAME, &families(), Some(LEASE_MS)));
        self.socket.request(nft::batch(messages))?;
        self.slots.clear();
        self.changes = Changes::default();
        self.ingress = Ingress::default();
        Ok(())
    }

    /// Lets more through, whatever is injected.
    pub fn never_touch(&mut self, carve_outs: Vec<(Hook, Rule)>) -> Result<(), NetlinkError> {
        if carve_outs.is_empty() {
            return Ok(());
        }
        let rule = |(hook, rule): (Hook, Rule)| rule.accept().append(NAME, &never(hook));
        self.socket.request(nft::batch(carve_outs.into_iter().map(rule).collect()))
    }

    /// Makes a slot at some hooks, where it is not there yet. With levels it passes by what it has sent itself.
    pub fn open_slot(
        &mut self,
        slot: Slot,
        hooks: &[Hook],
        levels: Option<Levels>,
    ) -> Result<(), NetlinkError> {
        let missing = hooks.iter().copied().filter(|hook| !self.slots.contains(&(slot, *hook)));
        let missing: Vec<Hook> = missing.collect();
        if missing.is_empty() {
            return Ok(());
        }
        let messages = missing.iter().flat_map(|hook| {
            let mut asked = Rule::commented(WHILE_ALIVE).family_in(LIVE);
            if let Some((mask, most)) = levels.map(|levels| levels.asked(*hook, slot)) {
                asked = asked.mark_at_most(mask, most);
            }
            let base = format!("slot{}-{}", slot.0 + 1, hook.suffix());
            way_in(*hook, &base, PRIORITY + 1 + i32::from(slot.0), Some(slot), asked)
        });
        self.socket.request(nft::batch(messages.collect()))?;
        self.slots.extend(missing.into_iter().map(|hook| (slot, hook)));
        Ok(())
    }

    /// Keeps the rules matching for another [`LEASE_MS`]. `false`: it came too late, the rules have been inert.
    pub fn renew(&mut self) -> Result<bool, NetlinkError> {
        match self.socket.request(renewal()) {
            Ok(()) => Ok(true),
            Err(error) if error.errno() == Errno::ENOENT => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// For another thread, that it may keep the rules matching while this one is at something else.
    pub fn lease(&self) -> std::io::Result<Lease> {
        Ok(Lease { socket: self.socket.share()? })
    }

    /// Removes the table; it not being there is success.
    pub fn delete(&mut self) -> Result<(), NetlinkError> {
        self.delete_ingress()?;
        match self.socket.request(nft::batch(vec![nft::delete_table(NAME)])) {
            Err(error) if error.errno() == Errno::ENOENT => Ok(()),
            result => result,
        }
    }

    /// Has the kernel look for every expression that rules may use and that may be in a module, each by a rule of its own;
    /// what it lacks stops none of the others. The transaction is refused at its end.
    pub fn touch(&mut self) -> Result<(), NetlinkError> {
        let rule = || Rule::commented("squall: a trial");
        let rules = [
            rule().socket_mark(1),
            rule().reject(Reject::AdminProhibited),
            rule().queue(0, true),
            rule().queue(0, false),
        ];
        let mut messages = vec![nft::new_owned_table(TRIAL), nft::new_chain(TRIAL, "trial")];
        messages.extend(rules.into_iter().map(|rule| rule.append(TRIAL, "trial")));
        messages.push(nft::delete_table(ABSENT));
        match self.socket.request(nft::batch(messages)) {
            Err(NetlinkError::Refused { .. }) => Ok(()),
            other => other,
        }
    }

    /// Whether this kernel takes a rule that queues, by its own expression (`native`) or by iptables' target. Changes
    /// nothing: see [`Table::takes`].
    pub fn queues(&mut self, native: bool) -> Result<(), NetlinkError> {
        self.takes(Rule::commented("squall: a trial").queue(0, native))
    }

    /// Whether this kernel takes a rule that looks into no set. Tried in a transaction that is refused at its end, so that
    /// nothing is ever committed; the kernel may load a module for it.
    pub fn takes(&mut self, rule: Rule) -> Result<(), NetlinkError> {
        let messages = vec![
            nft::new_owned_table(TRIAL),
            nft::new_chain(TRIAL, "trial"),
            rule.append(TRIAL, "trial"),
            nft::delete_table(ABSENT),
        ];
        // The transaction's own brackets count too.
        let last = messages.len();
        match self.socket.request(nft::batch(messages)) {
            Err(NetlinkError::Refused { index, errno: Errno::ENOENT, .. }) if index == last => Ok(()),
            Err(error) => Err(error),
            Ok(()) => Err(NetlinkError::Io(std::io::Error::other("the kernel took what it must refuse"))),
        }
    }
}
