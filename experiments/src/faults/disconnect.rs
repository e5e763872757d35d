use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::network::names_traffic;
use super::{Describe, Wrong, every_is_sound};
use crate::change::{Change, Disconnect as Destroy};
use crate::flow::{Established, Flow, Protocol};
use crate::peer::Peer;
use crate::quantity::Period;
use crate::scope::Scope;
use crate::witness::Verify;

/// Established TCP connections break: the target gets an error, the peer a reset. New connections work.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Disconnect {
    /// Peers that the target called, with their port.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1))]
    pub to: Vec<Peer>,
    /// Peers that called the target, with the local port that they came to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1))]
    pub from: Vec<Peer>,
    /// Peers that are left out, read as `to` for who was called and as `from` for who called.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1))]
    pub except: Vec<Peer>,
    /// Break connections again after this time, while the fault lasts; without it, once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<Period>,
}

impl Describe for Disconnect {
    const NAME: &'static str = "disconnect";
    const SUMMARY: &'static str = "established TCP connections break; new ones work";
    const ENGINE: &'static str = "SOCK_DESTROY over the socket diagnosis interface (sock_diag)";
    const REVERSIBLE: bool = false;
    const EXAMPLE: &'static str =
        "- fault: { disconnect: { to: [\"db.internal:5432\"], every: 5s } }\n  for: 30s\n";

    fn check(&self, scope: Option<&Scope>, wrong: &mut Wrong) {
        names_traffic(&self.to, &self.from, scope, wrong);
        every_is_sound(self.every, wrong);
    }

    fn changes(&self, scope: Option<&Scope>) -> Vec<Change> {
        let flow = Flow {
            to: self.to.clone(),
            from: self.from.clone(),
            except: self.except.clone(),
            protocol: Protocol::Tcp,
            established: Established::Include,
            verify: Verify::Counters,
            scope: scope.cloned(),
        };
        vec![Change::Disconnect(Destroy { flow, every: self.every })]
    }
}
