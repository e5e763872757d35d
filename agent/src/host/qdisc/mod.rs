//! The engine `netem`: the kernel's own queueing disciplines, entered only through a rule of the owner table.
//!
//! ```text
//! interface ─ root htb 5a17: (inert) ─┬─ direct queue                            everything, unshaped
//!                                     └─ class 5a17:10 ─ netem, or bfifo         what a rule steers here
//! ```
//!
//! `shape9-out: … meta oif eth0 meta priority set 5a17:10`. The rule goes with the agent's socket, and so the traffic
//! steps off at once when the agent dies; root and class stay, touched by nobody, until the next start or `recover`.
//!
//! What enters meets no discipline. It is led through a device of ours, which has the same root and classes and gives it
//! back; the host's own interfaces stay as they are:
//!
//! ```text
//! eth0 ─ ingress hook: meta priority set 5a17:18 ─ for this host? ─ fwd squall-in ─ class 5a17:10 ─ netem ─▶ eth0, on its way in
//! ```
//!
//! | file | what it holds |
//! |---|---|
//! | [`message`] | rtnetlink messages, and what the kernel lists |
//! | [`root`] | the inert root: what stood there before, graft, and putting it back |
//! | [`told`] | what stood there, taken down so that it can be told again |
//! | [`class`] | a class and its leaf |
//! | [`htb`], [`netem`] | their options |
//! | [`choice`] | which engine does a shape, and why |
//! | [`lane`] | a shape that goes by this engine |
//! | [`follow`] | what it does when packets take another way |
//! | [`entry`] | its half that concerns what enters |
//! | [`ifb`] | the device for that |

pub mod choice;
pub mod class;
pub mod entry;
pub mod follow;
pub mod htb;
pub mod ifb;
pub mod lane;
pub mod message;
pub mod netem;
pub mod root;
pub mod told;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::sys::socket::SockProtocol;
use serde::{Deserialize, Serialize};
use squall_experiments::impairment::Impairment;
use squall_experiments::protocol::Refusal;

use super::modules::beside;
use super::netlink::{Message, NetlinkError, Socket};
use message::{Link, Listed, ROOT};
use root::Before;

/// The index of the loopback interface, in every namespace.
const LOOPBACK: u32 = 1;

/// An interface, known by its number and its name: a name can be given again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Device {
    /// Its index in the namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Whether a shape needs `netem`, not only a line of `htb`.
pub fn needs_netem(impairment: &Impairment) -> bool {
    !(impairment.bottleneck.is_some()
        && impairment.delay.is_none()
        && impairment.loss.is_none()
        && impairment.duplicate.is_none()
        && impairment.corrupt.is_none()
        && impairment.reorder.is_none())
}

/// A conversation with the kernel about disciplines, in the network namespace of the thread that began it.
#[derive(Debug)]
pub struct Tc(Socket);

impl Tc {
    /// Begins one.
    pub fn open() -> Result<Self, NetlinkError> {
        Socket::open(SockProtocol::NetlinkRoute).map(Tc)
    }

    fn request(&mut self, message: Message) -> Result<(), NetlinkError> {
        self.0.request(vec![message])
    }

    fn dump(&mut self, message: &Message) -> Result<Vec<super::netlink::Received>, Refusal> {
        self.0
            .dump(message)
            .map_err(|error| Refusal::bare(format!("queueing disciplines cannot be listed: {error}")))
    }

    /// The disciplines of an interface.
    fn qdiscs(&mut self, interface: u32) -> Result<Vec<Listed>, Refusal> {
        let mut all: Vec<Listed> = self.dump(&message::list_qdiscs())?.iter().map(message::listed).collect();
        all.retain(|one| one.interface == interface);
        Ok(all)
    }

    /// The classes of an interface.
    fn classes(&mut self, interface: u32) -> Result<Vec<Listed>, Refusal> {
        Ok(self.dump(&message::list_classes(interface))?.iter().map(message::listed).collect())
    }

    /// How many filters stand at a discipline or class. One that takes none has none.
    fn filters(&mut self, interface: u32, parent: u32) -> Result<usize, Refusal> {
        Ok(self.0.dump(&message::list_filters(interface, parent)).map_or(0, |all| all.len()))
    }

    /// The links of the namespace.
    fn links(&mut self) -> Result<Vec<Link>, Refusal> {
        Ok(self.dump(&message::list_links())?.iter().map(message::link).collect())
    }

    /// The interface by which packets to an address leave; `None` where there is no way.
    fn leaves_by(&mut self, address: IpAddr) -> Option<u32> {
        self.0.ask(message::get_route(address)).ok()?.iter().find_map(message::leaves_by)
    }

    /// Whether an interface is there, with its own name.
    fn is_there(&mut self, device: &Device) -> Result<bool, Refusal> {
        Ok(self.links()?.iter().any(|link| link.index == device.index && link.name == device.name))
    }

    /// Whether the kernel knows a kind of discipline; it may load a module for that. Nothing is made: the kinds that are
    /// asked for refuse to begin without options, and a kind that is not there is refused before.
    pub fn knows(&mut self, kind: &str) -> Result<(), String> {
        /// Nobody's: a discipline that stands must never be meant.
        const TRIAL: u32 = 0x5a18_0000;
        match self.request(message::new_qdisc(LOOPBACK, TRIAL, ROOT, kind, None, true)) {
            Err(error) if error.errno() == Errno::EINVAL => Ok(()),
            Err(error) => Err(error.to_string()),
            Ok(()) => {
                let undone = self.request(message::delete_qdisc(LOOPBACK, TRIAL, ROOT));
                Err(format!("the kernel made what it must refuse (removed again: {})", undone.is_ok()))
            }
        }
    }
}

/// Kinds of disciplines and [`ifb`], each with why this kernel has it not. The same in every namespace.
pub type Kinds = BTreeMap<&'static str, Result<(), String>>;

/// Asks the kernel once which kinds it knows. It may load modules, which takes seconds on a slow machine: a thread of its
/// own waits for that, and `meanwhile` is called until it has the answers.
pub fn kinds(meanwhile: impl FnMut()) -> &'static Kinds {
    static KINDS: OnceLock<Kinds> = OnceLock::new();
    if let Some(known) = KINDS.get() {
        return known;
    }
    let answers = beside(meanwhile, || {
        let ask = |kind| {
            let known = Tc::open().map_err(|error| error.to_string()).and_then(|mut tc| tc.knows(kind));
            (kind, known)
        };
        let mut all = BTreeMap::from([htb::KIND, netem::KIND].map(ask));
        all.insert(ifb::KIND, entry::known());
        all
    });
    KINDS.get_or_init(|| answers.unwrap_or_default())
}

/// What this engine has standing in one namespace.
#[derive(Debug, Default)]
pub struct Discs {
    /// What stood at the roots that are ours.
    before: BTreeMap<Device, Before>,
    /// The device for what enters.
    entry: Option<Device>,
    /// The lower halves of the handles of our classes. A packet that meets no root of ours may meet a discipline that
    /// takes the last four bits of its priority for a band: they are 0, the usual band.
    minors: BTreeSet<u16>,
    /// Whether roots with our mark are those of an agent that lives, which knows what stood there.
    anothers: bool,
}

impl Discs {
    /// For who only looks, beside an agent.
    pub fn of_another() -> Self {
        Discs { anothers: true, ..Discs::default() }
    }

    /// A class number that nobody has.
    fn minor(&mut self) -> Result<u16, Refusal> {
        let free = (1..0xfff).map(|number| number << 4).find(|number| !self.minors.contains(number));
        let free = free.ok_or_else(|| Refusal::bare("no class is free below our roots"))?;
        self.minors.insert(free);
        Ok(free)
    }

    /// What stood at the root of an interface before it became ours.
    fn stood(&self, device: &Device) -> Option<Before> {
        let unknown = self.anothers.then_some(Before::Default);
        self.before.get(device).cloned().or(unknown)
    }

    /// Whether the root of an interface became ours.
    fn has(&self, device: &Device) -> bool {
        self.before.contains_key(device)
    }

    /// A class has been undone, or is not made after all.
    pub fn freed(&mut self, minor: u16) {
        self.minors.remove(&minor);
    }

    /// The device for what enters has been undone: it is gone, unless it still stands for another change.
    pub fn closed(&mut self) {
        if Tc::open().is_ok_and(|mut tc| matches!(ifb::find(&mut tc), Ok(None))) {
            self.entry = None;
        }
    }

    /// A root has been undone: it is ours no more, unless it still stands for another change.
    pub fn lifted(&mut self, device: &Device) {
        let Ok(mut tc) = Tc::open() else { return };
        if !matches!(root::standing(&mut tc, device), Ok(root::Standing::Ours)) {
            self.before.remove(device);
        }
    }
}
