//! Where the parts of a document stand, for reports that point into the file.

use super::node::Node;

/// Lines of a document, from 1, in the order of the experiment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// Of each hypothesis.
    pub hypotheses: Vec<usize>,
    /// Of each guard.
    pub guards: Vec<usize>,
    /// Of each fault, in the order of the parts of a [`crate::plan::Plan`].
    pub faults: Vec<usize>,
}

impl Places {
    /// The places in a tree that passed every check.
    pub(super) fn of(root: &Node, text: &str) -> Self {
        let breaks: Vec<usize> = text.match_indices('\n').map(|(at, _)| at).collect();
        let line = |node: &Node| breaks.partition_point(|at| *at < node.span.start) + 1;
        let items = |key: &str| root.get(key).map(Node::items).unwrap_or_default();
        let mut faults = Vec::new();
        for step in items("method") {
            let children = step.get("parallel").map(Node::items).unwrap_or_default();
            let steps = std::iter::once(step).chain(children);
            faults.extend(steps.filter(|step| step.get("fault").is_some()).map(line));
        }
        Places {
            hypotheses: items("hypothesis").iter().map(line).collect(),
            guards: items("stop-when").iter().map(line).collect(),
            faults,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Sources, read};

    #[test]
    fn every_part_has_its_line() {
        let text = "\u{feff}squall: 1
title: A
hypothesis:
  # a comment
  - name: one
    process: { argv: [\"true\"] }
  - { name: two, process: { argv: [\"true\"] } }
method:
  - wait: 1s
  - fault: { refuse: { to: [\"10.0.0.1:7\"] } }
    for: 1s
  - parallel:
      - wait: 1s
      - { fault: { refuse: { to: [\"10.0.0.2:7\"] } }, for: 1s }
stop-when:
  - name: up
    process: { argv: [\"true\"] }
";
        let document = read("a", text.as_bytes(), &Sources::default()).unwrap();
        let places = document.places;
        assert_eq!(places.hypotheses, [5, 7]);
        assert_eq!(places.guards, [16]);
        assert_eq!(places.faults, [10, 14]);
        assert_eq!(document.hash.len(), 32);
        let other = read("a", format!("{text}\n").as_bytes(), &Sources::default()).unwrap();
        assert_ne!(document.hash, other.hash);
    }
}
