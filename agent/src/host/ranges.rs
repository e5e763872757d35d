//! Addresses as ranges of which no two overlap or touch: what sets of nftables want.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

use super::nft::{IPV4, IPV6};
use super::set::Element;

/// Addresses of both families.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    v4: Vec<Range>,
    v6: Vec<Range>,
}

/// The first and the last address. They stand in ascending order.
type Range = (u128, u128);

impl Addresses {
    /// All addresses of some networks; they may overlap, and stand in any order.
    pub fn of(networks: impl IntoIterator<Item = (IpAddr, u8)>) -> Self {
        let mut addresses = Addresses::default();
        for (network, bits) in networks {
            let (list, first, free) = match network {
                IpAddr::V4(v4) => (&mut addresses.v4, u128::from(u32::from(v4)), 32 - bits.min(32)),
                IpAddr::V6(v6) => (&mut addresses.v6, u128::from(v6), 128 - bits.min(128)),
            };
            let hosts = 1u128.checked_shl(u32::from(free)).map_or(u128::MAX, |size| size - 1);
            list.push((first, first | hosts));
        }
        addresses.v4 = merged(addresses.v4);
        addresses.v6 = merged(addresses.v6);
        addresses
    }

    /// Every address there is.
    pub fn everything() -> Self {
        Addresses { v4: vec![(0, u128::from(u32::MAX))], v6: vec![(0, u128::MAX)] }
    }

    /// What is in any of them.
    pub fn union<'a>(all: impl IntoIterator<Item = &'a Addresses>) -> Self {
        let mut sum = Addresses::default();
        for one in all {
            sum.v4.extend(&one.v4);
            sum.v6.extend(&one.v6);
        }
        Addresses { v4: merged(sum.v4), v6: merged(sum.v6) }
    }

    /// The ranges of one family, as elements of a set.
    pub fn elements(&self, family: u8) -> BTreeSet<Element> {
        self.of_family(family).iter().map(|range| element(*range, family)).collect()
    }

    /// What must be taken out of a set of these, and put in, so that it holds others.
    pub fn changes(&self, wanted: &Addresses, family: u8) -> (Vec<Element>, Vec<Element>) {
        let (old, new) = (self.of_family(family), wanted.of_family(family));
        // Both ascend: what one has and the other has not is found in one walk.
        let only = |these: &[Range], those: &[Range]| {
            let mut rest = those.iter().peekable();
            let mut found = Vec::new();
            for range in these {
                while rest.next_if(|other| *other < range).is_some() {}
                if rest.peek() != Some(&range) {
                    found.push(element(*range, family));
                }
            }
            found
        };
        (only(old, new), only(new, old))
    }

    fn of_family(&self, family: u8) -> &[Range] {
        match family {
            IPV4 => &self.v4,
            IPV6 => &self.v6,
            _ => &[],
        }
    }

    /// Whether there is an IPv6 address among them.
    pub fn any_v6(&self) -> Option<Ipv6Addr> {
        self.v6.first().map(|(first, _)| Ipv6Addr::from(*first))
    }
}

fn element((first, last): Range, family: u8) -> Element {
    let length = if family == IPV4 { 4 } else { 16 };
    let key = |value: u128| value.to_be_bytes()[16 - length..].to_vec();
    Element { first: key(first), last: Some(key(last)) }
}

fn merged(mut list: Vec<Range>) -> Vec<Range> {
    list.sort_unstable();
    let mut merged: Vec<Range> = Vec::with_capacity(list.len());
    for (first, last) in list {
        match merged.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use squall_experiments::peer::{Peer, PeerHost};

    use super::*;

    fn of(networks: &[&str]) -> Addresses {
        Addresses::of(networks.iter().map(|text| match text.parse::<Peer>().unwrap().host {
            PeerHost::Net(address, bits) => (address, bits),
            other => panic!("{other:?}"),
        }))
    }

    #[test]
    fn what_overlaps_or_touches_or_comes_twice_is_one_range() {
        assert_eq!(of(&["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "10.1.2.3"]), of(&["10.0.0.0/8"]));
        assert_eq!(of(&["10.0.1.0/24", "10.0.0.0/24"]), of(&["10.0.0.0/23"]));
        assert_eq!(of(&["::/0", "2001:db8::/32", "ffff::1"]).v6, [(0, u128::MAX)]);
        assert_eq!(of(&["0.0.0.0/0", "::/0"]), Addresses::everything());
        assert_eq!(of(&["255.255.255.255", "255.255.255.254"]), of(&["255.255.255.254/31"]));
        assert_eq!(of(&["10.0.0.1", "10.0.0.3"]).v4.len(), 2);
    }

    #[test]
    fn elements_are_in_network_order() {
        let elements: Vec<Element> = of(&["10.0.0.0/8"]).elements(IPV4).into_iter().collect();
        let expected = Element { first: vec![10, 0, 0, 0], last: Some(vec![10, 255, 255, 255]) };
        assert_eq!(elements, [expected]);
        assert!(of(&["10.0.0.0/8"]).elements(IPV6).is_empty());
    }

    #[test]
    fn a_set_is_changed_by_what_differs_alone() {
        let (old, new) =
            (of(&["10.0.0.1", "10.0.0.3", "10.9.0.0/16"]), of(&["10.0.0.0/29", "10.9.0.0/16", "::1"]));
        let (gone, come) = old.changes(&new, IPV4);
        let firsts =
            |elements: &[Element]| elements.iter().map(|element| element.first[3]).collect::<Vec<_>>();
        assert_eq!((firsts(&gone), firsts(&come)), (vec![1, 3], vec![0]));
        assert_eq!(old.changes(&new, IPV6).1.len(), 1);
        assert_eq!(new.changes(&new, IPV4), (Vec::new(), Vec::new()));
    }

    #[test]
    fn a_union_is_that_of_the_networks() {
        let (a, b) = (of(&["10.0.0.1", "::1"]), of(&["10.0.0.2", "::2"]));
        assert_eq!(Addresses::union([&a, &b]), of(&["10.0.0.1", "10.0.0.2", "::1", "::2"]));
        assert_eq!(a.any_v6(), Some(Ipv6Addr::LOCALHOST));
    }
}
