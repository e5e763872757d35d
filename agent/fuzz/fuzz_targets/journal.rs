//! The journal's reader: never panics, and what it takes it takes again as it writes it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use squall_agent::journal::{lines, pending};

fuzz_target!(|bytes: &[u8]| {
    let salvaged = lines::salvage(bytes);
    let Ok(entries) = lines::parse(bytes) else { return };
    assert!(salvaged.len() >= entries.len());
    let (text, _) = lines::Chain::default().lines(&entries).expect("what was read can be written");
    assert_eq!(lines::parse(text.as_bytes()).as_ref(), Ok(&entries));
    assert!(pending(&entries).len() <= entries.len());
});
