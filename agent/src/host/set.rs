//! Sets of nftables: messages that make, fill and look into them.
//!
//! Source: `include/uapi/linux/netfilter/nf_tables.h`, `enum nft_set_attributes`, `enum nft_set_elem_attributes`.

use std::collections::BTreeSet;

use super::netlink::{FLAG_CREATE, Message};
use super::nft::{INET, SUBSYSTEM};

const NEW_SET: u16 = 9;
const GET_SET: u16 = 10;
const DELETE_SET: u16 = 11;
const NEW_ELEMENT: u16 = 12;
const DELETE_ELEMENT: u16 = 14;

const TIMEOUT: u32 = 0x10;
const INTERVAL: u32 = 0x4;
const INTERVAL_END: u32 = 1;
/// How many elements one message takes: an attribute holds 64 KiB, and the longest range in IPv6 needs 96 bytes.
const CHUNK: usize = 500;

/// A named set of Squall's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// Its name, within the table.
    pub name: String,
    /// How long a key is, in bytes.
    pub key: u32,
    /// What `nft list` shows keys as: its own number of a type, such as 7 for `ipv4_addr`; 0 is nothing it knows.
    pub shown_as: u32,
    /// What elements are.
    pub kind: Kind,
}

/// What the elements of a set are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Single keys.
    Keys,
    /// Keys that expire.
    Expiring,
    /// Ranges of keys, in network order, which may not overlap.
    Ranges,
}

/// One element: a key, or the first and the last key of a range.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Element {
    /// The key, or the first of a range.
    pub first: Vec<u8>,
    /// The last key of a range; `None` in a set of single keys.
    pub last: Option<Vec<u8>>,
}

/// A set with what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filled {
    /// Which set.
    pub set: Set,
    /// Its elements.
    pub elements: BTreeSet<Element>,
}

impl Filled {
    /// The messages that make it. `number` tells it from other sets that are made in the same transaction.
    pub fn create(&self, table: &str, number: u32) -> Vec<Message> {
        let mut messages = vec![self.set.create(table, number)];
        let elements: Vec<Element> = self.elements.iter().cloned().collect();
        messages.extend(self.set.change(table, &[], &elements));
        messages
    }

    /// The messages that turn these elements into others.
    pub fn become_these(&self, table: &str, wanted: &BTreeSet<Element>) -> Vec<Message> {
        let only = |these: &BTreeSet<Element>, those: &BTreeSet<Element>| -> Vec<Element> {
            these.difference(those).cloned().collect()
        };
        self.set.change(table, &only(&self.elements, wanted), &only(wanted, &self.elements))
    }
}

/// Removes a set by its name; refused with `EBUSY` while a rule looks into it.
pub fn delete(table: &str, name: &str) -> Message {
    Message::new(SUBSYSTEM | DELETE_SET, 0).raw(&[INET, 0, 0, 0]).text(1, table).text(2, name)
}

/// Asks for all sets of a table.
pub fn list(table: &str) -> Message {
    Message::new(SUBSYSTEM | GET_SET, 0).raw(&[INET, 0, 0, 0]).text(1, table)
}

/// Asks for the sets of all tables of all families.
pub fn list_all() -> Message {
    Message::new(SUBSYSTEM | GET_SET, 0).raw(&[0; 4])
}

impl Element {
    /// A single key.
    pub fn key(key: impl Into<Vec<u8>>) -> Self {
        Element { first: key.into(), last: None }
    }
}

impl Set {
    /// Makes the set. `number` tells it from other sets that are made in the same transaction.
    pub fn create(&self, table: &str, number: u32) -> Message {
        let flags = match self.kind {
            Kind::Keys => 0,
            Kind::Expiring => TIMEOUT,
            Kind::Ranges => INTERVAL,
        };
        Message::new(SUBSYSTEM | NEW_SET, FLAG_CREATE)
            .raw(&[INET, 0, 0, 0])
            .text(1, table)
            .text(2, &self.name)
            .attr(3, &flags.to_be_bytes())
            .attr(4, &self.shown_as.to_be_bytes())
            .attr(5, &self.key.to_be_bytes())
            .attr(10, &number.to_be_bytes())
    }

    /// Adds elements, for a while where the set's elements expire. One that is there already is no error, unless it is a
    /// range that overlaps with another one.
    pub fn add(&self, table: &str, elements: &[Element], timeout_ms: Option<u64>) -> Message {
        self.elements(NEW_ELEMENT, FLAG_CREATE, table, elements, timeout_ms)
    }

    /// Takes any number of elements out, then puts others in: ranges may grow together.
    pub fn change(&self, table: &str, gone: &[Element], come: &[Element]) -> Vec<Message> {
        let gone = gone.chunks(CHUNK).map(|some| self.remove(table, some));
        gone.chain(come.chunks(CHUNK).map(|some| self.add(table, some, None))).collect()
    }

    /// Removes elements; refused with `ENOENT` where one is not there.
    pub fn remove(&self, table: &str, elements: &[Element]) -> Message {
        self.elements(DELETE_ELEMENT, 0, table, elements, None)
    }

    fn elements(
        &self,
        kind: u16,
        flags: u16,
        table: &str,
        elements: &[Element],
        timeout_ms: Option<u64>,
    ) -> Message {
        let timeout = timeout_ms.map(u64::to_be_bytes);
        let one = |m: Message, key: &[u8], flags: u32| {
            m.nest(1, |m| {
                let m = m.nest(1, |m| m.attr(1, key));
                let m = if flags == 0 { m } else { m.attr(3, &flags.to_be_bytes()) };
                timeout.map_or(m.clone(), |timeout| m.attr(4, &timeout))
            })
        };
        Message::new(SUBSYSTEM | kind, flags).raw(&[INET, 0, 0, 0]).text(1, table).text(2, &self.name).nest(
            3,
            |mut m| {
                for Element { first, last } in elements {
                    m = one(m, first, 0);
                    // The end of a range is the first key behind it; the range up to the highest key has none.
                    if let Some(end) = last.as_deref().and_then(next) {
                        m = one(m, &end, INTERVAL_END);
                    }
                }
                m
            },
        )
    }
}

/// The key behind a key; `None` behind the highest.
fn next(key: &[u8]) -> Option<Vec<u8>> {
    let mut next = key.to_vec();
    for byte in next.iter_mut().rev() {
        let (more, carried) = byte.overflowing_add(1);
        *byte = more;
        if !carried {
            return Some(next);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_behind_a_key() {
        assert_eq!(next(&[10, 0, 0, 255]), Some(vec![10, 0, 1, 0]));
        assert_eq!(next(&[255, 255]), None);
    }
}
