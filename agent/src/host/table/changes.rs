//! What stands in the table for each change: chains that the common ones lead to, sets, and a share of the filters.
//!
//! ```text
//! fault-in ─▶ r1-part-1-change-0-to-fault-in:  what is left out, then the rules
//! ```
//!
//! Chains and sets are called after the tag of the change, and the rule that leads to a chain carries the tag as its
//! comment: whoever takes over the table finds them again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use nix::errno::Errno;

use super::{NAME, Slot, Table, chain, filter};
use crate::host::netlink::{FLAG_ECHO, Message, NetlinkError};
use crate::host::nft::{self, Hook, IPV4, IPV6, Listed};
use crate::host::ranges::Addresses;
use crate::host::rule::{Home, Rule};
use crate::host::set::{self, Filled};
use crate::host::undo::TAG;

/// What the owner of the table knows of it.
#[derive(Debug, Default)]
pub(super) struct Changes {
    live: BTreeMap<String, Change>,
    filters: BTreeMap<Place, Addresses>,
    /// What was found in a table that another process had filled.
    found: BTreeMap<String, Found>,
}

/// A common chain.
type Place = (Option<Slot>, Hook);

#[derive(Clone, Debug, Default)]
struct Change {
    chains: Vec<Chain>,
    sets: BTreeMap<String, Arc<Filled>>,
}

#[derive(Clone, Debug)]
struct Chain {
    name: String,
    sense: &'static str,
    place: Place,
    /// The handle of the rule that leads here.
    way: u64,
    rules: usize,
    reach: Option<Addresses>,
}

/// Chains, sets, and rules that lead to the chains: as common chain and handle.
#[derive(Clone, Debug, Default)]
struct Found {
    ways: Vec<(String, u64)>,
    chains: Vec<String>,
    sets: Vec<String>,
    rules: usize,
}

/// What a removal came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removed {
    /// How many rules were removed.
    pub rules: usize,
    /// How many chains of the change are still there.
    pub left: usize,
}

/// How the chains and sets of a change begin to be called.
fn called(tag: &str) -> String {
    let name = tag.strip_prefix(TAG).unwrap_or(tag);
    if name.len() > 60 {
        return format!("{}-", &blake3::hash(name.as_bytes()).to_hex()[..32]);
    }
    name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' || c == '_' { c } else { '-' }).collect()
}

/// The name of a set of a change.
pub fn set_name(tag: &str, what: &str) -> String {
    format!("{}{what}", called(tag))
}

fn filter_messages(place: Place, before: &Addresses, after: &Addresses) -> Vec<Message> {
    let of = |family| {
        let (gone, come) = before.changes(after, family);
        filter(place.1, place.0, family).change(NAME, &gone, &come)
    };
    [IPV4, IPV6].into_iter().flat_map(of).collect()
}

impl Changes {
    /// What the filter of a common chain lets on, once a change is `wanted`; `None` is that it is gone.
    fn filtered(&self, place: Place, tag: &str, wanted: Option<&Change>) -> Addresses {
        let others = self.live.iter().filter(|(other, _)| *other != tag).map(|(_, change)| change);
        let chains = others.chain(wanted).flat_map(|change| &change.chains);
        let reaches: Option<Vec<&Addresses>> =
            chains.filter(|chain| chain.place == place).map(|chain| chain.reach.as_ref()).collect();
        reaches.map_or_else(Addresses::everything, Addresses::union)
    }

    /// The filters as they must become, and the messages for that.
    fn refilter(&self, tag: &str, wanted: Option<&Change>) -> (BTreeMap<Place, Addresses>, Vec<Message>) {
        let before = self.live.get(tag).into_iter().chain(wanted).flat_map(|change| &change.chains);
        let places: BTreeSet<Place> = before.map(|chain| chain.place).collect();
        let mut filters = BTreeMap::new();
        let mut messages = Vec::new();
        for place in places {
            let after = self.filtered(place, tag, wanted);
            let nothing = Addresses::default();
            messages.extend(filter_messages(place, self.filters.get(&place).unwrap_or(&nothing), &after));
            filters.insert(place, after);
        }
        (filters, messages)
    }
}

impl Change {
    /// Its sets as they are wanted, and the messages that make or fill them.
    fn fill(&mut self, wanted: &Arc<Filled>, messages: &mut Vec<Message>) {
        match self.sets.get(&wanted.set.name) {
            Some(known) if known.elements.is_superset(&wanted.elements) => return,
            Some(known) => messages.extend(known.become_these(NAME, &wanted.elements)),
            // Numbers of sets within one transaction; the common ones are made in others.
            None => messages.extend(wanted.create(NAME, 100 + self.sets.len() as u32)),
        }
        self.sets.insert(wanted.set.name.clone(), Arc::clone(wanted));
    }
}

impl Table {
    /// Adds the rules of one change in one transaction, with the sets that they look into: to a slot that is there, or in
    /// front of all slots. The change is known by the comment of the rules.
    pub fn add(&mut self, rules: Vec<(Hook, Rule)>, slot: Option<Slot>) -> Result<(), NetlinkError> {
        let Some(tag) = rules.first().map(|(_, rule)| rule.comment.clone()) else { return Ok(()) };
        let mut change = self.changes.live.get(&tag).cloned().unwrap_or_default();
        let (mut sets, mut chains, mut inside) = (Vec::new(), Vec::new(), Vec::new());
        let mut new = Vec::new();
        let homeless = Arc::new(Home { sense: "all", head: Vec::new(), reach: None });
        for (hook, rule) in rules {
            let home = rule.home.clone().unwrap_or_else(|| Arc::clone(&homeless));
            let outer = chain(hook, slot);
            let name = format!("{}{}-{outer}", called(&tag), home.sense);
            rule.sets.iter().for_each(|set| change.fill(set, &mut sets));
            let known = change.chains.iter().position(|chain| chain.name == name);
            let at = known.unwrap_or_else(|| {
                chains.push(nft::new_chain(NAME, &name));
                for head in &home.head {
                    head.sets.iter().for_each(|set| change.fill(set, &mut sets));
                    inside.push(head.clone().append(NAME, &name));
                }
                new.push(change.chains.len());
                let (place, reach) = ((slot, hook), home.reach.clone());
                change.chains.push(Chain {
                    name: name.clone(),
                    sense: home.sense,
                    place,
                    way: 0,
                    rules: 0,
                    reach,
                });
                change.chains.len() - 1
            });
            change.chains[at].rules += 1;
            inside.push(rule.append(NAME, &name));
        }
        let mut messages = [sets, chains, inside].concat();
        // The transaction's own bracket counts too.
        let first_way = messages.len() + 1;
        for at in &new {
            let Chain { name, place: (slot, hook), .. } = &change.chains[*at];
            let way = Rule::commented(&tag).jump(name).append(NAME, &chain(*hook, *slot));
            messages.push(way.flagged(FLAG_ECHO));
        }
        let (filters, more) = self.changes.refilter(&tag, Some(&change));
        messages.extend(more);
        for (index, echoed) in self.socket.request_echoed(nft::batch(messages))? {
            if let Some(at) = index.checked_sub(first_way).and_then(|way| new.get(way)) {
                change.chains[*at].way = nft::listed(&echoed).handle;
            }
        }
        self.changes.filters.extend(filters);
        self.changes.live.insert(tag, change);
        Ok(())
    }

    /// Puts more rules of a live change in front of those that it has, behind what it leaves out: into chains and before
    /// sets that are there.
    pub fn add_in_front(&mut self, rules: Vec<(Hook, Rule)>, slot: Slot) -> Result<(), NetlinkError> {
        let Some(tag) = rules.first().map(|(_, rule)| rule.comment.clone()) else { return Ok(()) };
        let Some(mut change) = self.changes.live.get(&tag).cloned() else { return Ok(()) };
        let mut firsts: BTreeMap<String, Option<u64>> = BTreeMap::new();
        let mut messages = Vec::new();
        for (hook, rule) in rules {
            let Some(home) = rule.home.clone() else { continue };
            let name = format!("{}{}-{}", called(&tag), home.sense, chain(hook, Some(slot)));
            let Some(known) = change.chains.iter_mut().find(|chain| chain.name == name) else { continue };
            let first = match firsts.get(&name) {
                Some(first) => *first,
                None => {
                    let listed = self.socket.dump(&nft::list_rules_of(NAME, &name))?;
                    let first = listed.get(home.head.len()).map(|rule| nft::listed(rule).handle);
                    firsts.insert(name.clone(), first);
                    first
                }
            };
            if let Some(first) = first {
                known.rules += 1;
                messages.push(rule.before(NAME, &name, first));
            }
        }
        self.socket.request(nft::batch(messages))?;
        self.changes.live.insert(tag, change);
        Ok(())
    }

    /// Gives the sets of a live change new elements, and its chains of each sense a new reach.
    pub fn refill(
        &mut self,
        tag: &str,
        sets: &[Arc<Filled>],
        reach: impl Fn(&str) -> Option<Addresses>,
    ) -> Result<(), NetlinkError> {
        let Some(mut change) = self.changes.live.get(tag).cloned() else { return Ok(()) };
        let mut messages = Vec::new();
        for set in
            sets.iter().filter(|set| change.sets.contains_key(&set.set.name)).cloned().collect::<Vec<_>>()
        {
            change.fill(&set, &mut messages);
        }
        for chain in change.chains.iter_mut().filter(|chain| chain.reach.is_some()) {
            chain.reach = reach(chain.sense);
        }
        let (filters, more) = self.changes.refilter(tag, Some(&change));
        messages.extend(more);
        if !messages.is_empty() {
            self.socket.request(nft::batch(messages))?;
        }
        self.changes.filters.extend(filters);
        self.changes.live.insert(tag.to_owned(), change);
        Ok(())
    }

    /// Gives one set of a live change new elements.
    pub fn refill_one(&mut self, tag: &str, set: &Arc<Filled>) -> Result<(), NetlinkError> {
        let Some(mut change) = self.changes.live.get(tag).cloned() else { return Ok(()) };
        let mut messages = Vec::new();
        change.fill(set, &mut messages);
        if !messages.is_empty() {
            self.socket.request(nft::batch(messages))?;
        }
        self.changes.live.insert(tag.to_owned(), change);
        Ok(())
    }

    /// The rules whose comment begins with `tag`; none where the table is not there.
    pub fn rules(&mut self, tag: &str) -> Result<Vec<Listed>, NetlinkError> {
        let requests = match self.changes.live.get(tag) {
            Some(change) => change.chains.iter().map(|chain| nft::list_rules_of(NAME, &chain.name)).collect(),
            None => vec![nft::list_rules(Some(NAME))],
        };
        let mut rules = Vec::new();
        for request in requests {
            match self.socket.dump(&request) {
                Err(error) if error.errno() == Errno::ENOENT => {}
                listed => {
                    rules.extend(listed?.iter().map(nft::listed).filter(|rule| rule.comment.starts_with(tag)))
                }
            }
        }
        Ok(rules)
    }

    /// Whether anything stands in the table for any change.
    pub fn serves(&mut self) -> Result<bool, NetlinkError> {
        Ok(!self.changes.live.is_empty() || !self.rules(TAG)?.is_empty())
    }

    /// Removes what stands in the table for a change.
    pub fn remove(&mut self, tag: &str) -> Result<Removed, NetlinkError> {
        let removed = self.remove_rules(tag)?;
        // Nobody wishes for that way any more.
        self.close_way(tag)?;
        Ok(removed)
    }

    fn remove_rules(&mut self, tag: &str) -> Result<Removed, NetlinkError> {
        let Some(change) = self.changes.live.get(tag).cloned() else { return self.remove_found(tag) };
        let found = Found {
            ways: change.chains.iter().map(|one| (chain(one.place.1, one.place.0), one.way)).collect(),
            chains: change.chains.iter().map(|chain| chain.name.clone()).collect(),
            sets: change.sets.keys().cloned().collect(),
            rules: change.chains.iter().map(|chain| chain.rules).sum(),
        };
        let (filters, more) = self.changes.refilter(tag, None);
        if self.take_out(&found, more).is_err() {
            // Not as it was left: look what is there.
            self.changes.live.remove(tag);
            self.changes.found.clear();
            return self.remove_found(tag);
        }
        self.changes.filters.extend(filters);
        self.changes.live.remove(tag);
        self.removed(&found)
    }

    fn take_out(&mut self, found: &Found, more: Vec<Message>) -> Result<(), NetlinkError> {
        let ways = found.ways.iter().map(|(outer, handle)| nft::delete_rule(NAME, outer, *handle));
        let chains = found.chains.iter().map(|name| nft::delete_chain(NAME, name));
        let sets = found.sets.iter().map(|name| set::delete(NAME, name));
        self.socket.request(nft::batch(ways.chain(chains).chain(sets).chain(more).collect()))
    }

    fn removed(&mut self, found: &Found) -> Result<Removed, NetlinkError> {
        let mut left = 0;
        for name in &found.chains {
            left += usize::from(self.socket.get(nft::get_chain(NAME, name))?.is_some());
        }
        Ok(Removed { rules: found.rules, left })
    }

    /// Removes what another process has put there: looked for once, and again where that does not fit any more.
    fn remove_found(&mut self, tag: &str) -> Result<Removed, NetlinkError> {
        if let Some(found) = self.changes.found.remove(tag)
            && self.take_out(&found, Vec::new()).is_ok()
        {
            return self.removed(&found);
        }
        self.changes.found = self.find()?;
        let found = self.changes.found.remove(tag).unwrap_or_default();
        if found.ways.is_empty() && found.chains.is_empty() && found.sets.is_empty() {
            return Ok(Removed { rules: 0, left: 0 });
        }
        self.take_out(&found, Vec::new())?;
        self.removed(&found)
    }

    /// Everything that stands in the table for changes, by their tags.
    fn find(&mut self) -> Result<BTreeMap<String, Found>, NetlinkError> {
        let mut found: BTreeMap<String, Found> = BTreeMap::new();
        let rules = self.rules(TAG)?;
        let common = |name: &str| name.starts_with("fault-") || name.starts_with("shape");
        for rule in rules {
            let change = found.entry(rule.comment).or_default();
            // A chain of a change may be called so too, but it ends in the name of a common one.
            if common(&rule.chain) && rule.chain.matches('-').count() == 1 {
                change.ways.push((rule.chain, rule.handle));
            } else {
                change.rules += 1;
            }
        }
        let names = |(family, table, name): (u8, String, String)| {
            (family == nft::INET && table == NAME).then_some(name)
        };
        let listed = self.socket.dump(&nft::list_chains())?;
        let chains: Vec<String> = listed.iter().map(nft::listed_chain).filter_map(names).collect();
        let listed = match self.socket.dump(&set::list(NAME)) {
            Err(error) if error.errno() == Errno::ENOENT => Vec::new(),
            listed => listed?,
        };
        let sets: Vec<String> = listed.iter().map(nft::listed_set).filter_map(names).collect();
        let prefixed = |all: &[String], prefix: &str| -> Vec<String> {
            all.iter().filter(|name| name.starts_with(prefix)).cloned().collect()
        };
        for (tag, change) in &mut found {
            change.chains = prefixed(&chains, &called(tag));
            change.sets = prefixed(&sets, &called(tag));
        }
        Ok(found)
    }
}
