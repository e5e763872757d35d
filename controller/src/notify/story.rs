//! A happening in words, with what the store knows of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use squall_experiments::exit::Exit;
use squall_experiments::muster::{FleetEvent, Line, What};

use super::happening::Happening;
use crate::conductor::date_of;
use crate::standing::exit;
use crate::store::{Store, StoreError};

/// How long a text may be; what is longer is cut.
const LONGEST: usize = 2000;
/// How many hosts are named.
const NAMED: usize = 20;

/// What somebody is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Its name: the same for every receiver, and each time it is sent.
    pub id: String,
    /// Its kind.
    pub kind: String,
    /// When it happened: milliseconds since 1970.
    pub at: u64,
    /// A headline.
    pub title: String,
    /// The rest in words.
    pub text: String,
    /// Everything else by name.
    pub facts: BTreeMap<String, String>,
    /// When a fault came that went: milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// The tags of the experiment; none where it is about none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
}

impl Told {
    /// What stands in a place of a template.
    pub fn place(&self, place: &str) -> &str {
        match place {
            "id" => &self.id,
            "kind" => &self.kind,
            "title" => &self.title,
            "text" => &self.text,
            fact => self.facts.get(fact).map_or("", String::as_str),
        }
    }

    fn fact(&mut self, name: &str, value: impl Into<String>) {
        let value: String = value.into();
        if !value.is_empty() {
            self.facts.insert(name.to_owned(), cut(&value));
        }
    }
}

/// What may stand in a message: one line, no longer than a bit.
fn cut(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let mut cut: String = text.chars().take(LONGEST).map(plain).collect();
    if text.chars().nth(LONGEST).is_some() {
        cut.push('…');
    }
    cut
}

fn named<'h>(hosts: impl ExactSizeIterator<Item = &'h String>) -> String {
    let all = hosts.len();
    let named = hosts.take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    if all > NAMED { format!("{named} and {} more", all - NAMED) } else { named }
}

/// Tells of a happening. `address` is how people reach the controller, for links.
///
/// Errors: a store that does not answer. What it does not know any more is left out.
pub async fn tell(
    store: &Store,
    address: Option<&str>,
    happening: &Happening,
    id: &str,
    at: u64,
) -> Result<Told, StoreError> {
    let mut told = Told { id: id.to_owned(), kind: happening.kind().to_owned(), at, ..Told::default() };
    told.fact("at", date_of(at));
    let experiment = match happening.run() {
        Some(run) => of_run(store, address, run, &mut told).await?,
        None => String::new(),
    };
    match happening {
        Happening::RunBegun { .. } => {
            told.title = format!("{experiment}: a run begins");
            let by = told.place("by").to_owned();
            told.text = format!("on {}, by {by}", on(&told));
        }
        Happening::RunEnded { run, verdict } => {
            told.title = format!("{experiment}: {verdict}");
            told.fact("verdict", verdict);
            told.text = ending(store, run, exit(verdict)).await?;
        }
        Happening::FaultInjected { part, name, .. } => {
            told.title = format!("{experiment}: `{name}` is injected");
            told.text = format!("on {}", on(&told));
            told.fact("fault", name);
            told.fact("part", part.to_string());
        }
        Happening::FaultReverted { part, name, since, .. } => {
            told.title = format!("{experiment}: `{name}` is reverted");
            told.text = format!("after {} s", at.saturating_sub(*since).div_ceil(1000));
            told.since = Some(*since);
            told.fact("fault", name);
            told.fact("part", part.to_string());
        }
        Happening::Halted { reason, by, hosts, open } => {
            told.title = match hosts.len() {
                0 => "Everything is halted".to_owned(),
                1 => format!("`{}` is halted", hosts[0]),
                many => format!("{many} hosts are halted"),
            };
            told.text = format!("by {by}: {reason}");
            if !open.is_empty() {
                told.text += &format!("; not known to have undone everything: {}", named(open.iter()));
            }
            told.fact("hosts", named(hosts.iter()));
            told.fact("by", by);
            told.fact("reason", reason);
        }
        Happening::HaltLifted { reason, by } => {
            told.title = "The halt is lifted: new runs may begin".to_owned();
            told.text = format!("by {by}: {reason}");
            told.fact("by", by);
            told.fact("reason", reason);
        }
        Happening::EntryRefused { schedule, due, group, why, .. } => {
            told.title = format!("Schedule `{schedule}`: an entry was refused");
            entry(&mut told, schedule, *due, group, why);
        }
        Happening::EntryMissed { schedule, due, group, why } => {
            told.title = format!("Schedule `{schedule}`: an entry was missed");
            entry(&mut told, schedule, *due, group, why);
        }
        Happening::ApprovalWanted { how, title, by } => {
            told.title = format!("An approval is wanted: {title}");
            told.text = format!("submitted by {by}; look at it, then: {how}");
            told.fact("experiment", title);
            told.fact("by", by);
        }
        Happening::GameDayBegun { day, title, by } => {
            told.title = format!("Game day: {title} begins");
            told.text = format!("by {by}");
            told.fact("by", by);
            game_day(&mut told, address, day);
        }
        Happening::GameDayAsks { day, title, step, why } => {
            told.title = format!("Game day: {title}: go for `{step}`?");
            told.text = why.clone().unwrap_or_else(|| "somebody has to say go or no-go".to_owned());
            game_day(&mut told, address, day);
        }
        Happening::GameDayEnded { day, title, stopped } => {
            told.title = match stopped {
                Some(_) => format!("Game day: {title} was stopped"),
                None => format!("Game day: {title} is over"),
            };
            told.text = stopped.clone().unwrap_or_else(|| "its report is there".to_owned());
            game_day(&mut told, address, day);
        }
        Happening::Trial { by } => {
            told.title = "A trial of Squall's notifications".to_owned();
            told.text = format!("by {by}; nothing has happened");
            told.fact("by", by);
        }
    }
    (told.title, told.text) = (cut(&told.title), cut(&told.text));
    if let Some(address) = address.filter(|_| !told.facts.contains_key("url")) {
        told.fact("url", address);
    }
    Ok(told)
}

fn on(told: &Told) -> String {
    match told.place("hosts") {
        "" => "its hosts".to_owned(),
        hosts => hosts.to_owned(),
    }
}

fn game_day(told: &mut Told, address: Option<&str>, day: &str) {
    told.fact("game-day", day);
    if let Some(address) = address {
        told.fact("url", format!("{}/game-days/{day}", address.trim_end_matches('/')));
    }
}

fn entry(told: &mut Told, schedule: &str, due: u64, group: &str, why: &str) {
    let group = if group.is_empty() { String::new() } else { format!(" for `{group}`") };
    told.text = format!("due {}{group}: {why}", date_of(due));
    told.fact("schedule", schedule);
    told.fact("due", date_of(due));
    told.fact("reason", why);
}

/// What the store knows of a run; gives its experiment's title.
async fn of_run(
    store: &Store,
    address: Option<&str>,
    run: &str,
    told: &mut Told,
) -> Result<String, StoreError> {
    told.fact("run", run);
    if let Some(address) = address {
        told.fact("url", format!("{}/runs/{run}", address.trim_end_matches('/')));
    }
    let Some(row) = store.run(run).await? else { return Ok(format!("run `{run}`")) };
    told.fact("experiment", &row.title);
    told.fact("by", row.by.split(" (").next().unwrap_or_default());
    told.fact("build", row.build.unwrap_or_default());
    let tags = store.tags_of(run).await?;
    told.fact("tags", tags.join(", "));
    told.tags = Some(tags);
    let first = store.events(run, 0, 1).await?;
    if let Some(FleetEvent::Began(began)) = first.first().and_then(|(_, text)| fleet(text)) {
        told.fact("hosts", named(began.hosts.iter()));
    } else {
        told.fact("hosts", named(store.hosts_of(run).await?.iter()));
    }
    Ok(row.title)
}

fn fleet(line: &str) -> Option<FleetEvent> {
    match serde_json::from_str::<Line>(line).ok()?.what {
        What::Fleet { event, .. } => Some(event),
        What::OnHost { .. } => None,
    }
}

/// The closing sentence of a run, or why it did not begin.
async fn ending(store: &Store, run: &str, came: Exit) -> Result<String, StoreError> {
    let events = store.run(run).await?.map_or(0, |row| row.events);
    let last = store.events(run, events.saturating_sub(1), 1).await?;
    if let Some(FleetEvent::Finished { sentence, .. }) = last.first().and_then(|(_, text)| fleet(text)) {
        return Ok(sentence);
    }
    if came != Exit::Refused {
        return Ok(String::new());
    }
    let outcomes = store.outcomes(run).await?;
    let no = outcomes.iter().filter(|outcome| !outcome.passed);
    let why: Vec<String> = no.map(|outcome| format!("{}: {}", outcome.gate, outcome.why)).collect();
    Ok(if why.is_empty() { "it did not begin".to_owned() } else { why.join("; ") })
}
