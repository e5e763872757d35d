//! The proxies and their toxics, as their owner asks for them. What stands here is what happens: a change is in force on
//! every connection when the call returns, and none waits for a peer.

mod adopt;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};

use super::address;
use super::dependency::{Counters, Dependency};
use super::link::Change;
use super::names::Names;
use super::routes::Routes;
use super::shard::{Handle, Order, Shard};
use super::toxic::{Stream, Toxic};
use super::toxics::Kind;
use super::toxics::values::{BadAttribute, Values};

/// A shard that does not answer within this time is dead.
const PATIENCE: Duration = Duration::from_secs(5);
/// More shards than this only take memory.
const MOST_SHARDS: usize = 8;

/// Why a request is refused. The texts are those that clients of Toxiproxy compare with.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// A field that must be there is not.
    #[error("missing required field: {0}")]
    Missing(String),
    /// No proxy has this name.
    #[error("proxy not found")]
    NoProxy,
    /// A proxy has this name.
    #[error("proxy already exists")]
    ProxyExists,
    /// No toxic of this proxy has this name.
    #[error("toxic not found")]
    NoToxic,
    /// A toxic of this proxy has this name.
    #[error("toxic already exists")]
    ToxicExists,
    /// Neither of the two directions.
    #[error("stream was invalid, can be either upstream or downstream")]
    Stream,
    /// No such kind of toxic.
    #[error("invalid toxic type")]
    Kind,
    /// An attribute is not what it has to be.
    #[error("bad request body: {0}")]
    Attribute(#[from] BadAttribute),
    /// The address cannot be listened at.
    #[error("{0}")]
    Listen(String),
}

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
    /// Its toxics, in their order.
    pub toxics: Vec<WantedToxic>,
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
    /// Its toxics: those of the upstream direction first.
    pub toxics: Vec<Toxic>,
    /// What it has seen.
    #[serde(skip)]
    pub counters: Arc<Counters>,
}

struct Proxy {
    name: String,
    listen: String,
    upstream: String,
    running: Option<Arc<Dependency>>,
    toxics: Vec<Arc<Toxic>>,
    counters: Arc<Counters>,
}

impl Proxy {
    fn new(wanted: &Wanted) -> Self {
        Proxy {
            name: wanted.name.clone(),
            listen: wanted.listen.clone(),
            upstream: wanted.upstream.clone(),
            running: None,
            toxics: Vec::new(),
            counters: Arc::default(),
        }
    }

    fn ordered(&self) -> Vec<Toxic> {
        let of = |stream| self.toxics.iter().filter(move |toxic| toxic.stream == stream);
        of(Stream::Upstream).chain(of(Stream::Downstream)).map(|toxic| Toxic::clone(toxic)).collect()
    }

    fn shown(&self) -> Shown {
        Shown {
            name: self.name.clone(),
            listen: self.listen.clone(),
            upstream: self.upstream.clone(),
            enabled: self.running.is_some(),
            toxics: self.ordered(),
            counters: self.counters.clone(),
        }
    }

    fn toxic(&self, name: &str) -> Result<usize, ControlError> {
        self.toxics.iter().position(|toxic| toxic.name == name).ok_or(ControlError::NoToxic)
    }
}

/// All proxies of this process. Dropped, every connection is closed.
pub struct Control {
    shards: Vec<Handle>,
    threads: Vec<JoinHandle<()>>,
    routes: Routes,
    proxies: Mutex<BTreeMap<String, Proxy>>,
    ids: AtomicU64,
    seed: u64,
}

impl Control {
    /// Starts the threads that will carry connections: as many as there are processors.
    pub fn start(seed: u64) -> io::Result<Self> {
        let (names, routes) = (Names::new()?, Routes::default());
        let count = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_SHARDS);
        let (mut shards, mut threads) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let (shard, thread) = Shard::start(names.clone(), routes.clone())?;
            shards.push(shard);
            threads.push(thread);
        }
        Ok(Control { shards, threads, routes, proxies: Mutex::default(), ids: AtomicU64::new(1), seed })
    }

    /// All proxies, by name.
    pub fn list(&self) -> Vec<Shown> {
        self.lock().values().map(Proxy::shown).collect()
    }

    /// One proxy.
    pub fn get(&self, name: &str) -> Result<Shown, ControlError> {
        self.lock().get(name).map(Proxy::shown).ok_or(ControlError::NoProxy)
    }

    /// Makes a proxy.
    pub fn create(&self, wanted: &Wanted) -> Result<Shown, ControlError> {
        require(wanted)?;
        let toxics = read_all(&wanted.toxics)?;
        let addresses = resolved(wanted.enabled, &wanted.listen);
        let mut proxies = self.lock();
        if proxies.contains_key(&wanted.name) {
            return Err(ControlError::ProxyExists);
        }
        self.add(&mut proxies, wanted, toxics, addresses)
    }

    /// Makes those proxies that are not there yet as they are wanted. At the first that cannot be made it stops; what
    /// was done is returned either way.
    pub fn populate(&self, wanted: &[Wanted]) -> (Vec<Shown>, Result<(), ControlError>) {
        for (at, wanted) in wanted.iter().enumerate() {
            if let Err(ControlError::Missing(field)) = require(wanted) {
                return (Vec::new(), Err(ControlError::Missing(format!("{field} at proxy {}", at + 1))));
            }
        }
        let mut done = Vec::new();
        for wanted in wanted {
            match self.populate_one(wanted) {
                Ok(shown) => done.push(shown),
                Err(error) => return (done, Err(error)),
            }
        }
        (done, Ok(()))
    }

    fn populate_one(&self, wanted: &Wanted) -> Result<Shown, ControlError> {
        let toxics = read_all(&wanted.toxics)?;
        let addresses = resolved(true, &wanted.listen);
        let mut proxies = self.lock();
        if let Some(present) = proxies.get_mut(&wanted.name) {
            let same = present.listen == wanted.listen
                || addresses.as_ref().is_ok_and(|addresses| address::is_same(&present.listen, addresses));
            if same && present.upstream == wanted.upstream {
                return Ok(present.shown());
            }
            self.close(present);
            proxies.remove(&wanted.name);
        }
        self.add(&mut proxies, wanted, toxics, addresses)
    }

    fn add(
        &self,
        proxies: &mut BTreeMap<String, Proxy>,
        wanted: &Wanted,
        toxics: Vec<Arc<Toxic>>,
        addresses: Result<Vec<SocketAddr>, ControlError>,
    ) -> Result<Shown, ControlError> {
        let mut proxy = Proxy { toxics, ..Proxy::new(wanted) };
        if wanted.enabled {
            self.open(&mut proxy, &addresses?)?;
        }
        let shown = proxy.shown();
        proxies.insert(wanted.name.clone(), proxy);
        Ok(shown)
    }

    /// Alters a proxy. Another address ends its connections; so does turning it off.
    pub fn update(&self, name: &str, difference: &Difference) -> Result<Shown, ControlError> {
        let listen = difference.listen.clone();
        let typed = listen.as_deref().map(address::resolve);
        let mut proxies = self.lock();
        let proxy = proxies.get_mut(name).ok_or(ControlError::NoProxy)?;
        let same_listen = listen.as_ref().is_none_or(|listen| {
            *listen == proxy.listen
                || matches!(&typed, Some(Ok(addresses)) if address::is_same(&proxy.listen, addresses))
        });
        let same_upstream = difference.upstream.as_ref().is_none_or(|upstream| *upstream == proxy.upstream);
        let enabled = difference.enabled.unwrap_or(proxy.running.is_some());
        if !same_listen || !same_upstream {
            self.close(proxy);
            if let (false, Some(listen)) = (same_listen, listen) {
                proxy.listen = listen;
            }
            if let Some(upstream) = &difference.upstream {
                proxy.upstream.clone_from(upstream);
            }
        }
        self.turn(proxy, enabled)?;
        Ok(proxy.shown())
    }

    /// Ends a proxy and its connections.
    pub fn delete(&self, name: &str) -> Result<(), ControlError> {
        let mut proxies = self.lock();
        let mut proxy = proxies.remove(name).ok_or(ControlError::NoProxy)?;
        self.close(&mut proxy);
        Ok(())
    }

    /// Enables every proxy and removes every toxic.
    pub fn reset(&self) -> Result<(), ControlError> {
        let mut proxies = self.lock();
        for proxy in proxies.values_mut() {
            while let Some(toxic) = proxy.toxics.pop() {
                self.change(proxy, Change::Remove(toxic.name.clone()));
            }
            self.turn(proxy, true)?;
        }
        Ok(())
    }

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
        let toxic = Arc::new(read(wanted, &proxy.toxics)?);
        proxy.toxics.push(toxic.clone());
        self.change(proxy, Change::Add(toxic.clone()));
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
        let toxic = Arc::new(Toxic {
            values: old.values.with(attributes)?,
            toxicity: toxicity.unwrap_or(old.toxicity),
            version: old.version + 1,
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
    pub fn expire(&self, proxy: &str, toxic: &Toxic) {
        let mut proxies = self.lock();
        let Some(proxy) = proxies.get_mut(proxy) else { return };
        let Some(at) = proxy.toxics.iter().position(|other| Arc::ptr_eq(&other.hits, &toxic.hits)) else {
            return;
        };
        let expired = proxy.toxics.remove(at);
        self.change(proxy, Change::Remove(expired.name.clone()));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Proxy>> {
        self.proxies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turn(&self, proxy: &mut Proxy, enabled: bool) -> Result<(), ControlError> {
        match (proxy.running.is_some(), enabled) {
            (false, true) => {
                let addresses = address::resolve(&proxy.listen).map_err(ControlError::Listen)?;
                self.open(proxy, &addresses)
            }
            (true, false) => {
                self.close(proxy);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn open(&self, proxy: &mut Proxy, addresses: &[SocketAddr]) -> Result<(), ControlError> {
        let (socket, listen) = address::listen(addresses).map_err(ControlError::Listen)?;
        self.serve(proxy, socket, listen);
        Ok(())
    }

    /// Carries what comes to a socket.
    fn serve(&self, proxy: &mut Proxy, socket: OwnedFd, listen: SocketAddr) {
        let socket = Arc::new(socket);
        let dependency = Arc::new(Dependency {
            id: self.ids.fetch_add(1, Ordering::Relaxed),
            name: proxy.name.clone(),
            upstream: proxy.upstream.clone(),
            listen,
            seed: self.seed,
            counters: proxy.counters.clone(),
        });
        proxy.listen = listen.to_string();
        proxy.running = Some(dependency.clone());
        self.routes.add(dependency.clone());
        self.tell(|| Order::Open(dependency.clone(), socket.clone(), proxy.toxics.clone()));
    }

    fn close(&self, proxy: &mut Proxy) {
        if let Some(dependency) = proxy.running.take() {
            self.routes.remove(&dependency);
            self.tell(|| Order::Close(dependency.id));
        }
    }

    fn change(&self, proxy: &Proxy, change: Change) {
        if let Some(dependency) = &proxy.running {
            self.tell(|| Order::Change(dependency.id, change.clone()));
        }
    }

    /// Tells every shard, and waits until each has done it.
    fn tell(&self, order: impl Fn() -> Order) {
        let (done, wait) = channel();
        for shard in &self.shards {
            shard.send(order(), Some(done.clone()));
        }
        drop(done);
        for _ in &self.shards {
            if wait.recv_timeout(PATIENCE).is_err() {
                tracing::error!("a shard of the proxy does not answer");
            }
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        for shard in &self.shards {
            shard.send(Order::Stop, None);
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn require(wanted: &Wanted) -> Result<(), ControlError> {
    for (field, value) in [("name", &wanted.name), ("upstream", &wanted.upstream)] {
        if value.is_empty() {
            return Err(ControlError::Missing(field.to_owned()));
        }
    }
    Ok(())
}

/// The addresses of a listen text, where they are needed.
fn resolved(needed: bool, listen: &str) -> Result<Vec<SocketAddr>, ControlError> {
    if needed { address::resolve(listen).map_err(ControlError::Listen) } else { Ok(Vec::new()) }
}

fn read_all(wanted: &[WantedToxic]) -> Result<Vec<Arc<Toxic>>, ControlError> {
    let mut toxics = Vec::new();
    for wanted in wanted {
        let toxic = read(wanted, &toxics)?;
        toxics.push(Arc::new(toxic));
    }
    Ok(toxics)
}

fn read(wanted: &WantedToxic, present: &[Arc<Toxic>]) -> Result<Toxic, ControlError> {
    let typed = if wanted.stream.is_empty() { "downstream" } else { &wanted.stream };
    let stream = Stream::named(typed).ok_or(ControlError::Stream)?;
    let kind = Kind::named(&wanted.kind).ok_or(ControlError::Kind)?;
    let name = if wanted.name.is_empty() { format!("{}_{typed}", kind.name) } else { wanted.name.clone() };
    if present.iter().any(|toxic| toxic.name == name) {
        return Err(ControlError::ToxicExists);
    }
    Ok(Toxic {
        name,
        kind,
        stream,
        typed: typed.to_owned(),
        toxicity: wanted.toxicity.unwrap_or(1.0),
        values: Values::of(kind).with(&wanted.attributes)?,
        version: 0,
        hits: Arc::default(),
    })
}
