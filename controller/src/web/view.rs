//! What pages show of a run, made once for all who look: reading and drawing a log is work, and fifty people may watch.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use squall_experiments::muster::{Line, What};
use tokio::sync::Mutex as Turn;

use super::overview::Now;
use super::{gamedays, run};
use crate::api::Api;
use crate::api::problem::Problem;
use crate::report::GameDayReport;
use crate::report::html::Piece;
use crate::store::{LIVE, RunRow};

/// How many runs are kept ready; of more, that which nobody asked for longest goes.
const RUNS: usize = 16;
/// Of how many hosts of a run the pieces are kept.
const HOSTS: usize = 8;
/// How many events are read at a time.
const PAGE: u64 = 1000;
/// For how long what was read is shown to others too, while this controller keeps nothing new: what somebody has just pressed is never
/// taken back by what was read before.
const FRESH: Duration = Duration::from_millis(400);

/// What was read when, after which change of the store.
type Read<T> = Option<(Instant, u64, Arc<T>)>;

/// How often anything was kept that pages show.
fn change(api: &Api) -> u64 {
    *api.store.changes().borrow() + *api.store.orders().borrow()
}

/// What was read lately enough.
fn lately<T>(kept: &Read<T>, change: u64) -> Option<&Arc<T>> {
    let (made, after, read) = kept.as_ref()?;
    (*after == change && made.elapsed() < FRESH).then_some(read)
}

/// A run as it is shown.
#[derive(Debug)]
pub(super) struct Shown {
    /// How many events it is made of, and which state: what else comes is not shown yet.
    made_of: (u64, String),
    /// Whether the run has ended.
    pub(super) ended: bool,
    /// The pieces, in their order.
    pub(super) pieces: Vec<Piece>,
}

/// What one run said so far.
#[derive(Default)]
struct View {
    lines: Arc<Vec<Line>>,
    next: u64,
    /// The hosts that its lines are about.
    hosts: BTreeSet<String>,
    shown: BTreeMap<String, Arc<Shown>>,
}

impl View {
    /// A host that is asked for, where the run has it; else none, which is the one that says most. Whoever asks for what is not
    /// there gets what was drawn for others.
    fn known<'a>(&self, host: &'a str) -> &'a str {
        if self.hosts.contains(host) { host } else { "" }
    }
}

/// When a run was last asked for, and what it said; who draws it keeps the others waiting.
type Kept = (Instant, Arc<Turn<View>>);

/// All runs that somebody looks at.
#[derive(Default)]
pub struct Views {
    runs: Mutex<HashMap<String, Kept>>,
    now: Turn<Read<Now>>,
    game_day: Turn<Read<GameDayReport>>,
}

impl Views {
    fn view(&self, run: &str) -> Arc<Turn<View>> {
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        if runs.len() >= RUNS && !runs.contains_key(run) {
            let oldest = runs.iter().min_by_key(|(_, (used, _))| *used).map(|(run, _)| run.clone());
            oldest.and_then(|oldest| runs.remove(&oldest));
        }
        let (used, view) = runs.entry(run.to_owned()).or_insert_with(|| (Instant::now(), Arc::default()));
        *used = Instant::now();
        Arc::clone(view)
    }

    /// A run as it is now, on a host of it, or on the one that says most. Who asks while it is being made waits and gets the
    /// same.
    pub(super) async fn of(&self, api: &Api, row: &RunRow, host: &str) -> Result<Arc<Shown>, Problem> {
        let view = self.view(&row.id);
        let mut view = view.lock().await;
        let made_of = (row.events, row.state.clone());
        let fresh = |shown: &&Arc<Shown>| shown.made_of.0 >= row.events && shown.made_of.1 == row.state;
        if let Some(shown) = view.shown.get(view.known(host)).filter(fresh) {
            return Ok(Arc::clone(shown));
        }
        loop {
            let page = api.store.events(&row.id, view.next, PAGE).await?;
            let Some((last, _)) = page.last() else { break };
            view.next = last + 1;
            // A line that this version does not know is left out.
            let known = page.iter().filter_map(|(_, text)| serde_json::from_str::<Line>(text).ok());
            let known: Vec<Line> = known.collect();
            view.hosts.extend(known.iter().filter_map(self::host).map(str::to_owned));
            Arc::make_mut(&mut view.lines).extend(known);
        }
        let host = view.known(host).to_owned();
        let (lines, row, wanted) = (Arc::clone(&view.lines), row.clone(), host.clone());
        let ended = !LIVE.contains(&row.state.as_str());
        // Not in the thread that answers everybody.
        let made = tokio::task::spawn_blocking(move || {
            let host = run::chosen(&lines, &wanted);
            run::pieces(&row, &lines, host.as_deref(), ended)
        });
        let pieces = made.await.map_err(|error| {
            tracing::error!(%error, "a run cannot be shown");
            Problem::bare(axum::http::StatusCode::INTERNAL_SERVER_ERROR, "the run cannot be shown")
        })?;
        let shown = Arc::new(Shown { made_of, ended, pieces });
        if view.shown.len() >= HOSTS {
            view.shown.clear();
        }
        view.shown.insert(host, Arc::clone(&shown));
        Ok(shown)
    }

    /// What is active now.
    pub(super) async fn now(&self, api: &Api) -> Result<Arc<Now>, Problem> {
        let mut kept = self.now.lock().await;
        let change = change(api);
        if let Some(now) = lately(&kept, change) {
            return Ok(Arc::clone(now));
        }
        let now = Arc::new(Now::of(api).await?);
        *kept = Some((Instant::now(), change, Arc::clone(&now)));
        Ok(now)
    }

    /// A game day as it stands. The last one that somebody looked at is kept: there is hardly ever another at the same time.
    pub(super) async fn game_day(&self, api: &Api, id: &str) -> Result<Arc<GameDayReport>, Problem> {
        let mut kept = self.game_day.lock().await;
        let change = change(api);
        if let Some(report) = lately(&kept, change).filter(|report| report.id == id) {
            return Ok(Arc::clone(report));
        }
        let report = Arc::new(gamedays::report(api, id).await?);
        *kept = Some((Instant::now(), change, Arc::clone(&report)));
        Ok(report)
    }
}

/// The host that a line is about.
pub(super) fn host(line: &Line) -> Option<&str> {
    match &line.what {
        What::OnHost { host, .. } => Some(host),
        What::Fleet { .. } => None,
    }
}
