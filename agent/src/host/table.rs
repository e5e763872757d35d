//! Squall's nftables table: one per network namespace, owned by the worker's socket.
//!
//! ```text
//! base chain in  (hook input)   ── family in @live? ──▶ chain fault-in  ── carve-outs, then rules of injections
//! base chain out (hook output)  ── family in @live? ──▶ chain fault-out ── carve-outs, then rules of injections
//! ```
//!
//! The elements of `live` expire after [`LEASE_MS`] unless the worker renews them: rules that nobody renews match
//! nothing, whoever hangs. When the last duplicate of the socket is closed, the kernel removes the table.

use nix::errno::Errno;
use nix::sys::socket::SockProtocol;

use super::netlink::{Message, NetlinkError, Socket};
use super::nft::{self, Hook, Listed, Rule};

/// The table's name, which is Squall's mark on a host.
pub const NAME: &str = "squall";
/// How long rules match without a renewal.
pub const LEASE_MS: u64 = 1500;
/// The live set's name.
const LIVE: &str = "live";
/// Before everything that a firewall usually does (raw is -300), after defragmentation (-400).
const PRIORITY: i32 = -310;

/// The socket that owns the table, and what may be done with it.
#[derive(Debug)]
pub struct Table {
    socket: Socket,
}

/// Which of the two chains.
pub fn chain(hook: Hook) -> &'static str {
    match hook {
        Hook::Input => "fault-in",
        Hook::Output => "fault-out",
    }
}

impl Table {
    /// Opens the socket that will own the table; nothing is changed yet.
    pub fn open() -> Result<Self, NetlinkError> {
        Ok(Table { socket: Socket::open(SockProtocol::NetlinkNetFilter)? })
    }

    /// Continues with a duplicate of another process's socket: the same owner, for the kernel.
    pub fn adopt(socket: std::os::fd::OwnedFd) -> Self {
        Table { socket: Socket::adopt(socket) }
    }

    /// The socket, to hand a duplicate to the guardian.
    pub fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Whether a table of our name exists, and the netlink port that owns it.
    pub fn existing(&mut self) -> Result<Option<Option<u32>>, NetlinkError> {
        let tables = self.socket.dump(&nft::list_tables())?;
        let mine = |(family, name, owner)| (family == nft::INET && name == NAME).then_some(owner);
        Ok(tables.iter().map(nft::listed_table).find_map(mine))
    }

    /// Makes the table with its chains, its live set and the carve-outs, in one transaction.
    ///
    /// Carve-outs are accepted before any injection's rule is asked.
    pub fn create(&mut self, carve_outs: Vec<(Hook, Rule)>) -> Result<(), NetlinkError> {
        let mut messages = vec![nft::new_owned_table(NAME), nft::new_family_set(NAME, LIVE)];
        for (hook, base) in [(Hook::Input, "in"), (Hook::Output, "out")] {
            messages.push(nft::new_base_chain(NAME, base, hook, PRIORITY));
            messages.push(nft::new_chain(NAME, chain(hook)));
            let rule =
                Rule::commented("squall: only while the agent is alive").family_in(LIVE).jump(chain(hook));
            messages.push(rule.append(NAME, base));
        }
        for (hook, rule) in carve_outs {
            messages.push(rule.accept().append(NAME, chain(hook)));
        }
        messages.push(nft::add_families(NAME, LIVE, LEASE_MS));
        self.socket.request(nft::batch(messages))
    }

    /// Keeps the rules matching for another [`LEASE_MS`]. `false`: it came too late, the rules have been inert.
    pub fn renew(&mut self) -> Result<bool, NetlinkError> {
        let messages = vec![nft::remove_families(NAME, LIVE), nft::add_families(NAME, LIVE, LEASE_MS)];
        match self.socket.request(nft::batch(messages)) {
            Ok(()) => Ok(true),
            Err(error) if error.errno() == Errno::ENOENT => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Adds rules in one transaction.
    pub fn add(&mut self, rules: Vec<(Hook, Rule)>) -> Result<(), NetlinkError> {
        let messages: Vec<Message> =
            rules.into_iter().map(|(hook, rule)| rule.append(NAME, chain(hook))).collect();
        self.socket.request(nft::batch(messages))
    }

    /// The rules whose comment begins with `tag`; none where the table is not there.
    pub fn rules(&mut self, tag: &str) -> Result<Vec<Listed>, NetlinkError> {
        let rules = match self.socket.dump(&nft::list_rules(Some(NAME))) {
            Err(error) if error.errno() == Errno::ENOENT => return Ok(Vec::new()),
            rules => rules?,
        };
        Ok(rules.iter().map(nft::listed).filter(|rule| rule.comment.starts_with(tag)).collect())
    }

    /// Removes the rules whose comment begins with `tag`, and says how many there were.
    pub fn remove(&mut self, tag: &str) -> Result<usize, NetlinkError> {
        let rules = self.rules(tag)?;
        if rules.is_empty() {
            return Ok(0);
        }
        let messages = rules.iter().map(|rule| nft::delete_rule(NAME, &rule.chain, rule.handle)).collect();
        self.socket.request(nft::batch(messages))?;
        Ok(rules.len())
    }

    /// Removes the table; it not being there is success.
    pub fn delete(&mut self) -> Result<(), NetlinkError> {
        match self.socket.request(nft::batch(vec![nft::delete_table(NAME)])) {
            Err(error) if error.errno() == Errno::ENOENT => Ok(()),
            result => result,
        }
    }
}
