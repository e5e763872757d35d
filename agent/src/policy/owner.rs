//! Whose a policy may be: only its owner decides what it says.

use nix::unistd::geteuid;

/// What is wrong with a file or a directory that belongs to a user and has this mode; nothing, where root or the user of this
/// process alone can write it.
pub fn objection(uid: u32, mode: u32) -> Option<String> {
    if mode & 0o022 != 0 {
        return Some(format!("can be written by others than its owner (mode {:o})", mode & 0o777));
    }
    let trusted = uid == 0 || uid == geteuid().as_raw() || is_of_outside(uid);
    (!trusted).then(|| format!("belongs to the user {uid}, and not to root"))
}

/// Whether a number stands for users from outside of this user namespace (`user_namespaces(7)`): the root of the host is one of
/// them, and nobody in here can tell which one it is.
fn is_of_outside(uid: u32) -> bool {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let outside = read("/proc/sys/kernel/overflowuid").trim().parse::<u32>();
    outside == Ok(uid) && !is_mapped(&read("/proc/self/uid_map"), uid)
}

/// Whether a user of this number is in here: each line of a map has the first number in here, that outside, and how many.
fn is_mapped(map: &str, uid: u32) -> bool {
    let range = |line: &str| {
        let mut numbers = line.split_whitespace().map(str::parse::<u64>);
        let (first, _, count) = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
        Some(first..first.saturating_add(count))
    };
    // A map that cannot be read maps everybody.
    map.trim().is_empty() || map.lines().filter_map(range).any(|range| range.contains(&u64::from(uid)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_or_oneself_may_own_it_and_nobody_else_may_write_it() {
        let own = geteuid().as_raw();
        assert_eq!((objection(0, 0o644), objection(own, 0o600)), (None, None));
        let stranger = objection(4711, 0o600).expect("it is somebody else's");
        assert!(stranger.contains("user 4711"), "{stranger}");
        assert!(objection(0, 0o664).expect("its group may write it").contains("mode 664"));
    }

    #[test]
    fn a_user_of_outside_is_one_that_the_map_does_not_have() {
        let (host, one) = ("         0          0 4294967295\n", "         0       1000          1\n");
        assert!(is_mapped(host, 65534) && is_mapped("", 65534) && is_mapped(one, 0));
        assert!(!is_mapped(one, 65534) && !is_mapped(one, 1));
    }
}
