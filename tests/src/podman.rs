//! Podman with a storage of a world's own, for real containers as targets: no daemon, and no image.
//!
//! It runs in the network namespace of a host; what it mounts goes with a mount namespace of its own. Its control groups
//! carry the world's name.

use std::path::PathBuf;

use crate::cgroup;
use crate::container::{Container, IDLE, root};
use crate::host::Host;
use crate::netns::{self, look};
use crate::squall::MARK;
use crate::world::World;

/// What a container is asked for: as Docker has it, where that is allowed here.
const LIMITS: [&str; 4] = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"];

/// A place for containers. Dropped, they end.
#[derive(Debug)]
pub struct Podman<'a> {
    /// Where it runs.
    pub host: &'a Host,
    place: PathBuf,
    /// The directory of the world and its name.
    world: (PathBuf, String),
}

impl<'a> Podman<'a> {
    /// For containers on a host. Say `needs!(Podman)` first.
    pub fn of(world: &World, host: &'a Host) -> Self {
        let place = world.place("podman");
        root(&place);
        let name = world.directory.file_name().expect("the directory has a name").to_string_lossy();
        Podman { host, place, world: (world.directory.clone(), name.into_owned()) }
    }

    fn command(&self) -> Vec<String> {
        let at = |part: &str| self.place.join(part).display().to_string();
        let mut words = vec!["podman".to_owned()];
        for (option, value) in [
            ("--root", at("data")),
            ("--runroot", at("runroot")),
            ("--tmpdir", at("tmp")),
            ("--storage-driver", "vfs".to_owned()),
            ("--cgroup-manager", "cgroupfs".to_owned()),
            ("--events-backend", "none".to_owned()),
            ("--runtime", "runc".to_owned()),
        ] {
            words.extend([option.to_owned(), value]);
        }
        words
    }

    /// Lets it do something; gives what it wrote.
    ///
    /// # Panics
    /// When it fails.
    pub fn does(&self, arguments: &[&str]) -> String {
        self.tries(arguments).unwrap_or_else(|said| panic!("podman {arguments:?}: {said}"))
    }

    /// The same; an error is what it said.
    ///
    /// # Errors
    /// When it fails.
    pub fn tries(&self, arguments: &[&str]) -> Result<String, String> {
        let (directory, world) = &self.world;
        let mut command = self.host.netns.command("unshare");
        // `/run` holds what is made for containers: it stays with the place, so that a later command finds it.
        let run = self.place.join("run");
        let script = "mkdir -p \"$0\" && mount --bind \"$0\" /run && exec \"$@\"";
        command
            .args(["--mount", "--propagation", "private", "sh", "-c", script])
            .arg(run)
            .args(self.command());
        let parent = format!("/{world}/podman");
        let (verb, rest) = arguments.split_first().expect("a verb");
        command.arg(verb);
        if *verb == "run" {
            command.args(LIMITS).args(["--cgroup-parent", &parent]);
        }
        let output = command.args(rest).env(MARK, directory).output().expect("`unshare` can be run");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// Runs a container without a network that does nothing until it is told to end.
    ///
    /// # Panics
    /// When it does not run.
    pub fn run(&self, name: &str) -> Container {
        let (directory, world) = &self.world;
        let parent = format!("/{world}/podman");
        let image = self.place.join("root").display().to_string();
        let mut command = self.host.netns.command("unshare");
        // `/run` holds the network namespaces that it makes.
        command.args(["--mount", "--propagation", "private", "sh", "-c"]);
        command.arg("mount -t tmpfs tmpfs /run && exec \"$@\"").arg("sh").args(self.command());
        command.args(["run", "-d", "--name", name, "--network", "none", "--log-driver", "none"]).args(LIMITS);
        command.args(["--cgroup-parent", &parent, "--rootfs", &image, "sh", "-c", IDLE]);
        let output = command.env(MARK, directory).output().expect("`unshare` can be run");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "`{name}` does not run: {said}");
        let inspected = self.told(&["inspect", "-f", "{{.Id}} {{.State.Pid}}", name]);
        Container::told(&inspected).unwrap_or_else(|| panic!("`{name}` does not run: {inspected} {said}"))
    }

    fn told(&self, arguments: &[&str]) -> String {
        let command = self.command();
        let words: Vec<&str> = command.iter().map(String::as_str).chain(arguments.iter().copied()).collect();
        look(None, &words).unwrap_or_else(|error| panic!("{error:#}"))
    }
}

impl Drop for Podman<'_> {
    fn drop(&mut self) {
        // First whoever watches over containers; with their last process goes what was mounted for them.
        let place = self.place.display().to_string();
        netns::end(|process| process.arguments().iter().any(|argument| argument.contains(&place)));
        cgroup::clear_all(&self.world.1);
    }
}

/// Whether everything is there that it needs.
pub(crate) fn available() -> bool {
    ["podman", "conmon", "runc", "busybox"].into_iter().all(crate::skip::found)
}
