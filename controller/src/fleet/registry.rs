//! Who may join and who belongs to the fleet.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};

use squall_experiments::protocol::Refusal;

/// What a registry answers, later.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Refusal>> + Send + 'a>>;

/// A host that joins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// What it is called.
    pub name: String,
    /// Its public key, in hexadecimal digits.
    pub key: String,
    /// The serial number of the certificate that it gets.
    pub serial: String,
    /// What its owner says of it.
    pub labels: BTreeMap<String, String>,
    /// Where it stands.
    pub zone: Option<String>,
    /// To which part of the whole it belongs.
    pub cell: Option<String>,
}

/// Keeps join tokens and hosts. What it has answered must survive the controller's death.
pub trait Registry: Send + Sync + 'static {
    /// Uses up one use of a token and adds a host, both or neither. `token` is the hash of
    /// [`JoinToken::hash`](squall_experiments::fleet::JoinToken::hash).
    ///
    /// A host that is there with the same key, and not revoked, is given the new serial number and needs no use of a token:
    /// the answer to its first question may have been lost. A name that another key has is refused.
    fn enrol<'a>(&'a self, token: &'a str, host: Member) -> Answer<'a, ()>;

    /// Whether a certificate with this serial number speaks for this host now; from its first use on the one before does
    /// not any more.
    fn admit<'a>(&'a self, host: &'a str, serial: &'a str) -> Answer<'a, ()>;

    /// A host gets another certificate, and asks with the one of serial `by`; those before are good until a later one has been used.
    fn renew<'a>(&'a self, host: &'a str, by: &'a str, serial: &'a str) -> Answer<'a, ()>;
}

/// That a host may not come in any more.
pub fn revoked(host: &str) -> Refusal {
    Refusal::new(
        format!("`{host}` was revoked, or never joined this fleet"),
        "join again with a new token, if its administrator wants that",
    )
}

/// That a token lets nobody in (any more). It does not say why: who has no token is told nothing about those there are.
pub fn no_such_token() -> Refusal {
    Refusal::new(
        "this join token is unknown, used up, expired or revoked",
        "make another on the controller: each one is good for one host, and for a short time",
    )
}

/// That the name belongs to another key.
pub fn taken(name: &str) -> Refusal {
    Refusal::new(
        format!("another host of this fleet is called `{name}`"),
        "choose another name with `--name`, or revoke the other host first",
    )
}

/// A registry in memory: for a fleet that begins anew with each start of its controller, and for tests.
#[derive(Debug, Default)]
pub struct Roll(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// Hashes of tokens, and how many uses are left.
    tokens: BTreeMap<String, u32>,
    hosts: BTreeMap<String, Listed>,
}

#[derive(Debug)]
struct Listed {
    key: String,
    serials: Vec<String>,
    revoked: bool,
}

impl Roll {
    /// Knows a token by its hash, for so many uses.
    pub fn allow(&self, token: &str, uses: u32) {
        self.kept().tokens.insert(token.to_owned(), uses);
    }

    /// A host may not come in any more. Whoever revokes it also [cuts it off](super::Hub::cut_off).
    pub fn revoke(&self, host: &str) {
        if let Some(listed) = self.kept().hosts.get_mut(host) {
            listed.revoked = true;
        }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enrolled(&self, token: &str, host: Member) -> Result<(), Refusal> {
        let mut kept = self.kept();
        if let Some(listed) = kept.hosts.get_mut(&host.name)
            && !listed.revoked
        {
            if listed.key != host.key {
                return Err(taken(&host.name));
            }
            listed.serials.push(host.serial);
            return Ok(());
        }
        let left = kept.tokens.get_mut(token).filter(|left| **left > 0).ok_or_else(no_such_token)?;
        *left -= 1;
        let listed = Listed { key: host.key, serials: vec![host.serial], revoked: false };
        kept.hosts.insert(host.name, listed);
        Ok(())
    }

    fn with<T>(&self, host: &str, then: impl FnOnce(&mut Listed) -> Option<T>) -> Result<T, Refusal> {
        let mut kept = self.kept();
        let listed = kept.hosts.get_mut(host).filter(|listed| !listed.revoked);
        listed.and_then(then).ok_or_else(|| revoked(host))
    }
}

impl Registry for Roll {
    fn enrol<'a>(&'a self, token: &'a str, host: Member) -> Answer<'a, ()> {
        Box::pin(std::future::ready(self.enrolled(token, host)))
    }

    fn admit<'a>(&'a self, host: &'a str, serial: &'a str) -> Answer<'a, ()> {
        let admitted = self.with(host, |listed| {
            let at = listed.serials.iter().position(|one| one == serial)?;
            listed.serials.drain(..at);
            Some(())
        });
        Box::pin(std::future::ready(admitted))
    }

    fn renew<'a>(&'a self, host: &'a str, by: &'a str, serial: &'a str) -> Answer<'a, ()> {
        let renewed = self.with(host, |listed| {
            listed.serials.iter().any(|one| one == by).then_some(())?;
            listed.serials.push(serial.to_owned());
            Some(())
        });
        Box::pin(std::future::ready(renewed))
    }
}
