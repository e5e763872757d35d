use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Describe, Wrong};
use crate::ailment::Ailment;
use crate::change::{Block, Change, Redirect, Verdict};
use crate::flow::{Direction, Established, Flow, Protocol};
use crate::peer::{Peer, PeerHost};
use crate::quantity::{Bandwidth, Percent, Period, Size};
use crate::scope::Scope;

/// A dependency is out, in a way that its callers know from production. `refuse` and `blackhole` are the same as the faults
/// `refuse` and `partition`, done by the kernel alone. For all others the target's new connections to the dependency are led
/// through a proxy of Squall's on the same host, which is told what to do to them; the target sees the address that it asked
/// for. Connections that are there already cannot be led there: they are kept, or reset.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Outage {
    /// The dependency that the target calls, with its port: `payments.internal:443`.
    pub of: Peer,
    /// What is wrong with it.
    pub how: How,
    /// For `reset`, `hang` and `close-early`: so many bytes of the dependency's answers pass before, on each connection.
    /// Without it none do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Size>,
    /// For `slow`: how fast answers come, on each connection, in whole kilobytes (1000 bytes) a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Bandwidth>,
    /// For `latency` and `brownout`: how late answers come, in whole milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<Period>,
    /// For `latency` and `brownout`: how much that varies, evenly to both sides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<Period>,
    /// Which share of the connections is concerned, drawn with the run's seed; the others pass through the proxy unharmed.
    /// `refuse` and `blackhole` concern all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<Percent>,
    /// What becomes of TCP connections that are there when the fault begins: `include` is usual for `refuse` and `blackhole`,
    /// `keep` for all others, which cannot include them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub established: Option<Established>,
}

/// What is wrong with a dependency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// It refuses connections at once, as when nothing listens.
    Refuse,
    /// Nothing comes back from it: connections hang until somebody's time-out.
    Blackhole,
    /// It resets the connection when it begins to answer, or in the middle of an answer (`after`).
    Reset,
    /// It accepts the connection and never answers, or stops in the middle of an answer (`after`).
    Hang,
    /// It answers slowly (`rate`).
    Slow,
    /// It closes the connection instead of answering, or in the middle of an answer (`after`).
    CloseEarly,
    /// It answers late (`delay`).
    Latency,
    /// Some of it is overloaded: a share of the connections (`share`) is answered late (`delay`).
    Brownout,
}

impl How {
    /// Whether the kernel does it alone.
    fn is_kernels(self) -> bool {
        matches!(self, How::Refuse | How::Blackhole)
    }

    fn breaks_off(self) -> bool {
        matches!(self, How::Reset | How::Hang | How::CloseEarly)
    }

    fn is_late(self) -> bool {
        matches!(self, How::Latency | How::Brownout)
    }
}

/// The slowest line of the proxy, in bits a second.
const SLOWEST: u64 = 8_000;

impl Outage {
    fn flow(&self, scope: Option<&Scope>) -> Flow {
        let usual = if self.how.is_kernels() { Established::Include } else { Established::Keep };
        Flow {
            to: vec![self.of.clone()],
            protocol: if self.how.is_kernels() { Protocol::Any } else { Protocol::Tcp },
            established: self.established.unwrap_or(usual),
            scope: scope.cloned(),
            ..Flow::default()
        }
    }

    fn ailment(&self) -> Option<Ailment> {
        let after = self.after.unwrap_or(Size::from_bytes(0));
        Some(match self.how {
            How::Refuse | How::Blackhole => return None,
            How::Reset => Ailment::Reset { after },
            How::Hang => Ailment::Hang { after },
            How::CloseEarly => Ailment::Close { after },
            How::Slow => Ailment::Slow { rate: self.rate? },
            How::Latency | How::Brownout => {
                Ailment::Late { delay: self.delay?, jitter: self.jitter.unwrap_or(Period::ZERO) }
            }
        })
    }

    /// What each way needs, and what means nothing for it.
    fn check_parameters(&self, wrong: &mut Wrong) {
        let how = self.how;
        let given = [
            ("after", self.after.is_some(), how.breaks_off(), "`reset`, `hang` and `close-early`"),
            ("rate", self.rate.is_some(), how == How::Slow, "`slow`"),
            ("delay", self.delay.is_some(), how.is_late(), "`latency` and `brownout`"),
            ("jitter", self.jitter.is_some(), how.is_late(), "`latency` and `brownout`"),
            ("share", self.share.is_some(), !how.is_kernels(), "the ways that the proxy does"),
        ];
        for (name, _, _, of) in given.into_iter().filter(|(_, given, fits, _)| *given && !fits) {
            wrong.with(name, format!("`{name}` means nothing here"), format!("it belongs to {of}"));
        }
        if how == How::Slow && self.rate.is_none_or(|rate| rate.bits() < SLOWEST) {
            let what = "`slow` needs a rate of at least 1kB/s";
            wrong.with("rate", what, "say how fast answers come: `rate: 2kB/s`");
        }
        if how.is_late() && self.delay.is_none_or(|delay| delay.get().as_millis() == 0) {
            let what = "this needs a delay of at least 1ms";
            wrong.with("delay", what, "say how late answers come: `delay: 2s`");
        }
        if how == How::Brownout && self.share.is_none() {
            wrong.with("share", "`brownout` needs a share", "say which share of connections: `share: 20%`");
        }
        if self.share.is_some_and(|share| share.is_zero()) {
            wrong.with("share", "a share of 0% does nothing", "write more, such as `20%`");
        }
    }

    /// What the proxy can stand in for.
    fn check_redirect(&self, scope: Option<&Scope>, wrong: &mut Wrong) {
        let one_port = self.of.ports.is_some_and(|ports| ports.first == ports.last);
        let one_host = match &self.of.host {
            PeerHost::Any => false,
            PeerHost::Net(address, bits) => *bits == if address.is_ipv4() { 32 } else { 128 },
            PeerHost::Name(_) => true,
        };
        if !(one_port && one_host) {
            let what = format!("`{}` is not one dependency: an address or a name, with one port", self.of);
            wrong.with("of", what, "write it as `payments.internal:443` or `10.0.0.7:5432`");
        }
        if self.established == Some(Established::Include) {
            let what = "connections that are there already cannot be led to the proxy";
            wrong.with(
                "established",
                what,
                "write `keep` to leave them alone, or `reset` to have them made again",
            );
        }
        if let Some(scope @ (Scope::Port(_) | Scope::Interface(_))) = scope {
            let what = format!("{scope} does not say who calls the dependency");
            wrong.with("in", what, "say it with `process`, `unit`, `cgroup`, `user`, `container` or `netns`");
        }
    }
}

impl Describe for Outage {
    const NAME: &'static str = "outage";
    const SUMMARY: &'static str = "a dependency is out: it refuses, hangs, resets, closes, is slow or late";
    const ENGINE: &'static str = "`refuse` and `blackhole`: nftables, as `refuse` and `partition`; all others: a BPF program on \
                                  connect(2) that leads new connections to a proxy without privileges; both are gone when the \
                                  agent dies";
    const REVERSIBLE: bool = true;
    const EXAMPLE: &'static str = "- fault: { outage: { of: \"payments.internal:443\", how: hang } }\n  in: { unit: \
                                   checkout.service }\n  for: 30s\n";

    fn check(&self, scope: Option<&Scope>, wrong: &mut Wrong) {
        if self.of.host == PeerHost::Any {
            wrong.with("of", "`any` is not one dependency", "name it: `payments.internal:443`");
        } else if !self.how.is_kernels() {
            self.check_redirect(scope, wrong);
        }
        self.check_parameters(wrong);
    }

    fn changes(&self, scope: Option<&Scope>) -> Vec<Change> {
        let flow = self.flow(scope);
        let block = |flow, direction, verdict| vec![Change::Block(Block { flow, direction, verdict })];
        match (self.how, self.ailment()) {
            (How::Refuse, _) => block(flow, Direction::Egress, Verdict::Reset),
            (How::Blackhole, _) => block(flow, Direction::Both, Verdict::Drop),
            (_, Some(ailment)) => {
                let share = self.share.unwrap_or(Percent::ALL);
                vec![Change::Redirect(Redirect { flow, ailment, share })]
            }
            (_, None) => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Partition, Refuse};
    use super::*;

    fn outage(how: How) -> Outage {
        Outage {
            of: "db.internal:5432".parse().unwrap(),
            how,
            after: None,
            rate: None,
            delay: None,
            jitter: None,
            share: None,
            established: None,
        }
    }

    #[test]
    fn the_ways_of_the_kernel_are_the_same_changes_as_the_faults_of_that_name() {
        let to = || vec!["db.internal:5432".parse().unwrap()];
        let refuse = Refuse { to: to(), ..Refuse::default() };
        assert_eq!(outage(How::Refuse).changes(None), refuse.changes(None));
        let partition = Partition { to: to(), ..Partition::default() };
        assert_eq!(outage(How::Blackhole).changes(None), partition.changes(None));
    }

    #[test]
    fn the_ways_of_the_proxy_say_what_they_do() {
        let said = |outage: Outage| {
            let mut wrong = Wrong::default();
            outage.check(None, &mut wrong);
            assert_eq!(wrong.into_findings(), [], "{outage:?}");
            outage.changes(None)[0].to_string()
        };
        let to = "connections to db.internal:5432 tcp only of new connections";
        assert_eq!(
            said(outage(How::Reset)),
            format!("lead through the proxy, and reset at the first byte of an answer, {to}")
        );
        let hang = Outage { after: Some(Size::from_bytes(1000)), ..outage(How::Hang) };
        assert_eq!(said(hang), format!("lead through the proxy, and hang after 1kB of answers, {to}"));
        let share = Some("20%".parse().unwrap());
        let brownout = Outage { delay: Some(Period::from_secs(2)), share, ..outage(How::Brownout) };
        assert_eq!(said(brownout), format!("lead through the proxy, and delay by 2s, for 20% of them, {to}"));
    }
}
