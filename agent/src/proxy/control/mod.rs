//! The proxies and their toxics, as their owner asks for them. What stands here is what happens: a change is in force on
//! every connection when the call returns, and none waits for a peer.

mod adopt;
mod expiry;
mod proxy;
mod refusal;
mod toxics;
mod wanted;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;

use super::address;
use super::dependency::Dependency;
use super::http::Engine;
use super::link::Change;
use super::names::Names;
use super::observations::Observations;
use super::routes::Routes;
use super::shard::{Handle, Order, Shard};
use expiry::Expiry;
use proxy::Proxy;
pub use proxy::Shown;
pub use refusal::ControlError;
pub use wanted::{Difference, Understood, Wanted, WantedTls, WantedToxic};

/// A shard that does not answer within this time is dead.
const PATIENCE: Duration = Duration::from_secs(5);
/// More shards than this only take memory.
const MOST_SHARDS: usize = 8;

/// All proxies of this process. Dropped, every connection is closed.
pub struct Control {
    shards: Vec<Handle>,
    threads: Vec<JoinHandle<()>>,
    routes: Routes,
    proxies: Mutex<BTreeMap<String, Proxy>>,
    ids: AtomicU64,
    seed: u64,
    expiry: Expiry,
    observations: Arc<Observations>,
    http: Arc<OnceLock<Engine>>,
}

impl Control {
    /// Starts the threads that will carry connections: as many as there are processors. Nothing is noted of connections.
    pub fn start(seed: u64) -> io::Result<Arc<Self>> {
        Self::observing(seed, Observations::alone(0))
    }

    /// The same; what is seen of connections and requests is kept there.
    pub fn observing(seed: u64, observations: Observations) -> io::Result<Arc<Self>> {
        let (names, routes) = (Names::of_the_system(), Routes::default());
        let http = Arc::new(OnceLock::new());
        let count = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_SHARDS);
        let (mut shards, mut threads) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let (shard, thread) = Shard::start(names.clone(), routes.clone(), http.clone())?;
            shards.push(shard);
            threads.push(thread);
        }
        let (expiry, ends) = Expiry::new();
        let observations = Arc::new(observations);
        let (proxies, ids) = (Mutex::default(), AtomicU64::new(1));
        let control =
            Arc::new(Control { shards, threads, routes, proxies, ids, seed, expiry, observations, http });
        ends.watch(&control)?;
        Ok(control)
    }

    /// What was seen of connections and requests.
    pub fn observations(&self) -> &Arc<Observations> {
        &self.observations
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
        wanted.require()?;
        let fresh = Proxy::read(wanted)?;
        let addresses = resolved(wanted.enabled, &wanted.listen);
        let mut proxies = self.lock();
        if proxies.contains_key(&wanted.name) {
            return Err(ControlError::ProxyExists);
        }
        self.add(&mut proxies, fresh, wanted.enabled, addresses)
    }

    /// Makes those proxies that are not there yet as they are wanted. At the first that cannot be made it stops; what
    /// was done is returned either way.
    pub fn populate(&self, wanted: &[Wanted]) -> (Vec<Shown>, Result<(), ControlError>) {
        for (at, wanted) in wanted.iter().enumerate() {
            if let Err(ControlError::Missing(field)) = wanted.require() {
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
        let fresh = Proxy::read(wanted)?;
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
        self.add(&mut proxies, fresh, wanted.enabled, addresses)
    }

    fn add(
        &self,
        proxies: &mut BTreeMap<String, Proxy>,
        mut proxy: Proxy,
        enabled: bool,
        addresses: Result<Vec<SocketAddr>, ControlError>,
    ) -> Result<Shown, ControlError> {
        if enabled {
            self.open(&mut proxy, &addresses?)?;
        }
        for toxic in &proxy.toxics {
            self.expiry.begin(&proxy.name, toxic);
        }
        let shown = proxy.shown();
        proxies.insert(proxy.name.clone(), proxy);
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
        self.serve(proxy, socket, listen)
    }

    /// Carries what comes to a socket.
    fn serve(&self, proxy: &mut Proxy, socket: OwnedFd, listen: SocketAddr) -> Result<(), ControlError> {
        if proxy.is_understood() && self.http.get().is_none() {
            let failed = |error| ControlError::Listen(format!("its threads cannot be started: {error}"));
            let _ = self.http.set(Engine::start().map_err(failed)?);
        }
        let socket = Arc::new(socket);
        let dependency = Arc::new(Dependency {
            id: self.ids.fetch_add(1, Ordering::Relaxed),
            name: proxy.name.clone(),
            upstream: proxy.upstream.clone(),
            listen,
            protocol: proxy.protocol,
            tls: proxy.tls.clone(),
            origin: proxy.origin.clone(),
            handshakes: proxy.handshakes,
            seed: self.seed,
            counters: proxy.counters.clone(),
            toxics: watch::Sender::new(proxy.toxics.clone()),
            observations: self.observations.clone(),
        });
        proxy.listen = listen.to_string();
        proxy.running = Some(dependency.clone());
        self.routes.add(dependency.clone());
        self.tell(|| Order::Open(dependency.clone(), socket.clone(), proxy.toxics.clone()));
        Ok(())
    }

    fn close(&self, proxy: &mut Proxy) {
        if let Some(dependency) = proxy.running.take() {
            self.routes.remove(&dependency);
            self.tell(|| Order::Close(dependency.id));
        }
    }

    fn change(&self, proxy: &Proxy, change: Change) {
        if let Some(dependency) = &proxy.running {
            dependency.toxics.send_replace(proxy.toxics.clone());
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

/// The addresses of a listen text, where they are needed.
fn resolved(needed: bool, listen: &str) -> Result<Vec<SocketAddr>, ControlError> {
    if needed { address::resolve(listen).map_err(ControlError::Listen) } else { Ok(Vec::new()) }
}
