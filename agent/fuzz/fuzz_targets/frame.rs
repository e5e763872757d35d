//! What hosts and controllers say to each other, and what a controller has written down of a game day. Never panics, and what
//! is understood is understood again as it is said.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::{from_slice, to_vec};
use squall_experiments::fleet::frame::Frame;
use squall_experiments::gameday::Record;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(frame) = Frame::read(text)
    {
        let said = frame.text();
        let again = Frame::read(&said).map(|frame| frame.text());
        assert_eq!(again.ok(), Some(said));
    }
    if let Ok(record) = from_slice::<Record>(bytes) {
        let again = to_vec(&record).expect("what was read can be written");
        assert_eq!(from_slice::<Record>(&again).ok(), Some(record));
    }
});
