//! What whoever asks for a name sends to the proxy of an outage. Never panics, and what is meant can be answered.
#![no_main]

use libfuzzer_sys::fuzz_target;
use squall_agent::outage::question::{about, answer, normal};
use squall_experiments::ailment::Answered;

fuzz_target!(|bytes: &[u8]| {
    // The beginning names whom it is about: the rest is a message.
    let (name, message) = bytes.split_at(bytes.len().min(8));
    let name = normal(&String::from_utf8_lossy(name));
    let names = [name, "a".to_owned(), String::new()];
    let Some(question) = about(message, &names) else { return };
    for answered in [
        Answered::Nxdomain,
        Answered::Servfail,
        Answered::Timeout,
        Answered::Wrong([10, 9, 9, 9].into()),
        Answered::Wrong([0u16; 8].into()),
    ] {
        let said = answer(&question, &answered);
        assert_eq!(said.is_none(), answered == Answered::Timeout);
    }
});
