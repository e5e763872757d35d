//! When nothing runs, and why: stretches of time with a reason.

use jiff::Timestamp;

/// A stretch of time in which nothing runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bar {
    /// Its beginning.
    pub from: Timestamp,
    /// Its end, which does not belong to it.
    pub to: Timestamp,
    /// Why.
    pub why: String,
}

/// All of them, by their beginnings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bars {
    bars: Vec<Bar>,
    /// The latest end of all bars up to each one, by which a search knows where to stop.
    ends: Vec<Timestamp>,
}

impl Bars {
    /// Bars in any order; those without length bar nothing.
    pub fn new(mut bars: Vec<Bar>) -> Self {
        bars.retain(|bar| bar.from < bar.to);
        bars.sort_by(|a, b| (a.from, a.to, &a.why).cmp(&(b.from, b.to, &b.why)));
        let ends = bars.iter().scan(Timestamp::MIN, |latest, bar| {
            *latest = bar.to.max(*latest);
            Some(*latest)
        });
        let ends = ends.collect();
        Bars { bars, ends }
    }

    /// All of them.
    pub fn list(&self) -> &[Bar] {
        &self.bars
    }

    /// What bars an instant.
    pub fn at(&self, at: Timestamp) -> Option<&Bar> {
        let begun = self.bars.partition_point(|bar| bar.from <= at);
        let candidates = self.bars[..begun].iter().zip(&self.ends).rev();
        candidates.take_while(|(_, latest)| **latest > at).map(|(bar, _)| bar).find(|bar| bar.to > at)
    }

    /// What bars a whole stretch of time: the first bar where several do it together.
    pub fn over(&self, from: Timestamp, to: Timestamp) -> Option<&Bar> {
        let first = self.at(from)?;
        let mut reached = first.to;
        while reached < to {
            reached = self.at(reached)?.to;
        }
        Some(first)
    }
}
