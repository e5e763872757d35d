//! Processes that do not run although they could: stopped, or traced by somebody. Frozen ones are told by their control
//! groups.

use std::collections::BTreeMap;
use std::path::Path;

use super::Seen;

/// By command name and how many there are of each: pids are given again.
pub fn look(seen: &mut Seen) -> Result<(), String> {
    let entries = std::fs::read_dir("/proc").map_err(|error| format!("cannot be listed: {error}"))?;
    let mut halted: BTreeMap<String, usize> = BTreeMap::new();
    for entry in entries.flatten() {
        let name = entry.file_name();
        if !name.as_encoded_bytes().first().is_some_and(u8::is_ascii_digit) {
            continue;
        }
        // It may have ended meanwhile.
        let Ok(status) = std::fs::read_to_string(entry.path().join("status")) else { continue };
        if let Some(halt) = halt(&status) {
            *halted.entry(halt).or_default() += 1;
        }
    }
    halted.into_iter().for_each(|(name, count)| seen.say(name, count.to_string()));
    Ok(())
}

/// How the name of a process that does not run begins.
pub fn named(name: &str) -> String {
    format!("process `{name}`")
}

/// What keeps a process from running, by its `status` file.
fn halt(status: &str) -> Option<String> {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let (state, tracer) = (field("State")?.trim(), field("TracerPid")?.trim());
    let name = named(field("Name")?.trim());
    // What this process traces is held by a run that is live.
    let by_us = tracer != "0" && Path::new("/proc/self/task").join(tracer).exists();
    match state.chars().next() {
        Some('Z' | 'X') => None,
        _ if by_us => None,
        Some('T') => Some(format!("{name}: stopped")),
        Some('t') => Some(format!("{name}: in a tracing stop")),
        _ if tracer != "0" => Some(format!("{name}: traced")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::halt;

    #[test]
    fn only_what_does_not_run_counts() {
        let status = |state: &str, tracer: u32| {
            halt(&format!("Name:\tnginx\nState:\t{state}\nPid:\t7\nTracerPid:\t{tracer}\n"))
        };
        assert_eq!(status("S (sleeping)", 0), None);
        assert_eq!(status("Z (zombie)", 1), None);
        assert_eq!(status("T (stopped)", 0).as_deref(), Some("process `nginx`: stopped"));
        assert_eq!(status("t (tracing stop)", 1).as_deref(), Some("process `nginx`: in a tracing stop"));
        assert_eq!(status("S (sleeping)", 1).as_deref(), Some("process `nginx`: traced"));
        assert_eq!(status("t (tracing stop)", std::process::id()), None, "our own");
    }
}
