//! Blocking packets: a flow becomes rules in Squall's own table.

use std::collections::BTreeSet;

use squall_experiments::change::{Block, Verdict};
use squall_experiments::evidence::{Evidence, Unit};
use squall_experiments::protocol::Refusal;

use super::aim::Aim;
use super::matching::{Packets, TCP, hooks};
use super::nft::Hook;
use super::rule::{Reject, Rule};
use super::table::Table;

/// A block that has been looked at.
#[derive(Debug)]
pub struct Prepared {
    /// Which packets.
    pub packets: Packets,
    rules: Vec<(Hook, Rule)>,
}

/// Looks at the host and writes the rules. Changes nothing.
pub fn prepare(block: &Block, tag: &str, aim: &Aim<'_>, marks: &BTreeSet<u32>) -> Result<Prepared, Refusal> {
    let packets = Packets::of(&block.flow, tag, aim, marks)?;
    let mut rules = Vec::new();
    for hook in hooks(block.direction) {
        let matching = packets.rules(*hook, tag, block.verdict == Verdict::Reset, None)?;
        rules.extend(
            matching
                .into_iter()
                .map(|(rule, transport)| (*hook, condemn(rule.counter(), block.verdict, transport))),
        );
    }
    Ok(Prepared { packets, rules })
}

fn condemn(rule: Rule, verdict: Verdict, transport: Option<u8>) -> Rule {
    match verdict {
        Verdict::Drop => rule.drop(),
        Verdict::Reset if transport == Some(TCP) => rule.reject(Reject::TcpReset),
        Verdict::Reset | Verdict::PortUnreachable => rule.reject(Reject::PortUnreachable),
        Verdict::HostUnreachable => rule.reject(Reject::HostUnreachable),
        Verdict::AdminProhibited => rule.reject(Reject::AdminProhibited),
    }
}

/// Puts the rules in. The table exists.
pub fn perform(prepared: &mut Prepared, table: &mut Table) -> Result<(), Refusal> {
    let rules = std::mem::take(&mut prepared.rules);
    table
        .add(rules, None)
        .map_err(|error| Refusal::bare(format!("cannot add rules to `inet squall`: {error}")))
}

/// What the rules' own counters say.
pub fn observe(table: &mut Table, tag: &str) -> Evidence {
    let rules = table.rules(tag).unwrap_or_default();
    let packets = rules.iter().map(|rule| rule.packets).sum();
    Evidence { unit: Unit::Packets, matched: packets, impaired: packets, ..Evidence::default() }
}
