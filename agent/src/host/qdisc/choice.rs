//! Which engine does a shape: the kernel's own disciplines where they do exactly what is asked, at the kernel's speed;
//! otherwise the packet queue, which does everything everywhere.

use std::collections::BTreeSet;

use squall_experiments::change::{Change, Engine, Root, Shape};
use squall_experiments::flow::Direction;
use squall_experiments::protocol::Refusal;
use squall_experiments::scope::Scope;

use super::super::matching::Packets;
use super::class::PATIENCE;
use super::message::Link;
use super::root::{self, Before, Standing};
use super::{Device, Discs, LOOPBACK, Tc, entry, htb, ifb, kinds, needs_netem, netem, told};
use crate::policy::{Graft, Policy};

/// The interfaces by which the packets leave, and what stood at their roots; and those by which they enter.
#[derive(Clone, Debug)]
pub struct Roots {
    /// Each with what is to be put back; empty where nothing that leaves is meant.
    pub roots: Vec<(Device, Before)>,
    /// Where they enter; empty where nothing that enters is meant.
    pub entries: Vec<Link>,
    /// What the reader must know.
    pub notes: Vec<String>,
}

/// Chooses. `None` is the packet queue; its reason goes into the notes of the packets.
pub fn choose(
    shape: &Shape,
    packets: &mut Packets,
    policy: &Policy,
    discs: &mut Discs,
) -> Result<Option<Roots>, Refusal> {
    if shape.engine == Engine::Queue {
        return Ok(None);
    }
    let forced = shape.engine == Engine::Netem;
    let found = possible(shape, policy).and_then(|()| {
        if !forced {
            preferable(shape)?;
        }
        let roots = looked_at(shape, packets, discs)?;
        if !forced {
            harmless(shape, &roots, discs)?;
        }
        Ok(roots)
    });
    match found {
        Ok(roots) => Ok(Some(roots)),
        Err(refusal) if forced => {
            Err(Refusal { what: format!("`engine: netem` cannot do this: {}", refusal.what), ..refusal })
        }
        Err(refusal) => {
            packets.notes.push(format!("the engine is `queue`: {}", refusal.what));
            Ok(None)
        }
    }
}

/// Asks what may take a while, before a change is prepared that needs the answer.
pub fn learn(change: &Change, meanwhile: impl FnMut()) {
    if let Change::Shape(shape) = change
        && shape.engine != Engine::Queue
    {
        kinds(meanwhile);
    }
}

/// Whether the engine can do it at all, before the host is looked at.
fn possible(shape: &Shape, policy: &Policy) -> Result<(), Refusal> {
    if shape.direction != Direction::Egress
        && let Some(why) = entry::blind(shape.flow.scope.as_ref())
    {
        return Err(Refusal::new(
            why,
            "shape what leaves with `direction: egress`, or leave the engine to Squall",
        ));
    }
    // What enters is led through a device of ours.
    if shape.direction != Direction::Ingress && policy.graft == Graft::Never {
        return Err(Refusal::new(
            "this host's policy forbids to touch the root of an interface (`graft: never`)",
            format!(
                "the owner of this host decides, in `{}`; `engine: queue` needs no root",
                crate::policy::FILE
            ),
        ));
    }
    match netem::refused(&shape.impairment) {
        Some(why) => Err(Refusal::new(why, "leave the engine to Squall, or use `engine: queue`")),
        None => Ok(()),
    }
}

/// Whether it is the better one: it does just what the other does.
fn preferable(shape: &Shape) -> Result<(), Refusal> {
    if let Some(difference) = netem::differences(&shape.impairment).first() {
        return Err(Refusal::bare(format!("`netem` would not be exact: {difference}")));
    }
    if shape.impairment.longest().get() > PATIENCE {
        return Err(Refusal::bare(format!(
            "what `netem` holds for longer than {} s would be waited for",
            PATIENCE.as_secs()
        )));
    }
    Ok(())
}

/// Looks at the kernel and at the interfaces.
fn looked_at(shape: &Shape, packets: &Packets, discs: &mut Discs) -> Result<Roots, Refusal> {
    let mut tc =
        Tc::open().map_err(|error| Refusal::bare(format!("queueing disciplines cannot be used: {error}")))?;
    let mut needed = vec![htb::KIND];
    needed.extend(needs_netem(&shape.impairment).then_some(netem::KIND));
    for kind in needed {
        let known = kinds(|| ()).get(kind).cloned();
        known.unwrap_or_else(|| Err("it could not be asked".to_owned())).map_err(|error| {
            Refusal::new(
                format!("this kernel has no `{kind}` ({error})"),
                crate::preflight::brings(&format!("sch_{kind}")),
            )
        })?;
    }
    let mut roots = Roots { roots: Vec::new(), entries: Vec::new(), notes: Vec::new() };
    if shape.direction != Direction::Egress {
        roots.entries = entry::links(&mut tc, shape, packets, discs)?;
    }
    let leaves = shape.direction != Direction::Ingress;
    let devices = if leaves { devices(&mut tc, shape, packets)? } else { Vec::new() };
    for device in devices {
        let before = before(&mut tc, &device, shape, discs)?;
        roots.roots.push((device, before));
    }
    roots.tell(shape);
    Ok(roots)
}

/// What is to be put back at the root of an interface; refuses where that could not be done, or must not.
pub(super) fn before(tc: &mut Tc, device: &Device, shape: &Shape, discs: &Discs) -> Result<Before, Refusal> {
    match root::standing(tc, device)? {
        Standing::Ours => discs.stood(device).ok_or_else(|| {
            Refusal::new(
                format!("the root of `{device}` has our mark, and no journal knows of it"),
                "`squall-agent recover` removes what a dead agent left",
            )
        }),
        Standing::Default(_) => match root::lasting(tc, device)? {
            None => Ok(Before::Default),
            Some(why) => Err(Refusal::new(
                format!("the root of `{device}` could not be put back: {why}"),
                "`engine: queue` leaves interfaces alone",
            )),
        },
        Standing::Foreign(disciplines) if shape.root == Root::Borrow => {
            told::snapshot(tc, device, &disciplines)
        }
        Standing::Foreign(disciplines) => {
            let kind = disciplines.first().map(|one| one.kind.clone()).unwrap_or_default();
            Err(Refusal::new(
                format!("somebody has given `{device}` a root of their own (`{kind}`)"),
                "`root: borrow` takes its place and puts it back; `engine: queue` leaves it alone",
            ))
        }
    }
}

impl Roots {
    /// Adds what the reader must know.
    fn tell(&mut self, shape: &Shape) {
        let quoted = |names: Vec<String>| names.join(", ");
        let engine = if needs_netem(&shape.impairment) { "netem" } else { "htb" };
        if !self.roots.is_empty() {
            let names = quoted(self.roots.iter().map(|(device, _)| format!("`{device}`")).collect());
            self.notes.push(format!(
                "the engine is the kernel's `{engine}`, below an inert root on {names} that stays until the run ends: \
                 packets may be lost on it when the root comes and when it goes"
            ));
            if self.roots.len() > 1 && shape.impairment.bottleneck.is_some() {
                self.notes.push(format!("each of {names} is a line of its own"));
            }
        }
        if !self.entries.is_empty() {
            let names = quoted(self.entries.iter().map(|link| format!("`{}`", link.name)).collect());
            self.notes.push(format!(
                "the engine is the kernel's `{engine}`: what enters by {names} is led through the device `{}`",
                ifb::NAME
            ));
        }
        let differences = netem::differences(&shape.impairment);
        self.notes.extend(differences.into_iter().map(|what| format!("`netem`: {what}")));
    }
}

/// Whether nobody else's traffic pays for the graft, and the fault means what it means elsewhere.
fn harmless(shape: &Shape, roots: &Roots, discs: &Discs) -> Result<(), Refusal> {
    if roots.roots.len() > 1 && shape.impairment.bottleneck.is_some() {
        return Err(Refusal::bare("packets may leave by several interfaces, and all are to share one line"));
    }
    let mut tc = Tc::open().map_err(|error| Refusal::bare(error.to_string()))?;
    roots.roots.iter().try_for_each(|(device, _)| affordable(&mut tc, device, discs))
}

/// Whether a root in the place of what stands at an interface costs nobody anything.
pub(super) fn affordable(tc: &mut Tc, device: &Device, discs: &Discs) -> Result<(), Refusal> {
    if !discs.has(device)
        && let Standing::Default(kind) = root::standing(tc, device)?
        && COSTLY.contains(&kind.as_str())
    {
        return Err(Refusal::bare(format!(
            "a root in the place of `{kind}` on `{device}` would cost all its traffic"
        )));
    }
    Ok(())
}

/// Interfaces of this namespace on which the packet queue is chosen because of what stands there, with why.
pub fn reserved() -> Vec<String> {
    let Ok(mut tc) = Tc::open() else { return Vec::new() };
    let mut found = Vec::new();
    for link in tc.links().unwrap_or_default().into_iter().filter(|link| link.up) {
        let device = Device { index: link.index, name: link.name };
        match root::standing(&mut tc, &device) {
            Ok(Standing::Foreign(all)) => {
                let kind = all.first().map(|one| one.kind.as_str()).unwrap_or_default();
                found.push(format!("on `{device}` somebody's `{kind}` stands: only with `root: borrow`"));
            }
            Ok(Standing::Default(kind)) if COSTLY.contains(&kind.as_str()) => {
                found
                    .push(format!("on `{device}` only with `engine: netem`: it takes the place of `{kind}`"));
            }
            _ => {}
        }
    }
    found
}

/// Defaults of the kernel's that a graft would take from everybody: `mq` serves as many processors as the interface has
/// queues, and `fq` paces.
const COSTLY: [&str; 2] = ["mq", "fq"];

/// The interfaces by which the packets may leave: by the routes to the peers, or all that are up.
pub(super) fn devices(tc: &mut Tc, shape: &Shape, packets: &Packets) -> Result<Vec<Device>, Refusal> {
    let links = tc.links()?;
    let device = |index: u32| {
        let link = links.iter().find(|link| link.index == index);
        link.map(|link| Device { index, name: link.name.clone() })
    };
    if let Some(Scope::Interface(name)) = &shape.flow.scope {
        let link = links.iter().find(|link| link.name == *name);
        let found = link.and_then(|link| device(link.index));
        return found
            .map(|device| vec![device])
            .ok_or_else(|| Refusal::new(format!("no interface is called `{name}`"), "look with `ip link`"));
    }
    // Where members of a bridge carry what it sends, they do not count: it would be treated twice.
    let outside = links
        .iter()
        .filter(|link| link.up && !link.enslaved && link.index != LOOPBACK && link.name != ifb::NAME);
    let outside: BTreeSet<u32> = outside.map(|link| link.index).collect();
    let mut wanted = BTreeSet::new();
    let mut anybody = true;
    for network in packets.networks() {
        anybody = false;
        match network.network {
            // Addresses that join later may be reached another way.
            Some((address, _)) if network.name.is_some() => {
                wanted.extend(outside.iter().copied().chain(tc.leaves_by(address)));
            }
            Some((address, bits)) if bits == if address.is_ipv4() { 32 } else { 128 } => {
                wanted.extend(tc.leaves_by(address));
            }
            // Its own addresses are reached by loopback.
            Some((_, bits)) if bits > 0 => wanted.extend(outside.iter().copied().chain([LOOPBACK])),
            _ => wanted.extend(&outside),
        }
    }
    if anybody {
        wanted.extend(&outside);
    }
    let devices: Vec<Device> = wanted.into_iter().filter_map(device).collect();
    if devices.is_empty() {
        return Err(Refusal::new(
            "no interface is up by which the packets could leave",
            "look with `ip route`",
        ));
    }
    Ok(devices)
}
