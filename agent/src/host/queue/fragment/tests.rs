use super::*;

/// Puts pieces together as a receiver does: by offset, up to the one that says that it is the last.
fn join(pieces: &[Vec<u8>], behind: usize, offset: impl Fn(&[u8]) -> (usize, bool)) -> Vec<u8> {
    let mut data = Vec::new();
    for (index, piece) in pieces.iter().enumerate() {
        assert!(piece.len() <= PIECE);
        let (at, more) = offset(piece);
        assert_eq!((at, more), (data.len(), index + 1 < pieces.len()));
        data.extend(&piece[behind..]);
    }
    data
}

#[test]
fn pieces_of_both_families_make_the_datagram_again() {
    for length in [1, 1241, 1260, 1261, 8008, 65_000] {
        let data: Vec<u8> = (0..length).map(|index| (index % 251) as u8).collect();

        let mut header = vec![0x45, 0, 0, 0, 0xab, 0xcd, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        let packet = [header.clone(), data.clone()].concat();
        let pieces = split(&packet, &Headers::of(&packet).unwrap());
        let joined = join(&pieces, 20, |piece| {
            assert_eq!(piece[4..6], [0xab, 0xcd]);
            let word = u16::from_be_bytes([piece[6], piece[7]]);
            (usize::from(word & 0x1fff) * 8, word & MORE != 0)
        });
        assert_eq!(joined, data);
        header[6] = 0x40;
        let packet = [header, data.clone()].concat();
        assert!(split(&packet, &Headers::of(&packet).unwrap()).is_empty(), "`don't fragment` is heeded");

        let header = [&[0x60, 0, 0, 0, 0xff, 0xff, 17, 64][..], &[1; 32]].concat();
        let packet = [header, data.clone()].concat();
        let pieces = split(&packet, &Headers::of(&packet).unwrap());
        let identity = pieces[0][44..48].to_vec();
        let joined = join(&pieces, 48, |piece| {
            assert_eq!(usize::from(u16::from_be_bytes([piece[4], piece[5]])), piece.len() - 40);
            assert_eq!((piece[6], piece[40], &piece[44..48]), (FRAGMENT, 17, &identity[..]));
            let word = u16::from_be_bytes([piece[42], piece[43]]);
            (usize::from(word & 0xfff8), word & 1 != 0)
        });
        assert_eq!(joined, data);
        assert_ne!(identity, split(&packet, &Headers::of(&packet).unwrap())[0][44..48]);
    }
}
