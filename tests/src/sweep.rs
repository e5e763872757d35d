//! What a run of these tests left that was killed before it could clean up.

use std::fs;
use std::path::Path;

use nix::mount::{MntFlags, umount2};

use crate::cgroup;
use crate::netns::{Netns, PREFIX, Process};

/// Removes what processes have left that are dead. What cannot be removed is said, and does not stop a test.
pub(crate) fn dead_worlds() {
    let dead = |name: &str| {
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        pid.and_then(|pid| pid.parse::<i32>().ok()).is_some_and(|pid| Process::of(pid).is_none())
    };
    let names = |directory: &Path| -> Vec<String> {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| dead(name))
            .collect()
    };
    let trouble =
        |what: &str, error: &dyn std::fmt::Display| eprintln!("leftover `{what}` cannot be removed: {error}");
    for name in names(Path::new("/run/netns")) {
        if let Err(error) = Netns::existing(&name).and_then(|netns| netns.delete()) {
            trouble(&name, &format!("{error:#}"));
        }
    }
    for path in
        cgroup::hierarchies().iter().flat_map(|root| names(root).into_iter().map(|name| root.join(name)))
    {
        if let Err(error) = cgroup::clear(&path) {
            trouble(&path.display().to_string(), &error);
        }
    }
    let temporary = std::env::temp_dir();
    for name in names(&temporary) {
        let path = temporary.join(&name);
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        for point in mounts.lines().filter_map(|line| line.split(' ').nth(4)) {
            if Path::new(point).starts_with(&path) {
                let _ = umount2(point, MntFlags::MNT_DETACH);
            }
        }
        if let Err(error) = fs::remove_dir_all(&path) {
            trouble(&name, &error);
        }
    }
}
