//! A schedule of the store, with everything that decides its entries: freezes, calendars and hosts as they are now.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use squall_experiments::fleet::hex;
use squall_experiments::schedule::{Bar, Bars, Calendar, Entry, Outlook, Schedule, Timing};

use super::instant;
use crate::api::Approvals;
use crate::config::Config;
use crate::fleet::authority::sha256;
use crate::gates::{Gates, Outcome};
use crate::launch::Launch;
use crate::store::{ScheduleRow, Store, StoreError};

/// What is around all schedules.
pub(super) struct Around {
    config: Arc<Config>,
    /// The calendars, or why they cannot be told.
    calendars: Result<BTreeMap<String, Calendar>, String>,
    /// The labels of every host.
    hosts: Vec<BTreeMap<String, String>>,
    /// Whether runs need an approval.
    approvals: Approvals,
}

impl Around {
    /// As it is now.
    pub(super) async fn now(launch: &Launch, store: &Store) -> Result<Self, StoreError> {
        let hosts = store.hosts().await?;
        let hosts =
            hosts.into_iter().filter(|host| host.revoked_at.is_none()).map(|host| host.labels).collect();
        let config = Arc::clone(launch.config());
        let read = Arc::clone(&config);
        let read = tokio::task::spawn_blocking(move || read.calendars().map_err(|error| error.to_string()));
        let calendars = read.await.unwrap_or_else(|error| Err(error.to_string()));
        Ok(Around { config, calendars, hosts, approvals: launch.approvals() })
    }

    /// One of known parts.
    #[cfg(test)]
    pub(super) fn of(config: Config, hosts: Vec<BTreeMap<String, String>>) -> Self {
        let calendars = config.calendars().map_err(|error| error.to_string());
        Around { config: Arc::new(config), calendars, hosts, approvals: Approvals::Optional }
    }

    /// What the freezes bar between two instants.
    pub(super) fn frozen(&self, from: Timestamp, to: Timestamp) -> Result<Bars, String> {
        Gates::frozen(&self.config, self.calendars.as_ref().map_err(Clone::clone)?, from, to)
    }

    fn bars(&self, schedule: &Schedule, from: Timestamp, to: Timestamp) -> Result<Bars, String> {
        let calendars = self.calendars.as_ref().map_err(Clone::clone)?;
        let mut bars = schedule.bars(calendars, from, to).map_err(|error| error.to_string())?.list().to_vec();
        let frozen = self.frozen(from, to)?;
        bars.extend(
            frozen.list().iter().map(|bar| Bar { why: format!("change freeze: {}", bar.why), ..bar.clone() }),
        );
        Ok(Bars::new(bars))
    }
}

/// A schedule of the store.
#[derive(Clone)]
pub(super) struct Known {
    pub row: ScheduleRow,
    pub schedule: Arc<Schedule>,
}

impl Known {
    /// The schedule of a row.
    pub(super) fn of(row: &ScheduleRow) -> Result<Self, serde_json::Error> {
        let schedule = Arc::new(serde_json::from_str(&row.document)?);
        Ok(Known { row: row.clone(), schedule })
    }

    /// Its entries from an instant on and before another, at most so many. Where nobody can tell what bars them, all are barred.
    pub(super) fn entries(&self, around: &Around, from: Timestamp, to: Timestamp, most: usize) -> Vec<Entry> {
        let since = instant(self.row.at);
        let random = matches!(self.schedule.when, Timing::Random(_));
        // Random entries follow from all days before them; of others only the asked stretch matters.
        let begin = if random { since } else { from.max(since) };
        // The hours of the day in which the end lies go beyond it.
        let end = to.checked_add(jiff::SignedDuration::from_hours(48)).unwrap_or(to);
        let (bars, unclear) = match self.around_bars(around, begin, end) {
            Ok(bars) => (bars, None),
            Err(why) => (Bars::default(), Some(format!("what bars it cannot be told: {why}"))),
        };
        let groups = match &self.schedule.when {
            Timing::Random(random) => {
                let opted = |labels: &&BTreeMap<String, String>| {
                    self.schedule.opt_in.iter().all(|(name, value)| labels.get(name) == Some(value))
                };
                random.groups(around.hosts.iter().filter(opted))
            }
            _ => vec![String::new()],
        };
        let outlook =
            Outlook { schedule: &self.schedule, seed: self.row.seed, since, bars: &bars, groups: &groups };
        let mut entries = outlook.entries(from, to, most);
        let why = unclear.or_else(|| self.unapproved(around.approvals));
        if why.is_some() {
            entries.iter_mut().for_each(|entry| entry.barred.clone_from(&why));
        }
        entries
    }

    /// What an approval is for: everything that the schedule says, its experiment in it.
    pub(super) fn hash(&self) -> String {
        hex(&sha256(self.row.document.as_bytes()))
    }

    /// Why nothing of it begins: nobody approved it, or it is not what was approved. What is leashed does nothing.
    fn unapproved(&self, approvals: Approvals) -> Option<String> {
        let outcome = self.approval();
        match (&outcome, approvals) {
            _ if self.schedule.leashed => None,
            (None, Approvals::Required) => {
                Some("nobody has approved it: another person does, by `squall schedule approve`".to_owned())
            }
            _ => outcome.filter(|outcome| !outcome.passed).map(|outcome| outcome.why),
        }
    }

    /// Whether it is what was approved; none: nobody approved it.
    pub(super) fn approval(&self) -> Option<Outcome> {
        let approved = self.row.approved.as_ref()?;
        let gate = "unchanged since approval";
        Some(match approved.hash == self.hash() {
            true => {
                Outcome::passes(gate, format!("the schedule is the one that {} has approved", approved.by))
            }
            false => Outcome::refuses(gate, format!("the schedule is not what {} has approved", approved.by)),
        })
    }

    fn around_bars(&self, around: &Around, from: Timestamp, to: Timestamp) -> Result<Bars, String> {
        if from >= to {
            return Ok(Bars::default());
        }
        around.bars(&self.schedule, from, to)
    }
}
