//! The proxies and their toxics, as their owner asks for them. What stands here is what happens: a change is in force on
//! every connection when the call returns, and none waits for a peer.

mod adopt;
mod expiry;
mod listening;
mod populate;
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
use super::peer::unpace;
use super::routes::Routes;
use super::shard::{Handle, Order, Shard};
use expiry::Expiry;
use listening::{Known, Resolve};
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
    resolve: Box<Resolve>,
}

impl Control {
    /// Starts the threads that will carry connections: as many as there are processors. Nothing is noted of connections.
    pub fn start(seed: u64) -> io::Result<Arc<Self>> {
        Self::observing(seed, Observations::alone(0))
    }

    /// The same; what is seen of connections and requests is kept there.
    pub fn observing(seed: u64, observations: Observations) -> io::Result<Arc<Self>> {
        Self::resolving(seed, observations, Box::new(address::resolve))
    }

    fn resolving(seed: u64, observations: Observations, resolve: Box<Resolve>) -> io::Result<Arc<Self>> {
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
            Control { shards, threads, routes, proxies, ids, seed, expiry, observations, http, resolve };
        let control = Arc::new(control);
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
        let addresses = if wanted.enabled { self.addresses(&wanted.listen) } else { Ok(Vec::new()) };
        let mut proxies = self.lock();
        if proxies.contains_key(&wanted.name) {
            return Err(ControlError::ProxyExists);
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
        Ok(self.keep(proxies, proxy))
    }

    /// Keeps a proxy, in the place of one of its name that was closed.
    fn keep(&self, proxies: &mut BTreeMap<String, Proxy>, proxy: Proxy) -> Shown {
        for toxic in &proxy.toxics {
            self.expiry.begin(&proxy.name, toxic);
        }
        let shown = proxy.shown();
        proxies.insert(proxy.name.clone(), proxy);
        shown
    }

    /// Alters a proxy. Another address ends its connections; so does turning it off.
    pub fn update(&self, name: &str, difference: &Difference) -> Result<Shown, ControlError> {
        let listen = difference.listen.clone();
        let mut known = Known::default();
        if let Some(listen) = &listen {
            known.insert(listen.clone(), (self.resolve)(listen));
        }
        let typed = listen.as_ref().and_then(|listen| known.get(listen)?.as_ref().ok().cloned());
        let meant =
            |proxy: &Proxy| proxy.name == name && difference.enabled.unwrap_or(proxy.running.is_some());
        let mut proxies = self.known(&mut known, meant);
        let proxy = proxies.get_mut(name).ok_or(ControlError::NoProxy)?;
        let same_listen = listen.as_ref().is_none_or(|listen| {
            *listen == proxy.listen
                || typed.as_ref().is_some_and(|addresses| address::is_same(&proxy.listen, addresses))
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
        self.turn(proxy, enabled, &known)?;
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
        let mut known = Known::default();
        let mut proxies = self.known(&mut known, |proxy| proxy.running.is_none());
        for proxy in proxies.values_mut() {
            while let Some(toxic) = proxy.toxics.pop() {
                self.change(proxy, Change::Remove(toxic.name.clone()));
            }
            self.turn(proxy, true, &known)?;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Proxy>> {
        self.proxies.lock().unwrap_or_else(PoisonError::into_inner)
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
        unpace(&socket, listen.ip());
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
