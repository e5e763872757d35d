//! The schedule file.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::bars::{Bar, Bars};
use super::clock::{Day, Moment, Zone};
use super::cron::Cron;
use super::icalendar::{Calendar, CalendarError};
use super::random::Random;
use crate::document::{Finding, Problems, read_other};
pub use crate::name::Name;

/// The format that this build reads.
pub const FORMAT: u32 = 1;

/// When an experiment runs by itself, on which hosts, and when it does not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Schedule {
    /// The version of this format.
    #[schemars(range(min = 1, max = 1))]
    pub schedule: u32,
    /// What it is called, among all schedules of a controller.
    pub name: Name,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The zone by whose clocks all its times and days are meant.
    #[serde(default)]
    pub zone: Zone,
    /// When it runs.
    pub when: Timing,
    /// When it does not, although it would. Applied when planning: what is shown is what will be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<Exception>,
    /// The labels that a host carries whose owner wants this: no other host is touched, whatever the experiment says.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub opt_in: BTreeMap<String, String>,
    /// Whether it only goes through everything, gates and plan included, and injects nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leashed: bool,
    /// The seed of every coin, time and run; without it one is chosen when the schedule is added, and shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4294967295i64))]
    pub seed: Option<u64>,
    /// The text of the experiment file; `squall schedule add --experiment FILE` puts it here.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub experiment: String,
    /// Values of the experiment's variables.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub vars: BTreeMap<String, String>,
}

/// When it runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Timing {
    /// At the times of a cron expression.
    Cron(Cron),
    /// Once.
    At(Moment),
    /// At random within bounds.
    Random(Random),
}

/// In a few words, as a list of schedules has them.
impl fmt::Display for Timing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Timing::Cron(cron) => cron.fmt(f),
            Timing::At(moment) => write!(f, "once, {moment}"),
            Timing::Random(Random { mean, apart, from, to, per, .. }) => {
                write!(f, "at random, every {mean} work days on average and {apart} at least, {from}-{to}")?;
                per.iter().try_for_each(|per| write!(f, ", for each {per}"))
            }
        }
    }
}

/// When it does not run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Exception {
    /// Some days.
    Days(Days),
    /// While an event of a calendar of the controller goes on, by its name there.
    Calendar(String),
    /// While an event of this calendar goes on: the text of a calendar file (RFC 5545).
    Ics(String),
}

/// Some days, from the first to the last, by the clocks of the schedule's zone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Days {
    /// The first.
    pub from: Day,
    /// The last; none: the first is the only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Day>,
    /// Why.
    pub why: String,
}

/// Why the exceptions of a schedule cannot be told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExceptionError {
    /// The controller has no calendar of that name.
    #[error("there is no calendar `{0}`; help: name it under `calendars:` in the controller's configuration")]
    Unknown(String),
    /// A calendar that cannot be used.
    #[error("the calendar `{name}`: {error}")]
    Calendar {
        /// Its name, or where it stands.
        name: String,
        /// What is wrong with it.
        error: CalendarError,
    },
}

impl Schedule {
    /// When it does not run between two instants. `calendars` knows those of the controller.
    ///
    /// Errors: a calendar that is not known or cannot be told. Then nothing may run: what is barred is not known.
    pub fn bars(
        &self,
        calendars: &BTreeMap<String, Calendar>,
        from: jiff::Timestamp,
        to: jiff::Timestamp,
    ) -> Result<Bars, ExceptionError> {
        let mut bars = Vec::new();
        for exception in &self.except {
            let of = |name: &str, calendar: &Calendar| {
                calendar
                    .bars(&self.zone, from, to)
                    .map_err(|error| ExceptionError::Calendar { name: name.to_owned(), error })
            };
            match exception {
                Exception::Days(days) => bars.extend(days.bar(&self.zone)),
                Exception::Calendar(name) => {
                    let calendar =
                        calendars.get(name).ok_or_else(|| ExceptionError::Unknown(name.clone()))?;
                    bars.extend(of(name, calendar)?);
                }
                Exception::Ics(text) => {
                    let wrong = |error| ExceptionError::Calendar { name: "ics".to_owned(), error };
                    bars.extend(of("ics", &Calendar::read(text).map_err(wrong)?)?);
                }
            }
        }
        Ok(Bars::new(bars))
    }
}

impl Days {
    fn bar(&self, zone: &Zone) -> Option<Bar> {
        let last = self.to.unwrap_or(self.from);
        let (from, to) = (zone.midnight(self.from.0)?, zone.midnight(last.0.tomorrow().ok()?)?);
        Some(Bar { from, to, why: self.why.clone() })
    }
}

/// The JSON Schema of [`Schedule`].
pub fn schema() -> &'static Value {
    static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
        let schema = schemars::SchemaGenerator::default().into_root_schema_for::<Schedule>();
        serde_json::to_value(&schema).unwrap_or_else(|_| schema.to_value())
    });
    &SCHEMA
}

/// Reads a schedule file; `name` is what problems call it. Whether its experiment is one is for whoever runs it to say.
pub fn read(name: &str, bytes: &[u8]) -> Result<Schedule, Problems> {
    read_other(name, bytes, schema(), "the schedule", check)
}

fn check(schedule: &Schedule) -> Vec<Finding> {
    let mut found = Vec::new();
    match &schedule.when {
        Timing::Cron(_) => {}
        Timing::At(moment) => {
            if let Err(error) = moment.at(&schedule.zone) {
                found.push(Finding::new("when.at", error.what, error.help.unwrap_or_default()));
            }
        }
        Timing::Random(random) => {
            if random.mean < random.apart {
                let what = format!("`mean: {}` is less than `apart: {}`", random.mean, random.apart);
                found.push(Finding::new("when.random.mean", what, "the mean is at least the minimum"));
            }
            if random.from >= random.to {
                let what = format!("the hours from `{}` to `{}` are none", random.from, random.to);
                found.push(Finding::new(
                    "when.random.to",
                    what,
                    "they end later than they begin, on the same day",
                ));
            }
            if schedule.opt_in.is_empty() {
                let help = "say by which label hosts opt in: `opt-in: { chaos: \"yes\" }`";
                found.push(Finding::new("opt-in", "`random` concerns only hosts that opted in", help));
            }
        }
    }
    for (at, exception) in schedule.except.iter().enumerate() {
        match exception {
            Exception::Days(days) if days.to.is_some_and(|to| to < days.from) => {
                let what = format!("`to: {}` is before `from: {}`", days.to.unwrap_or(days.from), days.from);
                found.push(Finding::new(
                    &format!("except.{at}.days.to"),
                    what,
                    "name the last day, or leave it out",
                ));
            }
            Exception::Ics(text) => {
                if let Err(error) = Calendar::read(text) {
                    let said = error.to_string();
                    let usual = "paste a calendar file, with every line one deeper than `ics`";
                    let (what, help) = said.split_once("; help: ").unwrap_or((&said, usual));
                    found.push(Finding::new(&format!("except.{at}.ics"), what, help));
                }
            }
            _ => {}
        }
    }
    found
}
