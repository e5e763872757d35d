//! What is done to one host: a short, closed list. An agent refuses what it does not know.
//!
//! A change knows what it holds exclusively ([`Change::claims`]) and whether it can be undone
//! ([`Change::reversible`]); how it is performed and undone is the agent's business.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ailment::{Ailment, Material};
use crate::flow::{Direction, Flow};
use crate::impairment::Impairment;
use crate::meeting::Apart;
use crate::quantity::{Percent, Period, Pick};
use crate::scope::Scope;

/// One alteration of one host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// Packets of a flow are dropped or answered with an error.
    Block(Block),
    /// Packets of a flow are treated as by a bad network.
    Shape(Shape),
    /// New connections of a flow are led through the dependency proxy.
    Redirect(Redirect),
    /// Established sockets of a flow are destroyed, at once and once per interval.
    Disconnect(Disconnect),
    /// Processes receive a signal. Not undone.
    Signal(Signal),
    /// Processes do not run.
    Pause(Pause),
}

/// See [`Change::Block`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Block {
    /// Which packets.
    pub flow: Flow,
    /// Which way they go.
    pub direction: Direction,
    /// What happens to them.
    pub verdict: Verdict,
}

/// What happens to a blocked packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It vanishes.
    Drop,
    /// TCP is answered with a reset, everything else with ICMP port unreachable.
    Reset,
    /// Answered with ICMP or ICMPv6 port unreachable.
    PortUnreachable,
    /// Answered with ICMP or ICMPv6 host unreachable.
    HostUnreachable,
    /// Answered with ICMP or ICMPv6 administratively prohibited.
    AdminProhibited,
}

/// See [`Change::Shape`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Shape {
    /// Which packets.
    pub flow: Flow,
    /// Which way they go. Each way is shaped by itself: `Both` loses 1 % of what leaves and 1 % of what enters.
    pub direction: Direction,
    /// What happens to them.
    pub impairment: Impairment,
    /// How many packets are held at most, each way; further ones pass unharmed, or are lost where the engine is `netem`, and
    /// the report says so.
    pub limit: u32,
    /// By which engine.
    #[serde(default)]
    pub engine: Engine,
    /// What happens where an interface is shaped by somebody already.
    #[serde(default)]
    pub root: Root,
}

/// What treats packets as a bad network would.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Engine {
    /// The best that the host offers for this fault.
    #[default]
    Auto,
    /// The kernel's own queueing disciplines, `netem` and `htb`, below an inert root on each interface. Outgoing traffic
    /// of every scope; incoming traffic by address and port.
    Netem,
    /// Squall's own engine, fed by a packet queue: every scope, both ways, every kernel.
    Queue,
}

/// What happens where an interface has a queueing discipline that somebody chose. Only the engine `netem` needs one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Root {
    /// It stays: the engine is another one, or the fault is refused.
    #[default]
    Keep,
    /// It is replaced while the fault lasts and put back as it was.
    Borrow,
}

/// See [`Change::Redirect`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Redirect {
    /// Which connections: the target calls one peer by name or address, at one port.
    pub flow: Flow,
    /// What happens to them.
    pub ailment: Ailment,
    /// To which share of them.
    pub share: Percent,
    /// With which certificate TLS is spoken with callers, so that what flows in it is understood.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Material>,
}

/// See [`Change::Disconnect`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Disconnect {
    /// Which sockets.
    pub flow: Flow,
    /// Again after this time, while the fault lasts; `None` is once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<Period>,
}

/// See [`Change::Signal`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Signal {
    /// Whose processes.
    pub scope: Scope,
    /// How many of them, chosen with the run's seed.
    pub pick: Pick,
    /// The signal, by name without `SIG`: `KILL`.
    pub signal: SignalName,
    /// A second signal for those that still run after a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub then: Option<ThenSignal>,
    /// Again after this time, while the fault lasts, on what then matches; `None` is once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<Period>,
}

/// See [`Signal::then`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ThenSignal {
    /// The second signal.
    pub signal: SignalName,
    /// How long after the first.
    pub after: Period,
}

/// A signal that a fault may send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum SignalName {
    /// Cannot be caught: the process ends at once.
    #[default]
    Kill,
    /// Asks to end.
    Term,
    /// Interrupt, as Ctrl-C sends.
    Int,
    /// Hang-up; many servers reload.
    Hup,
    /// Quit, with a core file where configured.
    Quit,
    /// Abort, with a core file where configured.
    Abrt,
    /// Segmentation violation, as after a wild pointer.
    Segv,
    /// User-defined 1.
    Usr1,
    /// User-defined 2.
    Usr2,
}

/// See [`Change::Pause`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Pause {
    /// Whose processes.
    pub scope: Scope,
    /// How many of them, chosen with the run's seed.
    pub pick: Pick,
}

/// What a live change holds: two live changes whose claims collide are not allowed on one host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Claim {
    /// The packets of a flow that go this way.
    Packets(Flow, Direction),
    /// The established sockets of a flow. Collides with nothing but itself.
    Sockets(Flow),
    /// Where new connections of a flow lead.
    Connections(Flow),
    /// Whether processes of a scope run. The agent compares the processes themselves.
    Processes(Scope),
}

impl Change {
    /// What it holds while it is live. Shaping holds nothing: two changes that shape the same packets both apply.
    pub fn claims(&self) -> Vec<Claim> {
        match self {
            Change::Block(block) => vec![Claim::Packets(block.flow.clone(), block.direction)],
            Change::Shape(_) => Vec::new(),
            Change::Redirect(redirect) => vec![Claim::Connections(redirect.flow.clone())],
            Change::Disconnect(disconnect) => vec![Claim::Sockets(disconnect.flow.clone())],
            Change::Signal(signal) => vec![Claim::Processes(signal.scope.clone())],
            Change::Pause(pause) => vec![Claim::Processes(pause.scope.clone())],
        }
    }

    /// The traffic that it concerns; `None` where it concerns processes.
    pub fn flow(&self) -> Option<&Flow> {
        match self {
            Change::Block(block) => Some(&block.flow),
            Change::Shape(shape) => Some(&shape.flow),
            Change::Redirect(redirect) => Some(&redirect.flow),
            Change::Disconnect(disconnect) => Some(&disconnect.flow),
            Change::Signal(_) | Change::Pause(_) => None,
        }
    }

    /// Whose traffic or processes it concerns; `None` is the traffic of everybody.
    pub fn scope(&self) -> Option<&Scope> {
        match self {
            Change::Signal(signal) => Some(&signal.scope),
            Change::Pause(pause) => Some(&pause.scope),
            _ => self.flow().and_then(|flow| flow.scope.as_ref()),
        }
    }

    /// What the fault of the catalogue is called that does this, and the engine that is asked for.
    pub fn fault(&self) -> (&'static str, Engine) {
        let name = match self {
            Change::Block(block) if block.verdict == Verdict::Drop => "partition",
            Change::Block(_) => "refuse",
            Change::Shape(shape) => return (shape.impairment.fault(), shape.engine),
            Change::Redirect(_) => "outage",
            Change::Disconnect(_) => "disconnect",
            Change::Signal(_) => "kill",
            Change::Pause(_) => "pause",
        };
        (name, Engine::Auto)
    }

    /// The same for the traffic of everybody; what concerns processes stays as it is.
    pub fn of_everybody(&self) -> Self {
        let mut change = self.clone();
        match &mut change {
            Change::Block(Block { flow, .. })
            | Change::Shape(Shape { flow, .. })
            | Change::Redirect(Redirect { flow, .. })
            | Change::Disconnect(Disconnect { flow, .. }) => flow.scope = None,
            Change::Signal(_) | Change::Pause(_) => {}
        }
        change
    }

    /// What the reader of a plan should know of its figures.
    pub fn cautions(&self) -> Vec<String> {
        let mut found = match self {
            Change::Shape(shape) => shape.cautions(),
            _ => Vec::new(),
        };
        if let Some(scope @ Scope::Container(_)) = self.flow().and_then(|flow| flow.scope.as_ref()) {
            found.push(format!("containers that share one network with {scope}, as in a pod, are hit, too"));
        }
        found
    }

    /// Whether the host can be brought back to what it was. A signal and a destroyed socket cannot be taken back;
    /// nothing of Squall's own stays, and the report says so.
    pub fn reversible(&self) -> bool {
        matches!(self, Change::Block(_) | Change::Shape(_) | Change::Redirect(_) | Change::Pause(_))
    }
}

impl Shape {
    fn cautions(&self) -> Vec<String> {
        let mut found = Vec::new();
        if let Some(delay) = self.impairment.delay.filter(|delay| delay.jitter > delay.delay) {
            found.push(format!(
                "a jitter of {} is more than the delay of {}: what would be negative is no delay, so the mean is above {}",
                delay.jitter, delay.delay, delay.delay
            ));
        }
        let longest = self.impairment.longest().get().as_secs_f64();
        let rate = f64::from(self.limit) / longest;
        // A whole packet less is rounding.
        if self.impairment.holds() && rate + 1.0 < BUSY {
            let rest = match self.engine {
                Engine::Queue => "passes unharmed",
                Engine::Netem => "is lost",
                Engine::Auto => "passes unharmed, or is lost where the engine is `netem`",
            };
            found.push(format!(
                "at most {} packets are held each way: above {rate:.0} packets a second the rest {rest}; the report says \
                 how many, and above 1 % of them the run is inconclusive",
                self.limit
            ));
        }
        found
    }
}

/// Packets a second that a busy service may see.
const BUSY: f64 = 100_000.0;

impl Claim {
    /// Whether the two cannot be live at once, as far as it can be known without looking at a host.
    pub fn collides(&self, other: &Claim) -> bool {
        self.meets(other, &Scope::apart).is_some()
    }

    /// Why the two cannot be live at once, in words; `None` where they can. Process scopes are compared by the agent, which
    /// sees the processes: here only equal scopes collide.
    pub fn meets(&self, other: &Claim, apart: Apart<'_>) -> Option<String> {
        let meeting = match (self, other) {
            (Claim::Packets(a, Direction::Egress), Claim::Packets(b, Direction::Ingress))
            | (Claim::Packets(a, Direction::Ingress), Claim::Packets(b, Direction::Egress)) => {
                // Both ends of a connection over loopback are on this host: one packet is of two scopes, but not on two interfaces.
                let places = |a: &Scope, b: &Scope| matches!((a, b), (Scope::Interface(_), Scope::Interface(_)));
                a.meets_over_loopback(b, &|a, b| places(a, b) && apart(a, b))
            }
            // The agent compares the addresses that the names come to.
            (Claim::Connections(a), Claim::Connections(b)) if a.goes_by_another_name(b) => None,
            (Claim::Connections(a), Claim::Connections(b)) => a.meets(b, apart),
            (Claim::Packets(a, _), Claim::Packets(b, _))
            | (Claim::Sockets(a), Claim::Sockets(b))
            // Blocked packets to a peer are the proxy's own, whosever they were: nothing would be as it is asked for.
            | (Claim::Packets(a, _), Claim::Connections(b))
            | (Claim::Connections(a), Claim::Packets(b, _)) => a.meets(b, apart),
            (Claim::Processes(a), Claim::Processes(b)) => {
                return (a == b).then(|| format!("both choose processes of {a}"));
            }
            _ => None,
        };
        meeting.map(|meeting| meeting.to_string())
    }

    /// The same of another flow; what concerns processes stays as it is.
    pub fn of_flow(&self, change: impl FnOnce(&Flow) -> Flow) -> Self {
        match self {
            Claim::Packets(flow, direction) => Claim::Packets(change(flow), *direction),
            Claim::Sockets(flow) => Claim::Sockets(change(flow)),
            Claim::Connections(flow) => Claim::Connections(change(flow)),
            Claim::Processes(scope) => Claim::Processes(scope.clone()),
        }
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Claim::Packets(flow, direction) => write!(f, "packets {flow} ({direction})"),
            Claim::Sockets(flow) => write!(f, "established sockets {flow}"),
            Claim::Connections(flow) => write!(f, "where new connections lead {flow}"),
            Claim::Processes(scope) => write!(f, "whether processes of {scope} run"),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Drop => "drop",
            Verdict::Reset => "refuse with a TCP reset (or ICMP port unreachable)",
            Verdict::PortUnreachable => "refuse with ICMP port unreachable",
            Verdict::HostUnreachable => "refuse with ICMP host unreachable",
            Verdict::AdminProhibited => "refuse with ICMP administratively prohibited",
        })
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Engine::Auto => "auto",
            Engine::Netem => "netem",
            Engine::Queue => "queue",
        })
    }
}

impl fmt::Display for SignalName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", format!("{self:?}").to_uppercase())
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Block(block) => {
                write!(f, "{} packets {} ({})", block.verdict, block.flow, block.direction)
            }
            Change::Shape(shape) => {
                write!(f, "{} of the packets {} ({})", shape.impairment, shape.flow, shape.direction)
            }
            Change::Redirect(Redirect { flow, ailment, share, tls }) => {
                write!(f, "lead through the proxy, and {ailment},")?;
                if tls.is_some() && ailment.is_of_requests() {
                    write!(f, " inside TLS,")?;
                }
                if *share != Percent::ALL {
                    write!(f, " for {share} of them,")?;
                }
                write!(f, " connections {flow}")
            }
            Change::Disconnect(disconnect) => {
                write!(f, "destroy established sockets {}", disconnect.flow)?;
                every(f, disconnect.every)
            }
            Change::Signal(signal) => {
                write!(f, "send {} to {} of {}", signal.signal, signal.pick, signal.scope)?;
                if let Some(then) = &signal.then {
                    write!(f, ", then {} after {}", then.signal, then.after)?;
                }
                every(f, signal.every)
            }
            Change::Pause(pause) => write!(f, "pause {} of {}", pause.pick, pause.scope),
        }
    }
}

fn every(f: &mut fmt::Formatter<'_>, period: Option<Period>) -> fmt::Result {
    period.map_or(Ok(()), |period| write!(f, ", again every {period}"))
}
