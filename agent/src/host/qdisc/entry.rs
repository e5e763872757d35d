//! What enters, by the kernel's disciplines: where it comes in, and the rules that lead it through [`ifb`].

use std::collections::BTreeSet;
use std::fs;

use squall_experiments::change::Shape;
use squall_experiments::protocol::Refusal;
use squall_experiments::scope::Scope;

use super::super::matching::Packets;
use super::super::nft::Hook;
use super::super::rule::Rule;
use super::super::table::{Table, wish};
use super::message::Link;
use super::{Discs, LOOPBACK, Tc, ifb, kinds};

/// Why what enters cannot be told apart in time; `None` where it can.
pub fn blind(scope: Option<&Scope>) -> Option<String> {
    match scope {
        None | Some(Scope::Port(_) | Scope::Interface(_)) => None,
        Some(scope) => Some(format!(
            "where packets come in nobody knows yet whose socket they are for, so not whether they are for {scope}"
        )),
    }
}

/// Whether this kernel leads what enters through a device: asked once, beside the worker's beat.
pub(super) fn known() -> Result<(), String> {
    let mut tc = Tc::open().map_err(|error| error.to_string())?;
    ifb::known(&mut tc).map_err(|error| format!("no `ifb`: {error}"))?;
    let forwards = Table::open().and_then(|mut table| table.forwards());
    forwards.map_err(|error| format!("nftables has no `fwd`, or no `fib`, for what enters: {error}"))
}

/// The interfaces by which the packets may come in. Changes nothing.
pub fn links(tc: &mut Tc, shape: &Shape, packets: &Packets, discs: &Discs) -> Result<Vec<Link>, Refusal> {
    let known = kinds(|| ()).get(ifb::KIND).cloned();
    known.unwrap_or_else(|| Err("it could not be asked".to_owned())).map_err(|error| {
        Refusal::new(
            format!("this kernel cannot lead what enters through a device ({error})"),
            format!("{}, `nft_fwd_netdev`, `nft_fib_netdev`", crate::preflight::brings(ifb::KIND)),
        )
    })?;
    if discs.entry.is_none() && ifb::find(tc)?.is_some() {
        return Err(Refusal::new(
            format!("a device `{}` is here, and no journal knows of it", ifb::NAME),
            "`squall-agent recover` removes what a dead agent left",
        ));
    }
    let all = tc.links()?;
    let wanted: Vec<Link> = match &shape.flow.scope {
        Some(Scope::Interface(name)) => all.into_iter().filter(|link| link.name == *name).collect(),
        _ => {
            let loopback = by_loopback(tc, packets);
            // What enters by a member of a bridge for this host enters by the bridge, too.
            let enters = |link: &Link| match link.index {
                LOOPBACK => loopback.contains(&true),
                _ => link.up && !link.enslaved && link.name != ifb::NAME && loopback.contains(&false),
            };
            all.into_iter().filter(enters).collect()
        }
    };
    if wanted.is_empty() {
        return Err(Refusal::new(
            "no interface is up by which the packets could come in",
            "look with `ip link`",
        ));
    }
    if wanted.iter().any(forwards) {
        let translates = Table::open().and_then(|mut table| table.translates());
        if translates.unwrap_or(true) {
            return Err(Refusal::new(
                "this host forwards packets and translates their addresses: where they come in nobody knows yet which \
                 are for others",
                "leave the engine to Squall, or use `engine: queue`",
            ));
        }
    }
    Ok(wanted)
}

/// Whether packets come by loopback, by others, or by both.
fn by_loopback(tc: &mut Tc, packets: &Packets) -> BTreeSet<bool> {
    let mut found = BTreeSet::new();
    for network in packets.networks() {
        match network.network {
            Some((address, bits))
                if network.name.is_none() && bits == if address.is_ipv4() { 32 } else { 128 } =>
            {
                found.insert(tc.leaves_by(address) == Some(LOOPBACK));
            }
            // Some of its addresses may be this host's own; a name may get such.
            Some((_, bits)) if bits > 0 => found.extend([true, false]),
            _ => found.extend([false]),
        }
    }
    if found.is_empty() {
        found.insert(false);
    }
    found
}

/// Whether what enters by an interface may be sent on.
fn forwards(link: &Link) -> bool {
    let set = |family: &str| {
        let path = format!("/proc/sys/net/{family}/conf/{}/forwarding", link.name);
        fs::read_to_string(path).is_ok_and(|value| value.trim() != "0")
    };
    set("ipv4") || set("ipv6")
}

/// The rules that wish packets into a class, and those that count who has passed it by.
pub fn rules(packets: &Packets, tag: &str, class: u32) -> Result<Vec<(Hook, Rule)>, Refusal> {
    let mut rules = Vec::new();
    for (rule, _) in packets.rules(Hook::Ingress, tag, false, None)? {
        // A packet that has been through and enters another interface on top of the first is not wished for again.
        rules.push((Hook::Ingress, rule.priority_is(class, false).priority(wish(class)).accept()));
    }
    for (rule, _) in packets.rules(Hook::Input, tag, false, None)? {
        rules.push((Hook::Input, rule.priority_is(class, false).counter().accept()));
    }
    Ok(rules)
}
