//! From where a name is seen: each container and each named namespace has a hosts file, name servers and a network of its
//! own, and one name may mean something else in each.
//!
//! Nothing of the target is kept: a namespace held open would keep its devices after its end, and one that has come back
//! is another one. So it is looked for each time.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, open, openat2};
use squall_experiments::change::Change;
use squall_experiments::protocol::Refusal;
use squall_experiments::scope::Scope;

use super::aim::Resolved;
use super::container::Container;
use super::netns::{NAMED, Netns};

/// Where `ip-netns(8)` keeps the files of a namespace, which stand in the place of those in `/etc` there.
const FILES: &str = "/etc/netns";
/// More no such file has: what is larger is not read to its end.
const LONGEST: u64 = 1 << 20;

/// Whose eyes.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Viewpoint {
    /// The agent's own.
    #[default]
    Host,
    /// Those of a container, by its name or id.
    Container(String),
    /// Those of a program in a network namespace, by its name or file.
    Netns(String),
}

impl Viewpoint {
    /// From where the names of a change are seen.
    pub fn of(change: &Change) -> Self {
        Self::at(change.flow().and_then(|flow| flow.scope.as_ref()))
    }

    /// Where those of a scope are; everybody is on this host.
    pub fn at(scope: Option<&Scope>) -> Self {
        match scope {
            Some(Scope::Container(name)) => Viewpoint::Container(name.clone()),
            Some(Scope::Netns(name)) => Viewpoint::Netns(name.clone()),
            _ => Viewpoint::Host,
        }
    }
}

impl std::fmt::Display for Viewpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Viewpoint::Host => write!(f, "on this host"),
            Viewpoint::Container(name) => write!(f, "in container {name}"),
            Viewpoint::Netns(name) => write!(f, "in network namespace {name}"),
        }
    }
}

/// The addresses of the names that are seen from each place.
pub type Seen = BTreeMap<Viewpoint, Resolved>;

/// What is seen from there.
#[derive(Debug)]
pub struct View {
    /// `/etc/hosts`; empty where there is none.
    pub hosts: Vec<u8>,
    /// `/etc/resolv.conf`; empty where there is none.
    pub servers: Vec<u8>,
    /// `/etc/nsswitch.conf`; empty where there is none.
    pub order: Vec<u8>,
    netns: Option<Netns>,
}

impl View {
    /// Looks from a viewpoint; `None` is the agent's own.
    pub fn from(viewpoint: &Viewpoint) -> Result<Option<Self>, String> {
        let shown = |refusal: Refusal| refusal.to_string();
        let (root, netns) = match viewpoint {
            Viewpoint::Host => return Ok(None),
            Viewpoint::Container(name) => {
                let pid = Container::find(name).map_err(shown)?.init.pid;
                (Root::Of(PathBuf::from(format!("/proc/{pid}/root"))), Netns::of_process(pid))
            }
            Viewpoint::Netns(name) => {
                let path = Path::new(NAMED).join(name);
                (Root::Named(Path::new(FILES).join(name)), Netns::open(&path))
            }
        };
        let cannot = |error: io::Error| format!("it cannot be asked {viewpoint}: {error}");
        let netns = netns.map_err(cannot)?;
        let files = ["hosts", "resolv.conf", "nsswitch.conf"];
        let [hosts, servers, order] = files.map(|file| root.read(file).map_err(cannot));
        Ok(Some(View { hosts: hosts?, servers: servers?, order: order?, netns: Some(netns) }))
    }

    /// Does something in the network of this view, on the calling thread, and comes back.
    pub fn inside<T>(&self, act: impl FnOnce() -> T) -> io::Result<T> {
        match &self.netns {
            Some(netns) => netns.enter(act),
            None => Ok(act()),
        }
    }
}

/// Where its files are.
enum Root {
    /// The root directory of a process.
    Of(PathBuf),
    /// A directory of files that stand in the place of those in `/etc`, where they are there.
    Named(PathBuf),
}

impl Root {
    /// A file of `/etc`; one that is not there is empty.
    fn read(&self, file: &str) -> io::Result<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let opened = match self {
            // Links inside lead nowhere else: what is meant is the container's own file (Linux 5.6).
            Root::Of(root) => open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .and_then(|root| {
                    let path = format!("etc/{file}");
                    openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT)
                }),
            Root::Named(folder) => {
                openat2(CWD, folder.join(file), flags, Mode::empty(), ResolveFlags::empty())
                    .or_else(|_| open(Path::new("/etc").join(file), flags, Mode::empty()))
            }
        };
        let opened = match opened {
            Ok(opened) => File::from(opened),
            Err(rustix::io::Errno::NOENT) => return Ok(Vec::new()),
            Err(errno) => return Err(errno.into()),
        };
        let mut content = Vec::new();
        opened.take(LONGEST).read_to_end(&mut content)?;
        Ok(content)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("squall-view-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn links_of_a_container_lead_to_its_own_files() {
        let root = folder("root");
        for inner in ["etc", "run"] {
            fs::create_dir_all(root.join(inner)).unwrap();
        }
        fs::write(root.join("run/names"), "its own").unwrap();
        symlink("/run/names", root.join("etc/resolv.conf")).unwrap();
        symlink("../../../etc/passwd", root.join("etc/hosts")).unwrap();
        let of = Root::Of(root.clone());
        assert_eq!(of.read("resolv.conf").unwrap(), b"its own");
        assert_eq!(of.read("hosts").unwrap(), b"", "there is no such file inside");
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_namespace_without_files_of_its_own_has_those_of_the_host() {
        let own = folder("named");
        fs::write(own.join("resolv.conf"), "nameserver 192.0.2.1\n").unwrap();
        let named = Root::Named(own.clone());
        assert_eq!(named.read("resolv.conf").unwrap(), b"nameserver 192.0.2.1\n");
        assert_eq!(named.read("hosts").unwrap(), fs::read("/etc/hosts").unwrap());
        fs::remove_dir_all(own).unwrap();
    }
}
