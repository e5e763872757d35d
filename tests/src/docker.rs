//! A Docker daemon of a world's own, for real containers as targets.
//!
//! It runs in the network namespace of a host and in a mount namespace of its own: what it mounts goes with it, and
//! nothing of the machine's own Docker, where there is one, is touched. Its control groups carry the world's name.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::cgroup;
use crate::host::Host;
use crate::netns::{self, Process, look};
use crate::squall::MARK;
use crate::world::World;

/// How long a daemon, or a container, may take for what it usually does in a second or two.
const SLOW: Duration = Duration::from_secs(60);
/// The image of every container: one program, the shell and its tools.
const IMAGE: &str = "squall-test";

/// A running daemon. Dropped, it ends with all its containers.
#[derive(Debug)]
pub struct Docker<'a> {
    host: &'a Host,
    place: PathBuf,
    world: String,
    daemon: Child,
}

/// A running container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Its id, 64 digits.
    pub id: String,
    /// Its first process.
    pub init: i32,
}

impl<'a> Docker<'a> {
    /// Starts a daemon on a host and gives it an image.
    ///
    /// # Panics
    /// When it does not get ready: say `needs!(Docker)` first.
    pub fn start(world: &World, host: &'a Host) -> Self {
        let place = world.place("docker");
        let name =
            world.directory.file_name().expect("the directory has a name").to_string_lossy().into_owned();
        let shown = place.display();
        // `/run` holds the sockets of containerd's shims, `/etc/docker` gets a key.
        let script = world.file(
            "docker/start",
            format!(
                "mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /etc/docker && exec dockerd --iptables=false \
                 --ip6tables=false --ip-forward=false --ip-masq=false --bridge=none --storage-driver vfs \
                 --data-root {shown}/data --exec-root {shown}/exec --pidfile {shown}/pid -H unix://{shown}/sock \
                 --cgroup-parent /{name}/docker --log-level warn\n"
            ),
        );
        let log = fs::File::create(place.join("log")).expect("the world's directory can be written");
        let mut command = host.netns.command("unshare");
        command.args(["--mount", "--propagation", "private", "sh", &script]).env(MARK, &world.directory);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let daemon = command.spawn().unwrap_or_else(|error| panic!("cannot start `dockerd`: {error}"));
        let mut docker = Docker { host, place, world: name, daemon };
        let begun = Instant::now();
        while docker.ask(&["version"]).is_err() {
            let ended = docker.daemon.try_wait().is_ok_and(|status| status.is_some());
            assert!(!ended && begun.elapsed() < SLOW, "dockerd does not get ready:\n{}", docker.log());
            thread::sleep(Duration::from_millis(50));
        }
        docker.import();
        docker
    }

    fn import(&self) {
        let root = self.place.join("root/bin");
        fs::create_dir_all(&root).expect("the world's directory can be written");
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
        fs::copy(busybox.expect("busybox is installed"), root.join("busybox")).expect("it can be copied");
        for tool in ["sh", "sleep", "ping"] {
            symlink("busybox", root.join(tool)).expect("the world's directory can be written");
        }
        let archive = self.place.join("root.tar").display().to_string();
        let root = self.place.join("root").display().to_string();
        look(None, &["tar", "-C", &root, "-cf", &archive, "."]).unwrap_or_else(|error| panic!("{error:#}"));
        self.told(&["import", &archive, IMAGE]);
    }

    fn log(&self) -> String {
        fs::read_to_string(self.place.join("log")).unwrap_or_default()
    }

    fn ask(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let socket = format!("unix://{}/sock", self.place.display());
        look(None, &[&["docker", "-H", &socket], arguments].concat())
    }

    /// Asks the daemon; gives its answer.
    ///
    /// # Panics
    /// When it refuses.
    pub fn told(&self, arguments: &[&str]) -> String {
        let said = self.ask(arguments).unwrap_or_else(|error| panic!("{error:#}\n{}", self.log()));
        said.trim().to_owned()
    }

    /// Runs a container that does nothing until it is told to end, with more arguments such as `--network none`.
    ///
    /// # Panics
    /// When it does not run.
    pub fn run(&self, name: &str, more: &[&str]) -> Container {
        let idle = "trap 'exit 0' TERM; while :; do sleep 0.2; done";
        let id = self.told(&[&["run", "-d", "--name", name], more, &[IMAGE, "sh", "-c", idle]].concat());
        self.container(&id)
    }

    /// A running container, by name or id.
    ///
    /// # Panics
    /// When it does not run.
    pub fn container(&self, name: &str) -> Container {
        let said = self.told(&["inspect", "-f", "{{.Id}} {{.State.Pid}}", name]);
        let (id, init) = said.split_once(' ').expect("two words");
        let init = init.parse().ok().filter(|pid| *pid > 0);
        Container { id: id.to_owned(), init: init.unwrap_or_else(|| panic!("`{name}` does not run")) }
    }

    /// Joins a container to the daemon's host by a link of this name, with an address at each end.
    ///
    /// # Panics
    /// When it cannot be done.
    pub fn join(&self, container: &Container, link: &str, near: IpAddr, far: IpAddr) {
        let space = format!("/proc/{}/ns/net", container.init);
        let near = format!("{near}/24");
        for argv in [
            &["ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", &space][..],
            &["ip", "link", "set", link, "addrgenmode", "none"],
            &["ip", "address", "add", &near, "dev", link],
            &["ip", "link", "set", link, "up"],
        ] {
            self.host.look(argv);
        }
        let far = format!("{far}/24");
        self.inside(container, &["ip", "address", "add", &far, "dev", "eth0"]);
        self.inside(container, &["ip", "link", "set", "eth0", "up"]);
    }

    /// Runs a tool of the machine inside a container's network namespace; gives its output.
    ///
    /// # Panics
    /// When it fails.
    pub fn inside(&self, container: &Container, argv: &[&str]) -> String {
        let space = format!("--net=/proc/{}/ns/net", container.init);
        let argv = [&["nsenter", &space, "--"], argv].concat();
        look(None, &argv).unwrap_or_else(|error| panic!("{error:#}"))
    }
}

impl Drop for Docker<'_> {
    fn drop(&mut self) {
        // The daemon ends its containers and its containerd, if it is asked.
        let pid = i32::try_from(self.daemon.id()).unwrap_or(0);
        Process::of(pid).map(|daemon| netns::signal(&daemon, Signal::TERM));
        let begun = Instant::now();
        while matches!(self.daemon.try_wait(), Ok(None)) {
            if begun.elapsed() > SLOW {
                eprintln!("dockerd did not end by itself:\n{}", self.log());
                drop(self.daemon.kill());
                drop(self.daemon.wait());
            }
            thread::sleep(Duration::from_millis(20));
        }
        let place = self.place.display().to_string();
        // What it left although it was asked: shims, and what runs in its control groups.
        netns::end(|process| process.arguments().iter().any(|argument| argument.contains(&place)));
        for group in
            cgroup::hierarchies().iter().map(|root| root.join(&self.world)).filter(|group| group.is_dir())
        {
            if let Err(error) = cgroup::clear(&group) {
                let story = format!("cannot remove `{}`: {error}", group.display());
                if thread::panicking() { eprintln!("{story}") } else { panic!("{story}") }
            }
        }
    }
}

/// Whether everything is there that a daemon needs.
pub(crate) fn available() -> bool {
    let runs = |program: &str| {
        let mut command = Command::new(program);
        command.arg("--help").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok()
    };
    ["dockerd", "docker", "containerd", "runc", "busybox", "tar"].into_iter().all(runs)
        && Path::new("/etc/docker").is_dir()
}
