use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

use super::*;

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = ((value.len() + 4) as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// A message as the kernel sends it.
fn message(kind: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = ((body.len() + 16) as u32).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend([0; 10]);
    bytes.extend(body);
    bytes
}

fn sample(id: u32, payload: &[u8], real: Option<u32>) -> Vec<u8> {
    let mut body = vec![2, 0, 0x52, 0x09];
    body.extend(attribute(1, &[&id.to_be_bytes()[..], &[8, 0, 1]].concat()));
    body.extend(attribute(3, &0x0400_0001u32.to_be_bytes()));
    body.extend(attribute(5, &7u32.to_be_bytes()));
    body.extend(attribute(6, &9u32.to_be_bytes()));
    body.extend(attribute(14, &3u32.to_be_bytes()));
    if let Some(real) = real {
        body.extend(attribute(13, &real.to_be_bytes()));
    }
    body.extend(attribute(10, payload));
    message(PACKET, &body)
}

#[test]
fn a_packet_is_read_as_it_was_written() {
    let bytes = [sample(5, b"odd", None), sample(6, b"cut!", Some(1500))].concat();
    let whole = Packet { id: 5, mark: 0x0400_0001, indev: 7, outdev: 9, payload: b"odd", length: 3 };
    let cut = Packet { id: 6, payload: b"cut!", length: 1500, ..whole };
    assert_eq!(events(&bytes).collect::<Vec<_>>(), [Event::Packet(whole), Event::Packet(cut)]);
}

#[test]
fn an_answer_says_which_message_it_is_for() {
    let answer = |code: i32| {
        let mut body = code.to_ne_bytes().to_vec();
        body.extend([0; 8]);
        body.extend(77u32.to_ne_bytes());
        body.extend([0; 4]);
        message(ERROR, &body)
    };
    assert_eq!(events(&answer(-2)).collect::<Vec<_>>(), [Event::Answer(2, 77)]);
    assert_eq!(events(&answer(0)).collect::<Vec<_>>(), [Event::Answer(0, 77)]);
    // No error number, but bytes that may come.
    assert!(events(&answer(i32::MIN)).next().is_some());
}

/// The messages of a buffer: type, sequence number, and the body from the verdict on.
fn read(mut bytes: &[u8]) -> Vec<(u16, u32, Vec<u8>)> {
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        let length = u32_at(bytes, 0) as usize;
        assert_eq!(length % 4, 0);
        assert_eq!(bytes[16..20], [0, 0, 0x52, 0x09], "family, version, queue number");
        messages.push((u16_at(bytes, 4), u32_at(bytes, 8), bytes[24..length].to_vec()));
        bytes = &bytes[length..];
    }
    messages
}

#[test]
fn what_was_taken_is_dropped_by_one_message_and_never_beside_what_is_accepted() {
    let mut verdicts = Verdicts::new(0x5209);
    verdicts.taken(1);
    verdicts.taken(2);
    verdicts.oldest(3);
    verdicts.taken(4);
    verdicts.accept(5);
    verdicts.taken(6);
    let both = |verdict: u32, id: u32| [verdict.to_be_bytes(), id.to_be_bytes()].concat();
    assert_eq!(
        read(verdicts.pending()),
        [
            (VERDICT_BATCH, 0, both(0, 2)),
            (VERDICT_BATCH, 1, both(1, 3)),
            (VERDICT_BATCH, 0, both(0, 4)),
            (VERDICT, 1, both(1, 5)),
            (VERDICT_BATCH, 0, both(0, 6)),
        ]
    );
}

#[test]
fn neighbours_leave_by_one_message_and_the_order_stays() {
    let mut verdicts = Verdicts::new(0x5209);
    verdicts.oldest(1);
    verdicts.oldest(2);
    verdicts.lose(5);
    verdicts.oldest(3);
    verdicts.accept(8);
    verdicts.altered(9, b"xyz");
    verdicts.oldest(10);
    assert!(!verdicts.is_empty());
    let both = |verdict: u32, id: u32| [verdict.to_be_bytes(), id.to_be_bytes()].concat();
    let altered = [both(1, 9), attribute(10, b"xyz")].concat();
    assert_eq!(
        read(verdicts.pending()),
        [
            (VERDICT, 0, both(0, 5)),
            (VERDICT_BATCH, 3, both(1, 3)),
            (VERDICT, 1, both(1, 8)),
            (VERDICT, 1, altered),
            (VERDICT_BATCH, 1, both(1, 10)),
        ]
    );
    verdicts.sent();
    assert!(verdicts.is_empty() && verdicts.pending().is_empty());
}

#[test]
fn a_payload_of_any_length_fits() {
    let mut verdicts = Verdicts::new(0x5209);
    verdicts.altered(1, &vec![7; 70_000]);
    let messages = read(verdicts.pending());
    assert_eq!(u16_at(&messages[0].2, 8), u16::MAX);
}

#[test]
fn no_bytes_harm_the_reader() {
    let mut random = ChaCha12Rng::seed_from_u64(11);
    let mut seen = 0;
    let mut look = |bytes: &[u8]| {
        for event in events(bytes) {
            if let Event::Packet(packet) = event {
                assert!(packet.payload.len() <= bytes.len());
            }
            seen += 1;
        }
    };
    let mut noise = [0u8; 256];
    for _ in 0..100_000 {
        let length = random.random_range(0..noise.len());
        random.fill_bytes(&mut noise[..length]);
        if length >= 6 && random.random() {
            // A length and a type that lead further in.
            noise[..4].copy_from_slice(&(random.random_range(0..300u32)).to_ne_bytes());
            noise[4..6].copy_from_slice(&if random.random() { PACKET } else { ERROR }.to_ne_bytes());
        }
        look(&noise[..length]);
    }
    let real = [sample(1, &[0x45; 60], None), sample(2, &[0x60; 33], Some(9000))].concat();
    for _ in 0..200_000 {
        let mut bytes = real.clone();
        for _ in 0..random.random_range(1..6) {
            let at = random.random_range(0..bytes.len());
            bytes[at] =
                if random.random() { random.random() } else { [0, 1, 4, 0xff][random.random_range(0..4)] };
        }
        bytes.truncate(random.random_range(0..=bytes.len()));
        look(&bytes);
    }
    assert!(seen > 50_000, "the cases hardly reached the attributes: {seen}");
}
