//! A running container, whoever made it.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::host::Host;
use crate::netns::look;

/// What a container does that does nothing until it is told to end.
pub(crate) const IDLE: &str = "trap 'exit 0' TERM; while :; do sleep 0.2; done";

/// A running container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Its id, 64 digits.
    pub id: String,
    /// Its first process.
    pub init: i32,
}

impl Container {
    /// By what an engine says of it: its id and the number of its first process, which is 0 for one that does not run.
    pub(crate) fn told(said: &str) -> Option<Self> {
        let (id, init) = said.trim().split_once(' ')?;
        let init = init.parse().ok().filter(|pid| *pid > 0)?;
        Some(Container { id: id.to_owned(), init })
    }

    /// Joins it to a host by a link of this name, with an address at each end.
    ///
    /// # Panics
    /// When it cannot be done.
    pub fn join(&self, host: &Host, link: &str, near: IpAddr, far: IpAddr) {
        let space = format!("/proc/{}/ns/net", self.init);
        let near = format!("{near}/24");
        for argv in [
            &["ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", &space][..],
            &["ip", "link", "set", link, "addrgenmode", "none"],
            &["ip", "address", "add", &near, "dev", link],
            &["ip", "link", "set", link, "up"],
        ] {
            host.look(argv);
        }
        let far = format!("{far}/24");
        self.inside(&["ip", "address", "add", &far, "dev", "eth0"]);
        self.inside(&["ip", "link", "set", "eth0", "up"]);
    }

    /// Runs a tool of the machine inside its network namespace; gives its output.
    ///
    /// # Panics
    /// When it fails.
    pub fn inside(&self, argv: &[&str]) -> String {
        let space = format!("--net=/proc/{}/ns/net", self.init);
        let argv = [&["nsenter", &space, "--"], argv].concat();
        look(None, &argv).unwrap_or_else(|error| panic!("{error:#}"))
    }
}

/// Makes a root file system of one program, the shell and its tools.
pub(crate) fn root(at: &Path) -> PathBuf {
    let root = at.join("root");
    let programs = root.join("bin");
    fs::create_dir_all(&programs).expect("the world's directory can be written");
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
    fs::copy(busybox.expect("busybox is installed"), programs.join("busybox")).expect("it can be copied");
    for tool in ["sh", "sleep", "ping"] {
        symlink("busybox", programs.join(tool)).expect("the world's directory can be written");
    }
    root
}
