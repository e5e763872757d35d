//! Control groups: found by path or by unit, of version 2 and, where that knows nothing of a process, of version 1.
//!
//! The kernel remembers for each socket in which group of version 2 it was made, but not in which of version 1. So the
//! first tells packets apart by itself, and the second only tells processes apart.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use squall_experiments::protocol::Refusal;
use squall_experiments::scope::Scope;

use super::process::Target;
use super::unit;

/// A control group of version 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// Its directory.
    pub directory: PathBuf,
    /// How many levels below the root: the root is 0.
    pub level: u32,
    /// Its number for the kernel: the directory's inode.
    pub id: u64,
}

/// What a scope by control group or by unit came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Group {
    /// It is known to version 2.
    New(Cgroup),
    /// Only version 1 knows its processes: the directory in one of its hierarchies.
    Old(PathBuf),
}

/// A hierarchy of control groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hierarchy {
    /// Where it is mounted.
    pub root: PathBuf,
    /// The one that systemd keeps its units in.
    pub systemd: bool,
}

/// The hierarchies of version 1, systemd's first.
pub(super) fn old_hierarchies() -> Vec<Hierarchy> {
    let mounts = procfs::process::Process::myself().and_then(|me| me.mountinfo());
    let old = mounts.into_iter().flat_map(IntoIterator::into_iter).filter(|mount| mount.fs_type == "cgroup");
    let mut found: Vec<Hierarchy> = old
        .map(|mount| Hierarchy {
            systemd: mount.super_options.get("name").is_some_and(|name| name.as_deref() == Some("systemd")),
            root: mount.mount_point,
        })
        .collect();
    found.sort_by_key(|hierarchy| !hierarchy.systemd);
    found
}

/// The names on the way to a group; `None` where they do not lead to one below the root.
fn names(path: &str) -> Option<Vec<&str>> {
    let names: Vec<&str> = path.trim_matches('/').split('/').collect();
    names.iter().all(|name| !matches!(*name, "" | "." | "..")).then_some(names)
}

fn no_one_group(path: &str) -> Refusal {
    Refusal::new(
        format!("`{path}` does not name one control group"),
        "write its path below the root, such as `system.slice/shop.service`",
    )
}

impl Cgroup {
    /// Where the version 2 hierarchy is mounted.
    pub fn root() -> Result<PathBuf, Refusal> {
        let mounts = procfs::process::Process::myself().and_then(|me| me.mountinfo());
        let mounts = mounts.map_err(|error| Refusal::bare(format!("cannot read the mounts: {error}")))?;
        let found = mounts.into_iter().find(|mount| mount.fs_type == "cgroup2");
        found.map(|mount| mount.mount_point).ok_or_else(|| {
            Refusal::new(
                "control groups of version 2 are not mounted",
                "mount them (`mount -t cgroup2 none /sys/fs/cgroup`), or choose another scope",
            )
        })
    }

    /// The group at a path below the root.
    pub fn find(path: &str) -> Result<Self, Refusal> {
        let root = Self::root()?;
        let names = names(path).ok_or_else(|| no_one_group(path))?;
        Self::below(&root, &names).map_err(|error| {
            Refusal::new(
                format!(
                    "there is no control group `{}` below `{}` ({error})",
                    names.join("/"),
                    root.display()
                ),
                "list them with `systemd-cgls`, or `find` below that directory",
            )
        })
    }

    fn below(root: &Path, names: &[&str]) -> std::io::Result<Self> {
        let directory = root.join(names.join("/"));
        let id = std::fs::metadata(&directory)?.ino();
        Ok(Cgroup { directory, level: names.len() as u32, id })
    }

    /// The group with this directory below the root.
    pub(super) fn at(root: &Path, directory: &Path) -> Option<Self> {
        let path = directory.strip_prefix(root).ok()?.to_str()?;
        Self::below(root, &names(path)?).ok()
    }

    /// The group that is at this place now.
    pub fn again(&self) -> Option<Self> {
        let id = std::fs::metadata(&self.directory).ok()?.ino();
        Some(Cgroup { id, ..self.clone() })
    }

    /// The pids in the group and in the groups below it.
    pub fn members(&self) -> BTreeSet<i32> {
        members(&self.directory)
    }

    /// The numbers of the group and of the groups below it.
    pub fn ids(&self) -> BTreeSet<u64> {
        tree(&self.directory).iter().filter_map(|directory| Some(directory.metadata().ok()?.ino())).collect()
    }
}

impl Group {
    /// The group of a scope, which names one by its path or by its unit. A group that version 2 knows is taken there,
    /// unless its processes are only in version 1.
    pub fn of(scope: &Scope) -> Result<Self, Refusal> {
        match scope {
            Scope::Cgroup(path) => Self::at(path),
            Scope::Unit(name) => unit::find(name),
            _ => Err(Refusal::bare(format!("{scope} is no control group"))),
        }
    }

    fn at(path: &str) -> Result<Self, Refusal> {
        let names = names(path).ok_or_else(|| no_one_group(path))?;
        let new = Cgroup::find(path);
        let olds = old_hierarchies().into_iter().map(|hierarchy| hierarchy.root.join(names.join("/")));
        Self::choose(new, olds.filter(|directory| directory.is_dir()).collect())
    }

    /// One of those that were found: the first with processes, version 2 before version 1.
    pub(super) fn choose(new: Result<Cgroup, Refusal>, olds: Vec<PathBuf>) -> Result<Self, Refusal> {
        let populated = |directory: &PathBuf| !members(directory).is_empty();
        match new {
            Ok(new) if !new.members().is_empty() || !olds.iter().any(populated) => Ok(Group::New(new)),
            new => match olds.into_iter().max_by_key(populated) {
                Some(old) => Ok(Group::Old(old)),
                None => new.map(Group::New),
            },
        }
    }

    /// Its directory.
    pub fn directory(&self) -> &Path {
        match self {
            Group::New(group) => &group.directory,
            Group::Old(directory) => directory,
        }
    }

    /// The pids in the group and in the groups below it.
    pub fn members(&self) -> BTreeSet<i32> {
        members(self.directory())
    }

    /// What it is, and which processes are in it, for the report.
    pub fn describe(&self, processes: &[Target]) -> String {
        let mut names: BTreeMap<&str, usize> = BTreeMap::new();
        processes.iter().for_each(|target| *names.entry(target.name.as_str()).or_default() += 1);
        let names: Vec<String> = names
            .into_iter()
            .map(|(name, count)| if count == 1 { name.to_owned() } else { format!("{count} {name}") })
            .collect();
        let inside = if names.is_empty() { "no process".to_owned() } else { names.join(", ") };
        format!("control group {}: {inside}", self.directory().display())
    }

    /// Its processes, as they are now.
    pub(super) fn processes(&self) -> Vec<Target> {
        self.members().into_iter().filter_map(Target::of).filter(Target::alive).collect()
    }
}

fn members(directory: &Path) -> BTreeSet<i32> {
    let list =
        |directory: PathBuf| std::fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    let pids = |list: String| list.lines().filter_map(|line| line.parse().ok()).collect::<Vec<i32>>();
    tree(directory).into_iter().map(list).flat_map(pids).collect()
}

/// Every group of version 2 by its number, from this directory on.
pub fn directories(top: &Path) -> Vec<(u64, PathBuf)> {
    let numbered =
        tree(top).into_iter().filter_map(|directory| Some((directory.metadata().ok()?.ino(), directory)));
    numbered.collect()
}

fn tree(top: &Path) -> Vec<PathBuf> {
    let mut tree = vec![top.to_owned()];
    let mut next = 0;
    while let Some(directory) = tree.get(next) {
        tree.extend(below(directory));
        next += 1;
    }
    tree
}

/// The directories in a directory.
pub(super) fn below(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut below: Vec<PathBuf> = directories.map(|entry| entry.path()).collect();
    below.sort();
    below
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_leads_out_of_the_tree_names_no_group() {
        for path in ["", "/", "a/../b", "..", "./a", "a//b"] {
            assert!(names(path).is_none(), "{path}");
        }
        assert_eq!(names("/system.slice/shop.service/").map(|names| names.len()), Some(2));
    }
}
