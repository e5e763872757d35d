//! What the faults that shape traffic have in common: whose packets, which way, and how many are held.

use super::Wrong;
use crate::impairment::Chance;
use crate::quantity::Percent;

/// Makes the struct of a fault that shapes traffic: its own parameters, and those that all of them share.
macro_rules! shaping {
    ($(#[$doc:meta])* $name:ident { $($own:tt)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        #[serde(rename_all = "kebab-case", deny_unknown_fields)]
        pub struct $name {
            $($own)*
            /// Peers that the target calls, with their port: `payments.internal:443`.
            #[serde(default, skip_serializing_if = "Vec::is_empty")]
            #[schemars(length(min = 1))]
            pub to: Vec<crate::peer::Peer>,
            /// Peers that call the target, with the local port that they come to: `10.0.0.0/8:8080`.
            #[serde(default, skip_serializing_if = "Vec::is_empty")]
            #[schemars(length(min = 1))]
            pub from: Vec<crate::peer::Peer>,
            /// Which way packets go, seen from the target.
            #[serde(default = "super::shaping::inbound")]
            pub direction: crate::flow::Direction,
            /// Which transport.
            #[serde(default)]
            pub protocol: crate::flow::Protocol,
            /// How many packets are held at most, each way, so that memory is bounded; further ones pass unharmed, and
            /// the report says so. Without it, sized from the delay for 50,000 packets a second, at most 65536.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            #[schemars(range(min = 1, max = 65536))]
            pub limit: Option<u32>,
        }

        impl $name {
            /// What every fault of this kind must have right.
            fn check_traffic(&self, scope: Option<&crate::scope::Scope>, wrong: &mut super::Wrong) {
                super::needs_traffic(&self.to, &self.from, scope, wrong);
                super::ports_fit(self.protocol, &self.to, &self.from, scope, wrong);
            }

            /// The change that does this to the fault's packets, one way or both.
            fn shape(
                &self,
                direction: crate::flow::Direction,
                impairment: crate::impairment::Impairment,
                scope: Option<&crate::scope::Scope>,
            ) -> crate::change::Change {
                let flow = super::flow(&self.to, &self.from, self.protocol, scope);
                let limit = self.limit.unwrap_or_else(|| impairment.backlog());
                crate::change::Change::Shape(crate::change::Shape { flow, direction, impairment, limit })
            }
        }
    };
}
pub(super) use shaping;

/// Packets that have left their sender are shaped without disturbing it.
pub(super) fn inbound() -> crate::flow::Direction {
    crate::flow::Direction::Ingress
}

/// A chance that something happens to, which must not be none.
pub(super) fn chance(percent: Percent, correlation: Percent, wrong: &mut Wrong) -> Chance {
    if percent.get() == 0.0 {
        wrong.with("percent", "`0%` does nothing", "write a share above zero, such as `1%`");
    }
    if correlation.get() >= 100.0 {
        let help = "write less than `100%`: how much a packet resembles the one before it";
        wrong.with("correlation", "with `100%` what happens to the first packet happens to all", help);
    }
    Chance { percent, correlation }
}
