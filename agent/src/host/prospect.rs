//! By what a change would be made on this host now, and why: for a plan. The agent looks again when it makes it.

use std::collections::BTreeSet;

use serde::Serialize;
use squall_experiments::change::{Change, Engine, Shape};
use squall_experiments::flow::Flow;
use squall_experiments::protocol::Refusal;

use super::aim::Aim;
use super::engines::Engines;
use super::matching::Packets;
use super::netns::Netns;
use super::qdisc::{Discs, choice, htb, needs_netem, netem};
use super::site::Site;
use super::table::Table;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Prospect {
    /// By what, in the words of the preflight; of a shape, as its report will call it: `netem`, `htb` or `queue`.
    pub engine: &'static str,
    /// Why, and with which limits; empty where there is no other one.
    pub why: Vec<String>,
}

impl Prospect {
    /// Looks at the host, and at the network of the change's target. Changes nothing. Names of the flow must be resolved in
    /// `aim`; `None` where the change alters no traffic.
    pub fn of(change: &Change, aim: &Aim<'_>) -> Result<Option<Self>, Refusal> {
        let only = |engine| Ok(Some(Prospect { engine, why: Vec::new() }));
        let home = Netns::here().map_err(|error| Refusal::bare(error.to_string()))?;
        // What is not found is told where it is looked for, with all that is known then.
        if let Ok(site) = Site::of(change, home.id()) {
            aim.spares(&site)?;
        }
        match change {
            Change::Block(_) => only("rules"),
            Change::Disconnect(_) => only("socket diagnosis"),
            Change::Redirect(_) => only("proxy"),
            Change::Signal(_) | Change::Pause(_) => Ok(None),
            Change::Shape(_) => {
                let site = Site::of(change, home.id())?;
                let Change::Shape(shape) = &site.change else { return Ok(None) };
                let aim = aim.anew();
                let inside = site.look(|| Prospect::shaped(shape, &aim));
                let found = match inside {
                    Some(found) => found.map_err(|error| Refusal::bare(error.to_string()))?,
                    None => Prospect::shaped(shape, &aim),
                };
                found.map(Some)
            }
        }
    }

    fn shaped(shape: &Shape, aim: &Aim<'_>) -> Result<Self, Refusal> {
        // Which of them are whose is not asked: that is the rules' business, whatever the engine.
        let flow = Flow { to: shape.flow.to.clone(), from: shape.flow.from.clone(), ..Flow::default() };
        let mut packets = Packets::of(&flow, "plan", aim, &BTreeSet::new())?;
        packets.notes.clear();
        if let Some(roots) = choice::choose(shape, &mut packets, aim.policy, &mut Discs::of_another())? {
            let engine = if needs_netem(&shape.impairment) { netem::KIND } else { htb::KIND };
            return Ok(Prospect { engine, why: roots.notes });
        }
        let mut table = Table::open().map_err(|error| Refusal::bare(error.to_string()))?;
        Engines::default().native(&mut table)?;
        let mut why = packets.notes;
        if shape.engine == Engine::Queue {
            why.push("the engine is `queue`, as asked for".to_owned());
        }
        Ok(Prospect { engine: "queue", why })
    }
}
