//! A ramp under way: which step comes next follows from what became of those before.

use std::path::PathBuf;

use squall_experiments::document::{Document, Problems};
use squall_experiments::protocol::Refusal;
use squall_experiments::ramp::{Ladder, Level, Ramp, Rung, Search};
use squall_experiments::summary::Summary;

use super::pipeline::Pipeline;
use super::prepared::Prepared;
use crate::cli::load::{self, Vars};

/// The file of a ramp, read once: what is done to it meanwhile changes no step.
#[derive(Debug)]
pub struct Climb {
    ramp: Ramp,
    title: String,
    file: PathBuf,
    name: String,
    bytes: Vec<u8>,
    vars: Vars,
    seed: u64,
    rungs: Vec<Rung>,
}

/// A step: its value, and what is run.
pub type Next = Result<Option<(Level, Prepared)>, Refusal>;

impl Climb {
    /// Begins nothing. `document` is what the bytes were read as; where it has no ramp there is nothing to climb.
    pub fn of(
        file: PathBuf,
        name: String,
        bytes: Vec<u8>,
        document: &Document,
        vars: &Vars,
    ) -> Option<Climb> {
        let ramp = document.experiment.ramp.clone()?;
        // All steps make the same choices.
        let seed = document.experiment.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
        let title = document.experiment.title.clone();
        Some(Climb { ramp, title, file, name, bytes, vars: vars.clone(), seed, rungs: Vec::new() })
    }

    /// The seed of every step.
    pub fn seeded(&mut self, seed: Option<u64>) {
        self.seed = seed.unwrap_or(self.seed);
    }

    /// What the whole ramp would do is allowed: its hardest value as well as its mildest, and all steps together.
    pub fn may_begin(&self, pipeline: &Pipeline) -> Result<(), Refusal> {
        let rungs = self.ramp.rungs();
        for level in rungs.first().into_iter().chain(rungs.last()) {
            self.prepare(*level, pipeline)?.may_repeat(self.ramp.most())?;
        }
        Ok(())
    }

    /// The next step; none where the search is over.
    pub fn next(&self, pipeline: &Pipeline) -> Next {
        let mut search = Search::new(&self.ramp);
        self.rungs.iter().for_each(|rung| search.tell(rung.at, rung.came()));
        search.next().map(|level| Ok((level, self.prepare(level, pipeline)?))).transpose()
    }

    fn prepare(&self, level: Level, pipeline: &Pipeline) -> Result<Prepared, Refusal> {
        let mut vars = self.vars.clone();
        vars.vars.push((self.ramp.parameter.clone(), level.to_string()));
        let mut document = load::text(&self.name, &self.bytes, &vars)
            .map_err(|problems: Problems| Refusal::bare(problems.render(false)))?;
        document.experiment.title.clone_from(&self.title);
        let mut prepared = Prepared::of(document, &self.file, 1, Some(self.seed), pipeline)?;
        prepared.subject.title = format!("{} at {level}", prepared.subject.title);
        // One experiment is no more than one, in however many steps: what they come to is said of the whole.
        prepared.subject.weight = 0;
        Ok(prepared)
    }

    /// What became of a step.
    pub fn tell(&mut self, level: Level, summary: &Summary) {
        self.rungs.push(Rung::of(level, summary));
    }

    /// Which step a value is, for whoever waits: `step 2 of at most 7: latency.delay at 100ms`.
    pub fn announce(&self, level: Level) -> String {
        let (number, most) = (self.rungs.len() + 1, self.ramp.most());
        format!("step {number} of at most {most}: {} at {level}", self.ramp.parameter)
    }

    /// What all steps show.
    pub fn ladder(&self) -> Ladder {
        Ladder::of(&self.ramp, self.rungs.clone())
    }
}
