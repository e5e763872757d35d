use super::*;

/// A place for one journal, removed with it.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("squall-journal-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        Place(directory)
    }

    fn journal(&self) -> PathBuf {
        self.0.join("journal")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn run() -> RunId {
    RunId("r1".into())
}

/// A journal with two undos that are pending, and its bytes.
fn written(name: &str) -> (Place, Vec<Entry>, Vec<u8>) {
    let place = Place::new(name);
    let mut journal = Journal::create(&place.journal()).unwrap();
    journal.append(&[Entry::Begin { run: run(), title: "drängend".into() }]).unwrap();
    assert_eq!(journal.record(&run(), &Undo::Table).unwrap(), 1);
    assert_eq!(journal.record(&run(), &Undo::Mark(4)).unwrap(), 2);
    assert_eq!(journal.record(&run(), &Undo::Rules("x}".into())).unwrap(), 3);
    journal.append(&[Entry::Undone { number: 2 }]).unwrap();
    let entries = read(&place.journal()).unwrap();
    assert_eq!(entries.len(), 6);
    let bytes = std::fs::read(place.journal()).unwrap();
    (place, entries, bytes)
}

/// The ends of the lines.
fn ends(bytes: &[u8]) -> Vec<usize> {
    bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at).collect()
}

fn damaged(bytes: &[u8]) -> Flaw {
    lines::parse(bytes).expect_err("it is damaged")
}

#[test]
fn what_is_not_undone_is_pending_with_packets_first() {
    let (_place, entries, _) = written("pending");
    let numbers: Vec<u64> = pending(&entries).iter().map(|pending| pending.number).collect();
    assert_eq!(numbers, [3, 1]);
}

#[test]
fn what_acts_in_another_namespace_is_ordered_as_at_home() {
    let netns = crate::host::netns::Id { inode: 7, cookie: 9 };
    let within = |undo| Undo::Within { netns, undo: Box::new(undo) };
    let undos = [Undo::Table, within(Undo::Table), within(Undo::Rules("a".into())), Undo::Rules("b".into())];
    let number = |(number, undo): (usize, &Undo)| Entry::Undo {
        number: number as u64,
        run: run(),
        undo: undo.clone(),
    };
    let mut entries =
        vec![Entry::Header { version: VERSION, boot: "b".into(), namespace: Id { inode: 1, cookie: 1 } }];
    entries.extend(undos.iter().enumerate().map(number));
    let (text, _) = Chain::default().lines(&entries).unwrap();
    let read = lines::parse(text.as_bytes()).unwrap();
    let order: Vec<u64> = pending(&read).iter().map(|pending| pending.number).collect();
    assert_eq!(order, [3, 2, 1, 0]);
}

#[test]
fn a_cut_at_every_byte_loses_the_torn_line_and_nothing_else() {
    let (_place, entries, bytes) = written("cut");
    let ends = ends(&bytes);
    for cut in 0..bytes.len() {
        // A line that lacks only its end is whole.
        let whole = ends.iter().filter(|end| **end <= cut).count();
        match lines::parse(&bytes[..cut]) {
            Ok(read) => assert_eq!(read, entries[..whole], "cut at {cut}"),
            Err(flaw) => assert!(whole == 0 && flaw.line == 1, "cut at {cut}: {flaw:?}"),
        }
        assert_eq!(lines::parse(&bytes[..cut]).is_err(), whole == 0, "cut at {cut}");
    }
}

#[test]
fn a_bit_flipped_anywhere_is_never_read_as_less_to_do() {
    let (_place, entries, bytes) = written("flip");
    let ends = ends(&bytes);
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            let line = 1 + ends.iter().filter(|end| **end < at).count();
            let flaw = lines::parse(&damaged).expect_err("a flipped bit is damage");
            assert_eq!(flaw.line, line, "bit {bit} flipped at {at}");
            // What is whole elsewhere can still be undone.
            let lost = if ends.contains(&at) { 2 } else { 1 };
            let salvaged = lines::salvage(&damaged);
            assert!(salvaged.len() + lost >= entries.len(), "bit {bit} flipped at {at}");
            assert!(salvaged.iter().all(|entry| entries.contains(entry)));
        }
    }
}

#[test]
fn lines_that_are_missing_doubled_or_moved_are_damage() {
    let (_place, entries, bytes) = written("lines");
    let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    for at in 0..lines.len() {
        let mut doubled = lines.clone();
        doubled.insert(at, lines[at]);
        assert_eq!(damaged(&doubled.concat()).line, at + 2, "line {at} doubled");
        if at + 1 < lines.len() {
            let mut missing = lines.clone();
            missing.remove(at);
            assert_eq!(damaged(&missing.concat()).line, at + 1, "line {at} missing");
            let mut swapped = lines.clone();
            swapped.swap(at, at + 1);
            assert_eq!(damaged(&swapped.concat()).line, at + 1, "line {at} swapped");
        }
    }
    assert_eq!(lines::parse(&bytes).unwrap(), entries);
}

#[test]
fn what_stands_behind_the_last_line_is_damage_unless_it_begins_a_line() {
    let (_place, entries, bytes) = written("tail");
    let with = |tail: &[u8]| [&bytes, tail].concat();
    let mut line = bytes[ends(&bytes)[3] + 1..ends(&bytes)[4]].to_vec();
    for torn in [b"0".as_slice(), b"0123456789abcdef ", b"0123456789abcdef 0123456789abcdef {\"undo\":\xc3"] {
        assert_eq!(lines::parse(&with(torn)).unwrap(), entries, "{torn:?}");
    }
    let long = b"0123456789abcdef0";
    for odd in [b"\0".as_slice(), b"\0\0\0\0", b"hello", b"\n", b"0123 ", long, b"\xff\xfe", b"0\x07"] {
        assert_eq!(damaged(&with(odd)).line, entries.len() + 1, "{odd:?}");
    }
    line.push(b'x');
    assert_eq!(damaged(&with(&line)).line, entries.len() + 1, "a whole line has lost its end");
}

#[test]
fn an_empty_journal_one_of_zeros_and_one_without_header_are_damage() {
    let (place, entries, bytes) = written("head");
    assert_eq!(damaged(b"").line, 1);
    assert_eq!(damaged(&[0; 4096]).line, 1);
    assert_eq!(damaged(b"\n").line, 1);
    let (text, _) = Chain::default().lines(&entries[1..]).unwrap();
    assert!(damaged(text.as_bytes()).what.contains("header"));
    std::fs::write(place.journal(), &bytes[..9]).unwrap();
    let error = read(&place.journal()).unwrap_err().to_string();
    assert!(error.contains(&place.journal().display().to_string()) && error.contains("line 1"), "{error}");
    std::fs::remove_file(place.journal()).unwrap();
    assert_eq!(read(&place.journal()).unwrap(), [], "a missing one is compared with the host, not here");
}

#[test]
fn other_versions_are_named_whatever_follows() {
    let header =
        Entry::Header { version: VERSION + 1, boot: "b".into(), namespace: Id { inode: 1, cookie: 1 } };
    let (mut text, _) = Chain::default().lines(&[header]).unwrap();
    text.push_str("something new\n");
    let expected = format!("its version is {}", VERSION + 1);
    assert!(damaged(text.as_bytes()).what.contains(&expected));
    let json = r#"{"header":{"version":1,"boot":"b","namespace":4026531840}}"#;
    let first = format!("{} {json}\n", &blake3::hash(json.as_bytes()).to_hex()[..16]);
    assert!(damaged(first.as_bytes()).what.contains("its version is 1,"));
}

#[test]
fn a_journal_is_whole_or_not_there_and_is_never_begun_twice() {
    let (place, entries, bytes) = written("create");
    assert_eq!(Journal::create(&place.journal()).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(std::fs::read(place.journal()).unwrap(), bytes);
    assert!(matches!(&entries[0], Entry::Header { boot, .. } if *boot == boot_id().unwrap()));
    std::fs::remove_file(place.journal()).unwrap();
    // What a crash before the renaming leaves.
    std::fs::write(place.0.join("journal.new"), &bytes[..20]).unwrap();
    Journal::create(&place.journal()).unwrap();
    assert_eq!(read(&place.journal()).unwrap(), entries[..1]);
}

/// A disk that takes so many bytes and no more.
#[derive(Debug)]
struct Full<'a> {
    written: &'a std::cell::RefCell<Vec<u8>>,
    room: usize,
}

impl Disk for Full<'_> {
    fn reserve(&mut self, _bytes: usize) -> io::Result<()> {
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let fits = self.room.saturating_sub(self.written.borrow().len()).min(bytes.len());
        self.written.borrow_mut().extend(&bytes[..fits]);
        if fits == bytes.len() { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.written.borrow_mut().truncate(length as usize);
        Ok(())
    }
}

#[test]
fn an_entry_that_found_no_room_leaves_nothing_that_hides_the_next_one() {
    let (_place, entries, bytes) = written("full");
    let written = std::cell::RefCell::new(Vec::new());
    let disk = Full { written: &written, room: bytes.len() - 40 };
    let mut journal = Journal::begin(disk, entries[0].clone()).unwrap();
    for entry in &entries[1..5] {
        journal.append(std::slice::from_ref(entry)).unwrap();
    }
    let long = Entry::Undo { number: 9, run: run(), undo: Undo::Rules("x".repeat(200)) };
    assert!(journal.append(&[long]).is_err());
    assert_eq!(lines::parse(&written.borrow()).unwrap(), entries[..5]);
    journal.disk.room = usize::MAX;
    journal.append(&entries[5..]).unwrap();
    assert_eq!(lines::parse(&written.borrow()).unwrap(), entries);
}
