use std::time::Duration;

use squall_experiments::impairment::{Chance, Delay, Impairment, LossModel};

use super::*;

fn work(impairment: Impairment, limit: u32) -> Work {
    let orders = Orders { impairment, hook: Hook::Input, limit, seed: [1; 32], mark: (0x20, 0xf0) };
    Work::new(7, orders).unwrap()
}

fn packet(id: u32, payload: &[u8]) -> Packet<'_> {
    Packet { id, mark: 0, outdev: 0, indev: 3, payload, length: payload.len() as u32 }
}

fn delay(ms: u64) -> Impairment {
    Impairment {
        delay: Some(Delay {
            delay: Duration::from_millis(ms).into(),
            jitter: Duration::ZERO.into(),
            distribution: Default::default(),
            correlation: Default::default(),
            reordering: false,
        }),
        ..Impairment::default()
    }
}

#[test]
fn gaps_in_the_numbers_are_packets_that_passed() {
    let chance = Chance { percent: "0%".parse().unwrap(), correlation: "0%".parse().unwrap() };
    let mut work = work(Impairment { loss: Some(LossModel::Random(chance)), ..Impairment::default() }, 10);
    for id in [1, 2, 5, 6] {
        work.decide(&packet(id, &[0x45; 40]), 0);
    }
    let counts = work.counts();
    assert_eq!((counts.seen, counts.overrun, counts.overflowed), (6, 2, 0), "nothing was held");
    // The numbers wrap around, and one that comes twice is no gap of four thousand million.
    work.last = u32::MAX - 1;
    for id in [u32::MAX, 0, 1, 1] {
        work.decide(&packet(id, &[0x45; 40]), 0);
    }
    assert_eq!((work.counts().seen, work.counts().overrun), (10, 2));
}

/// A packet is lost by its number: those that were not seen have had their draws.
#[test]
fn packets_that_passed_shift_nobodys_fate() {
    let chance = Chance { percent: "50%".parse().unwrap(), correlation: "20%".parse().unwrap() };
    let lost = |ids: &[u32]| {
        let mut work =
            work(Impairment { loss: Some(LossModel::Random(chance)), ..Impairment::default() }, 10);
        let mut lost = Vec::new();
        for id in ids {
            let before = work.counts.lost;
            work.decide(&packet(*id, &[0x45; 40]), 0);
            if work.counts.lost > before {
                lost.push(*id);
            }
        }
        lost
    };
    let whole = lost(&(1..=300).collect::<Vec<_>>());
    let seen: Vec<u32> = (1..=300).filter(|id| !(50..90).contains(id) && id % 7 != 0).collect();
    let expected: Vec<u32> = whole.iter().copied().filter(|id| seen.contains(id)).collect();
    assert!(expected.len() > 50 && expected.len() < seen.len());
    assert_eq!(lost(&seen), expected);
}

/// Beside a line that is full, a packet that is lost in front of it is not also one that was altered.
#[test]
fn no_packet_meets_more_fates_than_it_has() {
    let always = Chance { percent: "100%".parse().unwrap(), correlation: "0%".parse().unwrap() };
    let line = serde_json::from_str(r#"{"rate":"8Mbit/s","burst":"1500B","buffer":"1ms"}"#).unwrap();
    let impairment = Impairment { corrupt: Some(always), bottleneck: Some(line), ..Impairment::default() };
    let mut work = work(impairment, 1000);
    for id in 1..=10 {
        work.decide(&packet(id, &whole(1000)), 0);
    }
    let counts = work.counts();
    assert!(counts.crowded >= 7 && counts.corrupted >= 2, "{counts:?}");
    assert_eq!(counts.crowded + counts.corrupted, counts.seen, "{counts:?}");
}

/// An IPv4 packet of so many bytes.
fn whole(length: u16) -> Vec<u8> {
    let mut bytes = vec![0; length.into()];
    bytes[0] = 0x45;
    bytes[2..4].copy_from_slice(&length.to_be_bytes());
    bytes[9] = 17;
    bytes
}

#[test]
fn what_cannot_be_copied_is_held_by_the_kernel_and_counted_where_it_was_to_be_altered() {
    let cut = |id, head: &'static [u8]| Packet { length: 65_535, ..packet(id, head) };
    const HEAD: &[u8] = &[0x45; 128];
    let orders =
        |impairment| Orders { impairment, hook: Hook::Output, limit: 9, seed: [1; 32], mark: (0x20, 0xf0) };
    let mut held = Work::new(7, orders(delay(10))).unwrap();
    held.decide(&cut(1, HEAD), 0);
    assert!(held.verdicts.is_empty() && held.schedule.queued(), "the kernel holds it");
    // The next one must not be let go, or dropped, together with all before it.
    held.decide(&packet(2, HEAD), 0);
    assert_eq!((held.counts().delayed, held.counts().overflowed), (2, 0));
    let kind = u16::from_ne_bytes(held.verdicts.pending()[4..6].try_into().unwrap()) & 0xff;
    assert_eq!(kind, 1, "one verdict, not a batch");

    let always = Chance { percent: "100%".parse().unwrap(), correlation: "0%".parse().unwrap() };
    let corrupt = Impairment { corrupt: Some(always), ..Impairment::default() };
    let mut altering = Work::new(7, orders(corrupt)).unwrap();
    altering.decide(&cut(1, HEAD), 0);
    assert_eq!((altering.counts().oversized, altering.counts().corrupted), (1, 0));
}

#[test]
fn as_many_are_held_as_allowed_and_the_others_pass() {
    let mut work = work(delay(10), 3);
    for id in 1..=5 {
        work.decide(&packet(id, &[0x45; 40]), 0);
    }
    let counts = work.counts();
    assert_eq!((counts.seen, counts.delayed, counts.overflowed), (5, 3, 2));
    assert!(!work.verdicts.is_empty(), "those that pass have their verdicts");
    assert_eq!(work.next(), Some(10_000_000));
}

#[test]
fn no_delay_holds_nothing() {
    let mut work = work(delay(0), 3);
    work.decide(&packet(1, &[0x45; 40]), 0);
    assert_eq!((work.counts().delayed, work.next()), (0, None));
}

#[test]
fn every_bit_behind_the_headers_may_flip_and_none_in_them() {
    let packet = [0x45; 23];
    let mut altered = Vec::new();
    let mut flipped = [0u32; 24];
    for choice in 0..24 {
        assert!(flip(&packet, 20, choice, &mut altered));
        assert_eq!(altered[..20], packet[..20]);
        let bits =
            altered[20..].iter().zip(&packet[20..]).fold(0u32, |bits, (a, b)| bits << 8 | u32::from(a ^ b));
        assert_eq!(bits.count_ones(), 1);
        flipped[bits.trailing_zeros() as usize] += 1;
    }
    assert_eq!(flipped, [1; 24]);
    assert!(!flip(&packet[..20], 20, 5, &mut altered), "there is nothing to flip");
    assert!(!flip(&packet, 99, 5, &mut altered), "the headers claim more than there is");
}

#[test]
fn the_level_takes_its_bits_of_the_mark_and_no_others() {
    let work = work(delay(1), 1);
    let packet = Packet { mark: 0xabcd_ef5c, ..packet(1, &[]) };
    assert_eq!(work.mark(&packet), 0xabcd_ef2c);
}
