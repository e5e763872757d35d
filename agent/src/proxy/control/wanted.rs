//! What is asked for: proxies and toxics before they are made.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue};
use rustls::ServerConfig;
use serde_json::{Map, Value};

use super::ControlError;
use crate::proxy::dependency::Protocol;
use crate::proxy::matcher::Matcher;
use crate::proxy::tls::{self, Authority, BadTls, Issue, WantedOrigin};
use crate::proxy::toxic::{Stream, Toxic};
use crate::proxy::toxics::values::Values;
use crate::proxy::toxics::{Handshake, Kind, Message, Work};

/// A proxy that is asked for.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Its name, unique.
    pub name: String,
    /// Where its clients connect; empty is any free port.
    pub listen: String,
    /// Where the dependency is.
    pub upstream: String,
    /// Whether it listens.
    pub enabled: bool,
    /// What it understands of what flows: `tcp` or `http`; empty is `tcp`.
    pub protocol: String,
    /// The certificate with which it speaks TLS with its clients.
    pub tls: Option<WantedTls>,
    /// How it speaks TLS with the dependency.
    pub upstream_tls: Option<WantedOrigin>,
    /// Client and dependency speak TLS with each other: it passes on as it is, but for handshakes that toxics concern.
    pub handshakes: bool,
    /// Its toxics, in their order.
    pub toxics: Vec<WantedToxic>,
}

/// A certificate that is asked for, both parts PEM.
#[derive(Clone, Default)]
pub struct WantedTls {
    /// The certificate, and those that lead to one that clients trust.
    pub cert: String,
    /// Its key.
    pub key: String,
    /// It is the certificate of an authority, which issues one for the name that is asked for.
    pub authority: bool,
}

impl fmt::Debug for WantedTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WantedTls").field("cert", &self.cert).finish_non_exhaustive()
    }
}

impl WantedTls {
    /// Who asks for no name is shown one of the dependency's address, where they are issued.
    pub(super) fn read(&self, upstream: &str) -> Result<Arc<ServerConfig>, BadTls> {
        if !self.authority {
            return tls::server(&self.cert, &self.key);
        }
        let name = tls::host(upstream).to_owned();
        tls::issuing(&self.cert, &self.key, Issue { name, ..Issue::default() })
    }
}

/// A toxic that is asked for.
#[derive(Clone, Debug, Default)]
pub struct WantedToxic {
    /// Its name; empty is kind and direction.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// Its direction; empty is downstream.
    pub stream: String,
    /// Its share of connections; all of them by default.
    pub toxicity: Option<f32>,
    /// Its attributes.
    pub attributes: Map<String, Value>,
    /// Which connections and requests it concerns, as [`Matcher::read`] takes it.
    pub concerns: Value,
    /// Only connections that turn out not to speak HTTP.
    pub foreign: bool,
    /// After which time it ends by itself.
    pub expires: Option<Duration>,
}

/// What is to be different about a proxy.
#[derive(Clone, Debug, Default)]
pub struct Difference {
    /// Another address for clients.
    pub listen: Option<String>,
    /// Another address of the dependency.
    pub upstream: Option<String>,
    /// On or off.
    pub enabled: Option<bool>,
}

/// What a proxy understands of what flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Understood {
    /// Requests.
    pub requests: bool,
    /// Handshakes of TLS.
    pub handshakes: bool,
}

impl Wanted {
    /// What a proxy must have.
    pub(super) fn require(&self) -> Result<(), ControlError> {
        for (field, value) in [("name", &self.name), ("upstream", &self.upstream)] {
            if value.is_empty() {
                return Err(ControlError::Missing(field.to_owned()));
            }
        }
        Ok(())
    }

    /// What it is to understand.
    pub(super) fn read_protocol(&self) -> Result<Protocol, ControlError> {
        match self.protocol.as_str() {
            "" | "tcp" => Ok(Protocol::Tcp),
            "http" => Ok(Protocol::Http),
            other => Err(ControlError::NoProtocol(other.to_owned())),
        }
    }

    /// Its toxics, all of them or none.
    pub(super) fn read_toxics(&self, understood: Understood) -> Result<Vec<Arc<Toxic>>, ControlError> {
        let mut toxics = Vec::new();
        for wanted in &self.toxics {
            let toxic = wanted.read_beside(&toxics, understood)?;
            toxics.push(Arc::new(toxic));
        }
        Ok(toxics)
    }
}

impl WantedToxic {
    /// As the only toxic of a proxy.
    pub fn read(&self, understood: Understood) -> Result<Toxic, ControlError> {
        self.read_beside(&[], understood)
    }

    /// As a toxic of a proxy that has these already.
    pub(super) fn read_beside(
        &self,
        present: &[Arc<Toxic>],
        understood: Understood,
    ) -> Result<Toxic, ControlError> {
        let typed = if self.stream.is_empty() { "downstream" } else { &self.stream };
        let stream = Stream::named(typed).ok_or(ControlError::Stream)?;
        let kind = Kind::named(&self.kind).ok_or(ControlError::Kind)?;
        let name = if self.name.is_empty() { format!("{}_{typed}", kind.name) } else { self.name.clone() };
        if present.iter().any(|toxic| toxic.name == name) {
            return Err(ControlError::ToxicExists);
        }
        let values = Values::of(kind).with(&self.attributes)?;
        sound(kind, &values)?;
        let concerns = Matcher::read(&self.concerns)?;
        let messages = matches!(kind.work, Work::Message(_));
        if !understood.requests && (messages || concerns.names_requests()) {
            return Err(ControlError::Protocol(if messages { kind.name } else { "this matcher" }));
        }
        if concerns.names_requests() && !messages {
            return Err(ControlError::Requests);
        }
        if matches!(kind.work, Work::Handshake(_)) && !understood.handshakes {
            return Err(ControlError::NoTls(kind.name));
        }
        Ok(Toxic {
            typed: typed.to_owned(),
            toxicity: self.toxicity.unwrap_or(1.0),
            values,
            concerns,
            foreign: self.foreign,
            expires: self.expires,
            ..Toxic::new(name, kind, stream)
        })
    }
}

/// Whether attributes mean something beyond their types.
pub(super) fn sound(kind: &Kind, values: &Values) -> Result<(), ControlError> {
    match kind.work {
        Work::Handshake(Handshake::Certificate) => drop(tls::server(values.text(0), values.text(1))?),
        Work::Handshake(Handshake::Issued) => drop(Authority::new(values.text(0), values.text(1))?),
        Work::Message(Message::Header) => {
            let bad = |text: &str, what| ControlError::Header(text.escape_debug().to_string(), what);
            let (name, value) = (values.text(0), values.text(1));
            HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad(name, "name"))?;
            HeaderValue::from_str(value).map_err(|_| bad(value, "value"))?;
        }
        _ => {}
    }
    Ok(())
}
