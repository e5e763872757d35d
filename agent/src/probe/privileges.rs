//! Giving up privileges, once and for ever, before anything is read or any thread is started.

use std::fs;

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, User, geteuid, getppid, setgroups, setresgid, setresuid};
use rustix::process::{getpriority_process, setpriority_process};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
    set_capabilities_secure_bits,
};

use crate::seccomp::{self, Keeps, SeccompError};

/// `nobody` and its group, by the kernel's overflow number: the name differs from system to system.
const NOBODY: u32 = 65534;

/// Why a prober does not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PrivilegeError {
    #[error("no user is named `{0}` on this host")]
    NoSuchUser(String),
    #[error("only root can run probes as the user `{0}`")]
    NotRoot(String),
    #[error("the user `{0}` does not exist in this user namespace")]
    NotMapped(String),
    #[error("the privilege `{what}` cannot be dropped: {why}")]
    NotDropped { what: &'static str, why: Errno },
    #[error("privileges are still held after dropping them: {0}")]
    StillHeld(String),
    #[error(transparent)]
    Calls(#[from] SeccompError),
    #[error("the process that started this prober has ended")]
    Orphaned,
}

impl PrivilegeError {
    /// What to do.
    pub(super) fn help(&self) -> Option<&'static str> {
        match self {
            PrivilegeError::NoSuchUser(_) => Some("name a user of this host in `user:`"),
            PrivilegeError::NotRoot(_) => Some("run squall as that user, or as root, or leave `user:` out"),
            PrivilegeError::NotMapped(_) => Some("leave `user:` out inside a user namespace"),
            _ => None,
        }
    }
}

/// Drops everything: identity, supplementary groups, capabilities of every set, the ability to get any back, and the system
/// calls that it does not need.
///
/// * As root: becomes `user`, or `nobody` where none is named. Named users get their primary group and no other.
/// * As root in a user namespace that holds nobody but root: keeps the number and drops all capabilities; there the
///   number is that of the ordinary user who made the namespace.
/// * As somebody else: `user` must be that somebody.
/// * `root`, asked for by name by root, keeps identity, capabilities and system calls.
///
/// In every case the process then ends with its parent: it gets `SIGTERM`, which [`serve`](super::serve) takes as the
/// end of its input, so that the programs of probes end too; `SIGKILL` would leave them behind.
/// Must be called while the process has one thread: capabilities belong to threads.
pub(crate) fn drop(user: Option<&str>, keeps: Keeps) -> Result<(), PrivilegeError> {
    let parent = getppid();
    be_ordinary();
    let named = user.map(find).transpose()?;
    match named {
        Some(user) if user.uid.is_root() && geteuid().is_root() => {}
        named => {
            become_someone(named)?;
            drop_capabilities()?;
            seccomp::give_up(keeps)?;
        }
    }
    // Last, because a change of identity clears it.
    not_dropped("parent death signal", prctl::set_pdeathsig(Signal::SIGTERM))?;
    if getppid() == parent { Ok(()) } else { Err(PrivilegeError::Orphaned) }
}

/// What an agent has for itself, its probes and their programs have not: its turn before others, and its place among those
/// that stay when memory runs out. What cannot be given up is not ours to judge by.
fn be_ordinary() {
    if getpriority_process(None).is_ok_and(|nice| nice < 0) {
        let _ = setpriority_process(None, 0);
    }
    let spared = fs::read_to_string("/proc/self/oom_score_adj");
    if spared.is_ok_and(|adjustment| adjustment.trim().starts_with('-')) {
        let _ = fs::write("/proc/self/oom_score_adj", "0");
    }
}

/// Becomes a user and a group by their numbers, drops everything, and ends with its parent, at once (`SIGKILL`). Must be
/// called by root, while the process has one thread.
pub(crate) fn become_number(uid: u32, gid: u32) -> Result<(), PrivilegeError> {
    let parent = getppid();
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    // With the identity goes what this needs.
    if rustix("capabilities", capabilities(None))?.effective.contains(CapabilitySet::SETPCAP) {
        empty_bounding_set()?;
    }
    not_dropped("supplementary groups", setgroups(&[]))?;
    not_dropped("group", setresgid(gid, gid, gid))?;
    not_dropped("user", setresuid(uid, uid, uid))?;
    drop_capabilities()?;
    seccomp::give_up(Keeps::ToItself)?;
    // Last, because a change of identity clears it.
    not_dropped("parent death signal", prctl::set_pdeathsig(Signal::SIGKILL))?;
    if getppid() == parent { Ok(()) } else { Err(PrivilegeError::Orphaned) }
}

fn find(name: &str) -> Result<User, PrivilegeError> {
    match User::from_name(name) {
        Ok(Some(user)) => Ok(user),
        _ => Err(PrivilegeError::NoSuchUser(name.to_owned())),
    }
}

fn become_someone(named: Option<User>) -> Result<(), PrivilegeError> {
    let (uid, gid) = match &named {
        Some(user) => (user.uid, user.gid),
        None => (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY)),
    };
    if !geteuid().is_root() {
        return match named {
            Some(user) if user.uid != geteuid() => Err(PrivilegeError::NotRoot(user.name)),
            _ => Ok(()),
        };
    }
    if !(mapped("uid_map", uid.as_raw()) && mapped("gid_map", gid.as_raw())) {
        return match named {
            Some(user) => Err(PrivilegeError::NotMapped(user.name)),
            None => Ok(()),
        };
    }
    not_dropped("supplementary groups", setgroups(&[]))?;
    not_dropped("group", setresgid(gid, gid, gid))?;
    not_dropped("user", setresuid(uid, uid, uid))
}

/// Whether an id exists in this process's user namespace. A file that cannot be read says yes: the system call then
/// decides, and fails loudly.
fn mapped(map: &str, id: u32) -> bool {
    let Ok(map) = fs::read_to_string(format!("/proc/self/{map}")) else {
        return true;
    };
    map.lines().any(|line| {
        let mut numbers = line.split_whitespace().map(|number| number.parse::<u64>().unwrap_or(0));
        let (first, length) = (numbers.next().unwrap_or(0), numbers.nth(1).unwrap_or(0));
        (first..first + length).contains(&u64::from(id))
    })
}

fn drop_capabilities() -> Result<(), PrivilegeError> {
    not_dropped("new privileges", prctl::set_no_new_privs())?;
    let had = rustix("capabilities", capabilities(None))?;
    rustix("ambient capabilities", clear_ambient_capability_set())?;
    // The bounding set and the secure bits need CAP_SETPCAP. After a change of identity it is gone, and with it every
    // way to gain what the bounding set still allows: no_new_privs is set.
    if had.effective.contains(CapabilitySet::SETPCAP) {
        empty_bounding_set()?;
        let root_is_nobody = CapabilitiesSecureBits::NO_ROOT
            | CapabilitiesSecureBits::NO_ROOT_LOCKED
            | CapabilitiesSecureBits::NO_SETUID_FIXUP
            | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED;
        rustix("secure bits", set_capabilities_secure_bits(root_is_nobody))?;
    }
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    rustix("capabilities", set_capabilities(None, none))?;
    let held = rustix("capabilities", capabilities(None))?;
    if held == none { Ok(()) } else { Err(PrivilegeError::StillHeld(format!("{:?}", held.permitted))) }
}

/// No program that is executed from now on can have any capability, whatever its file says. It needs CAP_SETPCAP.
fn empty_bounding_set() -> Result<(), PrivilegeError> {
    for bit in 0..64 {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        match capability_is_in_bounding_set(capability) {
            Ok(true) => rustix("bounding set", remove_capability_from_bounding_set(capability))?,
            Ok(false) => {}
            Err(_) => break,
        }
    }
    Ok(())
}

fn not_dropped<T>(what: &'static str, result: nix::Result<T>) -> Result<T, PrivilegeError> {
    result.map_err(|why| PrivilegeError::NotDropped { what, why })
}

fn rustix<T>(what: &'static str, result: rustix::io::Result<T>) -> Result<T, PrivilegeError> {
    not_dropped(what, result.map_err(|error| Errno::from_raw(error.raw_os_error())))
}
