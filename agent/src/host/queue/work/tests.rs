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
    assert_eq!((work.counts().seen, work.counts().overflowed), (6, 2));
    // The numbers wrap around, and one that comes twice is no gap of four thousand million.
    work.last = u32::MAX - 1;
    for id in [u32::MAX, 0, 1, 1] {
        work.decide(&packet(id, &[0x45; 40]), 0);
    }
    assert_eq!((work.counts().seen, work.counts().overflowed), (10, 2));
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
