//! What a client speaks, told by how it begins. What is not certainly HTTP is carried as it is, so that this is strict: a
//! request of HTTP is known by its whole first line (RFC 9112 section 3), and a protocol whose commands only look like its
//! methods, such as those of Redis, memcached or mail, is not taken for it.

/// How a client begins that speaks HTTP/2 (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How the last word of the first line of a request begins.
const VERSION: &[u8] = b"HTTP/1.";
/// No method in use is longer, in bytes (IANA's registry of methods: 17).
const LONGEST_METHOD: usize = 32;
/// The longest first line that is waited for, in bytes: servers refuse shorter ones.
const LONGEST_LINE: usize = 64 << 10;

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spoken {
    /// HTTP/1.1.
    First,
    /// HTTP/2.
    Second,
    /// Something else, such as TLS.
    Other,
    /// Nothing: who called has ended his side without a byte.
    Nothing,
}

/// What is spoken by whoever begins so; `None` where more has to be read to tell. More bytes never alter an answer.
pub(super) fn tell(read: &[u8]) -> Option<Spoken> {
    if read.starts_with(PREFACE) {
        return Some(Spoken::Second);
    }
    if PREFACE.starts_with(read) {
        return None;
    }
    // An empty line may come before (RFC 9112 section 2.2).
    let blank = read.iter().take_while(|byte| b"\r\n".contains(byte)).count();
    if blank > 4 {
        return Some(Spoken::Other);
    }
    match line(&read[blank..]) {
        None if read.len() >= LONGEST_LINE => Some(Spoken::Other),
        told => told,
    }
}

/// The same of a line: a method, a target and a version, with one space between.
fn line(read: &[u8]) -> Option<Spoken> {
    let whole = read;
    let method = read.iter().take_while(|byte| is_token(**byte)).count();
    let begins_well = read.first().is_none_or(u8::is_ascii_alphabetic);
    if !begins_well || method > LONGEST_METHOD || read.get(method).is_some_and(|byte| *byte != b' ') {
        return Some(Spoken::Other);
    }
    let read = read.get(method + 1..)?;
    let target = read.iter().take_while(|byte| byte.is_ascii_graphic() || **byte >= 0x80).count();
    if target == 0 && !read.is_empty() || read.get(target).is_some_and(|byte| *byte != b' ') {
        return Some(Spoken::Other);
    }
    let version = read.get(target + 1..)?;
    if !is_target(&whole[..method], &read[..target]) {
        return Some(Spoken::Other);
    }
    if version.len() < VERSION.len() {
        return (!VERSION.starts_with(version)).then_some(Spoken::Other);
    }
    Some(if version.starts_with(VERSION) { Spoken::First } else { Spoken::Other })
}

/// Whether a method can have such a target: a path, a whole address, all of the server, or for `CONNECT` a host (RFC 9112
/// section 3.2).
fn is_target(method: &[u8], target: &[u8]) -> bool {
    target.starts_with(b"/")
        || target == b"*"
        || method == b"CONNECT"
        || target.windows(3).any(|part| part == b"://")
}

/// A character of a token (RFC 9110 section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn requests_are_known_and_what_looks_like_them_is_not() {
        for first in [
            "GET / HTTP/1.1\r\n",
            "\r\nPOST /pay?card=1 HTTP/1.0\r\n",
            "OPTIONS * HTTP/1.1\r\n",
            "CONNECT db.internal:5432 HTTP/1.1\r\n",
            "GET http://shop/ HTTP/1.1\r\n",
            "M-SEARCH * HTTP/1.1\r\n",
        ] {
            assert_eq!(tell(first.as_bytes()), Some(Spoken::First), "{first}");
        }
        assert_eq!(tell(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x12"), Some(Spoken::Second));
        for other in [
            &b"PING\r\n"[..],
            b"*1\r\n$4\r\nPING\r\n",
            b"get key\r\n",
            b"set key 0 0 5\r\nhello\r\n",
            b"SET key HTTP\r\n",
            b"SET key HTTP/1.1\r\n",
            b"EHLO mail.test\r\n",
            b"USER me\r\n",
            b"SSH-2.0-OpenSSH_9.2p1 Debian\r\n",
            b"OPTIONS rtsp://cam/ RTSP/1.0\r\n",
            b"AMQP\0\0\x09\x01",
            b"\x16\x03\x01\x02\0",
            b"\0\0\0\x08\x04\xd2\x16\x2f",
            b"A\0\0\0\x01\0\0\0",
            b"GET  / HTTP/1.1\r\n",
            b"GET /\r\n",
            b"PRI * HTTP/2.0\r\n\r\nHi",
            b"\r\n\r\n\r\n\r\n",
        ] {
            assert_eq!(tell(other), Some(Spoken::Other), "{}", other.escape_ascii());
        }
    }

    #[test]
    fn what_never_says_is_not_waited_for_without_end() {
        let mut long = b"GET /".to_vec();
        long.resize(LONGEST_LINE, b'a');
        assert_eq!(tell(&long[..LONGEST_LINE - 1]), None);
        assert_eq!(tell(&long), Some(Spoken::Other));
    }

    proptest! {
        #[test]
        fn more_bytes_never_alter_an_answer(
            begins in prop_oneof![Just("GET / HTTP/1.1\r\n"), Just("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), Just("get a b\r\n"), Just("")],
            rest in proptest::collection::vec(any::<u8>(), 0..80),
            keep in 0usize..40,
        ) {
            let all: Vec<u8> = begins.bytes().take(keep).chain(rest).collect();
            let mut told = None;
            for end in 0..=all.len() {
                let now = tell(&all[..end]);
                if told.is_some() {
                    prop_assert_eq!(now, told);
                }
                told = now;
            }
        }
    }
}
