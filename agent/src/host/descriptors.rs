//! The sockets that a process holds, by its descriptors: one `readlink` for each of them.
//!
//! Source: proc_pid_fd(5). `procfs` opens and asks for every descriptor, which is three times the work: an agent holds
//! a socket for each fault, and looks through its own before each.

use std::io;
use std::mem::MaybeUninit;

use rustix::fs::{Dir, Mode, OFlags, open, readlinkat_raw};

/// Longer than `socket:[4294967295]`; of a longer link the rest is not of interest.
const LINK: usize = 32;

/// The descriptors of a process that are sockets, each with the socket's inode. What ends meanwhile is left out.
///
/// Errors: the process is gone, or one may not look.
pub fn sockets(pid: i32) -> io::Result<Vec<(i32, u32)>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = open(format!("/proc/{pid}/fd"), flags, Mode::empty())?;
    let mut found = Vec::new();
    for entry in Dir::read_from(&folder)? {
        let entry = entry?;
        let mut link = [MaybeUninit::uninit(); LINK];
        if let Some(descriptor) = number(entry.file_name().to_bytes())
            && let Ok((link, _)) = readlinkat_raw(&folder, entry.file_name(), &mut link)
            && let Some(inode) = inode(link)
        {
            found.push((descriptor, inode));
        }
    }
    Ok(found)
}

fn number<N: std::str::FromStr>(text: &[u8]) -> Option<N> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn inode(link: &[u8]) -> Option<u32> {
    number(link.strip_prefix(b"socket:[")?.strip_suffix(b"]")?)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::net::UdpSocket;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_socket_is_found_with_its_inode_and_a_file_is_none() {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let file = File::open("/proc/self/status").expect("there is one");
        let held = sockets(std::process::id().cast_signed()).expect("it is this process");
        let link = std::fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).expect("it is open");
        let of =
            |descriptor: i32| held.iter().find(|(known, _)| *known == descriptor).map(|(_, inode)| *inode);
        let inode = of(socket.as_raw_fd()).expect("it is held");
        assert_eq!(link.to_str(), Some(format!("socket:[{inode}]").as_str()));
        assert_eq!(of(file.as_raw_fd()), None, "inode {:?}", file.metadata().map(|about| about.ino()));
    }

    #[test]
    fn what_is_no_socket_or_no_number_is_none() {
        assert_eq!(inode(b"socket:[4294967295]"), Some(u32::MAX));
        for link in ["socket:[4294967296]", "socket:[]", "pipe:[7]", "/dev/null", "socket:[7"] {
            assert_eq!(inode(link.as_bytes()), None, "{link}");
        }
        assert!(sockets(i32::MAX).is_err());
    }
}
