//! People and programs are told of what happens: a webhook, a chat, e-mail, Grafana.
//!
//! Nobody waits for any of it. What happens is written down ([`Store::tell`](crate::store::Store::tell), or the transaction that
//! decides it); a task of its own hands it out to the receivers that want it, and sends each a notice after the other, again and
//! again where it is not taken. What is promised: each receiver gets each notice at least once, under one name, unless more than
//! [`MOST`] wait for it, it refuses, or does not take it in [`ATTEMPTS`] attempts or within an hour.
//!
//! | file | what it is for |
//! |---|---|
//! | `happening` | every kind of happening |
//! | `story` | a happening in words |
//! | `receiver` | who is told of what, as the configuration says it |
//! | `secret`, `template` | parts of that |
//! | `attempt` | one attempt, and what it came to |
//! | `tally` | what became of the notices of each receiver |
//! | `webhook`, `chat`, `email`, `grafana` | the ways |

mod attempt;
mod chat;
mod email;
mod grafana;
mod happening;
mod receiver;
mod secret;
mod story;
mod tally;
mod template;
mod webhook;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use squall_experiments::quantity::Period;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::store::{Notice, Store, StoreError, now_ms};
pub use attempt::Attempt;
pub use happening::{Happening, When};
pub use receiver::Receiver;
use story::Told;
use tally::Tally;
pub use tally::{Standing, Trouble};

/// How many notices wait for one receiver at most; of more the oldest are dropped.
pub const MOST: u64 = 1000;
/// How often a notice is tried.
pub const ATTEMPTS: u64 = 10;

/// How long a notice is tried, in milliseconds since it happened; once it is tried in any case.
const LASTS_MS: u64 = 3_600_000;
/// After which time what nobody takes from the store is forgotten, in milliseconds: its receiver is gone.
const FORGOTTEN_MS: u64 = 7 * 86_400_000;
/// How often that is looked at.
const SWEEP: Duration = Duration::from_secs(3600);
/// How long a trial may take: somebody waits for it.
const TRIAL: Period = Period::from_secs(30);
/// The first wait after a failure; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_secs(5);
/// The longest.
const LONGEST_WAIT: Duration = Duration::from_secs(900);
/// How long a receiver that fails is left alone at most, unless it asks for more.
const PAUSE: Duration = Duration::from_secs(60);
/// How often it is looked whether somebody is to be told something.
const TICK: Duration = Duration::from_secs(1);
/// For how much longer than an attempt a notice is held.
const MARGIN_MS: u64 = 15_000;
/// How many happenings are handed out at once.
const AT_ONCE: u64 = 100;

/// Tells everybody. A clone is the same.
#[derive(Clone)]
pub struct Notifier(Arc<Shared>);

struct Shared {
    receivers: Vec<Receiver>,
    address: Option<String>,
    store: Store,
    first_wait: Duration,
    tallies: BTreeMap<String, Tally>,
}

/// What a notice carries.
#[derive(Serialize, Deserialize)]
struct Carried {
    happening: Happening,
    told: Told,
}

/// An attempt that has ended.
struct Tried {
    notice: Notice,
    came: Attempt,
}

/// Whom this controller does not try right now.
#[derive(Default)]
struct Resting {
    busy: BTreeSet<String>,
    until: BTreeMap<String, Instant>,
}

impl Resting {
    fn is(&self, receiver: &str) -> bool {
        self.busy.contains(receiver) || self.until.get(receiver).is_some_and(|until| *until > Instant::now())
    }
}

impl Notifier {
    /// For the receivers of a configuration; `address` is how people reach the controller, for links. From now on the store
    /// writes happenings down, if there is a receiver; nothing is sent before [`Notifier::run`].
    pub fn new(receivers: Vec<Receiver>, address: Option<String>, store: Store) -> Self {
        Notifier::paced(receivers, address, store, FIRST_WAIT)
    }

    fn paced(receivers: Vec<Receiver>, address: Option<String>, store: Store, first_wait: Duration) -> Self {
        if !receivers.is_empty() {
            store.tells();
        }
        let tallies = receivers.iter().map(|it| (it.name.clone(), Tally::default())).collect();
        Notifier(Arc::new(Shared { receivers, address, store, first_wait, tallies }))
    }

    /// Tells everybody, until it is dropped; attempts that go on end with it, and are made again by the next. A store that does
    /// not answer is asked again.
    pub async fn run(&self) {
        if self.0.receivers.is_empty() {
            return std::future::pending().await;
        }
        let mut resting = Resting::default();
        let mut trying = JoinSet::new();
        // Not at once: what waited while no controller was there is tried first.
        let (mut reported, mut swept) = (false, Instant::now());
        loop {
            let mut done = self.step(&mut resting, &mut trying).await;
            if done.is_ok() && swept.elapsed() > SWEEP {
                swept = Instant::now();
                done = self.sweep().await;
            }
            match done {
                Ok(()) => reported = false,
                Err(error) if !std::mem::replace(&mut reported, true) => {
                    tracing::warn!(%error, "nobody can be notified");
                }
                Err(_) => {}
            }
            tokio::select! {
                Some(tried) = trying.join_next(), if !trying.is_empty() => match tried {
                    Ok(tried) => self.settle(tried, &mut resting).await,
                    // Its notice is tried again when it is not held any more.
                    Err(error) => tracing::error!(%error, "an attempt to notify has ended by a bug"),
                },
                () = self.0.store.told() => {}
                () = sleep(TICK) => {}
            }
        }
    }

    /// Forgets what nobody takes: its receivers are in no configuration any more.
    async fn sweep(&self) -> Result<(), StoreError> {
        let forgotten = self.0.store.forget_notices(now_ms().saturating_sub(FORGOTTEN_MS)).await?;
        if forgotten > 0 {
            tracing::warn!(forgotten, "notices to receivers that are not there any more are forgotten");
        }
        Ok(())
    }

    /// Writes down, hands out, and begins what is due.
    async fn step(&self, resting: &mut Resting, trying: &mut JoinSet<Tried>) -> Result<(), StoreError> {
        let store = &self.0.store;
        store.keep_told().await?;
        for happened in store.happenings(AT_ONCE).await? {
            let Some(happening) = happened.what.clone() else {
                tracing::warn!(id = happened.id, "a happening of a newer program is told to nobody");
                store.hand_out(&happened, "", Vec::new(), MOST).await?;
                continue;
            };
            let address = self.0.address.as_deref();
            let told = match story::tell(store, address, &happening, &happened.id, happened.at).await {
                // One that can never be told must not keep all others back.
                Err(error) if !error.is_of_the_database() => {
                    tracing::error!(id = happened.id, %error, "a happening is told to nobody");
                    store.hand_out(&happened, "", Vec::new(), MOST).await?;
                    continue;
                }
                told => told?,
            };
            let wanting = self.0.receivers.iter().filter(|receiver| receiver.wants(&happening, &told));
            let wanting = wanting.map(|receiver| receiver.name.clone()).collect();
            let carried = serde_json::to_string(&Carried { happening, told });
            let carried = carried.map_err(|error| StoreError::Strange(error.to_string()))?;
            for (receiver, dropped) in store.hand_out(&happened, &carried, wanting, MOST).await? {
                tracing::error!(receiver, dropped, "notices are dropped: too many wait");
                if let Some(tally) = self.0.tallies.get(&receiver) {
                    tally.drops(dropped);
                }
            }
        }
        for name in store.due_receivers().await? {
            let Some(receiver) = self.0.receivers.iter().find(|receiver| receiver.name == name) else {
                continue;
            };
            if resting.is(&name) {
                continue;
            }
            let hold = u64::try_from(receiver.timeout.get().as_millis()).unwrap_or(0) + MARGIN_MS;
            if let Some(notice) = store.take_notice(&name, hold).await? {
                resting.busy.insert(name);
                trying.spawn(send(receiver.clone(), notice));
            }
        }
        Ok(())
    }

    /// Keeps what an attempt came to.
    async fn settle(&self, tried: Tried, resting: &mut Resting) {
        let Tried { notice, came } = tried;
        resting.busy.remove(&notice.receiver);
        let Some(tally) = self.0.tallies.get(&notice.receiver) else { return };
        let store = &self.0.store;
        let kept = match came {
            Attempt::Taken(said) => {
                tally.takes();
                tracing::debug!(receiver = notice.receiver, id = notice.id, said, "notified");
                store.forget_notice(&notice).await
            }
            Attempt::Never(why) => {
                tally.fails(&why);
                self.give_up(tally, &notice, &why).await
            }
            Attempt::Later { why, after } => {
                let failures = tally.fails(&why);
                let now = now_ms();
                let pause = after.unwrap_or_else(|| self.wait(failures).min(PAUSE));
                resting.until.insert(notice.receiver.clone(), Instant::now() + pause);
                let wait = self.wait(notice.attempts).max(after.unwrap_or_default());
                match notice.attempts >= ATTEMPTS || now.saturating_sub(notice.at) > LASTS_MS {
                    true => self.give_up(tally, &notice, &why).await,
                    false => {
                        tracing::warn!(receiver = notice.receiver, id = notice.id, why, "not notified yet");
                        let until = now + u64::try_from(wait.as_millis()).unwrap_or(0);
                        store.put_notice_off(&notice, until).await
                    }
                }
            }
        };
        // It is held for a while, and tried again then, under the same name.
        if let Err(error) = kept {
            tracing::warn!(receiver = notice.receiver, id = notice.id, %error, "that somebody was notified is not kept");
        }
    }

    async fn give_up(&self, tally: &Tally, notice: &Notice, why: &str) -> Result<(), StoreError> {
        tally.gives_up();
        tracing::error!(receiver = notice.receiver, id = notice.id, why, "not notified: it is given up");
        self.0.store.forget_notice(notice).await
    }

    /// The wait after so many failures: twice as long each time, between half and one and a half of that.
    fn wait(&self, failures: u64) -> Duration {
        let doubled = u32::try_from(failures.saturating_sub(1).min(20)).unwrap_or(20);
        let wait = self.0.first_wait.saturating_mul(2u32.saturating_pow(doubled)).min(LONGEST_WAIT);
        wait.mul_f64(0.5 + f64::from(rand::random::<u16>()) / f64::from(u16::MAX))
    }

    /// Tells one receiver, now and once, that this is a trial; `None`: there is none of that name.
    pub async fn trial(&self, name: &str, by: &str) -> Option<Attempt> {
        let receiver = self.0.receivers.iter().find(|receiver| receiver.name == name)?;
        let happening = Happening::Trial { by: by.to_owned() };
        let at = now_ms();
        let id = happening.id(at);
        let told = story::tell(&self.0.store, self.0.address.as_deref(), &happening, &id, at).await;
        // A trial is about nothing that a store knows.
        let Ok(told) = told else { return Some(Attempt::later("the store does not answer")) };
        let mut receiver = receiver.clone();
        if receiver.timeout.get() > TRIAL.get() {
            receiver.timeout = TRIAL;
        }
        Some(attempt::attempt(&receiver, &happening, &told).await)
    }

    /// All receivers, in the order of the configuration.
    pub async fn standing(&self) -> Result<Vec<Standing>, StoreError> {
        if self.0.receivers.is_empty() {
            return Ok(Vec::new());
        }
        let waiting = self.0.store.waiting_notices().await?;
        let standing = |receiver: &Receiver| {
            let waiting = waiting.get(&receiver.name).copied().unwrap_or(0);
            Standing::of(receiver, waiting, self.0.tallies.get(&receiver.name))
        };
        Ok(self.0.receivers.iter().map(standing).collect())
    }
}

/// One attempt at one notice.
async fn send(receiver: Receiver, notice: Notice) -> Tried {
    let came = match serde_json::from_str::<Carried>(&notice.what) {
        Ok(Carried { happening, told }) => attempt::attempt(&receiver, &happening, &told).await,
        Err(error) => Attempt::Never(format!("it was written down by another program: {error}")),
    };
    Tried { notice, came }
}
