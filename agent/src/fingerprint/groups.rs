//! Control groups: what is limited or frozen. A group without a limit says nothing, so that groups may come and go.

use std::path::{Path, PathBuf};

use super::Seen;
use crate::host::process::Cgroup;

/// Files of version 2, each with the value that limits nothing.
const FILES: [(&str, &str); 8] = [
    ("cgroup.freeze", "0"),
    ("cpu.max", "max 100000"),
    ("memory.max", "max"),
    ("memory.high", "max"),
    ("memory.swap.max", "max"),
    ("io.max", ""),
    ("pids.max", "max"),
    ("cpuset.cpus", ""),
];
/// The same of version 1, by hierarchy. That of memory is the largest number of pages, in bytes.
const OLD_FILES: [(&str, &str, &str); 7] = [
    ("freezer", "freezer.state", "THAWED"),
    ("cpu", "cpu.cfs_quota_us", "-1"),
    ("memory", "memory.limit_in_bytes", "9223372036854771712"),
    ("pids", "pids.max", "max"),
    ("blkio", "blkio.throttle.read_bps_device", ""),
    ("blkio", "blkio.throttle.write_bps_device", ""),
    ("cpuset", "cpuset.cpus", ""),
];
/// So many groups are looked at.
const MOST: usize = 2000;

/// See the module.
pub fn look(seen: &mut Seen) -> Result<(), String> {
    if let Ok(root) = Cgroup::root() {
        walk(&root, &FILES, seen);
    }
    let mut hierarchies: Vec<&str> = OLD_FILES.iter().map(|(hierarchy, ..)| *hierarchy).collect();
    hierarchies.dedup();
    for hierarchy in hierarchies {
        let files: Vec<(&str, &str)> =
            OLD_FILES.iter().filter(|file| file.0 == hierarchy).map(|file| (file.1, file.2)).collect();
        walk(&Path::new("/sys/fs/cgroup").join(hierarchy), &files, seen);
    }
    Ok(())
}

fn walk(root: &Path, files: &[(&str, &str)], seen: &mut Seen) {
    let mut open: Vec<PathBuf> = vec![root.to_owned()];
    let mut looked = 0;
    while let Some(group) = open.pop() {
        looked += 1;
        if looked > MOST {
            seen.note(format!("control groups: only {MOST} of `{}` were looked at", root.display()));
            return;
        }
        for (file, unlimited) in files {
            let Ok(value) = std::fs::read_to_string(group.join(file)) else { continue };
            let value = value.trim();
            if value != *unlimited {
                seen.say(format!("{}", group.join(file).display()), value);
            }
        }
        let mut below: Vec<PathBuf> = std::fs::read_dir(&group)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.path())
            .collect();
        below.sort();
        open.extend(below);
    }
}
