//! Namespaces of the test's own, without names.

use std::fs;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::SockProtocol;
use nix::unistd::{getegid, geteuid};
use squall_experiments::protocol::Refusal;

use crate::host::netlink::{Message, Socket};

/// Where the journals of the test's agents lie: a file system in memory that nobody else sees.
const STATE: &str = "/tmp";

/// Moves this process into namespaces of its own; gives a directory that goes with them. The process must be
/// single-threaded.
pub fn enter() -> Result<PathBuf, Refusal> {
    let forbidden = |what: &str, errno: Errno| {
        Refusal::new(
            format!("this system does not let this user make {what}: {errno}"),
            "run it as root; in a container, outside of it",
        )
    };
    let mut own = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
    let (user, group) = (geteuid(), getegid());
    if !user.is_root() {
        own |= CloneFlags::CLONE_NEWUSER;
    }
    unshare(own).map_err(|errno| forbidden("namespaces", errno))?;
    if !user.is_root() {
        // Without this the kernel lets nobody but the privileged write a group map.
        fs::write("/proc/self/setgroups", "deny")
            .and_then(|()| fs::write("/proc/self/uid_map", format!("0 {user} 1")))
            .and_then(|()| fs::write("/proc/self/gid_map", format!("0 {group} 1")))
            .map_err(|error| {
                let errno = Errno::from_raw(error.raw_os_error().unwrap_or(0));
                forbidden("user namespaces with rights in them", errno)
            })?;
    }
    // What is mounted from here on, nobody outside sees.
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .and_then(|()| {
            mount(Some("tmpfs"), STATE, Some("tmpfs"), MsFlags::empty(), Some("size=16m,mode=0700"))
        })
        .map_err(|errno| forbidden("mounts", errno))?;
    raise_loopback()?;
    Ok(PathBuf::from(STATE).join("squall"))
}

/// Source: `include/uapi/linux/rtnetlink.h`, `struct ifinfomsg`. The loopback device always has the number 1.
fn raise_loopback() -> Result<(), Refusal> {
    const NEW_LINK: u16 = 16;
    const UP: u32 = 1;
    let mut head = [0; 16];
    for (at, word) in [(4, 1), (8, UP), (12, UP)] {
        head[at..at + 4].copy_from_slice(&u32::to_ne_bytes(word));
    }
    Socket::open(SockProtocol::NetlinkRoute)
        .and_then(|mut socket| socket.request(vec![Message::new(NEW_LINK, 0).raw(&head)]))
        .map_err(|error| {
            Refusal::new(
                format!("the network of the test's own namespace does not work: {error}"),
                "this system makes namespaces and gives no rights in them: run it as root",
            )
        })
}
