//! Processes that no fault touches because of whose they are: of a user, of a unit, or of a name that the policy protects.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::sync::{Mutex, PoisonError};

use procfs::process::Process as Entry;
use squall_experiments::protocol::Refusal;

use super::Policy;
use crate::host::process::{Target, uid_of};

/// Whom a policy protects, by what a process is known by.
#[derive(Debug)]
pub struct Wards<'a> {
    names: &'a [String],
    units: &'a [String],
    uids: BTreeSet<u32>,
}

/// The number of a user, which is looked up once: names may come from elsewhere, over what a fault cuts off.
fn known(user: &str) -> Result<u32, Refusal> {
    static KNOWN: Mutex<BTreeMap<String, u32>> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(uid) = known.get(user) {
        return Ok(*uid);
    }
    let uid = uid_of(user)?;
    known.insert(user.to_owned(), uid);
    Ok(uid)
}

impl<'a> Wards<'a> {
    /// A user who is not there is refused: nobody would be protected by that name.
    pub fn of(policy: &'a Policy) -> Result<Self, Refusal> {
        let uids = policy.protect_users.iter().map(|user| known(user)).collect::<Result<_, _>>()?;
        Ok(Wards { names: &policy.protect_processes, units: &policy.protect_units, uids })
    }

    /// Whether there is nobody to protect.
    pub fn are_none(&self) -> bool {
        self.names.is_empty() && self.units.is_empty() && self.uids.is_empty()
    }

    /// Why a process is protected; `None` where it is not, or has ended.
    pub fn protect(&self, entry: &Entry, name: &str) -> Option<String> {
        if self.names.iter().any(|protected| protected == name) {
            return Some("protected by this host's policy".to_owned());
        }
        if !self.uids.is_empty()
            && let Ok(status) = entry.status()
            && let Some(uid) = [status.euid, status.ruid].iter().find(|uid| self.uids.contains(uid))
        {
            return Some(format!("this host's policy protects the user {uid}"));
        }
        if self.units.is_empty() {
            return None;
        }
        let groups = std::fs::read_to_string(format!("/proc/{}/cgroup", entry.pid)).unwrap_or_default();
        self.unit_in(&groups).map(|unit| format!("this host's policy protects the unit `{unit}`"))
    }

    /// The unit to which a process belongs whose `/proc/PID/cgroup` this is.
    fn unit_in(&self, groups: &str) -> Option<&str> {
        let paths = groups.lines().filter_map(|line| line.splitn(3, ':').nth(2));
        let mut names = paths.flat_map(|path| path.split('/'));
        names.find_map(|name| {
            let name = name.strip_prefix('_').unwrap_or(name);
            self.units.iter().find(|unit| *unit == name).map(String::as_str)
        })
    }

    /// All of them that run now, each with the reason.
    fn now(&self) -> Vec<(i32, String)> {
        if self.are_none() {
            return Vec::new();
        }
        let of = |entry: Entry| {
            let stat = entry.stat().ok().filter(|stat| !matches!(stat.state, 'Z' | 'X'))?;
            Some((stat.pid, self.protect(&entry, &stat.comm)?))
        };
        procfs::process::all_processes().map(|all| all.flatten().filter_map(of).collect()).unwrap_or_default()
    }

    /// Why traffic of these processes is not touched as a whole; `None` where none of them is protected.
    pub fn among(&self, members: &[Target]) -> Option<String> {
        let protected = |target: &&Target| self.why(target).is_some();
        let first = members.iter().find(protected)?;
        Some(format!("{first} is among them: {}", self.why(first)?))
    }

    /// The same for all sockets of a user.
    pub fn of_user(&self, uid: u32) -> Option<String> {
        self.first(|pid| {
            Entry::new(pid).and_then(|entry| entry.status()).is_ok_and(|status| status.euid == uid)
        })
    }

    /// The same for all traffic of a network namespace, by the inode of its file.
    pub fn inside(&self, network: u64) -> Option<String> {
        let is =
            |pid| std::fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|found| found.ino() == network);
        self.first(is)
    }

    fn first(&self, is: impl Fn(i32) -> bool) -> Option<String> {
        let (pid, why) = self.now().into_iter().find(|(pid, _)| is(*pid))?;
        let shown = Target::of(pid).map_or_else(|| format!("pid {pid}"), |target| target.to_string());
        Some(format!("{shown} is among them: {why}"))
    }

    fn why(&self, target: &Target) -> Option<String> {
        self.protect(&Entry::new(target.pid).ok()?, &target.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(text: &str) -> Policy {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_process_belongs_to_the_unit_on_its_way_and_to_no_other() {
        let policy = policy(r#"{"protect-units": ["db.service", "cpu.service"]}"#);
        let wards = Wards::of(&policy).unwrap();
        for (groups, unit) in [
            ("0::/system.slice/db.service\n", Some("db.service")),
            ("12:pids:/x\n1:name=systemd:/system.slice/db.service/worker\n0::/\n", Some("db.service")),
            ("0::/_cpu.service\n", Some("cpu.service")),
            ("0::/system.slice/my-db.service\n", None),
            ("0::/system.slice/db.service-1.scope\n", None),
            ("", None),
        ] {
            assert_eq!(wards.unit_in(groups), unit, "{groups}");
        }
    }

    #[test]
    fn a_process_of_a_protected_user_is_left_out_of_every_scope_or_refused_with_it() {
        let me = Target::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        let uid = nix::unistd::geteuid().as_raw();
        let mine = policy(&format!(r#"{{"protect-users": ["{uid}"]}}"#));
        let wards = Wards::of(&mine).unwrap();
        let why = wards.among(std::slice::from_ref(&me)).unwrap();
        assert!(why.contains(&format!("protects the user {uid}")), "{why}");
        assert!(wards.of_user(uid).is_some() && wards.of_user(uid.wrapping_add(4711)).is_none());
        let network = std::fs::metadata("/proc/self/ns/net").unwrap().ino();
        assert!(wards.inside(network).is_some() && wards.inside(1).is_none());
        assert!(crate::veto::protects(&mine, &me));
        let others = policy(&format!(r#"{{"protect-users": ["{}"]}}"#, uid.wrapping_add(4711)));
        assert_eq!(Wards::of(&others).unwrap().among(&[me]), None);
        let refusal = Wards::of(&policy(r#"{"protect-users": ["nobody-of-that-name"]}"#)).unwrap_err();
        assert!(refusal.what.contains("nobody-of-that-name"), "{refusal}");
    }
}
