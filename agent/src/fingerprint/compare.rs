//! What is different between two fingerprints.

use std::collections::BTreeSet;
use std::fmt;

use super::{Fingerprint, Section, Things, places};

/// One thing that is not as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Which part of the host.
    pub section: Section,
    /// What it is called.
    pub name: String,
    /// What it was; `None` is that it was not there.
    pub before: Option<String>,
    /// What it is now; `None` is that it is not there.
    pub after: Option<String>,
    /// Whether it bears Squall's mark.
    pub ours: bool,
}

impl Fingerprint {
    /// What is different in a later one, section by section.
    pub fn differences(&self, after: &Fingerprint) -> Vec<Difference> {
        let sections: BTreeSet<Section> =
            self.sections.keys().chain(after.sections.keys()).copied().collect();
        let mut found = Vec::new();
        for section in sections {
            let of = |one: &Fingerprint| one.sections.get(&section).cloned().unwrap_or_default();
            let (mut before, mut now) = (of(self), of(after));
            if before.is_one() || now.is_one() {
                (before, now) = (before.as_one(), now.as_one());
            }
            let names: BTreeSet<&String> = before.0.keys().chain(now.0.keys()).collect();
            for name in names.into_iter().filter(|name| !same(section, &before, &now, name)) {
                found.push(Difference {
                    section,
                    name: name.clone(),
                    before: before.0.get(name).cloned(),
                    after: now.0.get(name).cloned(),
                    ours: self.ours.contains(name) || after.ours.contains(name),
                });
            }
        }
        found
    }
}

fn same(section: Section, before: &Things, after: &Things, name: &str) -> bool {
    match (before.0.get(name), after.0.get(name)) {
        (Some(before), Some(after)) if section == Section::Clock => places::same_clock(before, after),
        (before, after) => before == after,
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match (&self.before, &self.after) {
            (None, _) => "new",
            (_, None) => "gone",
            _ => "changed",
        };
        write!(f, "{}: {}: {how}", self.section, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(things: &[(&str, &str)], ours: &[&str]) -> Fingerprint {
        let mut print = Fingerprint::default();
        print.put(Section::Firewall, |seen| {
            things.iter().for_each(|(name, value)| seen.say((*name).to_owned(), *value));
            ours.iter().for_each(|name| seen.ours(name));
            Ok(())
        });
        print
    }

    #[test]
    fn new_gone_and_changed_are_told_apart_and_ours_is_known() {
        let before = print(&[("a", "1"), ("b", "1"), ("c", "1")], &[]);
        let after = print(&[("a", "1"), ("b", "2"), ("d", "1")], &["d"]);
        let found: Vec<(String, bool)> =
            before.differences(&after).iter().map(|one| (one.to_string(), one.ours)).collect();
        let expected = [("b: changed", false), ("c: gone", false), ("d: new", true)];
        assert_eq!(found, expected.map(|(what, ours)| (format!("nftables: {what}"), ours)));
        assert!(after.differences(&after).is_empty());
    }
}
