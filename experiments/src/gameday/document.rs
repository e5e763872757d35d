//! The game day file.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::record::Mark;
use crate::document::{Finding, Problems, read_other};
use crate::name::Name;
use crate::quantity::Period;

/// The format that this build reads.
pub const FORMAT: u32 = 1;
/// How many steps a day has at most.
pub const MOST_STEPS: usize = 100;
/// How long a pause is at most.
pub const LONGEST_PAUSE: Period = Period::from_secs(8 * 3600);
/// How long a mark is waited for at most.
pub const LONGEST_WAIT: Period = Period::from_secs(8 * 3600);

/// A planned sequence of runs with people watching.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct GameDay {
    /// The version of this format.
    #[schemars(range(min = 1, max = 1))]
    pub gameday: u32,
    /// What it is called: days of one name are compared with each other.
    pub name: Name,
    /// What it is about, in a line.
    pub title: String,
    /// What is to be learnt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Who is who: `{ lead: Anna, on-call: Ben }`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub roles: BTreeMap<String, String>,
    /// What is done, in this order.
    pub steps: Vec<Step>,
}

/// One step of a game day: a run, or, without an experiment, something that people do or talk through.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Step {
    /// What it is called, once in a day.
    pub name: Name,
    /// The experiment: the path of its file, seen from this one, or its whole text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub experiment: Option<String>,
    /// Values of the experiment's variables.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub vars: BTreeMap<String, String>,
    /// What participants should know of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notes: Option<String>,
    /// The role that leads it, one of `roles`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lead: Option<String>,
    /// Whether somebody has to say go before it.
    #[serde(default, skip_serializing_if = "Go::is_usual")]
    pub go: Go,
    /// How long nothing happens before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<Period>,
    /// How soon people should have noticed and acted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect: Option<Expect>,
}

/// Whether somebody has to say go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Go {
    /// Somebody says go, or no-go.
    #[default]
    Ask,
    /// It begins by itself, unless the step before deviated, or could not be carried out.
    Auto,
}

impl Go {
    fn is_usual(&self) -> bool {
        *self == Go::default()
    }
}

/// How soon people should have noticed and acted, each counted from the beginning of the fault. After the run the day waits for
/// what is missing, until its time is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Expect {
    /// Within this time somebody, or an alert, has noticed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detected_within: Option<Period>,
    /// Within this time somebody has taken it on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged_within: Option<Period>,
    /// Within this time users feel nothing of it any more, by what people did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mitigated_within: Option<Period>,
}

impl Expect {
    /// Within which time a mark is expected.
    pub fn within(&self, mark: Mark) -> Option<Period> {
        match mark {
            Mark::Detected => self.detected_within,
            Mark::Acknowledged => self.acknowledged_within,
            Mark::Mitigated => self.mitigated_within,
        }
    }
}

/// Where the experiment of a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Experiment<'d> {
    /// In a file, seen from the game day's.
    File(&'d str),
    /// Here: its text.
    Text(&'d str),
}

impl Step {
    /// Its experiment; `None` where it is for people alone. What has a line break or begins as JSON does is a text.
    pub fn experiment(&self) -> Option<Experiment<'_>> {
        let text = self.experiment.as_deref()?;
        let inline = text.contains('\n') || text.trim_start().starts_with('{');
        Some(if inline { Experiment::Text(text) } else { Experiment::File(text) })
    }
}

impl GameDay {
    /// The step of a name.
    pub fn step(&self, name: &Name) -> Option<&Step> {
        self.steps.iter().find(|step| step.name == *name)
    }

    /// Who leads a step: the role, and the person where that is said.
    pub fn lead(&self, step: &Step) -> Option<(&str, &str)> {
        let role = step.lead.as_deref()?;
        self.roles.get_key_value(role).map(|(role, who)| (role.as_str(), who.as_str()))
    }

    /// The same with the text of every experiment in it. `text` gives that of a file.
    ///
    /// Errors: the first that `text` gives.
    pub fn with_texts<E>(
        mut self,
        mut text: impl FnMut(&Name, &str) -> Result<String, E>,
    ) -> Result<Self, E> {
        for step in &mut self.steps {
            if let Some(Experiment::File(file)) = step.experiment() {
                let mut read = text(&step.name, file)?;
                // A text of one line is still a text.
                if !read.contains('\n') {
                    read.push('\n');
                }
                step.experiment = Some(read);
            }
        }
        Ok(self)
    }
}

/// The JSON Schema of [`GameDay`].
pub fn schema() -> &'static Value {
    static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
        let schema = schemars::SchemaGenerator::default().into_root_schema_for::<GameDay>();
        serde_json::to_value(&schema).unwrap_or_else(|_| schema.to_value())
    });
    &SCHEMA
}

/// Reads a game day file; `name` is what problems call it. Whether its experiments are there, and are some, is for whoever
/// reads them to say.
pub fn read(name: &str, bytes: &[u8]) -> Result<GameDay, Problems> {
    read_other(name, bytes, schema(), "the game day", check)
}

fn check(day: &GameDay) -> Vec<Finding> {
    let mut found = Vec::new();
    if day.title.trim().is_empty() {
        found.push(Finding::new("title", "`title` is empty", "say what the day is about"));
    }
    for (role, who) in &day.roles {
        if role.trim().is_empty() || who.trim().is_empty() {
            let help = "name each role and who has it: `lead: Anna`";
            found.push(Finding::new("roles", format!("the role `{role}` has nobody: `{who}`"), help));
        }
    }
    if day.steps.is_empty() {
        let help = "a game day has a step at least: `- { name: one, experiment: one.yaml }`";
        found.push(Finding::new("steps", "`steps` is empty", help));
    }
    if day.steps.len() > MOST_STEPS {
        let what = format!("there are {} steps", day.steps.len());
        found.push(Finding::new("steps", what, format!("a game day has {MOST_STEPS} at most")));
    }
    let mut names = BTreeSet::new();
    for (at, step) in day.steps.iter().enumerate() {
        if !names.insert(&step.name) {
            let what = format!("there is another step `{}`", step.name);
            found.push(Finding::new(&format!("steps.{at}.name"), what, "give each step a name of its own"));
        }
        found.extend(check_step(day, step, &format!("steps.{at}")));
    }
    found
}

fn check_step(day: &GameDay, step: &Step, at: &str) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut add = |key: &str, what: String, help: &str| {
        found.push(Finding::new(&format!("{at}.{key}"), what, help));
    };
    if let Some(lead) = step.lead.as_ref().filter(|lead| !day.roles.contains_key(*lead)) {
        let known: Vec<String> = day.roles.keys().map(|role| format!("`{role}`")).collect();
        let help = match known.is_empty() {
            true => format!("say who that is: `roles: {{ {lead}: NAME }}`"),
            false => format!("say who that is under `roles`, or name one of {}", known.join(", ")),
        };
        add("lead", format!("nobody has the role `{lead}`"), &help);
    }
    if step.experiment.as_ref().is_some_and(|text| text.trim().is_empty()) {
        add("experiment", "`experiment` is empty".to_owned(), "name its file, or leave the key out");
    }
    if step.experiment.is_none() {
        if step.notes.as_ref().is_none_or(|notes| notes.trim().is_empty()) {
            let help = "name an experiment, or say in `notes` what people do";
            add("notes", format!("nothing is done in the step `{}`", step.name), help);
        }
        if !step.vars.is_empty() {
            add("vars", "there is no experiment that has variables".to_owned(), "leave `vars` out");
        }
        if step.expect.is_some() {
            let help = "leave `expect` out, or name an experiment";
            add("expect", "nothing is injected that could be detected".to_owned(), help);
        }
    }
    if let Some(pause) = step.pause.filter(|pause| *pause > LONGEST_PAUSE) {
        add("pause", format!("`pause: {pause}` is too long"), &format!("wait {LONGEST_PAUSE} at most"));
    }
    if let Some(expect) = &step.expect {
        let within = Mark::ALL.map(|mark| (mark, expect.within(mark)));
        for (mark, within) in within {
            let key = format!("expect.{mark}-within");
            match within {
                Some(within) if within.is_zero() => {
                    add(&key, "nobody is that quick".to_owned(), "write a time: `5m`");
                }
                Some(within) if within > LONGEST_WAIT => {
                    let help = format!("the day waits for it: {LONGEST_WAIT} at most");
                    add(&key, format!("`{within}` is too long"), &help);
                }
                _ => {}
            }
        }
        let said: Vec<(Mark, Period)> =
            within.into_iter().filter_map(|(mark, at)| Some((mark, at?))).collect();
        for pair in said.windows(2) {
            let [(first, early), (then, late)] = pair else { continue };
            if late < early {
                let what = format!("`{then}-within: {late}` is less than `{first}-within: {early}`");
                add(&format!("expect.{then}-within"), what, "what comes later takes longer");
            }
        }
    }
    found
}
