//! The run of one step: begun as everybody's, and followed by its log.

use std::collections::VecDeque;

use squall_experiments::exit::Exit;
use squall_experiments::gameday::{Event, Experiment, Seen, Watch};
use squall_experiments::muster::Line;
use squall_experiments::name::Name;

use super::GameDays;
use super::day::Day;
use crate::api::Approvals;
use crate::api::engine::Submission;
use crate::gates::Outcome;
use crate::launch::Wanted;
use crate::store::{LIVE, Store, StoreError};

/// How many events of a run are read at a time.
const PAGE: u64 = 500;
/// How much of a reason is written down.
const LONGEST: usize = 2000;

/// Who begins the runs of a day.
pub(super) fn by(day: &str) -> String {
    format!("gameday:{day}")
}

impl GameDays {
    /// Begins the run of a step that has its go. Gives what is to be written down: that it began, or why not.
    pub(super) async fn begin_step(&self, day: &Day, name: &Name) -> Event {
        let refused = |why: String| {
            let why = why.trim().chars().take(LONGEST).collect();
            Event::Refused { step: name.clone(), why }
        };
        let Some(step) = day.document.step(name) else { return refused("there is no such step".to_owned()) };
        let Some(Experiment::Text(text)) = step.experiment() else {
            return refused("its experiment is not in the document".to_owned());
        };
        let submission = Submission {
            document: text.to_owned(),
            name: Some(format!("the experiment of step `{name}`")),
            vars: step.vars.clone(),
            ..Submission::default()
        };
        let by = by(&day.row.id);
        let before = self.second_person(day, name).into_iter().collect();
        let beside = Some(&self.0.scheduler);
        match self.0.launch.begin(Wanted { before, beside, ..Wanted::new(submission, &by) }).await {
            Ok(begun) => match (begun.refused, begun.run) {
                (None, Some(run)) => Event::RunBegan { step: name.clone(), run: run.id },
                (Some(problem), _) => refused(problem.detail),
                (None, None) => refused("the run is not kept".to_owned()),
            },
            Err(problem) => refused(match problem.help {
                Some(help) => format!("{}; help: {help}", problem.detail),
                None => problem.detail,
            }),
        }
    }

    /// Where runs need an approval, the go of another person than who began the day is the one.
    fn second_person(&self, day: &Day, name: &Name) -> Option<Outcome> {
        let said = day.course.step(name).and_then(|step| step.go.as_ref()).map(|said| said.by.as_str());
        let why = self.wants_another(day, name, said)?;
        Some(match (why, said) {
            (None, Some(said)) => {
                let (said, began) = (person(said), person(&day.row.by));
                Outcome::passes("approval", format!("{said} said go to what {began} began"))
            }
            (why, _) => Outcome::refuses("approval", why.unwrap_or_default()),
        })
    }

    /// Where the run of a step needs an approval: why this one's go is none, `Some(None)` where it is one. Nobody is nobody's second
    /// person.
    fn wants_another(&self, day: &Day, name: &Name, who: Option<&str>) -> Option<Option<String>> {
        let runs = day.document.step(name).is_some_and(|step| step.experiment().is_some());
        if !runs || self.0.launch.approvals() != Approvals::Required {
            return None;
        }
        let began = person(&day.row.by);
        let other = who.map(person).is_some_and(|who| who != began && who != super::SQUALL);
        Some((!other).then(|| {
            format!(
                "runs need an approval here: another person than `{began}`, who began the day, has to say go"
            )
        }))
    }

    /// Why somebody's go to a step is not taken; `None`: it is.
    pub fn refuses_go(&self, day: &Day, name: &Name, who: &str) -> Option<String> {
        self.wants_another(day, name, Some(who)).flatten()
    }

    /// What is said where a step's turn comes: where its run needs an approval nothing goes by itself, and who is asked is told who
    /// may say go.
    pub(super) fn asks_another(&self, day: &Day, event: Event) -> Event {
        let (step, why) = match &event {
            Event::Asked { step, why } => (step.clone(), why.clone()),
            Event::Go { step } => (step.clone(), None),
            _ => return event,
        };
        match self.wants_another(day, &step, None).flatten() {
            Some(another) => {
                let why = why.map_or_else(|| another.clone(), |why| format!("{why}; {another}"));
                Event::Asked { step, why: Some(why) }
            }
            None => event,
        }
    }
}

/// The name of a person, which stands before the identity of his token.
fn person(who: &str) -> &str {
    who.rsplit_once(" (").map_or(who, |(name, _)| name)
}

/// A run that is followed.
pub(super) struct Following {
    pub(super) run: String,
    /// Whether it was told to end because the day was stopped.
    pub(super) halted: bool,
    step: Name,
    watch: Watch,
    next: u64,
    ready: VecDeque<Event>,
    ended: bool,
}

impl Following {
    /// From its beginning.
    pub(super) async fn of(store: &Store, step: &Name, run: &str) -> Result<Self, StoreError> {
        let at = store.run(run).await?.map_or(0, |row| row.at);
        Ok(Following {
            run: run.to_owned(),
            halted: false,
            step: step.clone(),
            watch: Watch::from(at),
            next: 0,
            ready: VecDeque::new(),
            ended: false,
        })
    }

    /// What its log says since the last time; nothing where nothing came.
    pub(super) async fn news(&mut self, store: &Store) -> Result<Vec<Event>, StoreError> {
        loop {
            // The state is read before the events: what is added between the two is not missed by the end.
            let row = store.run(&self.run).await?;
            let page = store.events(&self.run, self.next, PAGE).await?;
            let whole = (page.len() as u64) < PAGE;
            for (seq, text) in page {
                self.next = seq + 1;
                let Ok(line) = serde_json::from_str::<Line>(&text) else { continue };
                for seen in self.watch.line(&line) {
                    self.ended |= matches!(seen, Seen::Ended(..));
                    self.ready.push_back(seen.event(&self.step, &self.run));
                }
            }
            if !whole {
                continue;
            }
            let state = row.map_or_else(|| "gone".to_owned(), |row| row.state);
            if !self.ended && !LIVE.contains(&state.as_str()) {
                // It ended without a word in its log.
                self.ended = true;
                let exit = [Exit::Held, Exit::Deviated, Exit::Refused, Exit::Modified, Exit::Inconclusive]
                    .into_iter()
                    .find(|exit| exit.meaning() == state)
                    .unwrap_or(Exit::Interrupted);
                self.ready.push_back(Seen::Ended(exit, state).event(&self.step, &self.run));
            }
            return Ok(self.ready.drain(..).collect());
        }
    }
}
