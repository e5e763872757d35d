//! Datagrams that are longer than their way, in pieces.
//!
//! A datagram that a program sends is cut by the kernel behind the hook at which the engine takes it, and a raw socket
//! does not cut. Source: RFC 791 section 3.2, RFC 8200 section 4.5.

use std::sync::atomic::{AtomicU32, Ordering};

use super::packet::Headers;

/// No link that carries IPv6 has a shorter limit (RFC 8200 section 5), and hardly one that carries IPv4.
const PIECE: usize = 1280;
const MORE: u16 = 0x2000;
const FRAGMENT: u8 = 44;

/// The pieces of a packet; none where it must not or cannot be cut.
pub fn split(packet: &[u8], headers: &Headers) -> Vec<Vec<u8>> {
    match packet.first().map(|byte| byte >> 4) {
        Some(4) => v4(packet, headers.end),
        Some(6) => v6(packet, headers),
        _ => Vec::new(),
    }
}

/// The pieces of `data`, each at most so long, with their offsets and whether more follow.
fn pieces(data: &[u8], longest: usize) -> impl Iterator<Item = (u16, bool, &[u8])> {
    let step = longest / 8 * 8;
    let count = data.len().div_ceil(step);
    data.chunks(step)
        .enumerate()
        .map(move |(index, piece)| ((index * step / 8) as u16, index + 1 < count, piece))
}

fn v4(packet: &[u8], end: usize) -> Vec<Vec<u8>> {
    let (Some(header), Some(data)) = (packet.get(..end), packet.get(end..)) else {
        return Vec::new();
    };
    // What must not be cut, is cut already, or has options, not all of which belong into every piece, is left alone.
    if header[6..8] != [0, 0] || end != 20 {
        return Vec::new();
    }
    let mut identity = [header[4], header[5]];
    if identity == [0, 0] {
        let [_, _, high, low] = fresh().to_be_bytes();
        identity = [high, low.max(1)];
    }
    pieces(data, PIECE - end)
        .map(|(offset, more, piece)| {
            let mut bytes = [header, piece].concat();
            bytes[4..6].copy_from_slice(&identity);
            bytes[6..8].copy_from_slice(&(offset | if more { MORE } else { 0 }).to_be_bytes());
            bytes
        })
        .collect()
}

fn v6(packet: &[u8], headers: &Headers) -> Vec<Vec<u8>> {
    // Extension headers would have to stay in front of the cut, or go behind it, each by its kind.
    if headers.end != 40 || packet.len() <= 40 {
        return Vec::new();
    }
    let (header, data) = packet.split_at(40);
    let identity = fresh().to_be_bytes();
    pieces(data, PIECE - 48)
        .map(|(offset, more, piece)| {
            let mut bytes = header.to_vec();
            bytes[4..6].copy_from_slice(&((piece.len() + 8) as u16).to_be_bytes());
            bytes[6] = FRAGMENT;
            bytes.extend([headers.protocol, 0]);
            bytes.extend((offset << 3 | u16::from(more)).to_be_bytes());
            bytes.extend(identity);
            bytes.extend(piece);
            bytes
        })
        .collect()
}

/// A number that no packet of the last minutes had.
fn fresh() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    if next != 0 {
        return next;
    }
    // The first: begin somewhere else than the engine before this one.
    let start = super::super::sys::boot_nanos() as u32 | 1;
    NEXT.store(start.wrapping_add(1), Ordering::Relaxed);
    start
}

#[cfg(test)]
mod tests;
