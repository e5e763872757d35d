//! nftables messages: tables, chains, sets, and what the kernel lists of them.
//!
//! Source: `include/uapi/linux/netfilter/nf_tables.h`. Only what Squall's own table needs; numbers that the wire wants
//! in network order are converted here and nowhere else.

use super::netlink::{FLAG_APPEND, FLAG_CREATE, FLAG_EXCL, Message, Received, attributes, find, text_of};

/// The number of nftables among netfilter's parts, as it stands in message types.
pub(super) const SUBSYSTEM: u16 = 10 << 8;
const NEW_TABLE: u16 = 0;
const GET_TABLE: u16 = 1;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const GET_CHAIN: u16 = 4;
const DELETE_CHAIN: u16 = 5;
const NEW_RULE: u16 = 6;
const GET_RULE: u16 = 7;
const DELETE_RULE: u16 = 8;
const GET_OBJECT: u16 = 19;
const GET_FLOW_TABLE: u16 = 23;

/// `NFPROTO_INET`: IPv4 and IPv6 in one table.
pub const INET: u8 = 1;
/// `NFPROTO_NETDEV`: frames of one interface, before any protocol has looked at them.
pub const NETDEV: u8 = 5;
/// `NFPROTO_IPV4`.
pub const IPV4: u8 = 2;
/// `NFPROTO_IPV6`.
pub const IPV6: u8 = 10;

fn header(family: u8) -> [u8; 4] {
    [family, 0, 0, 0]
}

/// The same message for a table of family `netdev`.
pub fn netdev(message: Message) -> Message {
    message.with_first(NETDEV)
}

/// Brackets messages into one transaction: all or none.
pub fn batch(messages: Vec<Message>) -> Vec<Message> {
    let bracket = |kind| Message::new(kind, 0).raw(&[0, 0, 0, 10]);
    let mut batch = vec![bracket(0x10)];
    batch.extend(messages);
    batch.push(bracket(0x11));
    batch
}

/// A new table that belongs to the socket which sends this, and goes with it (`NFT_TABLE_F_OWNER`, Linux 5.12).
pub fn new_owned_table(name: &str) -> Message {
    Message::new(SUBSYSTEM | NEW_TABLE, FLAG_CREATE | FLAG_EXCL)
        .raw(&header(INET))
        .text(1, name)
        .attr(2, &2u32.to_be_bytes())
}

/// Deletes a table with all that is in it.
pub fn delete_table(name: &str) -> Message {
    Message::new(SUBSYSTEM | DELETE_TABLE, 0).raw(&header(INET)).text(1, name)
}

/// Which hook a base chain stands at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// Packets for this host: `NF_INET_LOCAL_IN`.
    Input = 1,
    /// Packets made by this host: `NF_INET_LOCAL_OUT`.
    Output = 3,
    /// Packets that have just come by an interface, for whomever: `NF_INET_INGRESS` (Linux 5.10). Whose socket they are for is
    /// not known there.
    Ingress = 5,
}

impl Hook {
    /// What the names of chains at this hook end in.
    pub fn suffix(self) -> &'static str {
        match self {
            Hook::Input => "in",
            Hook::Output => "out",
            Hook::Ingress => "ingress",
        }
    }
}

/// A base chain with an accepting policy.
pub fn new_base_chain(table: &str, name: &str, hook: Hook, priority: i32) -> Message {
    Message::new(SUBSYSTEM | NEW_CHAIN, FLAG_CREATE)
        .raw(&header(INET))
        .text(1, table)
        .text(3, name)
        .nest(4, |m| m.attr(1, &(hook as u32).to_be_bytes()).attr(2, &priority.to_be_bytes()))
        .text(7, "filter")
}

/// A base chain with an accepting policy for what enters by one interface; of the message's family.
pub fn new_ingress_chain(table: &str, name: &str, hook: u32, device: &str, priority: i32) -> Message {
    Message::new(SUBSYSTEM | NEW_CHAIN, FLAG_CREATE)
        .raw(&header(INET))
        .text(1, table)
        .text(3, name)
        .nest(4, |m| m.attr(1, &hook.to_be_bytes()).attr(2, &priority.to_be_bytes()).text(3, device))
        .text(7, "filter")
}

/// A chain that is only reached by a jump.
pub fn new_chain(table: &str, name: &str) -> Message {
    Message::new(SUBSYSTEM | NEW_CHAIN, FLAG_CREATE).raw(&header(INET)).text(1, table).text(3, name)
}

/// The beginning of a message that puts a rule at the end of a chain.
pub fn new_rule(table: &str, chain: &str) -> Message {
    Message::new(SUBSYSTEM | NEW_RULE, FLAG_CREATE | FLAG_APPEND)
        .raw(&header(INET))
        .text(1, table)
        .text(2, chain)
}

/// A rule to be put in front of the one with a handle.
pub fn new_rule_before(table: &str, chain: &str, handle: u64) -> Message {
    const POSITION: u16 = 6;
    Message::new(SUBSYSTEM | NEW_RULE, FLAG_CREATE)
        .raw(&header(INET))
        .text(1, table)
        .text(2, chain)
        .attr(POSITION, &handle.to_be_bytes())
}

/// Deletes one rule by its handle.
pub fn delete_rule(table: &str, chain: &str, handle: u64) -> Message {
    Message::new(SUBSYSTEM | DELETE_RULE, 0)
        .raw(&header(INET))
        .text(1, table)
        .text(2, chain)
        .attr(3, &handle.to_be_bytes())
}

/// Asks for all tables of all families.
pub fn list_tables() -> Message {
    Message::new(SUBSYSTEM | GET_TABLE, 0).raw(&header(0))
}

/// Deletes a chain with the rules in it; refused with `EBUSY` while another chain leads to it.
pub fn delete_chain(table: &str, name: &str) -> Message {
    Message::new(SUBSYSTEM | DELETE_CHAIN, 0).raw(&header(INET)).text(1, table).text(3, name)
}

/// Asks for one chain.
pub fn get_chain(table: &str, name: &str) -> Message {
    Message::new(SUBSYSTEM | GET_CHAIN, 0).raw(&header(INET)).text(1, table).text(3, name)
}

/// Asks for all chains of all families.
pub fn list_chains() -> Message {
    Message::new(SUBSYSTEM | GET_CHAIN, 0).raw(&header(0))
}

/// Asks for all named objects (counters, quotas, helpers) of all families.
pub fn list_objects() -> Message {
    Message::new(SUBSYSTEM | GET_OBJECT, 0).raw(&header(0))
}

/// Asks for all flow tables of all families.
pub fn list_flow_tables() -> Message {
    Message::new(SUBSYSTEM | GET_FLOW_TABLE, 0).raw(&header(0))
}

/// Asks for the rules of one chain.
pub fn list_rules_of(table: &str, chain: &str) -> Message {
    list_rules(Some(table)).text(2, chain)
}

/// Asks for the rules of one table, or of all tables of all families.
pub fn list_rules(table: Option<&str>) -> Message {
    let message = |family| Message::new(SUBSYSTEM | GET_RULE, 0).raw(&header(family));
    table.map_or_else(|| message(0), |table| message(INET).text(1, table))
}

/// A rule as the kernel lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The chain it stands in.
    pub chain: String,
    /// Its handle.
    pub handle: u64,
    /// Its comment, empty where there is none.
    pub comment: String,
    /// Packets that its counter has seen.
    pub packets: u64,
    /// It gives packets a mark or a priority.
    pub steers: bool,
}

/// Reads a rule of [`list_rules`].
pub fn listed(received: &Received) -> Listed {
    let body = received.body.get(4..).unwrap_or_default();
    let text = |kind| find(body, kind).map(text_of).unwrap_or_default();
    let number = |bytes: &[u8]| bytes.try_into().map(u64::from_be_bytes).unwrap_or(0);
    let comment = find(body, 7).and_then(|data| (data.first() == Some(&0)).then(|| text_of(&data[2..])));
    const SOURCE: u16 = 3;
    let (mut packets, mut steers) = (0, false);
    for (_, expression) in attributes(find(body, 4).unwrap_or_default()) {
        let data = find(expression, 2).unwrap_or_default();
        match find(expression, 1).map(text_of).as_deref() {
            Some("counter") => packets += find(data, 2).map_or(0, number),
            // With a source register it sets what without one it asks for.
            Some("meta") => steers |= find(data, SOURCE).is_some(),
            _ => {}
        }
    }
    Listed {
        chain: text(2),
        handle: find(body, 3).map_or(0, number),
        comment: comment.unwrap_or_default(),
        packets,
        steers,
    }
}

/// A chain or a set as the kernel lists it: its table's family and name, and its own name. Chains and sets have their
/// names in different attributes.
fn listed_name(received: &Received, kind: u16) -> (u8, String, String) {
    let body = received.body.get(4..).unwrap_or_default();
    let text = |kind| find(body, kind).map(text_of).unwrap_or_default();
    (received.body.first().copied().unwrap_or(0), text(1), text(kind))
}

/// The kind of a base chain of [`list_chains`], such as `filter`; empty where it is no base chain.
pub fn listed_kind(received: &Received) -> String {
    let body = received.body.get(4..).unwrap_or_default();
    find(body, 7).map(text_of).unwrap_or_default()
}

/// A chain of [`list_chains`]: its table's family and name, and its own name.
pub fn listed_chain(received: &Received) -> (u8, String, String) {
    listed_name(received, 3)
}

/// A set of [`super::set::list`]: its table's family and name, and its own name.
pub fn listed_set(received: &Received) -> (u8, String, String) {
    listed_name(received, 2)
}

/// A table as the kernel lists it: family, name, and who owns it (a netlink port, usually the owner's pid).
pub fn listed_table(received: &Received) -> (u8, String, Option<u32>) {
    let body = received.body.get(4..).unwrap_or_default();
    let owner = find(body, 7).and_then(|value| value.try_into().ok()).map(u32::from_be_bytes);
    (received.body.first().copied().unwrap_or(0), find(body, 1).map(text_of).unwrap_or_default(), owner)
}
