//! A network interface as a scope: found by its exact name, and looked for again when links come and go.
//!
//! Source: `include/uapi/linux/rtnetlink.h`, `if_link.h`.

use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::sys::socket::SockProtocol;
use squall_experiments::protocol::Refusal;

use super::netlink::{Message, NetlinkError, Received, Socket, find, text_of, u32_at};

const GET_LINK: u16 = 18;
/// `RTNLGRP_LINK`, as a bit.
const LINKS: u32 = 1;
const NAME: u16 = 3;
const MASTER: u16 = 10;
/// The names of interfaces are shorter (`IFNAMSIZ`).
const LONGEST: usize = 15;

/// An interface of the network namespace in which it was found, and whether it is still there.
#[derive(Debug)]
pub struct Interface {
    /// Its name.
    pub name: String,
    links: Socket,
    there: bool,
}

struct Link {
    index: u32,
    name: String,
    master: Option<u32>,
}

fn link(received: &Received) -> Option<Link> {
    let attributes = received.body.get(16..)?;
    let name = text_of(find(attributes, NAME)?);
    let master = find(attributes, MASTER).map(|value| u32_at(value, 0));
    Some(Link { index: u32_at(&received.body, 4), name, master })
}

impl Interface {
    /// Looks in the network namespace of the calling thread. Gives what the reader must know beside it.
    pub fn find(name: &str) -> Result<(Self, Vec<String>), Refusal> {
        let cannot = |error: NetlinkError| Refusal::bare(format!("cannot list interfaces: {error}"));
        let mut links = Socket::listen(SockProtocol::NetlinkRoute, LINKS).map_err(cannot)?;
        let all = links.dump(&Message::new(GET_LINK, 0).raw(&[0; 16])).map_err(cannot)?;
        let all: Vec<Link> = all.iter().filter_map(link).collect();
        let Some(found) = all.iter().find(|link| link.name == name && name.len() <= LONGEST) else {
            let names: Vec<String> = all.iter().map(|link| format!("`{}`", link.name)).collect();
            return Err(Refusal::new(
                format!("there is no interface `{name}` here"),
                format!("there are {}", names.join(", ")),
            ));
        };
        let above = found.master.and_then(|master| all.iter().find(|link| link.index == master));
        let notes = above.map(|above| {
            format!(
                "`{name}` is a part of `{}`: packets for this host carry that name where it is met",
                above.name
            )
        });
        Ok((Interface { name: name.to_owned(), links, there: true }, notes.into_iter().collect()))
    }

    /// Becomes readable when a link has come, gone or changed.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.links.as_fd()
    }

    /// Looks whether it is still there, and says what has changed.
    pub fn look(&mut self) -> Option<String> {
        self.links.drain();
        let asked = Message::new(GET_LINK, 0).raw(&[0; 16]).text(NAME, &self.name);
        let there = match self.links.request(vec![asked]) {
            Err(error) if error.errno() == Errno::ENODEV => false,
            Ok(()) => true,
            // What cannot be asked now is asked again when the next link changes.
            Err(_) => return None,
        };
        let before = std::mem::replace(&mut self.there, there);
        let name = &self.name;
        match (before, there) {
            (true, false) => {
                Some(format!("interface {name} is gone: nothing is matched until it comes back"))
            }
            (false, true) => Some(format!("interface {name} is back, and matched again")),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_found_and_others_are_refused_with_what_there_is() {
        let (mut lo, notes) = Interface::find("lo").expect("every network namespace has it");
        assert!(notes.is_empty());
        assert_eq!(lo.look(), None);
        for absent in ["eth99", "a-name-longer-than-any-interface", ""] {
            let refusal = Interface::find(absent).expect_err("it is not there");
            assert!(refusal.help.is_some_and(|help| help.contains("`lo`")), "{}", refusal.what);
        }
    }
}
