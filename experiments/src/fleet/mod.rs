//! What a controller and the hosts of its fleet say to each other: pure types and their limits.
//!
//! A host dials out, over TLS by which both prove who they are, and both send one [`Frame`] per text message of a
//! WebSocket (RFC 6455). What a conductor says to an agent or to a prober goes through unchanged, as *streams* of text.
//! Everything that must not depend on who reads when is here, so that both sides do the same: what is too long, what is
//! out of order ([`Incoming`]), and how much may be under way ([`Outgoing`]).
//!
//! | file | what it is for |
//! |---|---|
//! | [`frame`] | the frames, their limits and versions |
//! | [`stream`] | the two directions of one stream: order, windows, text |
//! | [`token`] | what a host needs to join |

pub mod frame;
pub mod stream;
pub mod token;

pub use frame::{Frame, FrameError, Held, Hello, Inventory, Join, Joined, Kind, Session, Welcome, agreed};
pub use stream::{Fault, Incoming, Outgoing};
pub use token::{JoinToken, TokenError};

/// The name in the controller's certificate by which agents know it, whatever its addresses are.
pub const CONTROLLER: &str = "controller.squall.internal";

/// What a host signs with its key to join: that it has the key, and means this name and this token.
pub fn proof(token: &JoinToken, name: &str, key: &str) -> Vec<u8> {
    format!("squall join 1\n{}\n{name}\n{key}\n", token.hash()).into_bytes()
}

/// Whether a host may be called this: it stands in certificates, tables and file names.
pub fn is_name(name: &str) -> bool {
    let fits = (1..=64).contains(&name.len());
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
    fits && name.bytes().all(allowed)
        && name.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
}

/// Bytes as lowercase hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of hexadecimal digits; `None` where they are none.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let pairs = digits.chunks(2).map(|pair| std::str::from_utf8(pair).ok());
    pairs.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_stand_anywhere() {
        for name in ["a", "web-1.example.org", "db_2", "9lives"] {
            assert!(is_name(name), "{name}");
        }
        let long = "a".repeat(65);
        for name in ["", ".", "../x", "-a", "A", "a b", "a/b", "a\n", "ä", long.as_str()] {
            assert!(!is_name(name), "{name:?}");
        }
    }

    #[test]
    fn hexadecimal_digits_come_back() {
        assert_eq!(unhex(&hex(&[0, 15, 255])), Some(vec![0, 15, 255]));
        for wrong in ["0", "0g", "+1", "é0"] {
            assert_eq!(unhex(wrong), None, "{wrong}");
        }
    }
}
