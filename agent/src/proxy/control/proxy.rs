//! A proxy as it is kept, and as it is shown.

use std::sync::Arc;

use serde::Serialize;

use super::{ControlError, Wanted};
use crate::proxy::dependency::{Counters, Dependency, Protocol};
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
    pub(super) running: Option<Arc<Dependency>>,
    pub(super) toxics: Vec<Arc<Toxic>>,
    pub(super) counters: Arc<Counters>,
}

impl Proxy {
    pub(super) fn new(wanted: &Wanted, protocol: Protocol, toxics: Vec<Arc<Toxic>>) -> Self {
        Proxy {
            name: wanted.name.clone(),
            listen: wanted.listen.clone(),
            upstream: wanted.upstream.clone(),
            protocol,
            running: None,
            toxics,
            counters: Arc::default(),
        }
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
            toxics: self.ordered(),
            counters: self.counters.clone(),
        }
    }

    pub(super) fn toxic(&self, name: &str) -> Result<usize, ControlError> {
        self.toxics.iter().position(|toxic| toxic.name == name).ok_or(ControlError::NoToxic)
    }
}
