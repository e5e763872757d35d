//! Rules of nftables: lists of expressions.
//!
//! Source: `include/uapi/linux/netfilter/nf_tables.h`. Numbers that the wire wants in network order are converted here
//! and nowhere else.

use std::net::IpAddr;
use std::sync::Arc;

use super::netlink::Message;
use super::nft::{Hook, IPV4, IPV6, new_rule, new_rule_before};
use super::ranges::Addresses;
use super::set::Filled;

/// A register: the first of the sixteen-byte ones.
const REGISTER: u32 = 1;
/// The first of the four-byte registers, which lie side by side. The sixteen-byte ones are the same memory.
const FIRST_SMALL: u32 = 8;

/// The key of a packet's priority (`NFT_META_PRIORITY`).
const PRIORITY: u32 = 2;

/// A rule: expressions in order, and a comment by which it is found again.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    expressions: Vec<(&'static str, Message)>,
    /// By what it is found again.
    pub(super) comment: String,
    /// The sets that it looks into: they are made with it where they are not there yet.
    pub(super) sets: Vec<Arc<Filled>>,
    /// Among which rules of its change it stands.
    pub(super) home: Option<Arc<Home>>,
}

/// Rules of one change that stand together at a hook, in a chain of their own.
#[derive(Clone, Debug)]
pub struct Home {
    /// What tells their chain from others of the change: a short word.
    pub sense: &'static str,
    /// Rules that are asked before them.
    pub head: Vec<Rule>,
    /// The remote addresses that they concern; `None` is every address.
    pub reach: Option<Addresses>,
}

/// Which end of a packet an expression reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Source address and port.
    Source,
    /// Destination address and port.
    Destination,
}

/// How a packet is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    /// A TCP reset.
    TcpReset,
    /// ICMP or ICMPv6 port unreachable.
    PortUnreachable,
    /// ICMP or ICMPv6 host unreachable.
    HostUnreachable,
    /// ICMP or ICMPv6 administratively prohibited.
    AdminProhibited,
}

/// Where an address lies in the network header, and how long it is.
fn address_at(end: End, family: u8) -> (u32, u32) {
    match (family, end) {
        (IPV6, End::Source) => (8, 16),
        (IPV6, End::Destination) => (24, 16),
        (_, End::Source) => (12, 4),
        (_, End::Destination) => (16, 4),
    }
}

/// Where a port lies in the header of a transport that has ports.
fn port_at(end: End) -> u32 {
    if end == End::Source { 0 } else { 2 }
}

fn empty() -> Message {
    Message::new(0, 0)
}

impl Rule {
    /// A rule that `nft list ruleset` shows with this comment.
    pub fn commented(comment: impl Into<String>) -> Self {
        Rule { comment: comment.into(), ..Rule::default() }
    }

    fn with(mut self, name: &'static str, data: Message) -> Self {
        self.expressions.push((name, data));
        self
    }

    fn meta(self, key: u32) -> Self {
        self.with("meta", empty().attr(1, &REGISTER.to_be_bytes()).attr(2, &key.to_be_bytes()))
    }

    fn payload(self, base: u32, offset: u32, length: u32) -> Self {
        self.payload_to(REGISTER, base, offset, length)
    }

    fn payload_to(self, register: u32, base: u32, offset: u32, length: u32) -> Self {
        let data = empty()
            .attr(1, &register.to_be_bytes())
            .attr(2, &base.to_be_bytes())
            .attr(3, &offset.to_be_bytes())
            .attr(4, &length.to_be_bytes());
        self.with("payload", data)
    }

    fn socket(self, key: u32, level: u32) -> Self {
        let data = empty()
            .attr(1, &key.to_be_bytes())
            .attr(2, &REGISTER.to_be_bytes())
            .attr(3, &level.to_be_bytes());
        self.with("socket", data)
    }

    fn masked(self, mask: &[u8]) -> Self {
        let data = empty()
            .attr(1, &REGISTER.to_be_bytes())
            .attr(2, &REGISTER.to_be_bytes())
            .attr(3, &(mask.len() as u32).to_be_bytes())
            .nest(4, |m| m.attr(1, mask))
            .nest(5, |m| m.attr(1, &vec![0; mask.len()]));
        self.with("bitwise", data)
    }

    fn compare(self, operation: u32, value: &[u8]) -> Self {
        let data = empty()
            .attr(1, &REGISTER.to_be_bytes())
            .attr(2, &operation.to_be_bytes())
            .nest(3, |m| m.attr(1, value));
        self.with("cmp", data)
    }

    fn equals(self, value: &[u8]) -> Self {
        self.compare(0, value)
    }

    /// Only packets of this family.
    pub fn family(self, family: u8) -> Self {
        self.meta(15).equals(&[family])
    }

    /// Only packets of this transport protocol.
    pub fn transport(self, protocol: u8) -> Self {
        self.meta(16).equals(&[protocol])
    }

    /// Not packets that entered by (`input`) or leave by the loopback interface, which is always the first.
    pub fn not_loopback(self, hook: Hook) -> Self {
        let key = if hook == Hook::Output { 5 } else { 4 };
        self.meta(key).compare(1, &1u32.to_ne_bytes())
    }

    /// Only packets that enter (`input`) or leave by the interface of this name, at most 15 bytes long.
    pub fn interface(self, hook: Hook, name: &str) -> Self {
        let mut padded = [0; 16];
        let bytes = name.as_bytes();
        padded[..bytes.len()].copy_from_slice(bytes);
        self.meta(if hook == Hook::Output { 7 } else { 6 }).equals(&padded)
    }

    /// Only packets that leave by the interface with this index.
    pub fn leaving(self, interface: u32) -> Self {
        self.meta(5).equals(&interface.to_ne_bytes())
    }

    /// Only packets with one end in a network.
    pub fn network(self, end: End, address: IpAddr, bits: u8) -> Self {
        let (family, octets) = match address {
            IpAddr::V4(v4) => (IPV4, v4.octets().to_vec()),
            IpAddr::V6(v6) => (IPV6, v6.octets().to_vec()),
        };
        let (offset, _) = address_at(end, family);
        let rule = self.family(family);
        if bits == 0 {
            return rule;
        }
        let mask: Vec<u8> = (0..octets.len() as u32)
            .map(|index| {
                let ones = u32::from(bits).saturating_sub(index * 8).min(8);
                (0xff00_u32 >> ones) as u8
            })
            .collect();
        rule.payload(1, offset, octets.len() as u32).masked(&mask).equals(&octets)
    }

    /// Only packets with one port in an inclusive range. The rule must match a transport with ports first.
    pub fn ports(self, end: End, first: u16, last: u16) -> Self {
        let rule = self.payload(2, port_at(end), 2);
        if first == last {
            return rule.equals(&first.to_be_bytes());
        }
        let data = empty()
            .attr(1, &REGISTER.to_be_bytes())
            .attr(2, &0u32.to_be_bytes())
            .nest(3, |m| m.attr(1, &first.to_be_bytes()))
            .nest(4, |m| m.attr(1, &last.to_be_bytes()));
        rule.with("range", data)
    }

    /// Only ICMPv6 messages whose type is in an inclusive range.
    pub fn icmpv6_types(self, first: u8, last: u8) -> Self {
        self.transport(58).payload(2, 0, 1).compare(5, &[first]).payload(2, 0, 1).compare(3, &[last])
    }

    /// Only packets of sockets that were created in or below one of the control groups at this level whose numbers are in a
    /// set (Linux 5.13).
    pub fn cgroup_in(mut self, level: u32, set: &Arc<Filled>) -> Self {
        self.sets.push(Arc::clone(set));
        self.socket(3, level).lookup(&set.set.name, REGISTER, false)
    }

    /// Only packets of sockets that were created in or below the control group at this level with this number (Linux 5.13).
    pub fn cgroup(self, level: u32, number: u64) -> Self {
        self.socket(3, level).equals(&number.to_ne_bytes())
    }

    /// Only packets of sockets whose mark has all these bits.
    pub fn socket_mark(self, bits: u32) -> Self {
        self.socket(1, 0).masked(&bits.to_ne_bytes()).equals(&bits.to_ne_bytes())
    }

    /// Only packets whose own mark has all these bits.
    pub fn mark(self, bits: u32) -> Self {
        self.meta(3).masked(&bits.to_ne_bytes()).equals(&bits.to_ne_bytes())
    }

    /// Only packets whose own mark has any of these bits.
    pub fn mark_any(self, bits: u32) -> Self {
        self.meta(3).masked(&bits.to_ne_bytes()).compare(1, &[0; 4])
    }

    /// Only packets whose own mark, under this mask, is at most so much. The mask lies within one byte: the kernel
    /// compares bytes in memory order, and so the order of bytes does not matter.
    pub fn mark_at_most(self, mask: u32, value: u32) -> Self {
        self.meta(3).masked(&mask.to_ne_bytes()).compare(3, &value.to_ne_bytes())
    }

    fn lookup(self, set: &str, register: u32, inverted: bool) -> Self {
        let data = empty().text(1, set).attr(2, &register.to_be_bytes());
        let data = if inverted { data.attr(5, &1u32.to_be_bytes()) } else { data };
        self.with("lookup", data)
    }

    /// Only while the packet's family is in a set.
    pub fn family_in(self, set: &str) -> Self {
        self.meta(15).lookup(set, REGISTER, false)
    }

    /// Only packets of one family with the address of one end in a set of such addresses.
    pub fn address_in(mut self, end: End, family: u8, set: &Arc<Filled>) -> Self {
        self.sets.push(Arc::clone(set));
        self.address(end, family).lookup(&set.set.name, REGISTER, false)
    }

    /// Only packets of one family with the address of one end in no range of a set, which is there already.
    pub fn address_outside(self, end: End, family: u8, set: &str) -> Self {
        self.address(end, family).lookup(set, REGISTER, true)
    }

    fn address(self, end: End, family: u8) -> Self {
        let (offset, length) = address_at(end, family);
        self.family(family).payload(1, offset, length)
    }

    /// Only packets of TCP connections in a set, whose keys are local address, local port, remote address and remote port,
    /// each padded to a multiple of four bytes.
    pub fn connection_in(mut self, local: End, family: u8, set: &Arc<Filled>) -> Self {
        self.sets.push(Arc::clone(set));
        let remote = if local == End::Source { End::Destination } else { End::Source };
        let mut rule = self.family(family).transport(6);
        let mut register = FIRST_SMALL;
        for end in [local, remote] {
            let (offset, length) = address_at(end, family);
            rule = rule.payload_to(register, 1, offset, length);
            register += length / 4;
            rule = rule.payload_to(register, 2, port_at(end), 2);
            register += 1;
        }
        rule.lookup(&set.set.name, FIRST_SMALL, false)
    }

    /// Stands in the chain of its home.
    pub fn at_home(mut self, home: &Arc<Home>) -> Self {
        self.home = Some(Arc::clone(home));
        self
    }

    /// Counts what has matched so far.
    pub fn counter(self) -> Self {
        self.with("counter", empty())
    }

    /// Only packets whose priority is this one, or is not.
    pub fn priority_is(self, handle: u32, is: bool) -> Self {
        self.meta(PRIORITY).compare(u32::from(!is), &handle.to_ne_bytes())
    }

    /// Only frames without the tag of a virtual network. The kernel shows a tag that it has taken off where it was.
    pub fn untagged(self) -> Self {
        let tags = [0x8100_u16, 0x88a8];
        tags.into_iter().fold(self.payload(0, 12, 2), |rule, tag| rule.compare(1, &tag.to_be_bytes()))
    }

    /// Only packets for this host, not those that it would forward or has no route for. Source: `nft_fib.c`.
    pub fn for_this_host(self) -> Self {
        const DESTINATION: u32 = 2;
        const TYPE: u32 = 3;
        // `RTN_UNICAST`, `RTN_UNREACHABLE`.
        const OTHERS: [u32; 2] = [1, 7];
        let data = empty()
            .attr(1, &REGISTER.to_be_bytes())
            .attr(2, &TYPE.to_be_bytes())
            .attr(3, &DESTINATION.to_be_bytes());
        let typed = self.with("fib", data);
        OTHERS.into_iter().fold(typed, |rule, other| rule.compare(1, &other.to_ne_bytes()))
    }

    /// The packet is sent by another interface of the namespace. Only in a table of family `netdev`.
    pub fn forward_to(self, interface: u32) -> Self {
        let value = empty().attr(1, &REGISTER.to_be_bytes()).nest(2, |m| m.attr(1, &interface.to_ne_bytes()));
        self.with("immediate", value).with("fwd", empty().attr(1, &REGISTER.to_be_bytes()))
    }

    /// The packet goes to the class with this handle, where it meets the class's root.
    pub fn priority(self, handle: u32) -> Self {
        let value = empty().attr(1, &REGISTER.to_be_bytes()).nest(2, |m| m.attr(1, &handle.to_ne_bytes()));
        let set = empty().attr(2, &PRIORITY.to_be_bytes()).attr(3, &REGISTER.to_be_bytes());
        self.with("immediate", value).with("meta", set)
    }

    fn verdict(self, code: i32, chain: Option<&str>) -> Self {
        let data = empty().attr(1, &0u32.to_be_bytes()).nest(2, |m| {
            m.nest(2, |m| {
                let m = m.attr(1, &code.to_be_bytes());
                chain.map_or(m.clone(), |chain| m.text(2, chain))
            })
        });
        self.with("immediate", data)
    }

    /// The packet leaves this table's chain unharmed.
    pub fn accept(self) -> Self {
        self.verdict(1, None)
    }

    /// The packet vanishes.
    pub fn drop(self) -> Self {
        self.verdict(0, None)
    }

    /// Goes back to the chain that led here.
    pub fn leave(self) -> Self {
        self.verdict(-5, None)
    }

    /// Goes on in another chain, and comes back.
    pub fn jump(self, chain: &str) -> Self {
        self.verdict(-3, Some(chain))
    }

    /// The packet vanishes and its sender is told.
    pub fn reject(self, how: Reject) -> Self {
        let (kind, code) = match how {
            Reject::TcpReset => (1u32, 0u8),
            Reject::PortUnreachable => (2, 1),
            Reject::HostUnreachable => (2, 2),
            Reject::AdminProhibited => (2, 3),
        };
        self.with("reject", empty().attr(1, &kind.to_be_bytes()).attr(2, &[code]))
    }

    /// The packet waits for what the reader of a queue says. While nobody reads it, the packet goes on ("bypass").
    ///
    /// `native` is the kernel's own expression (`CONFIG_NFT_QUEUE`); without it, the target that iptables uses
    /// (`CONFIG_NETFILTER_XT_TARGET_NFQUEUE`) does the same. Source: `nft_queue.c`; `xt_NFQUEUE.h`, revision 3.
    pub fn queue(self, number: u16, native: bool) -> Self {
        const BYPASS: u16 = 1;
        if native {
            let data = empty()
                .attr(1, &number.to_be_bytes())
                .attr(2, &1u16.to_be_bytes())
                .attr(3, &BYPASS.to_be_bytes());
            return self.with("queue", data);
        }
        // Number, how many, flags, all in host order; padded to eight bytes.
        let info = [number, 1, BYPASS, 0].map(u16::to_ne_bytes).concat();
        let data = empty().text(1, "NFQUEUE").attr(2, &3u32.to_be_bytes()).attr(3, &info);
        self.with("target", data)
    }

    /// The message that puts this rule at the end of a chain.
    pub fn append(self, table: &str, chain: &str) -> Message {
        self.told(new_rule(table, chain))
    }

    /// The message that puts it in front of the rule with a handle.
    pub fn before(self, table: &str, chain: &str, handle: u64) -> Message {
        self.told(new_rule_before(table, chain, handle))
    }

    fn told(self, message: Message) -> Message {
        let mut comment = vec![0, u8::try_from(self.comment.len() + 1).unwrap_or(u8::MAX)];
        comment.extend(self.comment.bytes().take(254));
        comment.push(0);
        message
            .nest(4, |mut m| {
                for (name, data) in self.expressions {
                    m = m.nest(1, |m| m.text(1, name).nest(2, |m| m.splice(data)));
                }
                m
            })
            .attr(7, &comment)
    }
}
