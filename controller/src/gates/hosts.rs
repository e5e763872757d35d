//! The hosts that a plan touches: connected, and clean of the runs before.

use std::collections::{BTreeMap, BTreeSet};

use squall_experiments::exit::Exit;
use squall_experiments::muster::{Line, What};
use squall_experiments::run::Event;

use super::Outcome;
use crate::api::engine::Planned;
use crate::fleet::HostInfo;
use crate::store::{Store, StoreError};

/// How many events of a run are read at a time.
const PAGE: u64 = 500;

/// All of them are connected.
pub(super) fn well(planned: &Planned, hosts: &[HostInfo]) -> Outcome {
    let connected: BTreeMap<&str, bool> =
        hosts.iter().map(|host| (host.name.as_str(), host.connected)).collect();
    let is_away = |host: &&str| connected.get(host) != Some(&true);
    let away: Vec<&str> = planned.uses.iter().map(|used| used.host.as_str()).filter(is_away).collect();
    match away[..] {
        [] => Outcome::passes("hosts healthy", format!("{} connected", planned.uses.len())),
        [first, ..] => Outcome::refuses(
            "hosts healthy",
            format!("{} of {} are not connected, among them `{first}`", away.len(), planned.uses.len()),
        ),
    }
}

/// None of them holds what a run left there that has ended, nor was left by an action that could not be undone.
pub(super) async fn clean(planned: &Planned, hosts: &[HostInfo], store: &Store) -> Outcome {
    let touched: BTreeSet<&str> = planned.uses.iter().map(|used| used.host.as_str()).collect();
    for host in hosts.iter().filter(|host| touched.contains(host.name.as_str())) {
        for held in &host.holds {
            let run = held.run.0.as_str();
            if held.stuck {
                let why = format!("`{}` holds what run `{run}` could not undo", host.name);
                return Outcome::refuses("hosts clean", why);
            }
            match store.run(run).await {
                // What a host said last may be older than a run's end; only one that left something is a reason.
                Ok(Some(row)) if row.state == Exit::Modified.meaning() => {
                    let why = format!("`{}` is still modified by run `{run}`", host.name);
                    return Outcome::refuses("hosts clean", why);
                }
                Ok(_) => {}
                Err(error) => return Outcome::refuses("hosts clean", error.to_string()),
            }
        }
    }
    let names = planned.uses.iter().map(|used| used.host.clone()).collect();
    let left = async {
        // Each run is read once, however many hosts it left.
        let mut runs: Vec<(String, BTreeSet<String>)> = Vec::new();
        for (host, run) in store.left_modified(names).await? {
            match runs.iter_mut().find(|(known, _)| *known == run) {
                Some((_, hosts)) => drop(hosts.insert(host)),
                None => runs.push((run, BTreeSet::from([host]))),
            }
        }
        for (run, hosts) in runs {
            if let Some((host, action)) = not_undone(store, &run, &hosts).await? {
                return Ok::<_, StoreError>(Some((host, run, action)));
            }
        }
        Ok(None)
    };
    match left.await {
        Ok(None) => Outcome::passes("hosts clean", "nothing is left there by runs that ended"),
        Ok(Some((host, run, action))) => Outcome::refuses(
            "hosts clean",
            format!(
                "the action `{action}` of run `{run}` is not undone on `{host}`; help: undo it by hand, then overrule this once with \
                 that as the reason"
            ),
        ),
        Err(error) => Outcome::refuses("hosts clean", error.to_string()),
    }
}

/// An action of a run whose undo was not played on one of some hosts, or failed: no agent holds that. What agents held and could not
/// undo at the end of a run, they hold, or have undone since.
async fn not_undone(
    store: &Store,
    run: &str,
    hosts: &BTreeSet<String>,
) -> Result<Option<(String, String)>, StoreError> {
    let mut owed: BTreeMap<(String, String), String> = BTreeMap::new();
    let mut next = 0;
    loop {
        let page = store.events(run, next, PAGE).await?;
        let last = (page.len() as u64) < PAGE;
        for (seq, text) in page {
            next = seq + 1;
            let Ok(line) = serde_json::from_str::<Line>(&text) else { continue };
            let What::OnHost { host, record } = line.what else { continue };
            match record.event {
                _ if !hosts.contains(&host) => {}
                Event::ActionBegan { step, name, undo: true } => drop(owed.insert((host, step), name)),
                Event::UndoPlayed { step, good: true, .. } => drop(owed.remove(&(host, step))),
                _ => {}
            }
        }
        if last {
            return Ok(owed.into_iter().next().map(|((host, _), action)| (host, action)));
        }
    }
}
