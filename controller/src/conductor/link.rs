//! The connection to the agent.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use squall_experiments::protocol::{Call, Lifted, Message, Refusal, Reply, Request, RunId, Said, VERSION};
use tokio::io::BufReader;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};

use super::far_clock::FarClock;
use super::lines;
use crate::stream::{Input, Stream};

/// An answer that takes longer than this does not come any more.
const PATIENCE: Duration = Duration::from_secs(15);

/// How well a clock is known is enough for hosts that begin together.
const WELL_ENOUGH: Duration = Duration::from_millis(5);
/// Between questions for a clock, in milliseconds. An answer that is quick enough ends them.
const PAUSES_MS: [u64; 7] = [5, 10, 20, 50, 100, 200, 400];

/// What an agent says without being asked.
#[derive(Debug)]
pub(super) enum Notice {
    /// Something ended.
    Ended { run: RunId, part: Option<u32>, why: String, lifted: Lifted },
    /// It looked at a guard.
    Guard { run: RunId, guard: u32, said: Said },
    /// Proxies have seen something.
    Saw { run: RunId, seen: Vec<serde_json::Value> },
    /// The connection is gone; the agent reverts by itself.
    Lost(String),
}

/// No answer will come.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Lost(pub(super) String);

/// A connection. When the last clone of it is dropped, the lease of everything that was begun over it ends.
#[derive(Clone)]
pub(super) struct Link {
    out: mpsc::UnboundedSender<Vec<u8>>,
    waiting: Waiting,
    number: Arc<AtomicU64>,
    /// The agent's, where it tells it: such a one begins a step at an instant.
    clock: Arc<Mutex<Option<FarClock>>>,
}

/// `None` once the connection is gone.
type Waiting = Arc<Mutex<Option<HashMap<u64, oneshot::Sender<Reply>>>>>;

/// What an agent says of itself.
#[derive(Clone, Debug)]
pub(super) struct Greeting {
    pub(super) words: String,
}

impl Link {
    /// Takes over a stream. Must be called inside a runtime.
    pub(super) fn open(stream: Stream, notices: mpsc::UnboundedSender<Notice>) -> io::Result<Link> {
        let (input, output) = stream.halves()?;
        let (out, queue) = mpsc::unbounded_channel();
        let waiting: Waiting = Arc::new(Mutex::new(Some(HashMap::new())));
        tokio::spawn(lines::write(output, queue));
        let answers = Arc::clone(&waiting);
        tokio::spawn(async move {
            let why = listen(BufReader::new(input), &answers, &notices).await;
            // Everybody who still waits is told by the drop.
            answers.lock().unwrap_or_else(PoisonError::into_inner).take();
            let _ = notices.send(Notice::Lost(why));
        });
        Ok(Link { out, waiting, number: Arc::new(AtomicU64::new(1)), clock: Arc::default() })
    }

    /// Asks, and waits for the answer. The question is on its way when this returns, before the future is polled:
    /// several can be asked at once, and are answered in order. A dropped future leaves its question asked.
    pub(super) fn call(&self, request: Request) -> impl Future<Output = Result<Reply, Lost>> + use<> {
        let (answer, answered) = oneshot::channel();
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        if let Some(waiting) = &mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) {
            waiting.insert(number, answer);
        }
        let _ = self.out.send(lines::line(&Call { number, request }));
        async move {
            match timeout(PATIENCE, answered).await {
                Ok(Ok(reply)) => Ok(reply),
                Ok(Err(_)) => Err(Lost("the connection is closed".to_owned())),
                Err(_) => Err(Lost(format!("no answer for {} s", PATIENCE.as_secs()))),
            }
        }
    }

    /// The agent's clock, where it tells it.
    pub(super) fn clock(&self) -> Option<FarClock> {
        *self.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn heard(&self, new: FarClock) {
        let mut clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        *clock = Some(clock.map_or(new, |known| known.or(new)));
    }

    /// Asks for the agent's clock until it is known well enough, or for long enough.
    pub(super) async fn set_clock(&self) -> Result<(), Lost> {
        for pause in PAUSES_MS {
            match self.clock() {
                Some(clock) if clock.within(Instant::now()) > WELL_ENOUGH => {}
                _ => return Ok(()),
            }
            let asked = Instant::now();
            if let Reply::Clock { now_ns } = self.call(Request::Clock).await? {
                self.heard(FarClock::heard(asked, Instant::now(), now_ns));
            }
            // Where many hosts are asked at once, the next answer is quicker.
            sleep(Duration::from_millis(rand::random_range(pause / 2..=pause))).await;
        }
        Ok(())
    }

    /// The first thing to ask.
    pub(super) async fn hello(&self) -> Result<Greeting, Refusal> {
        let asked = Instant::now();
        match self.call(Request::Hello { version: VERSION }).await {
            Ok(Reply::Hello { version, guardian, worker, policy, clock_ns, .. }) if version == VERSION => {
                if let Some(clock_ns) = clock_ns {
                    self.heard(FarClock::heard(asked, Instant::now(), clock_ns));
                }
                Ok(Greeting { words: format!("guardian {guardian}, worker {worker}, policy {policy}") })
            }
            Ok(Reply::Hello { version, .. }) => Err(Refusal::new(
                format!("the agent speaks version {version} of the protocol, this squall version {VERSION}"),
                "run the agent and squall from the same release",
            )),
            Ok(Reply::Refused(refusal)) => Err(refusal),
            Ok(other) => Err(Refusal::bare(format!("the agent answered `hello` with {other:?}"))),
            Err(lost) => Err(Refusal::bare(format!("the agent did not answer: {lost}"))),
        }
    }
}

async fn listen(
    mut input: BufReader<Input>,
    answers: &Waiting,
    notices: &mpsc::UnboundedSender<Notice>,
) -> String {
    let mut line = Vec::new();
    loop {
        match lines::read(&mut input, &mut line).await {
            Ok(Some(Message::Answer { number, reply })) => {
                {
                    let mut waiting = answers.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some(answer) = waiting.as_mut().and_then(|waiting| waiting.remove(&number)) {
                        let _ = answer.send(reply);
                    }
                }
                // Whoever waits for it goes on before the next message is looked at: what the agent says in one
                // order (made, then ended) is also recorded in that order.
                tokio::task::yield_now().await;
            }
            Ok(Some(Message::Ended { run, part, why, lifted })) => {
                let _ = notices.send(Notice::Ended { run, part, why, lifted });
            }
            Ok(Some(Message::Guard { run, guard, said })) => {
                let _ = notices.send(Notice::Guard { run, guard, said });
            }
            Ok(Some(Message::Saw { run, seen })) => {
                let _ = notices.send(Notice::Saw { run, seen });
            }
            Ok(None) => return "the agent closed it".to_owned(),
            Err(error) => return error.to_string(),
        }
    }
}
