//! One entry whose time has come: its run begins as everybody's does, in the name of its schedule.

use serde_json::json;
use squall_experiments::schedule::Entry;
use tokio::time::sleep;

use super::outlook::Known;
use super::{Scheduler, TICK};
use crate::api::problem::Problem;
use crate::launch::Wanted;
use crate::store::{EntryRow, first, states};

/// How often it is tried to keep what became of an entry, when the store does not answer. One with a run is settled with that.
const TRIES: u32 = 60;

impl Scheduler {
    /// Begins the run of an entry that was claimed, or goes through everything without it; gives what became of it.
    pub(super) async fn begin(&self, known: &Known, entry: &Entry, claimed: EntryRow) -> EntryRow {
        let settled = match self.attempt(known, entry, &claimed).await {
            Ok(settled) => settled,
            Err(problem) => {
                let why = problem.help.map_or_else(
                    || problem.detail.clone(),
                    |help| format!("{}; help: {help}", problem.detail),
                );
                EntryRow { state: states::REFUSED.to_owned(), why: Some(first(&why)), ..claimed }
            }
        };
        tracing::info!(
            schedule = settled.schedule,
            run = settled.run,
            why = settled.why,
            "an entry is {}",
            settled.state
        );
        for tries in 1.. {
            let Err(error) = self.0.store.settle_entry(&settled).await else { break };
            if tries == TRIES {
                tracing::error!(schedule = settled.schedule, %error, "what became of an entry cannot be kept");
                break;
            }
            sleep(TICK).await;
        }
        settled
    }

    async fn attempt(&self, known: &Known, entry: &Entry, claimed: &EntryRow) -> Result<EntryRow, Problem> {
        let by = format!("schedule:{}", known.row.name);
        let did = if known.schedule.leashed { "rehearses its entry" } else { "begins its entry" };
        let what = json!({ "did": did, "at": claimed.at, "group": claimed.group });
        // It is written down before it is done.
        self.0.store.audit(&by, what).await?;
        let submission = known.submission(entry);
        if known.schedule.leashed {
            let (planned, outcomes) = self.0.launch.rehearse(&submission).await?;
            let no = outcomes.iter().find(|outcome| !outcome.passed);
            let (state, why) = match no {
                Some(no) => (states::REFUSED, format!("{}: {}", no.gate, no.why)),
                None => {
                    let hosts: Vec<String> = planned
                        .uses
                        .iter()
                        .filter(|used| used.faults > 0)
                        .map(|used| format!("`{}`", used.host))
                        .collect();
                    (states::LEASHED, format!("it would have been on {}", hosts.join(", ")))
                }
            };
            return Ok(EntryRow { state: state.to_owned(), why: Some(first(&why)), ..claimed.clone() });
        }
        let (before, entry) = (known.approval().into_iter().collect(), Some(claimed.key()));
        let wanted = Wanted { before, entry, ..Wanted::new(submission, &by) };
        // What else is scheduled does not keep it from beginning: among schedules, who is first has the room.
        let begun = self.0.launch.begin(wanted).await?;
        let run = Some(begun.id);
        Ok(match begun.refused {
            Some(problem) => EntryRow {
                state: states::REFUSED.to_owned(),
                why: Some(first(&problem.detail)),
                run,
                ..claimed.clone()
            },
            None => EntryRow { state: states::FIRED.to_owned(), why: None, run, ..claimed.clone() },
        })
    }
}
