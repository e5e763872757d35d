//! A Docker daemon of a world's own, for real containers as targets.
//!
//! It runs in the network namespace of a host and in a mount namespace of its own: what it mounts goes with it, and
//! nothing of the machine's own Docker, where there is one, is touched. Its control groups carry the world's name.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::cgroup;
use crate::container::{Container, IDLE, root};
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
    /// Where it runs.
    pub host: &'a Host,
    place: PathBuf,
    world: String,
    daemon: Child,
}

impl<'a> Docker<'a> {
    /// Starts a daemon on a host and gives it an image.
    ///
    /// # Panics
    /// When it does not get ready: say `needs!(Docker)` first.
    pub fn start(world: &World, host: &'a Host) -> Self {
        Docker::with(world, host, "--iptables=false --ip-masq=false --bridge=none")
    }

    /// The same with the bridge and the rules of a firewall that a daemon makes for itself; they outlive it.
    ///
    /// # Panics
    /// When it does not get ready: say `needs!(Docker, IptablesNft)` first.
    pub fn with_its_rules(world: &World, host: &'a Host) -> Self {
        Docker::with(world, host, "--userland-proxy=false")
    }

    fn with(world: &World, host: &'a Host, network: &str) -> Self {
        let place = world.place("docker");
        let name =
            world.directory.file_name().expect("the directory has a name").to_string_lossy().into_owned();
        let shown = place.display();
        // `/run` holds the sockets of containerd's shims, `/etc/docker` gets a key.
        let script = world.file(
            "docker/start",
            format!(
                "mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /etc/docker && exec dockerd {network} \
                 --ip6tables=false --ip-forward=false --storage-driver vfs \
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
        let archive = self.place.join("root.tar").display().to_string();
        let root = root(&self.place).display().to_string();
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
        let id = self.told(&[&["run", "-d", "--name", name], more, &[IMAGE, "sh", "-c", IDLE]].concat());
        self.container(&id)
    }

    /// A running container, by name or id.
    ///
    /// # Panics
    /// When it does not run.
    pub fn container(&self, name: &str) -> Container {
        let said = self.told(&["inspect", "-f", "{{.Id}} {{.State.Pid}}", name]);
        Container::told(&said).unwrap_or_else(|| panic!("`{name}` does not run: {said}"))
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
        cgroup::clear_all(&self.world);
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
