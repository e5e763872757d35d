//! What the agent hears: from conductors, and between its two processes. Never panics, and what is understood is
//! understood again as it is said.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::{from_slice, to_vec};
use squall_agent::records::{Answer, Ask};
use squall_experiments::protocol::{Call, Message};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(call) = from_slice::<Call>(bytes) {
        let again = to_vec(&call).expect("what was read can be written");
        assert_eq!(from_slice::<Call>(&again).ok(), Some(call));
    }
    if let Ok(message) = from_slice::<Message>(bytes) {
        let again = to_vec(&message).expect("what was read can be written");
        let understood = from_slice::<Message>(&again).ok();
        // What proxies saw may hold any number, and one with a fraction may lose its last digit on the way.
        if matches!(message, Message::Saw { .. }) {
            assert!(understood.is_some());
        } else {
            assert_eq!(understood, Some(message));
        }
    }
    let _ = from_slice::<Ask>(bytes);
    let _ = from_slice::<Answer>(bytes);
});
