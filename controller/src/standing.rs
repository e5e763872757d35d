//! What became of the runs of a controller's experiments: the story of each, and one score over all of them.

use squall_experiments::exit::Exit;
use squall_experiments::protocol::RunId;
use squall_experiments::suite::{Entry, FORGOTTEN_DAYS, History, Standing};

use crate::conductor::date_of;
use crate::store::{Ended, Store, StoreError, now_ms};

/// How many runs of an experiment its story is told by.
const TOLD: u64 = 200;
/// How many experiments are scored at most.
const MOST: u64 = 1000;

/// `held 12 times, deviated since 2026-11-20 (build 4fed865)`: what became of the runs of a title; nothing where none has
/// ended.
pub async fn story(store: &Store, title: &str) -> Result<String, StoreError> {
    let ended = store.ended(title, TOLD).await?;
    Ok(of(ended.iter().rev()).story(title).unwrap_or_default())
}

/// The score of all experiments that were run in the last 90 days, and where each of them stands.
pub async fn standing(store: &Store) -> Result<Standing, StoreError> {
    let mut standing = score(store).await?;
    for experiment in &mut standing.experiments {
        experiment.story = story(store, &experiment.title).await?;
    }
    Ok(standing)
}

/// The same where nobody asks for the stories: by the last runs alone.
pub async fn score(store: &Store) -> Result<Standing, StoreError> {
    let now = now_ms();
    let since = now.saturating_sub((FORGOTTEN_DAYS.unsigned_abs() + 1) * 86_400_000);
    let latest = store.latest(since, MOST).await?;
    Ok(Standing::of(&of(latest.iter()), &date_of(now)))
}

/// Runs, the oldest first, as a history.
fn of<'e>(ended: impl Iterator<Item = &'e Ended>) -> History {
    let entry = |ended: &Ended| Entry {
        at: date_of(ended.at),
        title: ended.title.clone(),
        hash: ended.content.clone(),
        verdict: ended.state.clone(),
        exit: exit(&ended.state),
        weight: ended.weight,
        runs: vec![RunId(ended.id.clone())],
        build: ended.build.clone(),
    };
    History::of(ended.map(entry).collect())
}

/// What the state of a run that has ended stands for.
pub fn exit(state: &str) -> Exit {
    let known = [Exit::Held, Exit::Refused, Exit::Deviated, Exit::Interrupted, Exit::Modified, Exit::Bug];
    known.into_iter().find(|exit| exit.meaning() == state).unwrap_or(Exit::Inconclusive)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::{Scratch, a_run, wait};
    use crate::store::{NewRun, Tested};

    #[test]
    fn a_story_says_what_held_and_since_which_build_it_does_not() {
        let day = 86_400_000;
        let told = |states: &[(&str, &str)]| {
            let ended = |(at, (state, build)): (u64, &(&str, &str))| Ended {
                id: format!("r{at}"),
                title: "T".to_owned(),
                at: 20_000 * day + at * day,
                state: (*state).to_owned(),
                build: (!build.is_empty()).then(|| (*build).to_owned()),
                weight: 1,
                content: String::new(),
            };
            let ended: Vec<Ended> = (0..).zip(states).map(ended).collect();
            of(ended.iter()).story("T").unwrap_or_default()
        };
        assert_eq!(told(&[]), "");
        assert_eq!(told(&[("held", "")]), "held once since 2024-10-04");
        let broke = told(&[("held", "a"), ("held", "a"), ("deviated", "b"), ("deviated", "c")]);
        assert_eq!(broke, "held twice, deviated since 2024-10-06 (build b)");
        let refused = told(&[("deviated", ""), ("refused", ""), ("held", "d")]);
        assert_eq!(refused, "deviated once, held since 2024-10-06 (build d), without a verdict once");
        assert_eq!(told(&[("interrupted", "")]), "without a verdict once");
    }

    #[test]
    fn the_store_scores_the_last_run_of_each_experiment() {
        let scratch = Scratch::new("standing");
        let store = scratch.store();
        wait(async {
            assert_eq!(standing(&store).await.expect("it can be read").score, None);
            let runs = [
                ("r1", "checkout", "deviated", "b1", 3),
                ("r2", "checkout", "held", "b2", 3),
                ("r3", "search", "deviated", "b2", 1),
                ("r4", "cart", "inconclusive", "b2", 1),
                ("r5", "shown only", "deviated", "b2", 0),
                ("r6", "checkout", "running", "b3", 3),
            ];
            for (id, title, state, build, weight) in runs {
                let tested = Tested {
                    build: Some(build.to_owned()),
                    weight,
                    content: "c".to_owned(),
                    tags: Vec::new(),
                };
                let new = NewRun { title: title.to_owned(), tested, ..a_run(id) };
                store.new_run(new).await.expect("a run");
                store.set_run_state(id, state, 0).await.expect("it is there");
            }
            let found = standing(&store).await.expect("it can be read");
            assert_eq!(found.score, Some(60.0), "{found:?}");
            assert_eq!(
                found.words,
                "resilience score 60 of 100 over 3 experiments (1 held, 1 deviated, 1 without a verdict, not passed)"
            );
            let titles: Vec<&str> = found.experiments.iter().map(|stood| stood.title.as_str()).collect();
            assert_eq!(titles, ["checkout", "search", "cart", "shown only"]);
            let today = &date_of(now_ms())[..10];
            assert_eq!(found.experiments[0].story, format!("deviated once, held since {today} (build b2)"));
            assert_eq!(found.experiments[0].build.as_deref(), Some("b2"));
        });
    }
}
