//! A proxy as it is kept, and as it is shown.

use std::sync::Arc;

use rustls::ServerConfig;
use serde::Serialize;

use super::wanted::Understood;
use super::{ControlError, Wanted};
use crate::proxy::dependency::{Counters, Dependency, Protocol};
use crate::proxy::tls::Origin;
use crate::proxy::toxic::{Stream, Toxic};

/// A proxy as it is now.
#[derive(Clone, Debug, Serialize)]
pub struct Shown {
    /// Its name.
    pub name: String,
    /// Where its clients connect: the real address while it is enabled.
    pub listen: String,
    /// Where the dependency is, as it was typed.
    pub upstream: String,
    /// Whether it listens.
    pub enabled: bool,
    /// What it understands of what flows; shown where that is more than bytes.
    #[serde(skip_serializing_if = "Protocol::is_tcp")]
    pub protocol: Protocol,
    /// Whether it speaks TLS with its clients.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tls: bool,
    /// Whether it speaks TLS with the dependency.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub upstream_tls: bool,
    /// Its toxics: those of the upstream direction first.
    pub toxics: Vec<Toxic>,
    /// What it has seen.
    #[serde(skip)]
    pub counters: Arc<Counters>,
}

/// A proxy as it is kept.
pub(super) struct Proxy {
    pub(super) name: String,
    pub(super) listen: String,
    pub(super) upstream: String,
    pub(super) protocol: Protocol,
    pub(super) tls: Option<Arc<ServerConfig>>,
    pub(super) origin: Option<Arc<Origin>>,
    pub(super) handshakes: bool,
    pub(super) running: Option<Arc<Dependency>>,
    pub(super) toxics: Vec<Arc<Toxic>>,
    pub(super) counters: Arc<Counters>,
}

impl Proxy {
    /// As it is wanted, not open yet.
    pub(super) fn read(wanted: &Wanted) -> Result<Self, ControlError> {
        let protocol = wanted.read_protocol()?;
        let tls = wanted.tls.as_ref().map(|tls| tls.read(&wanted.upstream)).transpose()?;
        let origin = wanted.upstream_tls.as_ref().map(Origin::new).transpose()?;
        let handshakes = tls.is_some() || wanted.handshakes;
        let understood = Understood { requests: !protocol.is_tcp(), handshakes };
        Ok(Proxy {
            name: wanted.name.clone(),
            listen: wanted.listen.clone(),
            upstream: wanted.upstream.clone(),
            protocol,
            tls,
            origin: origin.map(Arc::new),
            handshakes: wanted.handshakes,
            running: None,
            toxics: wanted.read_toxics(understood)?,
            counters: Arc::default(),
        })
    }

    /// Whether more than bytes is to be understood.
    pub(super) fn is_understood(&self) -> bool {
        !self.protocol.is_tcp() || self.tls.is_some() || self.origin.is_some() || self.handshakes
    }

    /// What it understands of what flows.
    pub(super) fn understood(&self) -> Understood {
        let handshakes = self.tls.is_some() || self.handshakes;
        Understood { requests: !self.protocol.is_tcp(), handshakes }
    }

    pub(super) fn ordered(&self) -> Vec<Toxic> {
        let of = |stream| self.toxics.iter().filter(move |toxic| toxic.stream == stream);
        of(Stream::Upstream).chain(of(Stream::Downstream)).map(|toxic| Toxic::clone(toxic)).collect()
    }

    pub(super) fn shown(&self) -> Shown {
        Shown {
            name: self.name.clone(),
            listen: self.listen.clone(),
            upstream: self.upstream.clone(),
            enabled: self.running.is_some(),
            protocol: self.protocol,
            tls: self.tls.is_some(),
            upstream_tls: self.origin.is_some(),
            toxics: self.ordered(),
            counters: self.counters.clone(),
        }
    }

    pub(super) fn toxic(&self, name: &str) -> Result<usize, ControlError> {
        self.toxics.iter().position(|toxic| toxic.name == name).ok_or(ControlError::NoToxic)
    }
}
