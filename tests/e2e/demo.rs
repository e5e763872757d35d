//! README's first command: it needs no root, touches nothing, and leaves nothing.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use squall_tests::needs;
use squall_tests::netns;
use squall_tests::squall::{MARK, Squall, copy_binary};
use squall_tests::wait::{PATIENCE, holds};
use squall_tests::world::World;

/// The demo in the world's directory: as root, or as nobody.
fn demo(world: &World, user: Option<u32>) -> Squall {
    let home = world.place("home");
    let temporary = world.place("tmp");
    let copy = world.directory.join("squall");
    copy_binary("squall", &copy);
    let mut command = match user {
        None => Command::new(&copy),
        Some(user) => {
            for place in [&home, &temporary] {
                std::os::unix::fs::chown(place, Some(user), Some(user))
                    .expect("root may give directories away");
            }
            let user = user.to_string();
            let mut command = Command::new("setpriv");
            command.args(["--reuid", &user, "--regid", &user, "--clear-groups", "--"]).arg(&copy);
            command
        }
    };
    command.arg("demo").env("HOME", &home).env("TMPDIR", &temporary);
    Squall::with(command, "squall demo", &world.directory)
}

/// Processes that a demo of this world has left, in whatever namespace.
fn left(world: &World) -> Vec<netns::Process> {
    let own = world.directory.display().to_string();
    let mut found = netns::processes();
    found.retain(|process| process.environment(MARK).as_deref() == Some(&own));
    found
}

#[track_caller]
fn nothing_left(world: &World) {
    let begun = Instant::now();
    while !left(world).is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(5), "left: {:?}", left(world));
    }
    for place in ["home", "tmp"] {
        let files: Vec<_> =
            fs::read_dir(world.directory.join(place)).expect("it is there").flatten().collect();
        assert!(files.is_empty(), "left in `{place}`: {files:?}");
    }
}

fn whole(user: Option<u32>) {
    let world = World::new(0);
    let finished = demo(&world, user).run();
    finished.expect_exit(0);
    let said = finished.story();
    for word in ["deviated", "held", "squall init"] {
        assert!(said.contains(word), "`{word}` is not in {said}");
    }
    nothing_left(&world);
}

#[test]
fn the_demo_as_root() {
    needs!(Root, Nftables);
    whole(None);
}

#[test]
fn the_demo_without_root() {
    needs!(Root, Nftables, UserNamespaces);
    whole(Some(65534));
}

#[test]
fn control_c_ends_the_demo_and_leaves_nothing() {
    needs!(Root, Nftables, UserNamespaces);
    let world = World::new(0);
    let mut run = demo(&world, Some(65534)).start();
    holds("the demo to have its services", PATIENCE, || left(&world).len() > 4);
    run.signal(Signal::INT);
    let finished = run.finish();
    assert_ne!(finished.status.code(), Some(0), "{}", finished.story());
    nothing_left(&world);
}
