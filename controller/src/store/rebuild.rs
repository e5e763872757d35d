//! What the rows of runs say, made again from their events.
//!
//! Of a row `title`, `plan`, `state` and `events` are derived; the rest stands in it alone, and is never altered.

use squall_experiments::exit::Exit;
use squall_experiments::muster::{Began, FleetEvent, Line, What};

use super::runs::missing;
use super::sql::{Sql, Value};
use super::{LIVE, Store, StoreError, now_ms};

/// What became of the rows of runs when they were made again from their events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// How many runs were looked at.
    pub runs: u64,
    /// Those whose row said something else than their events, each with what.
    pub mended: Vec<(String, Vec<String>)>,
    /// Those that somebody carries on right now: they were left as they are.
    pub held: Vec<String>,
    /// Those of whose events some are missing or no lines of a log, each with why: they were left as they are.
    pub broken: Vec<(String, String)>,
}

/// What became of one row.
enum Came {
    Right,
    Mended(Vec<String>),
    Held,
    Broken(String),
}

impl Store {
    /// Makes the rows of all runs again from their events, each in a transaction of its own. A run that somebody carries on is
    /// left alone, and so is one whose log is not whole. One whose log has no end counts as going on: a controller that starts, or
    /// takes it over, closes it.
    pub async fn rebuild_runs(&self) -> Result<Rebuilt, StoreError> {
        let all = self.read(|sql| {
            let rows = sql.query("SELECT id FROM runs ORDER BY made_at, id", &[])?;
            rows.iter().map(|row| row.text(0)).collect::<Result<Vec<_>, _>>()
        });
        let mut rebuilt = Rebuilt::default();
        for id in all.await? {
            let run = id.clone();
            let came = self.change(move |sql| rebuild(sql, &run, now_ms())).await?;
            rebuilt.runs += 1;
            match came {
                Came::Right => {}
                Came::Mended(what) => rebuilt.mended.push((id, what)),
                Came::Held => rebuilt.held.push(id),
                Came::Broken(why) => rebuilt.broken.push((id, why)),
            }
        }
        Ok(rebuilt)
    }
}

fn rebuild(sql: &mut dyn Sql, run: &str, now: u64) -> Result<Came, StoreError> {
    // Altering the row, even to what it was, keeps other controllers from it until the commit.
    let locked =
        "UPDATE runs SET events = events WHERE id = $1 RETURNING title, plan, state, events, held_until";
    let row = sql.one(locked, &[run.into()])?.ok_or_else(|| missing(run))?;
    let (title, plan, state) = (row.text(0)?, row.text(1)?, row.text(2)?);
    let events = row.number(3)?;
    if LIVE.contains(&state.as_str()) && row.number(4)? > now {
        return Ok(Came::Held);
    }
    let counted = "SELECT COUNT(*), COALESCE(MAX(seq) + 1, 0) FROM events WHERE run = $1";
    let counted = sql.one(counted, &[run.into()])?.ok_or_else(|| missing(run))?;
    let (there, next) = (counted.number(0)?, counted.number(1)?);
    if there != next {
        return Ok(Came::Broken(format!("{} of its {next} events are missing", next.saturating_sub(there))));
    }
    let mut meant = (title.clone(), plan.clone(), state.clone(), next);
    if next > 0 {
        let (first, last) = match (line(sql, run, 0)?, line(sql, run, next - 1)?) {
            (Ok(first), Ok(last)) => (first, last),
            (Err(why), _) | (_, Err(why)) => return Ok(Came::Broken(why)),
        };
        if let FleetEvent::Began(Began { title, plan, .. }) = first {
            (meant.0, meant.1) = (title, plan);
        }
        meant.2 = match last {
            FleetEvent::Finished { exit, .. } => exit.meaning().to_owned(),
            // Nobody says of a host that is still modified that it is not, because its log has no end.
            _ if LIVE.contains(&state.as_str()) || state == Exit::Modified.meaning() => state.clone(),
            _ => "running".to_owned(),
        };
    }
    let differs = |name: &str, is: &str, meant: &str| {
        (is != meant).then(|| format!("{name} `{is}`, and by its events `{meant}`"))
    };
    let what: Vec<String> = [
        differs("title", &title, &meant.0),
        differs("plan", &plan, &meant.1),
        differs("state", &state, &meant.2),
        differs("events", &events.to_string(), &next.to_string()),
    ]
    .into_iter()
    .flatten()
    .collect();
    if what.is_empty() {
        return Ok(Came::Right);
    }
    let set = "UPDATE runs SET title = $1, plan = $2, state = $3, events = $4 WHERE id = $5";
    let values: [Value; 5] =
        [(&meant.0).into(), (&meant.1).into(), (&meant.2).into(), next.into(), run.into()];
    sql.execute(set, &values)?;
    Ok(Came::Mended(what))
}

/// What an event of a run says of all hosts; an error says why it is none that a run writes. One of a single host counts as one
/// that says nothing of the whole.
fn line(sql: &mut dyn Sql, run: &str, seq: u64) -> Result<Result<FleetEvent, String>, StoreError> {
    let asked = "SELECT event FROM events WHERE run = $1 AND seq = $2";
    let row = sql.one(asked, &[run.into(), seq.into()])?;
    let text = row.ok_or_else(|| missing(run))?.text(0)?;
    Ok(match serde_json::from_str::<Line>(&text) {
        Ok(Line { what: What::Fleet { event, .. }, .. }) => Ok(event),
        Ok(Line { what: What::OnHost { host, .. }, .. }) => {
            Ok(FleetEvent::LeftOut { host, why: String::new() })
        }
        Err(error) => Err(format!("its event {seq} is no line of a log: {error}")),
    })
}
