//! What a worker gives up at its start, because its host's policy allows no fault that needs it.
//!
//! The guardian keeps what it has: it undoes whatever the journal holds, and what an agent under an earlier policy left was
//! undone before there was a worker. A worker undoes only what it was allowed to make.

use nix::sys::prctl;
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use crate::policy::Policy;

/// What may be given up, each with its name.
const GIVEN_UP: [(CapabilitySet, &str); 3] = [
    (CapabilitySet::NET_RAW, "CAP_NET_RAW"),
    (CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN"),
    (CapabilitySet::BPF, "CAP_BPF"),
];

/// What no fault needs that a policy allows, as the capabilities are called.
pub fn needless(policy: &Policy) -> Vec<&'static str> {
    let set = needless_set(policy);
    GIVEN_UP.iter().filter(|(one, _)| set.contains(*one)).map(|(_, name)| *name).collect()
}

fn needless_set(policy: &Policy) -> CapabilitySet {
    let allows = |kind: &str| policy.enabled && policy.allow.iter().any(|allowed| allowed == kind);
    let mut set = CapabilitySet::empty();
    if !["block", "shape"].into_iter().any(allows) {
        // Packets that were held on their way out are sent on by a raw socket, and `verify: probe` pings by one.
        set |= CapabilitySet::NET_RAW;
    }
    if !["block", "shape", "redirect", "disconnect"].into_iter().any(allows) {
        // Other network namespaces are entered, and sockets marked, for faults of traffic alone.
        set |= CapabilitySet::SYS_ADMIN | CapabilitySet::BPF;
    }
    set
}

/// Gives it up, for this process and whatever it starts. Must be called while the process has one thread: capabilities belong
/// to threads.
pub fn give_up(policy: &Policy) -> Result<(), Errno> {
    let needless = needless_set(policy);
    let mut held = capabilities(None)?;
    if !held.permitted.intersects(needless) {
        return Ok(());
    }
    // Without this a program that root starts would have all of them again.
    prctl::set_no_new_privs().map_err(|errno| Errno::from_raw_os_error(errno as i32))?;
    for set in [&mut held.effective, &mut held.permitted, &mut held.inheritable] {
        set.remove(needless);
    }
    set_capabilities(None, held)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_up_follows_from_what_is_allowed() {
        let of = |text: &str| needless(&serde_json::from_str(text).unwrap());
        assert!(of("{}").is_empty());
        assert_eq!(of(r#"{"allow": ["redirect", "pause"]}"#), ["CAP_NET_RAW"]);
        assert!(of(r#"{"allow": ["block", "pause"]}"#).is_empty());
        assert!(of(r#"{"allow": ["shape"]}"#).is_empty());
        let all = ["CAP_NET_RAW", "CAP_SYS_ADMIN", "CAP_BPF"];
        assert_eq!(of(r#"{"allow": ["signal", "pause"]}"#), all);
        assert_eq!(of(r#"{"enabled": false}"#), all);
    }
}
