//! The configuration file of a controller (`squall serve --config FILE`): calendars, freezes, gates, budget, and who is told of
//! what happens.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use squall_experiments::document::{Finding, Problems, read_other};
use squall_experiments::quantity::Pick;
use squall_experiments::schedule::{Calendar, CalendarError, Zone};
use squall_experiments::url::HttpUrl;

use crate::gates::Hook;
use crate::notify::Receiver;

/// The format that this build reads.
pub const FORMAT: u32 = 1;

/// What a controller lets begin, and when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// The version of this format.
    #[schemars(range(min = 1, max = 1))]
    pub controller: u32,
    /// Calendar files (RFC 5545) by the names that schedules call them; a relative path begins at this file's folder.
    #[serde(default)]
    pub calendars: BTreeMap<String, PathBuf>,
    /// The calendars of change freezes: while an event of one goes on no run begins, scheduled or not.
    #[serde(default)]
    pub freezes: Vec<String>,
    /// The zone in which days of freezes, and their times without a zone, are meant.
    #[serde(default)]
    pub zone: Zone,
    /// What is asked before each run, in order; any answer but the expected one refuses it, and so does none.
    #[serde(default)]
    pub gates: Vec<Hook>,
    /// What all runs together may touch.
    #[serde(default)]
    pub budget: Budget,
    /// Who is told of what happens.
    #[serde(default)]
    pub notify: Vec<Receiver>,
    /// How people reach the pages of this controller, for links in what they are told: `https://squall.example:8416`.
    #[serde(default)]
    pub address: Option<String>,
}

/// What all runs together may touch, those that go on and those that are about to come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Budget {
    /// How many runs go on at the same time.
    #[serde(default)]
    #[schemars(range(min = 1, max = 10000))]
    pub runs: Option<u32>,
    /// The label that says to which service a host belongs.
    #[serde(default = "service")]
    pub service: String,
    /// How many hosts of one service have faults at the same time: a number, or a share of those that are known.
    #[serde(default)]
    pub hosts_per_service: Option<Pick>,
    /// How many hosts of one zone.
    #[serde(default)]
    pub hosts_per_zone: Option<Pick>,
    /// How many faults a host gets within 24 hours.
    #[serde(default)]
    #[schemars(range(min = 1, max = 10000))]
    pub faults_per_host_and_day: Option<u32>,
    /// Groups of hosts of which only one has faults at the same time, each by the labels that its members carry: the members of
    /// a quorum.
    #[serde(default)]
    pub quorum: BTreeMap<String, BTreeMap<String, String>>,
}

fn service() -> String {
    "service".to_owned()
}

impl Default for Config {
    fn default() -> Self {
        Config {
            controller: FORMAT,
            calendars: BTreeMap::new(),
            freezes: Vec::new(),
            zone: Zone::default(),
            gates: Vec::new(),
            budget: Budget::default(),
            notify: Vec::new(),
            address: None,
        }
    }
}

/// Why a calendar of the controller cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UnusableCalendar {
    /// Its file.
    #[error("the calendar `{name}` in `{}` cannot be read: {cause}", path.display())]
    File {
        /// Its name.
        name: String,
        /// Where it is.
        path: PathBuf,
        /// What the system says.
        cause: std::io::Error,
    },
    /// What it says.
    #[error("the calendar `{name}`: {cause}")]
    Calendar {
        /// Its name.
        name: String,
        /// What is wrong.
        cause: CalendarError,
    },
}

impl Config {
    /// Reads a configuration; relative paths of it begin at `folder`.
    pub fn read(name: &str, bytes: &[u8], folder: &Path) -> Result<Self, Problems> {
        let mut config: Config = read_other(name, bytes, schema(), "the configuration", check)?;
        config.calendars.values_mut().for_each(|path| *path = folder.join(&*path));
        config.gates.iter_mut().for_each(|gate| gate.begin_at(folder));
        config.notify.iter_mut().for_each(|receiver| receiver.begin_at(folder));
        Ok(config)
    }

    /// All calendars, as their files are now: who extends a freeze does not have to restart anything.
    ///
    /// Blocks for as long as the disk takes. Errors: one that cannot be read; then nobody knows what it bars.
    pub fn calendars(&self) -> Result<BTreeMap<String, Calendar>, UnusableCalendar> {
        let read = |(name, path): (&String, &PathBuf)| {
            let text = std::fs::read_to_string(path).map_err(|cause| UnusableCalendar::File {
                name: name.clone(),
                path: path.clone(),
                cause,
            })?;
            let calendar = Calendar::read(&text)
                .map_err(|cause| UnusableCalendar::Calendar { name: name.clone(), cause })?;
            Ok((name.clone(), calendar))
        };
        self.calendars.iter().map(read).collect()
    }
}

/// The JSON Schema of [`Config`].
pub fn schema() -> &'static Value {
    static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
        let schema = schemars::SchemaGenerator::default().into_root_schema_for::<Config>();
        serde_json::to_value(&schema).unwrap_or_else(|_| schema.to_value())
    });
    &SCHEMA
}

fn check(config: &Config) -> Vec<Finding> {
    let mut found = Vec::new();
    for (at, freeze) in config.freezes.iter().enumerate() {
        if !config.calendars.contains_key(freeze) {
            let what = format!("there is no calendar `{freeze}`");
            found.push(Finding::new(&format!("freezes.{at}"), what, "name its file under `calendars:`"));
        }
    }
    for (at, gate) in config.gates.iter().enumerate() {
        found.extend(
            gate.check()
                .into_iter()
                .map(|(key, what, help)| Finding::new(&format!("gates.{at}.{key}"), what, help)),
        );
    }
    let mut names = BTreeSet::new();
    for (at, receiver) in config.notify.iter().enumerate() {
        let wrong = receiver.check().into_iter();
        found.extend(wrong.map(|(key, what, help)| Finding::new(&format!("notify.{at}.{key}"), what, help)));
        if !names.insert(&receiver.name) {
            let what = format!("there are two receivers `{}`", receiver.name);
            found.push(Finding::new(&format!("notify.{at}.name"), what, "give each a name of its own"));
        }
    }
    if let Some(Err(error)) = config.address.as_ref().map(|address| address.parse::<HttpUrl>()) {
        found.push(Finding::new("address", error.what, "write it as `https://squall.example:8416`"));
    }
    for (name, labels) in &config.budget.quorum {
        if labels.is_empty() {
            let what = format!("the group `{name}` has no labels: every host would be in it");
            found.push(Finding::new("budget.quorum", what, "name the labels that its members carry"));
        }
    }
    found
}
