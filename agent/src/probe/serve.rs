//! The prober's conversation: requests in, replies out, samples in between.
//!
//! Standard input and output have a thread each, so that a pipe that nobody reads, or a name that a broken resolver
//! looks up for ever, delays nothing else.

use std::cell::Cell;
use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::rc::Rc;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use squall_experiments::probe::{Looks, Probe, ProberReply, ProberRequest, Sample};
use squall_experiments::protocol::LONGEST_LINE;
use squall_experiments::quantity::Period;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::{MissedTickBehavior, interval};

use super::family::Family;
use super::load::{Generator, Order};
use super::prepare::{Look, Prepared};
use super::reach;

/// How many samples of one probe may be under way; the next ones are bad at once.
const IN_FLIGHT: usize = 64;

/// What a program is answered where there are none.
const NO_PROGRAMS: &str = "this host's policy lets no controller start programs (`controllers.programs`)";

/// Why a prober ends before its input does.
#[derive(Debug, thiserror::Error)]
pub(super) enum ServeError {
    #[error("the prober cannot start: {0}")]
    Start(#[source] io::Error),
    #[error("a request is not understood: {0}")]
    Request(String),
}

/// Serves until the end of `input`, `SIGTERM`, or until nobody reads `output` any more. When it returns, everything
/// that it started is dead; samples under way are not reported. Without `programs` none is started for anybody.
pub(super) fn serve<I, O>(input: I, output: O, programs: bool) -> Result<(), ServeError>
where
    I: Read + Send + 'static,
    O: Write + Send + 'static,
{
    let family = Rc::new(Family::new().map_err(|errno| ServeError::Start(errno.into()))?);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ServeError::Start)?;
    let (asked, requests) = channel(16);
    let (replies, replied) = channel(256);
    spawn("requests", move || read(input, &asked)).map_err(ServeError::Start)?;
    spawn("replies", move || write(output, replied)).map_err(ServeError::Start)?;

    let local = LocalSet::new();
    let table = Table { family: family.clone(), replies, probes: HashMap::new(), programs };
    let result = local.block_on(&runtime, table.serve(requests));
    // In this order: no sample goes on, so nothing new is started; then what was started ends.
    drop(local);
    family.end();
    // A name that is being looked up cannot be called back: do not wait for it.
    runtime.shutdown_background();
    result
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name(name.to_owned()).stack_size(256 << 10).spawn(body).map(drop)
}

/// Sends one request per line. An error of any kind is the last thing that it sends.
fn read(input: impl Read, asked: &Sender<Result<ProberRequest, String>>) {
    let mut input = BufReader::new(input);
    let mut line = Vec::new();
    loop {
        line.clear();
        let request = match input.by_ref().take(LONGEST_LINE as u64).read_until(b'\n', &mut line) {
            Ok(0) => return,
            Ok(_) if line.last() != Some(&b'\n') && line.len() == LONGEST_LINE => {
                Err("the line is too long".into())
            }
            Ok(_) => serde_json::from_slice(&line).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let last = request.is_err();
        if asked.blocking_send(request).is_err() || last {
            return;
        }
    }
}

/// Writes each reply with a single call, so that lines are whole whoever else writes to the same pipe.
fn write(mut output: impl Write, mut replied: Receiver<ProberReply>) {
    while let Some(reply) = replied.blocking_recv() {
        let Ok(mut line) = serde_json::to_vec(&reply) else {
            continue;
        };
        line.push(b'\n');
        if output.write_all(&line).and_then(|()| output.flush()).is_err() {
            return;
        }
    }
}

/// All loaded probes.
struct Table {
    family: Rc<Family>,
    replies: Sender<ProberReply>,
    probes: HashMap<u32, Loaded>,
    programs: bool,
}

/// One loaded probe.
enum Loaded {
    /// It is looked at, with a schedule if it has one.
    Look { sampler: Rc<Sampler>, schedule: Option<JoinHandle<()>> },
    /// It goes on in a thread of its own.
    Load(Generator),
    /// It cannot be sampled.
    Unusable(String),
}

/// Takes samples of one probe.
struct Sampler {
    probe: u32,
    look: Look,
    /// How many looks make a sample; without it, one.
    looks: Option<Looks>,
    in_flight: Cell<usize>,
    family: Rc<Family>,
    replies: Sender<ProberReply>,
}

impl Table {
    async fn serve(
        mut self,
        mut requests: Receiver<Result<ProberRequest, String>>,
    ) -> Result<(), ServeError> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminated = signal(SignalKind::terminate()).map_err(ServeError::Start)?;
        loop {
            let request = tokio::select! {
                request = requests.recv() => request,
                _ = terminated.recv() => None,
                () = self.replies.closed() => None,
            };
            match request {
                None => return Ok(()),
                Some(Err(why)) => return Err(ServeError::Request(why)),
                Some(Ok(request)) => self.take(request).await,
            }
        }
    }

    async fn take(&mut self, request: ProberRequest) {
        let (probe, order) = match &request {
            ProberRequest::Load { probe, what, expect, looks, promptly } => {
                let prepared = match what {
                    Probe::Process(_) if !self.programs => Err(NO_PROGRAMS.to_owned()),
                    Probe::Load { load, .. } => {
                        reach::permits_load(load).and_then(|()| Prepared::new(what, expect))
                    }
                    what => Prepared::new(what, expect),
                };
                let loaded = self.load(*probe, prepared, looks.clone(), *promptly);
                if let Loaded::Unusable(why) = &loaded {
                    self.unusable(*probe, why.clone()).await;
                }
                // A load ends when it is dropped; its answer to a stop would be taken for that of the new one.
                if let Some(Loaded::Look { schedule: Some(schedule), .. }) =
                    self.probes.insert(*probe, loaded)
                {
                    schedule.abort();
                }
                return;
            }
            ProberRequest::Stop { probe } => {
                if let Some(loaded) = self.probes.get_mut(probe) {
                    loaded.stop();
                }
                return;
            }
            ProberRequest::Once { probe } => (*probe, Order::Once),
            ProberRequest::Every { probe, period } if period.is_zero() => {
                return self.unusable(*probe, "a period of zero never ends".to_owned()).await;
            }
            ProberRequest::Every { probe, .. } => (*probe, Order::Every),
        };
        match self.probes.get_mut(&probe) {
            Some(Loaded::Look { sampler, schedule }) => match request {
                ProberRequest::Every { period, .. } => {
                    schedule.iter().for_each(JoinHandle::abort);
                    *schedule = Some(spawn_local(sampler.clone().repeat(period)));
                }
                _ => sampler.clone().begin().await,
            },
            Some(Loaded::Load(generator)) => generator.tell(order),
            Some(Loaded::Unusable(why)) => {
                let why = why.clone();
                self.unusable(probe, why).await;
            }
            None => {
                self.unusable(probe, format!("nothing is loaded under the number {probe}")).await;
            }
        }
    }

    fn load(
        &self,
        probe: u32,
        prepared: Result<Prepared, String>,
        looks: Option<Looks>,
        promptly: bool,
    ) -> Loaded {
        let (family, replies) = (self.family.clone(), self.replies.clone());
        match prepared {
            Ok(Prepared::Look(look)) => {
                let sampler = Sampler { probe, look, looks, in_flight: Cell::new(0), family, replies };
                Loaded::Look { sampler: Rc::new(sampler), schedule: None }
            }
            Ok(Prepared::Load(task)) => match Generator::start(*task, probe, promptly, replies) {
                Ok(generator) => Loaded::Load(generator),
                Err(error) => Loaded::Unusable(format!("a load cannot be started: {error}")),
            },
            Err(why) => Loaded::Unusable(why),
        }
    }

    async fn unusable(&self, probe: u32, why: String) {
        // Fails when nobody reads any more, which the loop sees for itself.
        let _ = self.replies.send(ProberReply::Unusable { probe, why }).await;
    }
}

impl Loaded {
    /// No new samples. Those under way go on.
    fn stop(&mut self) {
        match self {
            Loaded::Look { schedule, .. } => schedule.iter().for_each(JoinHandle::abort),
            Loaded::Load(generator) => generator.tell(Order::Stop),
            Loaded::Unusable(_) => {}
        }
    }
}

impl Sampler {
    async fn repeat(self: Rc<Self>, period: Period) {
        let mut ticks = interval(period.get());
        // After a stall there is one late sample, not a burst of them.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            self.begin().await;
        }
    }

    /// Begins a sample and returns at once, unless replies have piled up because nobody reads them.
    async fn begin(self: &Rc<Self>) {
        let begun = boot_clock();
        if self.in_flight.get() >= IN_FLIGHT {
            let sample = Sample {
                probe: self.probe,
                begun_ns: nanoseconds(begun),
                took_ns: 0,
                good: false,
                unclear: false,
                seen: format!("still waiting for {} earlier samples", self.in_flight.get()),
                load: None,
            };
            let _ = self.replies.send(ProberReply::Sample(sample)).await;
            return;
        }
        self.in_flight.set(self.in_flight.get() + 1);
        spawn_local(self.clone().sample(begun));
    }

    async fn sample(self: Rc<Self>, begun: Duration) {
        let look = super::looks::sample(&self.look, &self.family, self.looks.as_ref());
        let (outcome, refused) = reach::watched(look).await;
        let took = boot_clock().saturating_sub(begun);
        self.in_flight.set(self.in_flight.get() - 1);
        let reply = match outcome {
            Ok(seen) if !seen.good && refused => ProberReply::Unusable { probe: self.probe, why: seen.text },
            Ok(seen) => ProberReply::Sample(Sample {
                probe: self.probe,
                begun_ns: nanoseconds(begun),
                took_ns: nanoseconds(took),
                good: seen.good,
                unclear: seen.unclear,
                seen: seen.text,
                load: None,
            }),
            Err(why) => ProberReply::Unusable { probe: self.probe, why },
        };
        let _ = self.replies.send(reply).await;
    }
}

/// Time since boot, sleep included. The clock exists on every kernel that this runs on.
fn boot_clock() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
