//! What the faults that shape traffic have in common: whose packets, which way, and how many are held.

use super::Wrong;
use crate::impairment::Chance;
use crate::quantity::Percent;

/// Makes the struct of a fault that shapes traffic: its own parameters, and those that all of them share.
macro_rules! shaping {
    ($(#[$doc:meta])* $name:ident { $($own:tt)* }) => {
        super::network::network! {
            $(#[$doc])*
            $name { $($own)* } {
                /// Which way packets go, seen from the target.
                #[serde(default = "super::shaping::inbound")]
                pub direction: crate::flow::Direction,
                /// How many packets are held at most, each way, so that memory is bounded; further ones pass unharmed, or
                /// are lost where the engine is `netem`, and the report says so. Without it, sized from the delay for 50,000
                /// packets a second, at most 65536.
                #[serde(default, skip_serializing_if = "Option::is_none")]
                #[schemars(range(min = 1, max = 65536))]
                pub limit: Option<u32>,
                /// By which engine.
                #[serde(default)]
                pub engine: crate::change::Engine,
                /// What happens where an interface is shaped by somebody already.
                #[serde(default)]
                pub root: crate::change::Root,
            }
        }

        impl $name {
            /// The change that does this to the fault's packets, one way or both.
            fn shape(
                &self,
                direction: crate::flow::Direction,
                impairment: crate::impairment::Impairment,
                scope: Option<&crate::scope::Scope>,
            ) -> crate::change::Change {
                let limit = self.limit.unwrap_or_else(|| impairment.backlog());
                crate::change::Change::Shape(crate::change::Shape {
                    flow: self.flow(scope),
                    direction,
                    impairment,
                    limit,
                    engine: self.engine,
                    root: self.root,
                })
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
