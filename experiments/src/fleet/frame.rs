//! The frames: one JSON document per text message, each way.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::protocol::{Active, Refusal};

/// The versions that this release speaks: its own and the one before. In version 1 a lost connection ends its streams.
pub const VERSIONS: &[u32] = &[1, RESUMES];
/// From this version on streams go on over the next connection of the same host: see [`Session`].
pub const RESUMES: u32 = 2;
/// The longest frame, in bytes; a longer one ends the connection.
pub const LONGEST_FRAME: usize = 256 << 10;
/// The most text of a stream in one frame, in bytes: whatever stands in it, the frame is not too long (JSON takes six
/// bytes for one at most).
pub const LONGEST_TEXT: usize = 32 << 10;
/// How many streams of one host may be open at once.
pub const STREAMS: usize = 64;

/// What is said. Whoever may not say a frame, or says it too early, ends the connection with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Frame {
    /// Host, without a certificate, first: it wants to belong to the fleet. Answered by [`Frame::Joined`] or
    /// [`Frame::Refused`], and the connection ends.
    Join(Join),
    /// Controller: the host belongs to the fleet.
    Joined(Joined),
    /// Host, with its certificate, first. Who it is stands in the certificate, never in a frame.
    Hello(Hello),
    /// Controller: to [`Frame::Hello`]. From here on both speak this version.
    Welcome(Welcome),
    /// Controller: no, and why. The connection ends.
    Refused(Refusal),
    /// Host: what it is now, where that has changed.
    Inventory(Inventory),
    /// Controller: join this new stream to something on the host. Answered by [`Frame::Opened`] or [`Frame::Close`].
    Open {
        /// Its number, never used again in this session.
        stream: u64,
        /// To what.
        to: Kind,
    },
    /// Host: it is joined.
    Opened {
        /// Which.
        stream: u64,
    },
    /// Both: the next text of a stream.
    Data {
        /// Which.
        stream: u64,
        /// Counts up from 1 in each direction. Any other number than the next one ends the stream.
        seq: u64,
        /// The text: [`LONGEST_TEXT`] at most.
        text: String,
    },
    /// Both: everything up to this number has been handed on; there is room for as much again.
    Ack {
        /// Which.
        stream: u64,
        /// The number of a [`Frame::Data`].
        seq: u64,
    },
    /// Both: nothing more comes in this direction.
    End {
        /// Which.
        stream: u64,
        /// The number that the next text would have had.
        seq: u64,
    },
    /// Both: the stream is over in both directions.
    Close {
        /// Which.
        stream: u64,
        /// Why, where it is not an orderly end.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<Refusal>,
    },
    /// Both: are you there?
    Ping {
        /// Comes back.
        number: u64,
    },
    /// Both: to [`Frame::Ping`].
    Pong {
        /// The question's.
        number: u64,
    },
    /// Host: a new certificate for the same key, please.
    Renew,
    /// Controller: to [`Frame::Renew`].
    Renewed {
        /// The certificate, PEM.
        certificate: String,
    },
}

/// To what on the host a stream is joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The agent: lines of [`protocol`](crate::protocol).
    Agent,
    /// A prober that begins now and ends with the stream: lines of [`probe`](crate::probe).
    Prober {
        /// As which user; without it as nobody.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        user: Option<String>,
    },
}

/// See [`Frame::Join`].
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// The secret of the token, in hexadecimal digits.
    pub token: String,
    /// What the host wants to be called.
    pub name: String,
    /// Its public key: the uncompressed point on P-256 (SEC 1, 2.3.3), in hexadecimal digits.
    pub key: String,
    /// Its signature (ECDSA with SHA-256, ASN.1) of [`proof`](super::proof), in hexadecimal digits.
    pub proof: String,
    /// See [`Inventory::labels`].
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// See [`Inventory::zone`].
    #[serde(default)]
    pub zone: Option<String>,
    /// See [`Inventory::cell`].
    #[serde(default)]
    pub cell: Option<String>,
}

impl std::fmt::Debug for Join {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The token is a secret.
        f.debug_struct("Join").field("name", &self.name).field("key", &self.key).finish_non_exhaustive()
    }
}

/// See [`Frame::Joined`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// What the host is called from now on.
    pub name: String,
    /// Its certificate, PEM.
    pub certificate: String,
    /// The certificate of the fleet's authority, PEM.
    pub authority: String,
}

/// See [`Frame::Hello`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// The versions that it speaks.
    pub versions: Vec<u32>,
    /// What it is.
    pub inventory: Inventory,
    /// What it had on its last connection, where that was lost and something of it is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Session>,
}

/// Streams that outlive a connection. The host says which it still has, the controller which of these go on; each side
/// closes the others, and sends again what the other has not received.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Chosen by the controller. Another number than before: nothing goes on.
    pub number: String,
    /// The streams.
    #[serde(default)]
    pub streams: Vec<Held>,
}

/// How far one side of a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Which.
    pub stream: u64,
    /// The number of the last text that came; 0 where none did.
    pub received: u64,
    /// Whether its end came too.
    pub ended: bool,
}

/// See [`Frame::Welcome`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The version that both speak from now on.
    pub version: u32,
    /// What the controller calls the host: what stands in its certificate.
    pub host: String,
    /// A [`Frame::Ping`] is wanted so often, in milliseconds; who is silent for three times as long is gone.
    pub heartbeat_ms: u64,
    /// From version [`RESUMES`] on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Session>,
}

/// What a host is, by its own word.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Inventory {
    /// What its owner says of it.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Where it stands.
    #[serde(default)]
    pub zone: Option<String>,
    /// To which part of the whole it belongs.
    #[serde(default)]
    pub cell: Option<String>,
    /// The release of its kernel.
    pub kernel: String,
    /// The version of its agent.
    pub version: String,
    /// What works there, as `squall-agent preflight --format json` says; nothing (`null`) where that was said already.
    #[serde(default)]
    pub preflight: serde_json::Value,
    /// What is injected there.
    #[serde(default)]
    pub holds: Vec<Active>,
}

/// Why a message is no frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// See [`LONGEST_FRAME`].
    #[error("a frame of {0} bytes is too long")]
    TooLong(usize),
    /// It is not JSON, or no frame of this version.
    #[error("a frame is not understood: {0}")]
    NotUnderstood(#[from] serde_json::Error),
}

impl Frame {
    /// Understands a message.
    pub fn read(text: &str) -> Result<Self, FrameError> {
        if text.len() > LONGEST_FRAME {
            return Err(FrameError::TooLong(text.len()));
        }
        Ok(serde_json::from_str(text)?)
    }

    /// As a message.
    pub fn text(&self) -> String {
        // Every map in a frame has text for keys, so that this cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// The newest version that both speak.
pub fn agreed(theirs: &[u32]) -> Option<u32> {
    VERSIONS.iter().copied().filter(|version| theirs.contains(version)).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A conversation in each version, as it was recorded: what it says must be understood as long as the version is spoken.
    const RECORDED: [&str; 2] = [include_str!("recorded/v1.ndjson"), include_str!("recorded/v2.ndjson")];

    fn recorded() -> Vec<(String, serde_json::Value)> {
        let lines = RECORDED
            .iter()
            .flat_map(|recorded| recorded.lines())
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines.map(|line| (line["from"].as_str().unwrap().to_owned(), line["frame"].clone())).collect()
    }

    #[test]
    fn a_recorded_conversation_of_each_version_is_understood_and_said_the_same() {
        for (from, said) in recorded() {
            let frame =
                Frame::read(&said.to_string()).unwrap_or_else(|error| panic!("{from}: {said}: {error}"));
            let again: serde_json::Value = serde_json::from_str(&frame.text()).unwrap();
            assert_eq!(again, said, "{from}");
        }
    }

    #[test]
    fn every_kind_of_frame_stands_in_the_recorded_conversation() {
        let kind = |said: &serde_json::Value| match said {
            serde_json::Value::String(kind) => kind.clone(),
            other => other.as_object().unwrap().keys().next().unwrap().clone(),
        };
        let seen: std::collections::BTreeSet<String> =
            recorded().iter().map(|(_, said)| kind(said)).collect();
        // The names that serde knows stand in its message about one that it does not.
        let known = serde_json::from_str::<Frame>(r#"{"nonsense": 1}"#).unwrap_err().to_string();
        let known = known.split("expected one of ").nth(1).unwrap();
        for kind in known.split('`').skip(1).step_by(2) {
            assert!(seen.contains(kind), "`{kind}` is not in the recorded conversation: {seen:?}");
        }
    }

    #[test]
    fn what_a_later_release_adds_to_a_frame_is_passed_over_and_what_is_none_is_not() {
        assert_eq!(
            Frame::read(r#"{"ping": {"number": 7, "more": true}}"#).unwrap(),
            Frame::Ping { number: 7 }
        );
        for wrong in ["", "[]", "{", r#"{"ping": {}}"#, r#"{"sing": {"number": 1}}"#, "\"ping\"", "null"] {
            assert!(Frame::read(wrong).is_err(), "{wrong}");
        }
        let long = format!(r#"{{"ping": {{"number": 7, "more": "{}"}}}}"#, "a".repeat(LONGEST_FRAME));
        assert!(matches!(Frame::read(&long), Err(FrameError::TooLong(_))));
    }

    #[test]
    fn the_longest_text_fits_into_a_frame_whatever_it_is() {
        let text = "\u{1}".repeat(LONGEST_TEXT);
        let frame = Frame::Data { stream: u64::MAX, seq: u64::MAX, text };
        assert!(frame.text().len() <= LONGEST_FRAME, "{}", frame.text().len());
    }

    #[test]
    fn the_newest_common_version_is_spoken() {
        assert_eq!(agreed(&[1]), Some(1));
        assert_eq!(agreed(&[7, 1, 2]), Some(2));
        assert_eq!(agreed(&[0, 3]), None);
        assert_eq!(agreed(&[]), None);
    }

    #[test]
    fn a_token_is_not_told_to_a_log() {
        let join = Join {
            token: "secret".to_owned(),
            name: "a".to_owned(),
            key: "k".to_owned(),
            proof: "p".to_owned(),
            labels: BTreeMap::new(),
            zone: None,
            cell: None,
        };
        assert!(!format!("{:?}", Frame::Join(join)).contains("secret"));
    }
}
