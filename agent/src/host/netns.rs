//! Network namespaces: found by a file or a process, known again by inode and cookie, entered for a moment.
//!
//! Sockets and threads belong for ever to the namespace in which they were made. So acting in another namespace means to
//! go there, to open what is needed, and to come back.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};
use serde::{Deserialize, Serialize};

use super::sys;

/// Where namespaces have names: `ip-netns(8)`.
pub const NAMED: &str = "/run/netns";

/// Which namespace. Inodes are used again; cookies are not, until the next boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Id {
    /// Of its file, by which it is found.
    pub inode: u64,
    /// The kernel's own number of it (`SO_NETNS_COOKIE`).
    pub cookie: u64,
}

/// A network namespace, kept as long as this lives.
#[derive(Debug)]
pub struct Netns {
    id: Id,
    file: OwnedFd,
}

impl Netns {
    /// The calling thread's own.
    pub fn here() -> io::Result<Self> {
        let file = File::open("/proc/thread-self/ns/net")?;
        let id = Id { inode: file.metadata()?.ino(), cookie: sys::netns_cookie()? };
        Ok(Netns { id, file: file.into() })
    }

    /// The one that a file stands for. A file of another kind is an error (`EINVAL`).
    pub fn open(path: &Path) -> io::Result<Self> {
        Netns::of(File::open(path)?.into())
    }

    /// The one that a process is in.
    pub fn of_process(pid: i32) -> io::Result<Self> {
        Netns::open(&PathBuf::from(format!("/proc/{pid}/ns/net")))
    }

    /// The one that a socket belongs to, whoever has made it. Needs CAP_NET_ADMIN there.
    pub fn of_socket(socket: BorrowedFd<'_>) -> io::Result<Self> {
        Netns::of(sys::netns_of(socket)?)
    }

    fn of(file: OwnedFd) -> io::Result<Self> {
        let inode = File::from(file.try_clone()?).metadata()?.ino();
        let cookie = inside(&file, sys::netns_cookie)??;
        Ok(Netns { id: Id { inode, cookie }, file })
    }

    /// Looks for a namespace behind every process and every name; `None` where neither leads to it. One that is there and
    /// cannot be entered is an error: it is not gone.
    pub fn find(id: Id) -> io::Result<Option<Self>> {
        let inode = |path: &Path| std::fs::metadata(path).is_ok_and(|found| found.ino() == id.inode);
        let processes = procfs::process::all_processes().into_iter().flatten().flatten();
        let processes = processes.map(|process| PathBuf::from(format!("/proc/{}/ns/net", process.pid)));
        let names = std::fs::read_dir(NAMED).into_iter().flatten().flatten().map(|entry| entry.path());
        for path in processes.chain(names).filter(|path| inode(path)) {
            match Netns::open(&path) {
                Ok(found) if found.id == id => return Ok(Some(found)),
                // Another one has got the inode, or the process has ended meanwhile.
                Ok(_) => {}
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// The one with this cookie, behind a process or a name; `None` where there is none.
    pub fn with_cookie(cookie: Option<u64>) -> io::Result<Option<Self>> {
        let Some(cookie) = cookie else { return Ok(None) };
        let processes = procfs::process::all_processes().into_iter().flatten().flatten();
        let processes = processes.map(|process| PathBuf::from(format!("/proc/{}/ns/net", process.pid)));
        let names = std::fs::read_dir(NAMED).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut seen = std::collections::BTreeSet::new();
        let inode = |path: &Path| std::fs::metadata(path).map(|found| found.ino());
        let new = processes.chain(names).filter(|path| inode(path).is_ok_and(|inode| seen.insert(inode)));
        let mut opened = new.filter_map(|path| Netns::open(&path).ok());
        Ok(opened.find(|netns| netns.id.cookie == cookie))
    }

    /// Which it is.
    pub fn id(&self) -> Id {
        self.id
    }

    /// Runs something inside, on the calling thread, and comes back. Sockets that it opens and threads that it starts
    /// stay inside.
    ///
    /// Needs CAP_SYS_ADMIN. Where the way back fails the process is aborted: nothing may go on in the wrong namespace.
    pub fn enter<T>(&self, act: impl FnOnce() -> T) -> io::Result<T> {
        inside(&self.file, act)
    }
}

/// Leads back, also while a panic unwinds.
struct Back(File);

impl Drop for Back {
    fn drop(&mut self) {
        if setns(&self.0, CloneFlags::CLONE_NEWNET).is_err() {
            std::process::abort();
        }
    }
}

fn inside<T>(file: &impl AsFd, act: impl FnOnce() -> T) -> io::Result<T> {
    let home = File::open("/proc/thread-self/ns/net")?;
    setns(file, CloneFlags::CLONE_NEWNET)?;
    // Only now: where the first is refused, nothing has changed.
    let back = Back(home);
    let done = act();
    drop(back);
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_namespace_is_known_by_each_of_its_files() {
        let here = Netns::here().unwrap();
        assert_eq!(Netns::here().unwrap().id(), here.id());
        if nix::unistd::geteuid().is_root() {
            let own = i32::try_from(std::process::id()).unwrap();
            assert_eq!(Netns::of_process(own).unwrap().id(), here.id());
            assert_eq!(Netns::find(here.id()).unwrap().unwrap().id(), here.id());
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            assert_eq!(Netns::of_socket(socket.as_fd()).unwrap().id(), here.id());
            let recycled = Netns::find(Id { inode: here.id().inode, cookie: 0 });
            assert!(recycled.is_ok_and(|found| found.is_none()), "a recycled inode is another namespace");
        }
        assert!(Netns::open(Path::new("/proc/self/ns/uts")).is_err());
        assert!(Netns::open(Path::new("/etc/hostname")).is_err());
    }
}
