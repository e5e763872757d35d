//! Namespaces of the demo's own, so that it cannot touch the host, whoever runs it.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType};
use nix::sys::socket::{recv, sendto, socket};
use nix::unistd::{getegid, geteuid};
use std::os::fd::AsRawFd;

/// Where the process is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Confined {
    /// A user namespace, in which this user is root and nobody else exists, and a network namespace.
    UserAndNetwork,
    /// Only a network namespace, made with the root privileges that the process has.
    NetworkOnly,
}

/// Why a system does not allow it.
#[derive(Debug, thiserror::Error)]
pub(super) enum Forbidden {
    #[error("this system does not let ordinary users make namespaces ({0:?})")]
    Namespaces(Errno),
    #[error("a user namespace was made, but this system gives no rights in it: {0}")]
    Powerless(String),
    #[error("the network of the demo's own namespace does not work: {0}")]
    Network(io::Error),
}

/// What may forbid it, and the value that does.
const SWITCHES: [(&str, &str); 3] = [
    ("kernel.unprivileged_userns_clone", "0"),
    ("user.max_user_namespaces", "0"),
    ("kernel.apparmor_restrict_unprivileged_userns", "1"),
];

impl Forbidden {
    /// How to go on.
    pub(super) fn help(&self, root: bool) -> String {
        let blame: Vec<String> = SWITCHES
            .iter()
            .filter(|(name, forbids)| sysctl(name).is_some_and(|value| value == *forbids))
            .map(|(name, value)| format!("`{name}` is {value}"))
            .collect();
        let why = match blame.as_slice() {
            [] => {
                let names: Vec<String> = SWITCHES.iter().map(|(name, _)| format!("`{name}`")).collect();
                format!("none of {} forbids it, so it may be a container's seccomp profile", names.join(", "))
            }
            blame => format!("{} on this system", blame.join(" and ")),
        };
        match root {
            true => format!("{why}; run the demo outside of the container, or in a virtual machine"),
            false => format!("{why}; `sudo squall demo` needs no user namespace, only a network namespace"),
        }
    }
}

fn sysctl(name: &str) -> Option<String> {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    fs::read_to_string(path).ok().map(|value| value.trim().to_owned())
}

/// Moves this process into a user and a network namespace of its own; where root may not make a user namespace, into a
/// network namespace alone. The process must be single-threaded. On failure it is where it was, or in a user namespace
/// without rights, and should end.
pub(super) fn enter() -> Result<Confined, Forbidden> {
    let (user, group) = (geteuid(), getegid());
    let confined = match unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET) {
        Ok(()) => {
            // Without this the kernel lets nobody but the privileged write a group map.
            let mapped = fs::write("/proc/self/setgroups", "deny")
                .and_then(|()| fs::write("/proc/self/uid_map", format!("0 {user} 1")))
                .and_then(|()| fs::write("/proc/self/gid_map", format!("0 {group} 1")));
            mapped.map_err(|error| Forbidden::Powerless(error.to_string()))?;
            Confined::UserAndNetwork
        }
        Err(why) if user.is_root() => {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|_| Forbidden::Namespaces(why))?;
            Confined::NetworkOnly
        }
        Err(why) => return Err(Forbidden::Namespaces(why)),
    };
    // Some systems make the namespace and withhold its capabilities: what counts is whether this works.
    raise_loopback().map_err(|why| match why {
        Errno::EPERM | Errno::EACCES => Forbidden::Powerless(why.desc().to_owned()),
        why => Forbidden::Network(why.into()),
    })?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(Forbidden::Network)?;
    let address = listener.local_addr().map_err(Forbidden::Network)?;
    TcpStream::connect(address).map_err(Forbidden::Network)?;
    Ok(confined)
}

/// `ip link set lo up`, by one netlink message. The loopback device of a new namespace always has index 1.
fn raise_loopback() -> Result<(), Errno> {
    const RTM_NEWLINK: u16 = 16;
    const REQUEST_AND_ACKNOWLEDGE: u16 = 1 | 4;
    const NLMSG_ERROR: u16 = 2;
    const IFF_UP: u32 = 1;
    let mut message = Vec::with_capacity(32);
    // struct nlmsghdr: length, type, flags, sequence, port
    message.extend(32u32.to_ne_bytes());
    message.extend(RTM_NEWLINK.to_ne_bytes());
    message.extend(REQUEST_AND_ACKNOWLEDGE.to_ne_bytes());
    message.extend(1u32.to_ne_bytes());
    message.extend(0u32.to_ne_bytes());
    // struct ifinfomsg: family, padding, type, index, flags, which flags to change
    message.extend([0u8; 4]);
    message.extend(1i32.to_ne_bytes());
    message.extend(IFF_UP.to_ne_bytes());
    message.extend(IFF_UP.to_ne_bytes());

    let route =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    sendto(route.as_raw_fd(), &message, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut answer = [0u8; 256];
    let length = recv(route.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    // struct nlmsghdr, then the error as a negative number, 0 for success.
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
    let error = answer.get(16..20).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    match (length, kind, error) {
        (20.., Some(NLMSG_ERROR), Some(0)) => Ok(()),
        (20.., Some(NLMSG_ERROR), Some(error)) => Err(Errno::from_raw(-error)),
        _ => Err(Errno::EPROTO),
    }
}
