//! Mounts, files and the clock.

use std::os::unix::fs::MetadataExt;

use nix::time::{ClockId, clock_gettime};

use super::Seen;

/// Files that faults of this field are known to leave changed.
const FILES: [&str; 4] = ["/etc/hosts", "/etc/resolv.conf", "/etc/nsswitch.conf", "/etc/hostname"];
/// How the name of the clock's offset begins.
const CLOCK: &str = "clock";

/// Mounts of the agent's own mount namespace, without those that only give a name to a namespace.
pub fn mounts(seen: &mut Seen) -> Result<(), String> {
    let text = std::fs::read_to_string("/proc/thread-self/mountinfo")
        .map_err(|error| format!("cannot be listed: {error}"))?;
    for line in text.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let (Some(root), Some(point), Some(options)) = (fields.get(3), fields.get(4), fields.get(5)) else {
            continue;
        };
        let kind = fields.iter().skip_while(|field| **field != "-").nth(1).copied().unwrap_or_default();
        if kind != "nsfs" {
            seen.say(format!("mount {point}"), format!("{kind} {root} {options}"));
        }
    }
    Ok(())
}

/// Files by length, mode, owner and content.
pub fn files(seen: &mut Seen) -> Result<(), String> {
    for path in FILES {
        let Ok(meta) = std::fs::metadata(path) else { continue };
        let content = match std::fs::read(path) {
            Ok(content) => blake3::hash(&content).to_hex()[..12].to_owned(),
            Err(error) => format!("not readable ({error})"),
        };
        let words = format!(
            "{} bytes, mode {:o}, owner {}:{}, {content}",
            meta.len(),
            meta.mode() & 0o7777,
            meta.uid(),
            meta.gid()
        );
        seen.say(format!("file {path}"), words);
    }
    Ok(())
}

/// How far the wall clock is from the clock that counts from boot, in milliseconds. Both are disciplined alike, so this
/// changes only when somebody sets the clock.
pub fn clock(seen: &mut Seen) -> Result<(), String> {
    let read = |clock| {
        let now = clock_gettime(clock).map_err(|errno| format!("cannot be read: {errno}"))?;
        Ok::<i128, String>(i128::from(now.tv_sec()) * 1_000_000_000 + i128::from(now.tv_nsec()))
    };
    // Between two readings others may run: the closest pair of some counts.
    let mut best: Option<(i128, i128)> = None;
    for _ in 0..5 {
        let (early, wall, late) =
            (read(ClockId::CLOCK_BOOTTIME)?, read(ClockId::CLOCK_REALTIME)?, read(ClockId::CLOCK_BOOTTIME)?);
        if best.is_none_or(|(gap, _)| late - early < gap) {
            best = Some((late - early, wall - i128::midpoint(early, late)));
        }
    }
    if let Some((_, offset)) = best {
        seen.say(CLOCK.to_owned(), format!("{} ms ahead of the boot clock", offset / 1_000_000));
    }
    Ok(())
}

/// Whether two values of [`clock`] are the same but for how exactly they were read.
pub fn same_clock(one: &str, other: &str) -> bool {
    /// In milliseconds.
    const EXACT: i128 = 20;
    let number = |text: &str| text.split(' ').next()?.parse::<i128>().ok();
    match (number(one), number(other)) {
        (Some(one), Some(other)) => (one - other).abs() <= EXACT,
        _ => one == other,
    }
}

#[cfg(test)]
mod tests {
    use super::same_clock;

    #[test]
    fn a_clock_that_was_set_differs_and_one_that_was_read_late_does_not() {
        assert!(same_clock(
            "1700000000000 ms ahead of the boot clock",
            "1700000000004 ms ahead of the boot clock"
        ));
        assert!(!same_clock(
            "1700000000000 ms ahead of the boot clock",
            "1700000001000 ms ahead of the boot clock"
        ));
    }
}
