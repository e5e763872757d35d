//! The hosts that a plan touches: connected, and clean of the runs before.

use std::collections::BTreeMap;

use squall_experiments::exit::Exit;

use super::Outcome;
use crate::api::engine::Planned;
use crate::fleet::HostInfo;
use crate::store::Store;

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

/// None of them holds what a run left there that has ended.
pub(super) async fn clean(planned: &Planned, hosts: &[HostInfo], store: &Store) -> Outcome {
    for host in hosts.iter().filter(|host| planned.uses.iter().any(|used| used.host == host.name)) {
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
    Outcome::passes("hosts clean", "nothing is left there by runs that ended")
}
