//! An initramfs, written by hand: the "newc" form of cpio (kernel: Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};

/// What a kernel unpacks into its first root.
pub struct Initramfs {
    file: BufWriter<File>,
    entries: u32,
    written: u64,
    directories: BTreeSet<String>,
}

/// The bits of a mode that say what an entry is.
const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

impl Initramfs {
    /// Begins one.
    pub fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| path.display().to_string())?;
        let mut new =
            Initramfs { file: BufWriter::new(file), entries: 0, written: 0, directories: BTreeSet::new() };
        // What the kernel gives to init as its standard input and output.
        new.parents("/dev/console")?;
        new.entry("/dev/console", CHARACTER_DEVICE | 0o600, &[], (5, 1))?;
        Ok(new)
    }

    /// A directory, with those above it.
    pub fn directory(&mut self, path: &str) -> Result<()> {
        self.parents(&format!("{path}/."))
    }

    /// A symbolic link.
    pub fn link(&mut self, path: &str, to: &str) -> Result<()> {
        self.parents(path)?;
        self.entry(path, LINK | 0o777, to.as_bytes(), (0, 0))
    }

    /// A file with this content.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.parents(path)?;
        self.entry(path, FILE | mode, content, (0, 0))
    }

    /// A file of this machine.
    pub fn copy(&mut self, path: &str, from: &Path) -> Result<()> {
        let named = || from.display().to_string();
        let mode = fs::metadata(from).with_context(named)?.permissions().mode() & 0o777;
        let content = fs::read(from).with_context(named)?;
        self.file(path, mode, &content)
    }

    /// Ends it.
    pub fn finish(mut self) -> Result<()> {
        self.entry("/TRAILER!!!", 0, &[], (0, 0))?;
        self.file.flush().context("cannot write the initramfs")
    }

    fn parents(&mut self, path: &str) -> Result<()> {
        for (at, _) in path.match_indices('/').filter(|(at, _)| *at > 0) {
            let directory = &path[..at];
            if self.directories.insert(directory.to_owned()) {
                self.entry(directory, DIRECTORY | 0o755, &[], (0, 0))?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8], device: (u32, u32)) -> Result<()> {
        let name = path.trim_start_matches('/');
        self.entries += 1;
        let size = u32::try_from(content.len()).context("a file of more than 4 GiB")?;
        let length = u32::try_from(name.len() + 1).context("a name of more than 4 GiB")?;
        let links = if mode & DIRECTORY != 0 && mode & FILE == 0 { 2 } else { 1 };
        // inode, mode, uid, gid, links, time, size, device of the file system, device of the node, name, check sum.
        let fields = [self.entries, mode, 0, 0, links, 0, size, 0, 0, device.0, device.1, length, 0]
            .map(|field| format!("{field:08x}"));
        self.write(format!("070701{}{name}\0", fields.concat()).as_bytes())?;
        self.write(content)
    }

    /// Writes, and fills up to a multiple of four bytes.
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.written += bytes.len() as u64;
        let padding = (4 - self.written % 4) % 4;
        self.written += padding;
        let padding = &[0; 3][..usize::try_from(padding).unwrap_or(0)];
        self.file
            .write_all(bytes)
            .and_then(|()| self.file.write_all(padding))
            .context("cannot write the initramfs")
    }
}
