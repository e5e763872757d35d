//! What enters, led through a device of ours before the stack sees it: two tables, one wish.
//!
//! ```text
//! inet squall    slot9-ingress-3 (ingress of eth0) ─ family in @live? ─▶ shape9-ingress ─▶ changes: priority = a wish
//! netdev squall  in-3            (ingress of eth0, next) ─▶ in: a wish, and for this host? priority = class, fwd
//! ```
//!
//! Only the family `inet` knows the lease and the sets of the other chains, only `netdev` can send a packet elsewhere
//! (`nft_fwd_netdev.c`) and ask whether it is for this host there (`nft_fib_netdev.c`). So the one wishes, by a priority
//! that no class has, and the other grants. Both tables belong to one socket. A packet that has been through the device
//! keeps its class as its priority, comes back behind the hook, and is told by it.
//!
//! Base chains are made once for each interface, and stay as long as the table: see [`super`].

use std::collections::BTreeSet;

use nix::errno::Errno;

use super::{LIVE, NAME, PRIORITY, Table, WHILE_ALIVE, chain, inner};
use crate::host::netlink::{Message, NetlinkError};
use crate::host::nft::{self, Hook, Listed};
use crate::host::qdisc::message::Link;
use crate::host::rule::Rule;
use crate::host::slot::LAST;

/// The chain of the second table that grants wishes.
const GRANTING: &str = "in";
/// `NF_NETDEV_INGRESS`.
const NETDEV_INGRESS: u32 = 0;

/// What is known of the chains at the interfaces.
#[derive(Debug)]
pub(super) enum Ingress {
    /// Interfaces, by their index, that have them; none: the second table is not there either.
    Known(BTreeSet<u32>),
    /// Another process has made them, or not.
    Unknown,
}

impl Default for Ingress {
    fn default() -> Self {
        Ingress::Known(BTreeSet::new())
    }
}

/// The priority by which a packet is wished into a class: none of ours ends in a digit other than 0.
pub fn wish(class: u32) -> u32 {
    class | 8
}

/// The base chains of one interface.
fn at(link: &Link) -> Vec<Message> {
    let (wishing, granting) = (format!("slot9-ingress-{}", link.index), format!("{GRANTING}-{}", link.index));
    let mut alive = Rule::commented(WHILE_ALIVE).family_in(LIVE);
    if link.ethernet {
        // A tagged frame is met again at the interface of its virtual network, if there is one.
        alive = alive.untagged();
    }
    let base = |name: &str, hook, priority| nft::new_ingress_chain(NAME, name, hook, &link.name, priority);
    let ingress = Hook::Ingress as u32;
    vec![
        base(&wishing, ingress, PRIORITY),
        alive.jump(&chain(Hook::Ingress, Some(LAST))).append(NAME, &wishing),
        nft::netdev(base(&granting, NETDEV_INGRESS, PRIORITY + 1)),
        nft::netdev(Rule::commented("squall: what is wished for").jump(GRANTING).append(NAME, &granting)),
    ]
}

impl Table {
    /// Makes the chains at interfaces that have none yet.
    pub fn open_ingress(&mut self, links: &[Link]) -> Result<(), NetlinkError> {
        let known = match &self.ingress {
            Ingress::Known(known) => known.clone(),
            Ingress::Unknown => BTreeSet::new(),
        };
        let missing: Vec<&Link> = links.iter().filter(|link| !known.contains(&link.index)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let mut messages = Vec::new();
        if known.is_empty() {
            messages.push(nft::netdev(nft::new_owned_table(NAME)));
            messages.push(nft::netdev(nft::new_chain(NAME, GRANTING)));
            messages.extend(inner(Hook::Ingress, Some(LAST)));
        }
        messages.extend(missing.iter().flat_map(|link| at(link)));
        self.socket.request(nft::batch(messages))?;
        let all = known.into_iter().chain(missing.iter().map(|link| link.index));
        self.ingress = Ingress::Known(all.collect());
        Ok(())
    }

    /// Grants the wish for a class: what is for this host goes through a device, in the class. The rule is known by the tag
    /// of its change.
    pub fn open_way(&mut self, tag: &str, class: u32, device: u32) -> Result<(), NetlinkError> {
        let wished = || Rule::commented(tag).priority_is(wish(class), true);
        let rules = [
            wished().for_this_host().counter().priority(class).forward_to(device),
            // Who only passes through keeps the priority that everything has here.
            wished().priority(0),
        ];
        let messages = rules.into_iter().map(|rule| nft::netdev(rule.append(NAME, GRANTING)));
        self.socket.request(nft::batch(messages.collect()))
    }

    /// Removes the rules that grant the wish of a change; none is no error.
    pub fn close_way(&mut self, tag: &str) -> Result<(), NetlinkError> {
        let all = self.ways(tag)?;
        if all.is_empty() {
            return Ok(());
        }
        let gone = all.iter().map(|rule| nft::netdev(nft::delete_rule(NAME, GRANTING, rule.handle)));
        self.socket.request(nft::batch(gone.collect()))
    }

    /// How many packets of a change went through its device.
    pub fn went_through(&mut self, tag: &str) -> u64 {
        self.ways(tag).unwrap_or_default().iter().map(|rule| rule.packets).sum()
    }

    /// The rules of a change that grant its wish.
    fn ways(&mut self, tag: &str) -> Result<Vec<Listed>, NetlinkError> {
        if matches!(&self.ingress, Ingress::Known(known) if known.is_empty()) {
            return Ok(Vec::new());
        }
        match self.socket.dump(&nft::netdev(nft::list_rules_of(NAME, GRANTING))) {
            Err(error) if error.errno() == Errno::ENOENT => Ok(Vec::new()),
            listed => {
                let rules = listed?.iter().map(nft::listed).collect::<Vec<_>>();
                Ok(rules.into_iter().filter(|rule| rule.comment.starts_with(tag)).collect())
            }
        }
    }

    /// Removes the second table; it not being there is success.
    pub(super) fn delete_ingress(&mut self) -> Result<(), NetlinkError> {
        if matches!(&self.ingress, Ingress::Known(known) if known.is_empty()) {
            return Ok(());
        }
        match self.socket.request(nft::batch(vec![nft::netdev(nft::delete_table(NAME))])) {
            Err(error) if error.errno() == Errno::ENOENT => {}
            result => result?,
        }
        self.ingress = Ingress::default();
        Ok(())
    }

    /// Whether this kernel takes rules that send what enters elsewhere. Tried in a transaction that is refused at its end,
    /// without a base chain, so that nothing is ever committed or registered.
    pub fn forwards(&mut self) -> Result<(), NetlinkError> {
        const LOOPBACK: u32 = 1;
        let rule = Rule::commented("squall: a trial").priority_is(0, true).for_this_host().priority(0);
        let messages = vec![
            nft::netdev(nft::new_owned_table(super::TRIAL)),
            nft::netdev(nft::new_chain(super::TRIAL, "trial")),
            nft::netdev(rule.forward_to(LOOPBACK).append(super::TRIAL, "trial")),
            nft::netdev(nft::delete_table(super::ABSENT)),
        ];
        // The transaction's own brackets count too.
        let last = messages.len();
        match self.socket.request(nft::batch(messages)) {
            Err(NetlinkError::Refused { index, errno: Errno::ENOENT, .. }) if index == last => Ok(()),
            Err(error) => Err(error),
            Ok(()) => Err(NetlinkError::Io(std::io::Error::other("the kernel took what it must refuse"))),
        }
    }

    /// Whether packets that come in may be for others by a translation of addresses, which is not known where they come in.
    pub fn translates(&mut self) -> Result<bool, NetlinkError> {
        let chains = self.socket.dump(&nft::list_chains())?;
        let legacy = ["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"];
        let legacy = legacy.into_iter().filter_map(|path| std::fs::read_to_string(path).ok());
        Ok(chains.iter().any(|chain| nft::listed_kind(chain) == "nat")
            || legacy.into_iter().any(|names| names.lines().any(|name| name == "nat")))
    }
}
