use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

use super::*;

fn v4(source: [u8; 4], protocol: u8, fragment: u16, ports: [u16; 2]) -> Vec<u8> {
    let mut bytes = vec![0x45, 0, 0, 28, 0, 1];
    bytes.extend(fragment.to_be_bytes());
    bytes.extend([64, protocol, 0, 0]);
    bytes.extend(source);
    bytes.extend([10, 0, 0, 2]);
    bytes.extend(ports.map(u16::to_be_bytes).concat());
    bytes.extend([0; 4]);
    bytes
}

fn v6(next: u8, rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x60, 0, 0, 0, 0, rest.len() as u8, next, 64];
    bytes.extend(Ipv6Addr::LOCALHOST.octets());
    bytes.extend(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2).octets());
    bytes.extend(rest);
    bytes
}

#[test]
fn connections_are_told_apart() {
    let number = |bytes: &[u8]| Headers::of(bytes).unwrap().connection();
    let one = v4([10, 0, 0, 1], 17, 0, [1000, 53]);
    assert_eq!(number(&one), number(&[one.clone(), vec![9; 40]].concat()));
    for other in [
        v4([10, 0, 0, 3], 17, 0, [1000, 53]),
        v4([10, 0, 0, 1], 6, 0, [1000, 53]),
        v4([10, 0, 0, 1], 17, 0, [1001, 53]),
        v4([10, 0, 0, 1], 17, 0, [53, 1000]),
    ] {
        assert_ne!(number(&one), number(&other));
    }
    // Behind the first fragment no ports stand, whatever the bytes look like.
    assert_eq!(number(&v4([10, 0, 0, 1], 17, 8, [1, 2])), number(&v4([10, 0, 0, 1], 17, 8, [3, 4])));
    // Echo requests with different numbers are one connection.
    assert_eq!(number(&v4([10, 0, 0, 1], 1, 0, [8, 1])), number(&v4([10, 0, 0, 1], 1, 0, [8, 2])));
}

#[test]
fn extension_headers_are_part_of_the_network_header() {
    let udp = [0x03, 0xe8, 0, 53, 0, 8, 0, 0];
    let plain = Headers::of(&v6(17, &udp)).unwrap();
    assert_eq!((plain.protocol, plain.end, plain.ports), (17, 40, 0x03e8_0035));
    let options = [&[60, 0, 1, 4, 0, 0, 0, 0][..], &[17, 1, 1, 12, 0, 0, 0, 0], &[0; 8], &udp].concat();
    let extended = Headers::of(&v6(0, &options)).unwrap();
    assert_eq!((extended.protocol, extended.end, extended.ports), (17, 64, 0x03e8_0035));
    assert_eq!(plain.connection(), extended.connection());
    let fragment = Headers::of(&v6(44, &[&[17, 0, 0, 8, 0, 0, 0, 1][..], &udp].concat())).unwrap();
    assert_eq!((fragment.protocol, fragment.end, fragment.ports), (17, 48, 0));
}

#[test]
fn what_is_for_many_is_not_for_one() {
    let to = |destination: [u8; 4]| {
        let mut bytes = v4([10, 0, 0, 1], 17, 0, [1, 2]);
        bytes[16..20].copy_from_slice(&destination);
        Headers::of(&bytes).unwrap().is_unicast()
    };
    assert!(to([10, 0, 0, 2]));
    assert!(!to([224, 0, 0, 251]) && !to([255, 255, 255, 255]));
    let mut bytes = v6(17, &[0; 8]);
    assert!(Headers::of(&bytes).unwrap().is_unicast());
    bytes[24] = 0xff;
    assert!(!Headers::of(&bytes).unwrap().is_unicast());
}

#[test]
fn no_bytes_harm_the_reader() {
    let mut random = ChaCha12Rng::seed_from_u64(3);
    let mut read = 0;
    let mut bytes = [0u8; 96];
    for _ in 0..200_000 {
        let length = random.random_range(0..bytes.len());
        random.fill_bytes(&mut bytes[..length]);
        bytes[0] = [0x45, 0x4f, 0x60, bytes[0]][random.random_range(0..4)];
        bytes[6] = [0, 43, 44, 60, bytes[6]][random.random_range(0..5)];
        if let Some(headers) = Headers::of(&bytes[..length]) {
            let _ = headers.connection();
            read += 1;
        }
    }
    assert!(read > 50_000, "{read}");
}
