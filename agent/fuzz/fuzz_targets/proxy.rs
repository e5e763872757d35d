//! What comes to the dependency proxy from outside: toxics and matchers as its interface takes them, and certificates.
//! Never panics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use squall_agent::proxy::control::{Understood, WantedToxic};
use squall_agent::proxy::matcher::Matcher;
use squall_agent::proxy::tls;
use squall_agent::proxy::toxics::KINDS;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let (cert, key) = text.split_once("\n\n").unwrap_or((text, text));
        let _ = tls::Authority::new(cert, key);
    }
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else { return };
    let _ = Matcher::read(&value);
    let Value::Object(attributes) = value else { return };
    for kind in KINDS {
        let wanted = WantedToxic {
            kind: kind.name.to_owned(),
            attributes: attributes.clone(),
            ..WantedToxic::default()
        };
        let _ = wanted.read(Understood { requests: true, handshakes: true });
    }
});
