//! Where an agent keeps its state: one directory per network namespace.
//!
//! The directory is named after the namespace's cookie, which is unique until reboot. The lock in it is held by the
//! guardian: the kernel lets go of it when its holder is dead, and only then may somebody else recover or start.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use squall_experiments::protocol::Refusal;

use crate::host::sys;

/// The root of all state directories.
pub fn root(given: Option<&Path>) -> PathBuf {
    if let Some(given) = given {
        return given.to_owned();
    }
    if nix::unistd::geteuid().is_root() {
        return PathBuf::from("/var/lib/squall");
    }
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    let base = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|base| base.is_absolute());
    base.or_else(home).unwrap_or_else(std::env::temp_dir).join("squall")
}

/// The state directory of one network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    directory: PathBuf,
}

/// Held while an agent, or a recovery, works in a place.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "held, not read")] Flock<File>);

impl Place {
    /// The place of the calling thread's network namespace. Creates nothing.
    pub fn here(root: &Path) -> Result<Self, Refusal> {
        let cookie = sys::netns_cookie().map_err(|error| {
            Refusal::new(
                format!("this kernel does not name its network namespaces ({error})"),
                "Squall needs Linux 5.14 or newer",
            )
        })?;
        Ok(Place { directory: root.join(format!("netns-{cookie}")) })
    }

    /// Whether it belongs to the calling thread's network namespace.
    pub fn is_here(&self) -> bool {
        self.directory.parent().is_some_and(|root| Place::here(root).is_ok_and(|here| here == *self))
    }

    /// The cookie of its network namespace, by its name.
    pub fn cookie(&self) -> Option<u64> {
        self.directory.file_name()?.to_str()?.strip_prefix("netns-")?.parse().ok()
    }

    /// Every place below a root, of this and of other namespaces.
    pub fn all(root: &Path) -> Vec<Self> {
        let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
        let ours = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("netns-"));
        ours.map(|entry| Place { directory: entry.path() }).collect()
    }

    /// Makes the directory, for its owner alone.
    pub fn create(&self) -> Result<(), Refusal> {
        let help = "choose another with `--state-dir`, which also needs no root";
        DirBuilder::new().recursive(true).mode(0o700).create(&self.directory).map_err(|error| {
            Refusal::new(
                format!("cannot make the state directory `{}`: {error}", self.directory.display()),
                help,
            )
        })?;
        if self.socket().as_os_str().len() > 100 {
            let what = format!(
                "the path of the state directory `{}` is too long for a socket",
                self.directory.display()
            );
            return Err(Refusal::new(what, "choose a shorter one with `--state-dir`"));
        }
        Ok(())
    }

    /// Takes the lock. `None`: a living process holds it.
    pub fn lock(&self) -> io::Result<Option<Lock>> {
        let path = self.directory.join("lock");
        exclusive(&path, || {
            OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path)
        })
    }

    /// Keeps others from starting an agent or clearing the place, until an agent that is being started holds the lock.
    /// `None`: somebody else does so just now.
    pub fn starting(&self) -> io::Result<Option<Lock>> {
        exclusive(&self.directory, || File::open(&self.directory))
    }

    /// The root of all state directories.
    pub fn root(&self) -> PathBuf {
        self.directory.parent().unwrap_or(Path::new("/")).to_owned()
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The undo journal.
    pub fn journal(&self) -> PathBuf {
        self.directory.join("journal")
    }

    /// The agent's socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("agent.sock")
    }

    /// A journal that is being begun: it has its name once its header is on disk.
    fn unfinished(&self) -> PathBuf {
        self.journal().with_extension("new")
    }

    /// What an agent that works has here, and one that died leaves: of its journal, one that is being begun, and its
    /// socket the first that is there.
    pub fn remains(&self) -> Option<PathBuf> {
        [self.journal(), self.unfinished(), self.socket()].into_iter().find(|path| path.exists())
    }

    /// Removes what a clean place needs no more. Called with the lock held.
    pub fn clear(&self) {
        for path in [self.socket(), self.journal(), self.unfinished(), self.directory.join("lock")] {
            let _ = std::fs::remove_file(path);
        }
        let _ = std::fs::remove_dir(&self.directory);
    }
}

/// Locks what `open` opens. It must still be what is at `path`: whoever cleared the place meanwhile has removed it, and a
/// lock on a removed file keeps nobody out.
fn exclusive(path: &Path, open: impl Fn() -> io::Result<File>) -> io::Result<Option<Lock>> {
    use std::os::unix::fs::MetadataExt;
    loop {
        let lock = match Flock::lock(open()?, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => return Ok(None),
            Err((_, errno)) => return Err(errno.into()),
        };
        let held = lock.metadata()?;
        if std::fs::metadata(path).is_ok_and(|now| (now.dev(), now.ino()) == (held.dev(), held.ino())) {
            return Ok(Some(Lock(lock)));
        }
    }
}
