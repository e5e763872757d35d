//! A containerd of a world's own, for containers as Kubernetes has them: no Docker, no image.
//!
//! It runs in the network namespace of a host and in a mount namespace of its own. Control groups carry the world's name.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::cgroup;
use crate::container::{Container, IDLE, root};
use crate::host::Host;
use crate::netns::{self, Process, look};
use crate::squall::MARK;
use crate::world::World;

/// How long a daemon, or a container, may take for what it usually does in a second or two.
const SLOW: Duration = Duration::from_secs(60);

/// A running daemon. Dropped, it ends with all its containers.
#[derive(Debug)]
pub struct Containerd<'a> {
    /// Where it runs.
    pub host: &'a Host,
    place: PathBuf,
    world: String,
    daemon: Child,
}

impl<'a> Containerd<'a> {
    /// Starts a daemon on a host.
    ///
    /// # Panics
    /// When it does not get ready: say `needs!(Containerd)` first.
    pub fn start(world: &World, host: &'a Host) -> Self {
        let place = world.place("containerd");
        root(&place);
        let name =
            world.directory.file_name().expect("the directory has a name").to_string_lossy().into_owned();
        let at = |part: &str| place.join(part).display().to_string();
        // What Kubernetes would ask for has no answer here; its plugin wants a network of its own.
        let config = format!(
            "version = 2\nroot = \"{}\"\nstate = \"{}\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = \"{}\"\n[debug]\nlevel = \"warn\"\n",
            at("data"),
            at("state"),
            at("sock")
        );
        let config = world.file("containerd/config.toml", config);
        let log = fs::File::create(place.join("log")).expect("the world's directory can be written");
        let mut command = host.netns.command("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c"]);
        command.args(["mount -t tmpfs tmpfs /run && exec containerd --config \"$0\"", &config]);
        command.env(MARK, &world.directory).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let daemon = command.spawn().unwrap_or_else(|error| panic!("cannot start `containerd`: {error}"));
        let mut started = Containerd { host, place, world: name, daemon };
        let begun = Instant::now();
        while started.ask(&["version"]).is_err() {
            let ended = started.daemon.try_wait().is_ok_and(|status| status.is_some());
            assert!(!ended && begun.elapsed() < SLOW, "containerd does not get ready:\n{}", started.log());
            thread::sleep(Duration::from_millis(50));
        }
        started
    }

    fn log(&self) -> String {
        fs::read_to_string(self.place.join("log")).unwrap_or_default()
    }

    fn ask(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let socket = self.place.join("sock").display().to_string();
        look(None, &[&["ctr", "--address", &socket, "--namespace", "k8s.io"], arguments].concat())
    }

    /// Runs a container of a pod, with a network of its own, that does nothing until it is told to end. `id` has 64 digits.
    ///
    /// # Panics
    /// When it does not run.
    pub fn run(&self, id: &str, pod: &str, name: &str) -> Container {
        let annotations = json!({
            "io.kubernetes.cri.container-type": "container",
            "io.kubernetes.cri.container-name": name,
            "io.kubernetes.cri.sandbox-name": pod,
            "io.kubernetes.cri.sandbox-namespace": "shop",
        });
        self.run_as(id, &annotations, &format!("kubepods.slice/cri-containerd-{id}.scope"))
    }

    /// The same without a pod, by an id that somebody chose: as `ctr run` does.
    ///
    /// # Panics
    /// When it does not run.
    pub fn run_alone(&self, id: &str) -> Container {
        self.run_as(id, &json!({}), id)
    }

    fn run_as(&self, id: &str, annotations: &Value, group: &str) -> Container {
        let spaces: Vec<_> =
            ["pid", "mount", "network", "ipc", "uts"].map(|kind| json!({ "type": kind })).into();
        let spec = json!({
            "ociVersion": "1.0.2",
            "process": { "user": { "uid": 0, "gid": 0 }, "args": ["sh", "-c", IDLE], "env": ["PATH=/bin"], "cwd": "/" },
            "root": { "path": self.place.join("root") },
            "mounts": [
                { "destination": "/proc", "type": "proc", "source": "proc" },
                { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"] },
            ],
            "annotations": annotations,
            "linux": {
                "namespaces": spaces,
                "cgroupsPath": format!("/{}/{group}", self.world),
            },
        });
        let file = self.place.join(format!("{id}.json"));
        fs::write(&file, spec.to_string()).expect("the world's directory can be written");
        let file = file.display().to_string();
        let ran = self.ask(&["run", "--detach", "--null-io", "--config", &file, id]);
        ran.unwrap_or_else(|error| panic!("{error:#}\n{}", self.log()));
        let tasks = self.ask(&["tasks", "list"]).unwrap_or_else(|error| panic!("{error:#}"));
        let mut words =
            tasks.lines().filter_map(|line| line.strip_prefix(id)).flat_map(str::split_whitespace);
        let pid = words.next().unwrap_or_default();
        Container::told(&format!("{id} {pid}")).unwrap_or_else(|| panic!("`{id}` does not run: {tasks}"))
    }
}

impl Drop for Containerd<'_> {
    fn drop(&mut self) {
        let pid = i32::try_from(self.daemon.id()).unwrap_or(0);
        Process::of(pid).map(|daemon| netns::signal(&daemon, Signal::TERM));
        let begun = Instant::now();
        while matches!(self.daemon.try_wait(), Ok(None)) {
            if begun.elapsed() > SLOW {
                eprintln!("containerd did not end by itself:\n{}", self.log());
                drop(self.daemon.kill());
                drop(self.daemon.wait());
            }
            thread::sleep(Duration::from_millis(20));
        }
        // Its shims outlive it, as they should, and so do containers; with their last process goes what was mounted.
        let place = self.place.display().to_string();
        netns::end(|process| process.arguments().iter().any(|argument| argument.contains(&place)));
        cgroup::clear_all(&self.world);
    }
}

/// Whether everything is there that it needs.
pub(crate) fn available() -> bool {
    ["containerd", "containerd-shim-runc-v2", "ctr", "runc", "busybox"].into_iter().all(crate::skip::found)
}
