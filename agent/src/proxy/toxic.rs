//! A toxic of a proxy as its owner describes it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::ServerConfig;
use serde::ser::{Serialize, SerializeStruct, Serializer};

use super::link::Place;
use super::matcher::Matcher;
use super::toxics::values::Values;
use super::toxics::{Dice, Kind};

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
    /// Which connections and requests it concerns.
    pub concerns: Matcher,
    /// Only connections that turn out not to speak HTTP, where the proxy understands it.
    pub foreign: bool,
    /// To which share of those; 1 and more is all of them, 0 and less none.
    pub toxicity: f32,
    /// Its attributes.
    pub values: Values,
    /// How often it was updated: each update draws anew.
    pub version: u64,
    /// How often it did something to the traffic, counted by steps.
    pub hits: Arc<AtomicU64>,
    /// How many connections or requests its matcher meant so far, but for their number.
    pub seen: Arc<AtomicU64>,
    /// What the connections of a proxy share of it; new with each update.
    pub shared: Arc<AtomicU64>,
    /// What clients are shown in a handshake; new with each update.
    pub shown: Shown,
    /// After which time it ends by itself.
    pub expires: Option<Duration>,
}

/// A configuration of TLS that is made once for each dependency, with what it keeps. A clone is the same.
#[derive(Clone, Debug, Default)]
pub struct Shown(Arc<Mutex<Option<Made>>>);

/// For which dependency it was made last.
type Made = (String, Arc<ServerConfig>);

impl Shown {
    /// That for a dependency, which is made where it is the first, or another one than last.
    pub fn of<E>(
        &self,
        upstream: &str,
        make: impl FnOnce() -> Result<Arc<ServerConfig>, E>,
    ) -> Result<Arc<ServerConfig>, E> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, config)) = &*kept
            && of == upstream
        {
            return Ok(config.clone());
        }
        let config = make()?;
        *kept = Some((upstream.to_owned(), config.clone()));
        Ok(config)
    }
}

impl Toxic {
    /// With this name, of this kind, to this direction; with its defaults, and for all connections.
    pub fn new(name: String, kind: &'static Kind, stream: Stream) -> Self {
        Toxic {
            name,
            kind,
            stream,
            typed: stream.name().to_owned(),
            concerns: Matcher::default(),
            foreign: false,
            toxicity: 1.0,
            values: Values::of(kind),
            version: 0,
            hits: Arc::default(),
            seen: Arc::default(),
            shared: Arc::default(),
            shown: Shown::default(),
            expires: None,
        }
    }

    /// Its dice at a place.
    pub fn dice(&self, place: Place<'_>) -> Dice {
        let number = place.number.to_le_bytes();
        let version = self.version.to_le_bytes();
        let stream = place.stream.name().as_bytes();
        Dice::new(place.seed, &[place.proxy.as_bytes(), &number, stream, self.name.as_bytes(), &version])
    }

    /// Whether its matcher means a connection. Who is meant is counted, so ask once; a connection that was there before
    /// the toxic has no number, and is not meant where the number matters.
    pub fn means(&self, place: Place<'_>) -> bool {
        self.concerns.client(place.client) && (!self.concerns.counts() || (place.fresh && self.count()))
    }

    /// Counts one that is meant but for its number; whether the number is meant, too.
    pub fn count(&self) -> bool {
        self.concerns.number(self.seen.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Whether a draw against its toxicity chooses.
    pub fn draw(&self, dice: &mut Dice) -> bool {
        dice.share() < f64::from(self.toxicity)
    }
}

impl Serialize for Toxic {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let more = usize::from(!self.concerns.given().is_null()) + usize::from(self.expires.is_some());
        let mut object = serializer.serialize_struct("toxic", 5 + more)?;
        object.serialize_field("attributes", &self.values)?;
        object.serialize_field("name", &self.name)?;
        object.serialize_field("type", self.kind.name)?;
        object.serialize_field("stream", &self.typed)?;
        if self.toxicity.fract() == 0.0 && self.toxicity.abs() < 1e9 {
            object.serialize_field("toxicity", &(self.toxicity as i64))?;
        } else {
            object.serialize_field("toxicity", &self.toxicity)?;
        }
        // Ours: only where they were asked for, so that clients of the reference see what they know.
        if !self.concerns.given().is_null() {
            object.serialize_field("match", self.concerns.given())?;
        }
        if let Some(expires) = self.expires {
            object.serialize_field("expires_in", &(expires.as_millis() as u64))?;
        }
        object.end()
    }
}
