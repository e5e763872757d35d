//! Names of dependencies become addresses, in threads of their own: the system's resolver may take seconds.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// How many names are asked at the same time.
const THREADS: usize = 4;

/// Called with the addresses of a name.
type Answer = Box<dyn FnOnce(io::Result<Vec<SocketAddr>>) + Send>;

/// Asks for addresses.
#[derive(Clone, Debug)]
pub struct Names {
    asked: Sender<(String, Answer)>,
}

impl Names {
    /// Starts the threads; they end with the last of these.
    pub fn new() -> io::Result<Self> {
        let (asked, questions) = channel();
        let questions = Arc::new(Mutex::new(questions));
        for _ in 0..THREADS {
            let questions = questions.clone();
            thread::Builder::new()
                .name("squall-names".into())
                .stack_size(256 << 10)
                .spawn(move || answer(&questions))?;
        }
        Ok(Names { asked })
    }

    /// Calls `answer` from another thread once the addresses of `host:port` are known.
    pub fn ask(&self, upstream: String, answer: impl FnOnce(io::Result<Vec<SocketAddr>>) + Send + 'static) {
        // The threads live as long as somebody can ask.
        let _ = self.asked.send((upstream, Box::new(answer)));
    }
}

fn answer(questions: &Mutex<Receiver<(String, Answer)>>) {
    loop {
        let question = questions.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((upstream, answer)) = question else { return };
        answer(upstream.to_socket_addrs().map(Iterator::collect));
    }
}
