//! The demo's own directory: experiment files and the agent's state. Removed at the end.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// A new directory that only this user can enter. Dropping it removes it with everything in it.
pub(super) struct Folder(PathBuf);

impl Folder {
    /// Makes it below the directory for temporary files.
    pub(super) fn new() -> anyhow::Result<Self> {
        let template = std::env::temp_dir().join("squall-demo-XXXXXX");
        let made = nix::unistd::mkdtemp(&template);
        let path = made.with_context(|| format!("cannot make a directory as `{}`", template.display()))?;
        Ok(Folder(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file and returns its path.
    pub(super) fn write(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.0.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write `{}`", path.display()))?;
        Ok(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("warning: `{}` stays: {error}", self.0.display());
        }
    }
}
