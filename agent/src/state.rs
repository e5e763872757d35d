//! Where an agent keeps its state: one directory per network namespace.

use std::path::{Path, PathBuf};

/// The root of all state directories.
pub fn root(given: Option<&Path>) -> PathBuf {
    if let Some(given) = given {
        return given.to_owned();
    }
    if nix::unistd::geteuid().is_root() {
        return PathBuf::from("/var/lib/squall");
    }
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    let base = std::env::var_os("XDG_STATE_HOME")
        .map(PathBuf::from)
        .filter(|base| base.is_absolute());
    base.or_else(home)
        .unwrap_or_else(std::env::temp_dir)
        .join("squall")
}
