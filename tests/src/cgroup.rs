//! Control groups that tests make: where they are mounted, and how they go.

use std::fs;
use std::io::Result;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::{netns, wait};

/// Where hierarchies of control groups are mounted.
pub(crate) fn hierarchies() -> Vec<PathBuf> {
    let top = Path::new("/sys/fs/cgroup");
    if top.join("cgroup.procs").exists() {
        return vec![top.to_owned()];
    }
    below(top).into_iter().filter(|path| path.join("cgroup.procs").exists()).collect()
}

fn below(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| path.is_dir()).collect()
}

/// Removes a group and those below it, in which nothing runs.
pub fn remove(group: &Path) -> Result<()> {
    take_down(group, &|_| ())
}

/// Ends what runs in a group and those below it, and removes them.
pub fn clear(group: &Path) -> Result<()> {
    take_down(group, &|group| {
        let pids = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        let inside: Vec<i32> = pids.lines().filter_map(|line| line.parse().ok()).collect();
        netns::end(|process| inside.contains(&process.pid));
    })
}

/// Ends what runs in the groups of this name, wherever hierarchies are mounted, and removes them.
///
/// # Panics
/// When one stays.
pub(crate) fn clear_all(name: &str) {
    for group in hierarchies().iter().map(|root| root.join(name)).filter(|group| group.is_dir()) {
        if let Err(error) = clear(&group) {
            let story = format!("cannot remove `{}`: {error}", group.display());
            if thread::panicking() { eprintln!("{story}") } else { panic!("{story}") }
        }
    }
}

/// A group can be removed only a moment after its last process has gone.
fn take_down(group: &Path, empty: &dyn Fn(&Path)) -> Result<()> {
    below(group).iter().try_for_each(|inner| take_down(inner, empty))?;
    let begun = Instant::now();
    loop {
        empty(group);
        match fs::remove_dir(group) {
            Err(error) if group.exists() && begun.elapsed() > wait::PATIENCE => return Err(error),
            Err(_) if group.exists() => thread::sleep(Duration::from_millis(10)),
            _ => return Ok(()),
        }
    }
}
