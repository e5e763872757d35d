//! The inert root of an interface: grafted when a change needs it, gone when the last run that needed it ends.
//!
//! What stood there before is a default of the kernel's, which comes back by itself when ours is deleted, or somebody's
//! own discipline: that one is told again, message by message, and compared with what it was ([`told`]).

use serde::{Deserialize, Serialize};
use squall_experiments::protocol::Refusal;

use super::super::undo::Undone;
use super::message::{self, Listed, ROOT};
use super::told::{self, Told, alike, snapshot};
use super::{Device, Tc, htb};

/// Our mark: the upper half of the handle of every root of ours, and of its classes.
pub const MAJOR: u32 = 0x5a17;
/// The root's handle.
pub const HANDLE: u32 = MAJOR << 16;

/// What stands at the root of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Ours.
    Ours,
    /// What the kernel attached by itself, by its kind.
    Default(String),
    /// Somebody's.
    Foreign(Vec<Listed>),
}

/// What stood there before ours.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Before {
    /// A default of the kernel's, which comes back by itself.
    #[default]
    Default,
    /// These, parents first.
    Told(Vec<Told>),
}

/// Looks at the root of an interface.
pub fn standing(tc: &mut Tc, device: &Device) -> Result<Standing, Refusal> {
    let mut all = tc.qdiscs(device.index)?;
    // Ingress and clsact are no part of the root.
    all.retain(|discipline| discipline.parent >> 16 != 0xffff || discipline.parent == ROOT);
    let Some(root) = all.iter().find(|discipline| discipline.parent == ROOT) else {
        return Ok(Standing::Default("none".into()));
    };
    Ok(match root.handle {
        HANDLE if root.kind == htb::KIND => Standing::Ours,
        0 => Standing::Default(root.kind.clone()),
        _ => Standing::Foreign(all),
    })
}

/// Why the kernel would not put the same there again that it has put there by itself; `None` where it would.
pub fn lasting(tc: &mut Tc, device: &Device) -> Result<Option<String>, Refusal> {
    Ok(told::ungiven(&tc.qdiscs(device.index)?))
}

/// Puts our inert root in the place of what stands there, in one step.
pub fn graft(tc: &mut Tc, device: &Device, before: &Before) -> Result<(), Refusal> {
    let replaces = *before != Before::Default;
    let message = message::new_qdisc(device.index, HANDLE, ROOT, htb::KIND, Some(&htb::root()), replaces);
    tc.request(message).map_err(|error| {
        Refusal::new(
            format!("the root of `{device}` cannot be replaced: {error}"),
            "use `engine: queue`, which leaves interfaces alone",
        )
    })
}

/// Sees to it that what stood before stands again. Leaves alone what is not ours, and ours while a class stands in it.
pub fn undo(device: &Device, before: &Before) -> Undone {
    let mut tc =
        Tc::open().map_err(|error| format!("the root of `{device}` cannot be looked at: {error}"))?;
    let shown = |refusal: Refusal| refusal.what;
    if !tc.is_there(device).map_err(shown)? {
        return Ok(format!("`{device}` is gone, and its root with it"));
    }
    match standing(&mut tc, device).map_err(shown)? {
        Standing::Ours => {}
        // A graft that replaces and is not followed by its classes is finished here.
        Standing::Foreign(_) if is_half(&mut tc, device, before) => {}
        _ => return Ok(format!("the root of `{device}` is not ours")),
    }
    if !tc.classes(device.index).map_err(shown)?.iter().all(|class| class.handle >> 16 != MAJOR) {
        return Ok(format!("the root of `{device}` stands for another change"));
    }
    let failed = |error| format!("the root of `{device}` cannot be put back: {error}");
    match before {
        Before::Default => {
            tc.request(message::delete_qdisc(device.index, HANDLE, ROOT)).map_err(failed)?;
            match standing(&mut tc, device).map_err(shown)? {
                Standing::Ours => Err(format!("our root is still there on `{device}`")),
                _ => Ok(format!("the root of `{device}` is the kernel's own again")),
            }
        }
        Before::Told(all) => {
            let there = told_now(&mut tc, device);
            for one in all.iter().filter(|one| !there.iter().any(|there| there.is(one))) {
                tc.request(one.message(device.index)).map_err(failed)?;
            }
            let now = match standing(&mut tc, device).map_err(shown)? {
                Standing::Foreign(now) => snapshot(&mut tc, device, &now).map_err(shown)?,
                _ => return Err(format!("the root of `{device}` was put back and is not there")),
            };
            if alike(before) == alike(&now) {
                Ok(format!("the root of `{device}` and all below it is as it was ({} parts)", all.len()))
            } else {
                Err(format!("the root of `{device}` was put back, and is not as it was"))
            }
        }
    }
}

/// What bears our mark, whoever knows of it.
#[derive(Debug, Default)]
pub struct Strays {
    /// Interfaces whose root is ours, each with the lower halves of the handles of its classes.
    pub ours: Vec<(Device, Vec<u16>)>,
    /// What only looks so, with why.
    pub others: Vec<String>,
}

/// Looks for our mark at every interface.
pub fn strays(tc: &mut Tc) -> Result<Strays, Refusal> {
    let Strays { mut ours, mut others } = Strays::default();
    for link in tc.links()? {
        let device = Device { index: link.index, name: link.name };
        match standing(tc, &device)? {
            Standing::Ours if tc.filters(device.index, HANDLE)? > 0 => {
                others.push(format!("the root of `{device}` has our handle, and filters that are not ours"));
            }
            Standing::Ours => {
                let classes =
                    tc.classes(device.index)?.into_iter().filter(|class| class.handle >> 16 == MAJOR);
                ours.push((device, classes.map(|class| (class.handle & 0xffff) as u16).collect()));
            }
            Standing::Foreign(all) if all.iter().any(|one| one.handle >> 16 == MAJOR) => {
                others.push(format!("`{device}` has a discipline with our handle that is not as ours are"));
            }
            _ => {}
        }
    }
    Ok(Strays { ours, others })
}

/// What of somebody's stands at an interface now; nothing where it could not be told again.
fn told_now(tc: &mut Tc, device: &Device) -> Vec<Told> {
    match standing(tc, device) {
        Ok(Standing::Foreign(now)) => match snapshot(tc, device, &now) {
            Ok(Before::Told(now)) => now,
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

/// Whether an earlier undo put the old root back and then died: it stands, and not all that was below it.
fn is_half(tc: &mut Tc, device: &Device, before: &Before) -> bool {
    let (now, all) = (alike(&Before::Told(told_now(tc, device))), alike(before));
    !now.is_empty() && now.len() < all.len() && now.iter().all(|one| all.contains(one))
}
