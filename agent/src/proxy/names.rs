//! Names of dependencies become addresses, in threads of their own: the system's resolver may take seconds.
//!
//! A name is asked once for all who wait for it, so that one whose servers do not answer takes one thread, however many
//! connections are made to it. That it has no address is remembered for a moment.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How many names are asked at the same time; others wait.
const THREADS: usize = 32;
/// How long it is remembered that a name has no address.
const REMEMBERED: Duration = Duration::from_secs(1);

/// The addresses of `host:port`.
type Resolve = dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync;
/// Called with the addresses of a name; `None` where it has none.
type Answer = Box<dyn FnOnce(Option<Vec<SocketAddr>>) + Send>;

/// Asks for addresses. A clone is the same.
#[derive(Clone)]
pub struct Names {
    state: Arc<Mutex<State>>,
    resolve: Arc<Resolve>,
    remembered: Duration,
}

#[derive(Default)]
struct State {
    /// Who waits for a name that is asked or about to be.
    waiting: HashMap<String, Vec<Answer>>,
    /// Names that no thread has taken yet.
    queued: VecDeque<String>,
    failed: HashMap<String, Instant>,
    threads: usize,
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Names").finish_non_exhaustive()
    }
}

impl Names {
    /// Asks the resolver of the system.
    pub fn of_the_system() -> Self {
        Self::asking(|upstream| Ok(upstream.to_socket_addrs()?.collect()), REMEMBERED)
    }

    fn asking(
        resolve: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
        remembered: Duration,
    ) -> Self {
        Names { state: Arc::default(), resolve: Arc::new(resolve), remembered }
    }

    /// Calls `answer` once the addresses of `host:port` are known; never waits for them.
    pub fn ask(&self, upstream: String, answer: impl FnOnce(Option<Vec<SocketAddr>>) + Send + 'static) {
        let mut state = self.lock();
        if state.failed.get(&upstream).is_some_and(|failed| failed.elapsed() < self.remembered) {
            drop(state);
            return answer(None);
        }
        if let Some(waiting) = state.waiting.get_mut(&upstream) {
            return waiting.push(Box::new(answer));
        }
        state.waiting.insert(upstream.clone(), vec![Box::new(answer)]);
        state.queued.push_back(upstream);
        if state.threads == THREADS {
            return;
        }
        state.threads += 1;
        drop(state);
        let names = self.clone();
        let thread = thread::Builder::new().name("squall-names".into()).stack_size(256 << 10);
        if let Err(error) = thread.spawn(move || names.work()) {
            tracing::warn!("a name of a dependency cannot be asked: {error}");
            self.give_up();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks as long as there is something to ask.
    fn work(&self) {
        loop {
            let mut state = self.lock();
            let Some(upstream) = state.queued.pop_front() else {
                state.threads -= 1;
                return;
            };
            drop(state);
            let found = (self.resolve)(&upstream).ok().filter(|found| !found.is_empty());
            let mut state = self.lock();
            state.failed.retain(|_, failed| failed.elapsed() < self.remembered);
            let waiting = state.waiting.remove(&upstream).unwrap_or_default();
            if found.is_none() {
                state.failed.insert(upstream, Instant::now());
            }
            drop(state);
            for answer in waiting {
                answer(found.clone());
            }
        }
    }

    /// There is no thread: those that work take what is queued, and where there is none nobody is kept waiting.
    fn give_up(&self) {
        let mut state = self.lock();
        state.threads -= 1;
        if state.threads > 0 {
            return;
        }
        state.queued.clear();
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.into_values().flatten().for_each(|answer| answer(None));
    }
}

/// The addresses of what needs no resolver: numbers, and `localhost`, which is this host whatever a resolver says (RFC
/// 6761 section 6.3). Of the two families that it has the one that nobody listens at is refused at once.
pub fn literal(upstream: &str) -> Option<Vec<SocketAddr>> {
    let port = upstream.rsplit_once(':').filter(|(host, _)| host.eq_ignore_ascii_case("localhost"));
    if let Some((_, port)) = port {
        let port = port.parse().ok()?;
        return Some(vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()]);
    }
    upstream.parse().ok().map(|address| vec![address])
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);
    const LONG: Duration = Duration::from_secs(3600);

    fn asked(names: &Names, upstream: &str) -> Receiver<Option<Vec<SocketAddr>>> {
        let (sender, receiver) = channel();
        names.ask(upstream.to_owned(), move |found| sender.send(found).expect("somebody waits"));
        receiver
    }

    #[test]
    fn a_name_that_hangs_is_asked_once_and_holds_up_no_other() {
        let (release, held) = channel::<()>();
        let (held, hanging) = (Mutex::new(held), Arc::new(AtomicUsize::new(0)));
        let seen = hanging.clone();
        let names = Names::asking(
            move |upstream| {
                if upstream == "hangs:1" {
                    seen.fetch_add(1, Ordering::Relaxed);
                    let _ = held.lock().expect("it is whole").recv();
                }
                Ok(vec![([10, 0, 0, 1], 1).into()])
            },
            LONG,
        );
        let waiting: Vec<_> = (0..100).map(|_| asked(&names, "hangs:1")).collect();
        for number in 0..100 {
            let found = asked(&names, &format!("fast-{number}:1")).recv_timeout(PATIENCE);
            assert!(found.expect("it is not held up").is_some());
        }
        assert!(waiting.iter().all(|waiting| waiting.try_recv().is_err()));
        drop(release);
        for waiting in waiting {
            assert!(waiting.recv_timeout(PATIENCE).expect("an answer for all who wait").is_some());
        }
        assert_eq!(hanging.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn that_a_name_has_no_address_is_remembered_for_a_moment() {
        for (remembered, expected) in [(LONG, 1), (Duration::ZERO, 3)] {
            let count = Arc::new(AtomicUsize::new(0));
            let counted = count.clone();
            let failing = move |_: &str| {
                counted.fetch_add(1, Ordering::Relaxed);
                Err(io::ErrorKind::NotFound.into())
            };
            let names = Names::asking(failing, remembered);
            for _ in 0..3 {
                let found = asked(&names, "nowhere:1").recv_timeout(PATIENCE);
                assert_eq!(found.expect("an answer"), None);
            }
            assert_eq!(count.load(Ordering::Relaxed), expected);
        }
    }

    #[test]
    fn what_needs_no_resolver_is_not_asked() {
        let both = ["127.0.0.1:80", "[::1]:80"].map(|address| address.parse().expect("an address"));
        assert_eq!(literal("localhost:80"), Some(both.to_vec()));
        assert_eq!(literal("LocalHost:80"), Some(both.to_vec()));
        assert_eq!(literal("[::1]:80"), Some(vec![both[1]]));
        for name in ["localhost", "localhost:x", "localhost.example:80", "not-localhost:80"] {
            assert_eq!(literal(name), None, "{name}");
        }
    }
}
