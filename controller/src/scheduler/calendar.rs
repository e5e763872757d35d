//! What is coming, what was, and why something did not or will not run.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::Serialize;
use squall_experiments::schedule::{Bar, Entry, Zone};

use super::outlook::{Around, Known};
use super::{Scheduler, instant, ms};
use crate::store::{EntryRow, ScheduleRow, StoreError, states, too_near};

/// How many entries a calendar shows of one schedule.
pub const MOST_OF_ONE: usize = 10_000;
/// How many it shows at all.
pub const MOST: usize = 500_000;
/// The longest stretch of time that is shown.
pub const LONGEST: SignedDuration = SignedDuration::from_hours(366 * 24);

/// How far ahead it is shown: what is at random follows from all days before.
pub const FARTHEST: SignedDuration = SignedDuration::from_hours(3660 * 24);

/// Why a stretch of time is not shown; none: it is.
pub fn refused(from: Timestamp, to: Timestamp, now: Timestamp) -> Option<&'static str> {
    if to < from || to.duration_since(from) > LONGEST {
        return Some("a calendar goes from an earlier to a later time, at most 366 days");
    }
    (to.duration_since(now) > FARTHEST).then_some("a calendar ends at most 10 years from now")
}

/// A stretch of time with all that is scheduled in it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Pages {
    /// Its beginning: milliseconds since 1970.
    pub from: u64,
    /// Its end, which does not belong to it.
    pub to: u64,
    /// What was and will be, by time.
    pub entries: Vec<Line>,
    /// The change freezes in it.
    pub freezes: Vec<Freeze>,
    /// Why nothing of it begins before a halt is lifted; none: nothing is halted.
    pub blocked: Option<String>,
    /// What cannot be told, a sentence each.
    pub problems: Vec<String>,
    /// Whether there are more entries than are shown.
    pub more: bool,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Line {
    /// Its schedule.
    pub schedule: String,
    /// When: milliseconds since 1970.
    pub at: u64,
    /// When, by the clocks of its zone: `2027-03-01 10:00:00 +01:00`.
    pub local: String,
    /// Its group of hosts; empty: all.
    pub group: String,
    /// What is coming: `planned`, `leashed` (it will inject nothing), `paused`, `barred`. What was: `fired`, `leashed`,
    /// `refused`, `skipped`, `missed`, or `claimed` while it is about to begin.
    pub state: String,
    /// Why it did not or will not run.
    pub why: Option<String>,
    /// Its run.
    pub run: Option<String>,
}

/// A time in which no run begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Freeze {
    /// Its beginning: milliseconds since 1970.
    pub from: u64,
    /// Its end, which does not belong to it.
    pub to: u64,
    /// Why.
    pub why: String,
}

impl Scheduler {
    /// What schedules have done before `now` and will do after it, between two instants; of one schedule or of all.
    pub async fn calendar(
        &self,
        only: Option<&str>,
        from: Timestamp,
        to: Timestamp,
        now: Timestamp,
    ) -> Result<Pages, StoreError> {
        let around = Around::now(&self.0.launch, &self.0.store).await?;
        let rows: Vec<ScheduleRow> = self.0.store.schedules().await?;
        let rows: Vec<ScheduleRow> =
            rows.into_iter().filter(|row| only.is_none_or(|only| row.name == only)).collect();
        let kept = Kept {
            past: self.0.store.entries(only, ms(from), ms(to), MOST as u64).await?,
            ran: self.0.store.ran_last().await?,
            blocked: crate::api::halted(&self.0.store).await?,
        };
        let made = tokio::task::spawn_blocking(move || pages(&rows, &around, kept, (from, to), now));
        made.await.map_err(|error| StoreError::Strange(error.to_string()))
    }
}

/// What the store knows beside schedules.
#[derive(Default)]
pub(super) struct Kept {
    /// What became of entries.
    pub past: Vec<EntryRow>,
    /// The last entry of each group that ran, for each way in which it did.
    pub ran: Vec<EntryRow>,
    /// Why nothing begins.
    pub blocked: Option<String>,
}

/// The pages of some schedules.
pub(super) fn pages(
    rows: &[ScheduleRow],
    around: &Around,
    kept: Kept,
    (from, to): (Timestamp, Timestamp),
    now: Timestamp,
) -> Pages {
    let known: Vec<Known> = rows.iter().filter_map(|row| Known::of(row).ok()).collect();
    let zones: BTreeMap<&str, &Zone> =
        known.iter().map(|known| (known.row.name.as_str(), &known.schedule.zone)).collect();
    let Kept { past, ran, blocked } = kept;
    let mut problems = Vec::new();
    let freezes = around.frozen(from, to).unwrap_or_else(|why| {
        problems.push(why);
        Default::default()
    });
    let key = |schedule: &str, at: u64, group: &str| (schedule.to_owned(), at, group.to_owned());
    let decided: BTreeSet<(String, u64, String)> =
        past.iter().map(|past| key(&past.schedule, past.at, &past.group)).collect();
    let freeze = |bar: &Bar| Freeze { from: ms(bar.from), to: ms(bar.to), why: bar.why.clone() };
    let mut entries: Vec<Line> = past
        .into_iter()
        .map(|past| Line {
            local: local(instant(past.at), zones.get(past.schedule.as_str()).copied()),
            schedule: past.schedule,
            at: past.at,
            group: past.group,
            state: past.state,
            why: past.why,
            run: past.run,
        })
        .collect();
    let mut more = false;
    for known in &known {
        // What is decided already is told by what became of it. What is due may not be yet.
        let mut coming = known.entries(around, from.max(instant(known.row.decided_to)), to, MOST_OF_ONE + 1);
        coming.retain(|entry| {
            entry.at > now || !decided.contains(&key(&known.row.name, ms(entry.at), &entry.group))
        });
        more |= coming.len() > MOST_OF_ONE;
        entries.extend(coming.into_iter().take(MOST_OF_ONE).map(|entry| line(known, entry, &ran)));
    }
    entries.sort_by(|a, b| (a.at, &a.schedule, &a.group).cmp(&(b.at, &b.schedule, &b.group)));
    more |= entries.len() > MOST;
    entries.truncate(MOST);
    let freezes = freezes.list().iter().map(freeze).collect();
    Pages { from: ms(from), to: ms(to), entries, freezes, blocked, problems, more }
}

/// Whether a group ran so lately that an entry will be too near: calendars and groups may have changed since it did.
fn near(known: &Known, entry: &Entry, ran: &[EntryRow]) -> Option<String> {
    let (apart, at) = (ms(entry.apart?), ms(entry.at));
    let leashed = known.schedule.leashed;
    let counts = |last: &&EntryRow| {
        (&last.schedule, &last.group) == (&known.row.name, &entry.group)
            && (leashed || last.state != states::LEASHED)
            && (apart..at).contains(&last.at)
    };
    ran.iter().filter(counts).map(|last| last.at).max().map(too_near)
}

fn line(known: &Known, entry: Entry, ran: &[EntryRow]) -> Line {
    let barred = entry.barred.clone().or_else(|| near(known, &entry, ran));
    let (state, why) = match (barred, &known.row.paused) {
        (Some(why), _) => ("barred", Some(why)),
        (None, Some(paused)) => ("paused", Some(format!("paused by {}: {}", paused.by, paused.why))),
        (None, None) if known.schedule.leashed => ("leashed", Some("it will inject nothing".to_owned())),
        (None, None) => ("planned", None),
    };
    Line {
        schedule: known.row.name.clone(),
        at: ms(entry.at),
        local: local(entry.at, Some(&known.schedule.zone)),
        group: entry.group,
        state: state.to_owned(),
        why,
        run: None,
    }
}

/// By the clocks of a zone; of a schedule that is gone, UTC.
fn local(at: Timestamp, zone: Option<&Zone>) -> String {
    let at = zone.map_or_else(|| at.to_zoned(jiff::tz::TimeZone::UTC), |zone| zone.zoned(at));
    at.strftime("%Y-%m-%d %H:%M:%S %:z").to_string()
}
