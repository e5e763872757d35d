//! The toxics of a proxy: made, altered, removed.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use serde_json::{Map, Value};

use super::wanted::sound;
use super::{Control, ControlError, WantedToxic};
use crate::proxy::link::Change;
use crate::proxy::toxic::{Shown, Toxic};

impl Control {
    /// The toxics of a proxy: those of the upstream direction first.
    pub fn toxics(&self, proxy: &str) -> Result<Vec<Toxic>, ControlError> {
        Ok(self.get(proxy)?.toxics)
    }

    /// One toxic of a proxy.
    pub fn toxic(&self, proxy: &str, name: &str) -> Result<Toxic, ControlError> {
        let proxies = self.lock();
        let proxy = proxies.get(proxy).ok_or(ControlError::NoProxy)?;
        Ok(Toxic::clone(&proxy.toxics[proxy.toxic(name)?]))
    }

    /// Adds a toxic, behind the others of its direction.
    pub fn add_toxic(&self, proxy: &str, wanted: &WantedToxic) -> Result<Toxic, ControlError> {
        let mut proxies = self.lock();
        let proxy = proxies.get_mut(proxy).ok_or(ControlError::NoProxy)?;
        let toxic = Arc::new(wanted.read_beside(&proxy.toxics, proxy.understood())?);
        proxy.toxics.push(toxic.clone());
        self.change(proxy, Change::Add(toxic.clone()));
        self.expiry.begin(&proxy.name, &toxic);
        Ok(Toxic::clone(&toxic))
    }

    /// Alters the attributes that are named, and the toxicity where one is given.
    pub fn update_toxic(
        &self,
        proxy: &str,
        name: &str,
        attributes: &Map<String, Value>,
        toxicity: Option<f32>,
    ) -> Result<Toxic, ControlError> {
        let mut proxies = self.lock();
        let proxy = proxies.get_mut(proxy).ok_or(ControlError::NoProxy)?;
        let at = proxy.toxic(name)?;
        let old = &proxy.toxics[at];
        let values = old.values.with(attributes)?;
        sound(old.kind, &values)?;
        let toxic = Arc::new(Toxic {
            values,
            toxicity: toxicity.unwrap_or(old.toxicity),
            version: old.version + 1,
            shared: Arc::default(),
            shown: Shown::default(),
            ..Toxic::clone(old)
        });
        proxy.toxics[at] = toxic.clone();
        self.change(proxy, Change::Update(toxic.clone()));
        Ok(Toxic::clone(&toxic))
    }

    /// Removes a toxic. What it held goes on.
    pub fn remove_toxic(&self, proxy: &str, name: &str) -> Result<(), ControlError> {
        let mut proxies = self.lock();
        let proxy = proxies.get_mut(proxy).ok_or(ControlError::NoProxy)?;
        let at = proxy.toxic(name)?;
        proxy.toxics.remove(at);
        self.change(proxy, Change::Remove(name.to_owned()));
        Ok(())
    }

    /// Removes a toxic if it is still this one, updated or not: another of the same name stays.
    pub(super) fn expire(&self, proxy: &str, hits: &Arc<AtomicU64>) {
        let mut proxies = self.lock();
        let Some(proxy) = proxies.get_mut(proxy) else { return };
        let Some(at) = proxy.toxics.iter().position(|other| Arc::ptr_eq(&other.hits, hits)) else {
            return;
        };
        let expired = proxy.toxics.remove(at);
        self.change(proxy, Change::Remove(expired.name.clone()));
    }
}
