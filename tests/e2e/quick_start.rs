//! The quick start of docs/operating.md, to the letter: its commands as they stand there, on machines with nothing on them.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use squall_tests::host::Host;
use squall_tests::needs;
use squall_tests::squall::{Background, Squall, binary};
use squall_tests::wait::{PATIENCE, holds};
use squall_tests::world::World;

use crate::trial::SOON;

/// The commands of the page, a text for each terminal.
fn terminals() -> Vec<String> {
    let page = include_str!("../../docs/operating.md");
    let section = page.split("\n## ").find(|section| section.starts_with("Quick start\n"));
    let section = section.expect("the page begins with a quick start");
    let blocks = section.split("```").skip(1).step_by(2);
    blocks.map(|block| block.strip_prefix("sh\n").expect("they are for a shell").to_owned()).collect()
}

/// A machine of its own: its own `/var/lib`, no policy, an empty directory to work in, and the programs in the path.
struct Machine<'a> {
    host: &'a Host,
    files: PathBuf,
}

impl<'a> Machine<'a> {
    fn new(world: &'a World, number: usize) -> Self {
        let files = world.place(&format!("machine-{number}"));
        ["lib", "etc", "work"].iter().for_each(|name| fs::create_dir(files.join(name)).expect("a directory"));
        Machine { host: &world.hosts[number], files }
    }

    fn work(&self) -> PathBuf {
        self.files.join("work")
    }

    fn terminal(&self, world: &World, text: &str) -> Squall {
        let script = "mount --bind $1/lib /var/lib && { [ ! -d /etc/squall ] || mount --bind $1/etc /etc/squall; } && \
                      cd $1/work && exec sh -eu -c \"$2\"";
        let programs = binary("squall").parent().expect("it lies in a directory").to_owned();
        let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap_or_default());
        let mut command = self.host.netns.command("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]);
        command.arg(&self.files).arg(text).env("PATH", path);
        Squall::with(command, text.lines().next().unwrap_or_default(), &world.directory)
    }
}

/// Replaces the shell by its one command, which is then the process that is told to end.
fn stays(text: &str) -> String {
    assert_eq!(text.trim().lines().count(), 1, "the commands that stay stand alone: {text}");
    format!("exec {text}")
}

fn end(mut process: Background) {
    process.signal(Signal::INT);
    process.finish();
}

fn bring(file: &str, from: &Path, to: &Path) {
    fs::copy(from.join(file), to.join(file)).expect("it was written");
}

#[test]
fn the_quick_start_is_followed_to_the_letter() {
    needs!(Root, Nftables, Queue, Nginx);
    let world = World::new(2);
    world.nginx(1, 8080);
    let [serve, join, use_it] = &terminals()[..] else { panic!("three terminals: {:?}", terminals()) };
    // The address of the page, on the first of these machines.
    let (first, second) = (&world.hosts[0], &world.hosts[1]);
    first.look(&["ip", "address", "add", "192.0.2.1/32", "dev", "lo"]);
    second.look(&["ip", "route", "add", "192.0.2.1/32", "via", "10.77.1.1"]);

    let (controller, host) = (Machine::new(&world, 0), Machine::new(&world, 1));
    let serving = controller.terminal(&world, &stays(serve)).start();
    holds("the controller to listen", PATIENCE, || serving.story().contains("serves agents at"));
    holds("the token to be written", PATIENCE, || controller.work().join("web-1.token").exists());
    bring("web-1.token", &controller.work(), &host.work());
    let joined = host.terminal(&world, &stays(join)).start();
    // "There, as root; this one stays": whoever goes back to the first machine has seen that it is connected.
    holds("the host to be connected", PATIENCE, || serving.story().contains("a host is connected"));

    let used = controller.terminal(&world, use_it).run();
    used.expect_exit(0);
    for word in ["web-1  connected", "held: `web-1`", "new runs may begin", "whole: "] {
        assert!(used.story().contains(word), "`{word}` in {}", used.story());
    }
    end(joined);
    end(serving);
    second.look(&["ip", "route", "delete", "192.0.2.1/32"]);
    first.look(&["ip", "address", "delete", "192.0.2.1/32", "dev", "lo"]);
    world.restored(SOON);
}
