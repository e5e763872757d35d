//! A toxic of a proxy as its owner describes it.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use serde::ser::{Serialize, SerializeStruct, Serializer};

use super::toxics::Kind;
use super::toxics::values::Values;

/// A direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// From the client to the dependency.
    Upstream,
    /// From the dependency to the client.
    Downstream,
}

impl Stream {
    /// Read without regard to case.
    pub fn named(name: &str) -> Option<Self> {
        [Stream::Upstream, Stream::Downstream]
            .into_iter()
            .find(|stream| stream.name().eq_ignore_ascii_case(name))
    }

    /// In small letters.
    pub fn name(self) -> &'static str {
        match self {
            Stream::Upstream => "upstream",
            Stream::Downstream => "downstream",
        }
    }
}

/// A toxic of a proxy. Never altered: an update makes a new one.
#[derive(Clone, Debug)]
pub struct Toxic {
    /// Unique among the toxics of the proxy.
    pub name: String,
    /// What it does.
    pub kind: &'static Kind,
    /// To which direction.
    pub stream: Stream,
    /// The direction as it was typed.
    pub typed: String,
    /// To which share of connections; 1 and more is all of them, 0 and less none.
    pub toxicity: f32,
    /// Its attributes.
    pub values: Values,
    /// How often it was updated: each update draws anew.
    pub version: u64,
    /// How often it did something to the traffic, counted by steps.
    pub hits: Arc<AtomicU64>,
}

impl Serialize for Toxic {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("toxic", 5)?;
        object.serialize_field("attributes", &self.values)?;
        object.serialize_field("name", &self.name)?;
        object.serialize_field("type", self.kind.name)?;
        object.serialize_field("stream", &self.typed)?;
        if self.toxicity.fract() == 0.0 && self.toxicity.abs() < 1e9 {
            object.serialize_field("toxicity", &(self.toxicity as i64))?;
        } else {
            object.serialize_field("toxicity", &self.toxicity)?;
        }
        object.end()
    }
}
