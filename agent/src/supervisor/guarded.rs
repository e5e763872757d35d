//! Runs whose guards the agent looks at itself.

use squall_experiments::protocol::{Guard, Message, Refusal, RunId, Said};

use super::{Heard, Supervisor};
use crate::guards::{Guards, Told, in_words};
use crate::link::{Connection, Origin};

impl Supervisor {
    /// Whether this host's policy lets whoever asks have these looked at.
    pub(super) fn may_guard(&self, connection: Connection, guards: &[Guard]) -> Result<(), Refusal> {
        if self.is_of_this_host(connection) {
            return Ok(());
        }
        let probes = guards.iter().filter_map(|guard| guard.claim.probe());
        probes.into_iter().try_for_each(|probe| self.policy.permits_controllers_probe(&probe))
    }

    fn is_of_this_host(&self, connection: Connection) -> bool {
        self.clients.get(&connection).is_some_and(|client| client.origin == Origin::Here)
    }

    /// Looks at the guards of a run from now on.
    pub(super) fn guard(&mut self, run: &RunId, guards: Vec<Guard>) -> Result<(), Refusal> {
        let (heard, of) = (self.heard.clone(), run.clone());
        let told = move |told| drop(heard.send(Heard::Looked(of.clone(), told)));
        let connection = self.injections.get(run).map(|injection| injection.connection);
        let here = connection.is_some_and(|connection| self.is_of_this_host(connection));
        let within = if here { None } else { Some(&self.policy.controllers.probes) };
        self.guards.insert(run.clone(), Guards::start(guards, within, told)?);
        Ok(())
    }

    /// Passes on what a guard saw, and undoes the run where one of them says so.
    pub(super) fn looked(&mut self, run: &RunId, told: Told) {
        let Some(guards) = self.guards.get_mut(run) else { return };
        let Some(connection) = self.injections.get(run).map(|injection| injection.connection) else { return };
        let mut why = None;
        for (guard, said) in guards.take(told) {
            if let Said::Stopped(stop) = &said {
                why = Some(in_words(guards.name(guard), stop));
            }
            let message = Message::Guard { run: run.clone(), guard, said };
            // Sent by the worker's loop between two looks; a conductor that does not read keeps nobody waiting.
            if let Some(client) = self.clients.get(&connection) {
                let _ = client.outgoing.send(message);
            }
        }
        if let Some(why) = why {
            self.end(run, Some(&why));
        }
    }
}
