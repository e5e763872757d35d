//! A sample of several looks: until enough of them were good, or cannot be any more, or the time is over.

use std::time::Duration;

use squall_experiments::probe::Looks;
use tokio::time::{Instant, sleep};

use super::expect::Seen;
use super::family::Family;
use super::prepare::Look;

/// Takes one sample. An error says why the probe cannot be sampled at all any more.
pub(super) async fn sample(look: &Look, family: &Family, looks: Option<&Looks>) -> Result<Seen, String> {
    let Some(looks) = looks else { return look.look(family, None).await };
    let quota = looks.quota();
    let until = looks.within.map(|within| Instant::now() + within.get());
    let left = || until.map(|until| until.saturating_duration_since(Instant::now()));
    let mut taken = Taken::default();
    loop {
        let seen = look.look(family, left()).await?;
        taken.add(seen);
        if taken.good >= quota.good {
            return Ok(taken.enough());
        }
        let hopeless = taken.all() - taken.good > quota.of - quota.good;
        if hopeless || left().is_some_and(|left| left <= looks.pause.get()) {
            return Ok(taken.too_few());
        }
        sleep(looks.pause.get()).await;
    }
}

/// The looks of one sample so far.
#[derive(Default)]
struct Taken {
    good: u32,
    bad: u32,
    unclear: u32,
    last_good: Option<Seen>,
    /// The last one that was not good; one that was bad goes before those that were unclear.
    last: Option<Seen>,
}

impl Taken {
    fn all(&self) -> u32 {
        self.good + self.bad + self.unclear
    }

    fn add(&mut self, seen: Seen) {
        match (seen.good, seen.unclear) {
            (true, _) => {
                self.good += 1;
                self.last_good = Some(seen);
                return;
            }
            (false, true) => self.unclear += 1,
            (false, false) => self.bad += 1,
        }
        if self.bad == 0 || !seen.unclear {
            self.last = Some(seen);
        }
    }

    fn figures(&self, text: &str) -> String {
        match self.all() {
            1 => text.to_owned(),
            all => format!("{} of {all} looks good: {text}", self.good),
        }
    }

    fn enough(self) -> Seen {
        let text = self.last_good.as_ref().map_or("", |seen| &seen.text);
        Seen::good(self.figures(text))
    }

    /// Without any look that was really bad the sample says nothing.
    fn too_few(self) -> Seen {
        let text = self.last.as_ref().map_or("", |seen| &seen.text);
        let text = self.figures(text);
        if self.bad == 0 { Seen::unclear(text) } else { Seen::bad(text) }
    }
}

/// The shorter of a probe's own time-out and what is left for it.
pub(super) fn shorter(timeout: Duration, left: Option<Duration>) -> Duration {
    left.map_or(timeout, |left| left.min(timeout))
}
