use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};

use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;
use rustix::net::{AddressFamily, SocketType, socket};

use super::*;

/// Which of [`DEEDS`] a child is to do; nobody sets it but [`child`].
const DEED: &str = "SQUALL_TEST_FORBIDDEN";

type Deed = fn() -> io::Result<()>;

/// What is forbidden to whom, and what happens. Each would succeed, or fail otherwise, without the filter: what is done
/// under `Programs` is done by a program below.
const DEEDS: &[(&str, Keeps, Deed, Option<i32>)] = &[
    ("unshare", Keeps::ToItself, unshare, None),
    ("unshare", Keeps::Programs, unshare, Some(libc::EPERM)),
    ("execve", Keeps::ToItself, execve, None),
    ("process_vm_readv", Keeps::ToItself, spy, None),
    ("process_vm_readv", Keeps::Programs, spy, Some(libc::EPERM)),
    ("socket", Keeps::ToItself, packets, Some(libc::EAFNOSUPPORT)),
];

fn unshare() -> io::Result<()> {
    Ok(nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER)?)
}

fn execve() -> io::Result<()> {
    Err(Command::new("/proc/self/exe").arg("--list").exec())
}

fn spy() -> io::Result<()> {
    let (told, mut seen) = ([7], [0]);
    let there = [RemoteIoVec { base: told.as_ptr().addr(), len: 1 }];
    Ok(process_vm_readv(Pid::this(), &mut [io::IoSliceMut::new(&mut seen)], &there).map(drop)?)
}

fn packets() -> io::Result<()> {
    Ok(socket(AddressFamily::PACKET, SocketType::DGRAM, None).map(drop)?)
}

/// Runs this test alone, in a process of its own that may be ended.
fn child(deed: usize, filtered: bool) -> ExitStatus {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "seccomp::tests::what_is_forbidden_is_refused_or_ends_the_process", "--quiet"]);
    command.env(DEED, format!("{deed} {filtered}"));
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    command.status().unwrap()
}

/// In the child: does it, and ends with the error's number, or 0.
fn perform(order: &str) -> ! {
    let (deed, filtered) = order.split_once(' ').unwrap();
    let (_, keeps, deed, _) = DEEDS[deed.parse::<usize>().unwrap()];
    if filtered == "true" {
        give_up(keeps).unwrap();
    }
    let done = deed().err().and_then(|error| error.raw_os_error()).unwrap_or(0);
    std::process::exit(done)
}

#[test]
fn what_is_forbidden_is_refused_or_ends_the_process() {
    if let Ok(order) = std::env::var(DEED) {
        perform(&order);
    }
    if !is_available() {
        eprintln!("SKIP: this kernel has no filters of system calls");
        return;
    }
    let mut skipped = 0;
    for (number, (name, keeps, _, errno)) in DEEDS.iter().enumerate() {
        let free = child(number, false);
        assert_eq!(free.signal(), None, "{name} without a filter");
        let (free, ended) = (free.code(), child(number, true));
        if *errno == free && *errno == Some(libc::EPERM) {
            // As in a container whose runtime forbids it to everybody: then nothing shows who refused it here.
            skipped += 1;
            eprintln!(
                "SKIP: `{name}` is forbidden here without a filter of ours ({skipped} of {} deeds)",
                DEEDS.len()
            );
            continue;
        }
        match errno {
            None => assert_eq!(ended.signal(), Some(libc::SIGSYS), "{name}, {keeps:?}: {ended}"),
            Some(errno) => {
                assert_eq!(ended.code(), Some(*errno), "{name}, {keeps:?}: {ended}");
                assert_ne!(free, Some(*errno), "{name} fails in the same way without a filter");
            }
        }
    }
    assert!(skipped < 3, "nothing is left that shows that a filter refuses");
}

#[test]
fn each_call_stands_in_one_list_and_the_filters_are_small() {
    for keeps in [Keeps::ToItself, Keeps::Programs] {
        let programs = programs(keeps).unwrap();
        let length: usize = programs.iter().map(Vec::len).sum();
        // The kernel asks all of them at each call.
        assert!(length < 400, "{length}");
    }
    assert!(HOSTILE.iter().all(|call| !PRIVILEGED.contains(call)));
}
