//! An address that a name gets while its fault is live: compared with what stands beside it, as at the beginning.

use std::collections::BTreeSet;
use std::net::IpAddr;

use squall_experiments::change::Change;
use squall_experiments::flow::Flow;
use squall_experiments::peer::{Peer, PeerHost};

use super::Made;
use crate::host::aim::{News, Resolved};
use crate::host::reach::addressed;
use crate::host::view::Viewpoint;

/// Addresses of names that belong to another live change.
pub(super) type LeftOut = BTreeSet<(String, IpAddr)>;

impl Made {
    /// News without the addresses that this change may not meet beside what `standing` finds in the way; those are told
    /// once, and compared again whenever the name's answer changes.
    pub fn sifted(&mut self, news: &News, standing: impl Fn(&Self, &Addition<'_>) -> Option<String>) -> News {
        // Of another view: who asks there is told by its own.
        if news.from != Viewpoint::of(&self.site.change) {
            return news.clone();
        }
        let name = &news.name;
        let known = self.resolved.get(name).cloned().unwrap_or_default();
        let mut sifted = News { addresses: Vec::new(), ..news.clone() };
        for address in &news.addresses {
            let joining = Addition { name, address: *address };
            let why = (!known.contains(address)).then(|| standing(self, &joining)).flatten();
            let this = (name.clone(), *address);
            match why {
                None => {
                    self.left_out.remove(&this);
                    sifted.addresses.push(*address);
                }
                Some(why) if self.left_out.insert(this) => sifted.held.push((*address, why)),
                Some(_) => {}
            }
        }
        // Who never joined is not said to leave and to be met still.
        sifted.left.retain(|address| !self.left_out.remove(&(name.clone(), *address)));
        sifted
    }

    /// Why another live change may not meet one more address of a name beside this one.
    pub fn stands_against(&self, other: &Self, addition: &Addition<'_>) -> Option<String> {
        // Outages settle it among themselves: an address stays with whose it is, and is led to the other's proxy after that.
        if let (Change::Redirect(_), Change::Redirect(_)) = (&self.site.change, &other.site.change) {
            return None;
        }
        let flow = other.site.change.flow()?;
        let named = |peers: &[Peer]| peers.iter().any(|peer| addition.is_of(peer));
        if !named(&flow.to) && !named(&flow.from) {
            return None;
        }
        let theirs = other.claims(|flow| addition.alone(flow, &other.resolved));
        self.stands_in_the_way(&other.site, &theirs)
    }
}

/// One more address of a name.
#[derive(Debug)]
pub struct Addition<'a> {
    name: &'a str,
    address: IpAddr,
}

impl Addition<'_> {
    fn is_of(&self, peer: &Peer) -> bool {
        matches!(&peer.host, PeerHost::Name(name) if name == self.name)
    }

    /// What a flow meets by it and did not meet before: everything else has been compared.
    fn alone(&self, flow: &Flow, resolved: &Resolved) -> Flow {
        let only = |peers: &[Peer]| peers.iter().filter(|peer| self.is_of(peer)).cloned().collect();
        let narrow = Flow { to: only(&flow.to), from: only(&flow.from), ..flow.clone() };
        let mut one = resolved.clone();
        one.insert(self.name.to_owned(), vec![self.address]);
        addressed(&narrow, &one)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_flow_only_the_new_address_is_compared() {
        let peers = |list: &[&str]| list.iter().map(|peer| peer.parse().unwrap()).collect();
        let flow = Flow {
            to: peers(&["db:5432", "10.0.0.9"]),
            except: peers(&["cache", "10.0.0.3"]),
            ..Flow::default()
        };
        let address = |text: &str| -> IpAddr { text.parse().unwrap() };
        let resolved = Resolved::from([
            ("db".to_owned(), vec![address("10.0.0.1")]),
            ("cache".to_owned(), vec![address("10.0.0.2")]),
        ]);
        let addition = Addition { name: "db", address: address("10.0.0.7") };
        let expected = Flow {
            to: peers(&["10.0.0.7:5432"]),
            except: peers(&["10.0.0.2", "10.0.0.3"]),
            ..Flow::default()
        };
        assert_eq!(addition.alone(&flow, &resolved), expected);
    }
}
