//! The journal's reader: never panics, and what it takes it takes again as it writes it. Each line bears the hash of all
//! before it, which no guess finds: so entries are also put into a journal first, and that is then cut off anywhere.
#![no_main]

use libfuzzer_sys::fuzz_target;
use squall_agent::journal::{Entry, lines, pending};

/// What was read can be written, and read again.
fn again(entries: &[Entry]) -> Option<Vec<u8>> {
    let (text, _) = lines::Chain::default().lines(entries).ok()?;
    Some(text.into_bytes())
}

fuzz_target!(|bytes: &[u8]| {
    let salvaged = lines::salvage(bytes);
    if let Ok(entries) = lines::parse(bytes) {
        assert!(salvaged.len() >= entries.len());
        let text = again(&entries).expect("what was read can be written");
        assert_eq!(lines::parse(&text).as_ref(), Ok(&entries));
        assert!(pending(&entries).len() <= entries.len());
    }
    let entries =
        bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Entry>(line).ok());
    let entries: Vec<Entry> = entries.collect();
    let Some(mut text) = again(&entries) else { return };
    let _ = pending(&entries);
    text.truncate(text.len().saturating_sub(bytes.len() % 64));
    if let Ok(read) = lines::parse(&text) {
        assert!(entries.starts_with(&read));
    }
    assert!(entries.starts_with(&lines::salvage(&text)));
});
