//! What is decided about a connection before the dependency is connected to.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::link::{Change, Place};
use super::toxic::Toxic;
use super::toxics::{Kind, Work, ms};

/// What is to be done with a connection now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The dependency is connected to.
    Open,
    /// Not before this time, on the monotonic clock in nanoseconds.
    Until(u64),
    /// Never: the client sees a reset.
    Refuse,
}

/// The toxics that stand before the dependency is connected to.
pub struct Gate {
    toxics: Vec<Held>,
    accepted: u64,
}

struct Held {
    toxic: Arc<Toxic>,
    /// Whether its matcher means this connection.
    meant: bool,
    /// Whether the draw chose it, too.
    active: bool,
}

impl Held {
    fn new(toxic: &Arc<Toxic>, place: Place<'_>) -> Self {
        let meant = toxic.means(place);
        Held { toxic: toxic.clone(), meant, active: meant && toxic.draw(&mut toxic.dice(place)) }
    }
}

impl Gate {
    /// For a connection that was accepted at this time; `None` where no toxic stands in its way.
    pub fn new<'a>(
        toxics: impl Iterator<Item = &'a Arc<Toxic>>,
        place: Place<'_>,
        accepted: u64,
    ) -> Option<Box<Self>> {
        let stand = toxics.filter(|toxic| stands(toxic.kind));
        let toxics: Vec<_> = stand.map(|toxic| Held::new(toxic, place)).collect();
        (!toxics.is_empty()).then(|| Box::new(Gate { toxics, accepted }))
    }

    /// What they say.
    pub fn verdict(&self, now: u64) -> Verdict {
        let mut due = self.accepted;
        for Held { toxic, .. } in self.toxics.iter().filter(|held| held.active) {
            if toxic.kind.name == "connect_refuse" {
                return Verdict::Refuse;
            }
            due = due.saturating_add(ms(toxic.values.count(0)));
        }
        if due > now { Verdict::Until(due) } else { Verdict::Open }
    }

    /// The names of those that do something, each counted once as a hit.
    pub fn passed(&self) -> Vec<String> {
        let active = self.toxics.iter().filter(|held| held.active);
        active
            .map(|held| {
                held.toxic.hits.fetch_add(1, Ordering::Relaxed);
                held.toxic.name.clone()
            })
            .collect()
    }

    /// Applies a change.
    pub fn change(&mut self, change: &Change, place: Place<'_>) {
        match change {
            Change::Add(toxic) if stands(toxic.kind) => self.toxics.push(Held::new(toxic, place)),
            Change::Add(_) => {}
            Change::Update(toxic) => {
                if let Some(held) = self.toxics.iter_mut().find(|held| held.toxic.name == toxic.name) {
                    held.active = held.meant && toxic.draw(&mut toxic.dice(place));
                    held.toxic.clone_from(toxic);
                }
            }
            Change::Remove(name) => self.toxics.retain(|held| held.toxic.name != *name),
        }
    }
}

fn stands(kind: &Kind) -> bool {
    matches!(kind.work, Work::Connect)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::control::{Understood, WantedToxic};
    use super::{Arc, Change, Gate, Place, Toxic, Verdict};

    fn toxic(kind: &str, attributes: &serde_json::Value) -> Arc<Toxic> {
        let attributes = attributes.as_object().cloned().unwrap_or_default();
        let wanted = WantedToxic { kind: kind.to_owned(), attributes, ..WantedToxic::default() };
        Arc::new(wanted.read(Understood::default()).expect("a toxic"))
    }

    #[test]
    fn delays_add_up_and_a_refusal_is_final() {
        let place = Place::at(1);
        assert!(Gate::new([toxic("latency", &json!({}))].iter(), place, 0).is_none());
        let delays = [toxic("connect_delay", &json!({ "delay": 20 }))];
        let mut gate = Gate::new(delays.iter(), place, 5).expect("a gate");
        assert_eq!(gate.verdict(5), Verdict::Until(20_000_005));
        let mut second = Toxic::clone(&delays[0]);
        second.name = "second".to_owned();
        gate.change(&Change::Add(Arc::new(second)), place);
        assert_eq!(gate.verdict(5), Verdict::Until(40_000_005));
        gate.change(&Change::Remove("second".to_owned()), place);
        assert_eq!(gate.verdict(20_000_005), Verdict::Open);
        gate.change(&Change::Add(toxic("connect_refuse", &json!({}))), place);
        assert_eq!(gate.verdict(20_000_005), Verdict::Refuse);
        assert_eq!(gate.passed(), ["connect_delay_downstream", "connect_refuse_downstream"]);
    }
}
