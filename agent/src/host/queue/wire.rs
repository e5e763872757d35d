//! The messages of the kernel's packet queues.
//!
//! Source: `include/uapi/linux/netfilter/nfnetlink_queue.h`. Packets are read in place and verdicts are appended to one
//! buffer: nothing here allocates for a packet.

use super::super::netlink::{Message, attributes, u16_at, u32_at};

const SUBSYSTEM: u16 = 3 << 8;
const PACKET: u16 = SUBSYSTEM;
const VERDICT: u16 = SUBSYSTEM | 1;
const CONFIG: u16 = SUBSYSTEM | 2;
const VERDICT_BATCH: u16 = SUBSYSTEM | 3;

const NETLINK_HEADER: usize = 16;
const FAMILY_HEADER: usize = 4;
const ERROR: u16 = 2;
const FLAG_REQUEST: u16 = 1;
const FLAG_ACK: u16 = 4;

/// What the kernel makes of a payload at most: the length of its attribute is a 16-bit number.
pub const LONGEST: usize = 0xffff - 4;
/// The headers and attributes around a payload, with room to spare.
pub const AROUND: usize = 1024;

/// Packets pass where user space does not keep up (`NFQA_CFG_F_FAIL_OPEN`, Linux 3.6).
pub const FAIL_OPEN: u32 = 1;
/// Packets come as large as the kernel has them, with unfinished checksums (`NFQA_CFG_F_GSO`, Linux 3.10).
pub const GSO: u32 = 4;

/// What becomes of a packet: `NF_DROP` or `NF_ACCEPT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It is gone, and its sender is not told.
    Drop = 0,
    /// It goes on behind the rule that queued it.
    Accept = 1,
}

fn config(number: u16) -> Message {
    let [high, low] = number.to_be_bytes();
    Message::new(CONFIG, 0).raw(&[0, 0, high, low])
}

/// Makes the sender the reader of a queue; refused with `EBUSY` or `EPERM` where there is one.
pub fn bind(number: u16) -> Message {
    config(number).attr(1, &[1, 0, 0, 0])
}

/// Ends a queue. What it still holds is dropped by the kernel.
pub fn unbind(number: u16) -> Message {
    config(number).attr(1, &[2, 0, 0, 0])
}

/// How a queue works: bytes copied of each packet (at least one), [`FAIL_OPEN`] and [`GSO`], packets held at most.
pub fn configure(number: u16, copied: u32, flags: u32, longest: u32) -> Message {
    const COPY_PACKET: u8 = 2;
    let mut copy = copied.to_be_bytes().to_vec();
    copy.push(COPY_PACKET);
    config(number)
        .attr(2, &copy)
        .attr(3, &longest.to_be_bytes())
        .attr(4, &(FAIL_OPEN | GSO).to_be_bytes())
        .attr(5, &flags.to_be_bytes())
}

/// A packet that waits for its verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Its number, by which the verdict names it. Numbers grow, with gaps, and wrap around.
    pub id: u32,
    /// Its mark.
    pub mark: u32,
    /// The interface by which it is about to leave, 0 for none.
    pub outdev: u32,
    /// The interface by which it came, 0 for none.
    pub indev: u32,
    /// Its bytes from the network header on, as many as were asked for.
    pub payload: &'a [u8],
    /// How long it really is.
    pub length: u32,
}

/// What the kernel says on a queue's socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A packet has come.
    Packet(Packet<'a>),
    /// The answer to a message: an error number, 0 for none, and the message's sequence number.
    Answer(i32, u32),
}

/// Reads what one receive call has brought. Bytes that are no message end it.
pub fn events(bytes: &[u8]) -> impl Iterator<Item = Event<'_>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        while rest.len() >= NETLINK_HEADER {
            let length = u32_at(rest, 0) as usize;
            if length < NETLINK_HEADER || length > rest.len() {
                return None;
            }
            let message = &rest[..length];
            rest = &rest[length.next_multiple_of(4).min(rest.len())..];
            let event = match u16_at(message, 4) {
                PACKET => packet(message).map(Event::Packet),
                ERROR => answer(message),
                _ => None,
            };
            if event.is_some() {
                return event;
            }
        }
        None
    })
}

fn packet(message: &[u8]) -> Option<Packet<'_>> {
    let body = message.get(NETLINK_HEADER + FAMILY_HEADER..)?;
    let mut packet = Packet { id: 0, mark: 0, outdev: 0, indev: 0, payload: &[], length: 0 };
    let mut numbered = false;
    let mut real = None;
    for (kind, value) in attributes(body) {
        let number = || value.first_chunk().copied().map(u32::from_be_bytes);
        match kind {
            1 => {
                packet.id = number()?;
                numbered = true;
            }
            3 => packet.mark = number()?,
            5 => packet.indev = number()?,
            6 => packet.outdev = number()?,
            10 => packet.payload = value,
            // Only there when the payload is cut.
            13 => real = number(),
            _ => {}
        }
    }
    packet.length = real.unwrap_or(packet.payload.len() as u32);
    numbered.then_some(packet)
}

fn answer(message: &[u8]) -> Option<Event<'_>> {
    // `struct nlmsgerr`: the code, then the header of the message that it answers.
    let code = i32::from_ne_bytes(*message.get(NETLINK_HEADER..)?.first_chunk()?);
    Some(Event::Answer(code.wrapping_neg(), u32_at(message, NETLINK_HEADER + 4 + 8)))
}

/// Verdicts on their way to the kernel, in one buffer that is used again and again.
///
/// Only a refused verdict is answered, by an [`Event::Answer`] with, as its sequence number, the number of packets that
/// it was to let go on.
#[derive(Debug)]
pub struct Verdicts {
    number: u16,
    bytes: Vec<u8>,
    /// What one message will say of a run of packets, the last of them, and how many they are.
    run: Option<(Verdict, u32, u32)>,
}

impl Verdicts {
    /// None yet, for this queue.
    pub fn new(number: u16) -> Self {
        Verdicts { number, bytes: Vec::with_capacity(128 * 1024), run: None }
    }

    /// Accepts one packet.
    pub fn accept(&mut self, id: u32) {
        self.flush_run();
        self.message(VERDICT, 1, id, Verdict::Accept, &[]);
    }

    /// Drops a packet that has just come: it is younger than any that is being accepted, so that their order stays.
    pub fn lose(&mut self, id: u32) {
        self.message(VERDICT, 0, id, Verdict::Drop, &[]);
    }

    /// Accepts one packet with other bytes: its checksums are not mended by the kernel, and are checked again by whoever
    /// receives it.
    pub fn altered(&mut self, id: u32, payload: &[u8]) {
        self.flush_run();
        self.message(VERDICT, 1, id, Verdict::Accept, payload);
    }

    /// Accepts a packet, together with all that came before it: none of those may still be held.
    pub fn oldest(&mut self, id: u32) {
        self.run_on(Verdict::Accept, id);
    }

    /// Drops a packet of which there is a copy, together with all that came before it: none of those may still be held.
    pub fn taken(&mut self, id: u32) {
        self.run_on(Verdict::Drop, id);
    }

    fn run_on(&mut self, verdict: Verdict, id: u32) {
        if self.run.is_some_and(|(other, ..)| other != verdict) {
            self.flush_run();
        }
        let packets = self.run.map_or(0, |(.., packets)| packets);
        self.run = Some((verdict, id, packets + 1));
    }

    fn flush_run(&mut self) {
        if let Some((verdict, id, packets)) = self.run.take() {
            let let_go = if verdict == Verdict::Accept { packets } else { 0 };
            self.message(VERDICT_BATCH, let_go, id, verdict, &[]);
        }
    }

    /// The messages so far, to be forgotten by [`Verdicts::sent`].
    pub fn pending(&mut self) -> &[u8] {
        self.flush_run();
        &self.bytes
    }

    /// How many bytes wait.
    pub fn len(&self) -> usize {
        self.bytes.len() + if self.run.is_some() { 32 } else { 0 }
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets what [`Verdicts::pending`] has shown.
    pub fn sent(&mut self) {
        self.bytes.clear();
    }

    fn message(&mut self, kind: u16, sequence: u32, id: u32, verdict: Verdict, payload: &[u8]) {
        let start = self.bytes.len();
        let put = &mut self.bytes;
        put.extend_from_slice(&[0; 4]);
        put.extend_from_slice(&kind.to_ne_bytes());
        put.extend_from_slice(&FLAG_REQUEST.to_ne_bytes());
        put.extend_from_slice(&sequence.to_ne_bytes());
        put.extend_from_slice(&[0; 4 + 2]);
        put.extend_from_slice(&self.number.to_be_bytes());
        put.extend_from_slice(&12u16.to_ne_bytes());
        put.extend_from_slice(&2u16.to_ne_bytes());
        put.extend_from_slice(&(verdict as u32).to_be_bytes());
        put.extend_from_slice(&id.to_be_bytes());
        if !payload.is_empty() {
            let payload = &payload[..payload.len().min(LONGEST)];
            put.extend_from_slice(&((payload.len() + 4) as u16).to_ne_bytes());
            put.extend_from_slice(&10u16.to_ne_bytes());
            put.extend_from_slice(payload);
            put.resize(put.len().next_multiple_of(4), 0);
        }
        let length = (put.len() - start) as u32;
        put[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }
}

/// One message that accepts every packet up to a number, by the kernel's comparison, which is signed. It is answered in any
/// case.
pub fn accept_up_to(number: u16, id: u32) -> Vec<u8> {
    let mut verdicts = Verdicts::new(number);
    verdicts.message(VERDICT_BATCH, 0, id, Verdict::Accept, &[]);
    verdicts.bytes[6..8].copy_from_slice(&(FLAG_REQUEST | FLAG_ACK).to_ne_bytes());
    verdicts.bytes
}

#[cfg(test)]
mod tests;
