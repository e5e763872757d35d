//! The end of a controller's audit log, as a report publishes it.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The end of the audit log: an entry, which is bound to all before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Head {
    /// How many entries there are.
    pub seq: u64,
    /// The hash of the last.
    pub hash: String,
}

/// A text that is no head.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no head of an audit log: it is `NUMBER:HASH`, or the hash alone, of 64 digits from 0 to 9 and a to f"
)]
pub struct NoHead(String);

/// `412:9f0c…`: how it is written down, and how it is given to `squall audit verify --head`.
impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seq, self.hash)
    }
}

impl FromStr for Head {
    type Err = NoHead;

    fn from_str(text: &str) -> Result<Head, NoHead> {
        let (seq, hash) = text.split_once(':').ok_or_else(|| NoHead(text.to_owned()))?;
        let digits = !seq.is_empty() && seq.bytes().all(|digit| digit.is_ascii_digit());
        let seq = seq.parse().ok().filter(|_| digits && is_hash(hash));
        let seq = seq.ok_or_else(|| NoHead(text.to_owned()))?;
        Ok(Head { seq, hash: hash.to_owned() })
    }
}

/// A head as somebody gives it, who may have the hash alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The number of the entry, where it is known.
    pub seq: Option<u64>,
    /// Its hash.
    pub hash: String,
}

impl From<Head> for Published {
    fn from(head: Head) -> Published {
        Published { seq: Some(head.seq), hash: head.hash }
    }
}

impl FromStr for Published {
    type Err = NoHead;

    fn from_str(text: &str) -> Result<Published, NoHead> {
        match is_hash(text) {
            true => Ok(Published { seq: None, hash: text.to_owned() }),
            false => text.parse::<Head>().map(Published::from),
        }
    }
}

fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_as_it_is_written_and_nothing_else_is_one() {
        let head = Head { seq: 412, hash: "0af9".repeat(16) };
        assert_eq!(head.to_string().parse(), Ok(head.clone()));
        assert_eq!(head.to_string().parse(), Ok(Published::from(head.clone())));
        assert_eq!(head.hash.parse(), Ok(Published { seq: None, hash: head.hash.clone() }));
        let short = &head.hash[1..];
        for bad in [
            "",
            ":",
            "7",
            "7:",
            &format!("7:{short}"),
            &format!("+7:{}", head.hash),
            &format!(":{}", head.hash),
        ] {
            assert_eq!(bad.parse::<Published>(), Err(NoHead(bad.to_owned())));
        }
        assert!(head.hash.to_uppercase().parse::<Published>().is_err(), "hashes are written in one way");
    }
}
