//! Other ways: interfaces that come, and routes that move, while a shape is live.
//!
//! Where packets enter by a new interface, they are led through the device for what enters, too: no interface is touched.
//! Where they leave by a new one, it gets a root and a class like the others, whose undos are recorded first; where that
//! may not be, the packets pass unharmed, and are counted.

use std::os::fd::BorrowedFd;

use nix::sys::socket::SockProtocol;
use squall_experiments::change::Engine;
use squall_experiments::flow::Direction;
use squall_experiments::protocol::Refusal;

use super::super::Record;
use super::super::matching::Packets;
use super::super::netlink::Socket;
use super::super::nft::Hook;
use super::super::slot::LAST;
use super::super::table::Table;
use super::lane::{Live, Way, graft, steers};
use super::message::Link;
use super::{Device, Discs, Tc, choice, entry, ifb};

/// Tells when a way may have changed.
#[derive(Debug)]
pub struct Paths(Socket);

impl Paths {
    /// From now on, in the network namespace of the calling thread; `None` where the kernel does not say.
    pub(super) fn listen() -> Option<Self> {
        // `RTNLGRP_LINK`, `_IPV4_IFADDR`, `_IPV4_ROUTE`, `_IPV4_RULE`, `_IPV6_IFADDR`, `_IPV6_ROUTE`, `_IPV6_RULE`, as bits.
        let groups = [1, 5, 7, 8, 9, 11, 19].into_iter().fold(0, |all, group: u32| all | 1 << (group - 1));
        Socket::listen(SockProtocol::NetlinkRoute, groups).ok().map(Paths)
    }

    /// Becomes readable when a way may have changed.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Live {
    /// What becomes readable when packets may take another way.
    pub fn told(&self) -> Option<BorrowedFd<'_>> {
        self.paths.as_ref().map(Paths::as_fd)
    }

    /// Looks whether packets have other ways now, where something has happened, and follows them.
    pub fn follow(&mut self, packets: &Packets, table: &mut Table, discs: &mut Discs, record: Record<'_>) {
        if !self.paths.as_ref().is_some_and(|paths| paths.0.drained()) {
            return;
        }
        if let Err(refusal) = self.entered(packets, table, discs) {
            self.happened(format!("what enters by a new interface is not met: {}", refusal.what));
        }
        if let Err(refusal) = self.left(packets, table, discs, record) {
            self.happened(format!("what leaves by another interface now is not met: {}", refusal.what));
        }
    }

    /// Leads what enters by interfaces that are new through the device.
    fn entered(&mut self, packets: &Packets, table: &mut Table, discs: &Discs) -> Result<(), Refusal> {
        let Some(entry) = &mut self.entry else { return Ok(()) };
        let mut tc = Tc::open().map_err(|error| Refusal::bare(error.to_string()))?;
        let links = entry::links(&mut tc, &self.shape, packets, discs)?;
        let known = |link: &Link| entry.links.iter().any(|other| other.index == link.index);
        let new: Vec<Link> = links.into_iter().filter(|link| !known(link)).collect();
        if new.is_empty() {
            return Ok(());
        }
        table.open_ingress(&new).map_err(|error| Refusal::bare(error.to_string()))?;
        let names: Vec<String> = new.iter().map(|link| format!("`{}`", link.name)).collect();
        entry.links.extend(new);
        self.happened(format!(
            "what enters by {} is led through `{}` too, from now on",
            names.join(", "),
            ifb::NAME
        ));
        Ok(())
    }

    /// Gives a class to interfaces by which packets leave now and did not before.
    fn left(
        &mut self,
        packets: &Packets,
        table: &mut Table,
        discs: &mut Discs,
        record: Record<'_>,
    ) -> Result<(), Refusal> {
        if self.shape.direction == Direction::Ingress {
            return Ok(());
        }
        let mut tc = Tc::open().map_err(|error| Refusal::bare(error.to_string()))?;
        // Nowhere to go is no other way.
        let Ok(devices) = choice::devices(&mut tc, &self.shape, packets) else { return Ok(()) };
        for device in devices {
            if !self.ways.iter().any(|way| way.device == device) {
                self.extend(&mut tc, device, packets, table, discs, record)?;
            }
        }
        Ok(())
    }

    fn extend(
        &mut self,
        tc: &mut Tc,
        device: Device,
        packets: &Packets,
        table: &mut Table,
        discs: &mut Discs,
        record: Record<'_>,
    ) -> Result<(), Refusal> {
        let before = choice::before(tc, &device, &self.shape, discs)?;
        if self.shape.engine != Engine::Netem {
            choice::affordable(tc, &device, discs)?;
        }
        let minor = discs.minor()?;
        graft(tc, &self.shape, &device, &before, minor, discs, record)?;
        let rules = packets.rules(Hook::Output, &self.tag, false, None)?;
        let rules = rules.into_iter().map(|(rule, _)| (Hook::Output, steers(rule, &device, minor)));
        table.add_in_front(rules.collect(), LAST).map_err(|error| Refusal::bare(error.to_string()))?;
        let line = if self.shape.impairment.bottleneck.is_some() { ", with a line of its own" } else { "" };
        self.happened(format!(
            "packets leave by `{device}` now, and are met there too{line}: below an inert root, which may have cost \
             packets when it came"
        ));
        self.ways.push(Way::new(device, minor));
        Ok(())
    }
}
