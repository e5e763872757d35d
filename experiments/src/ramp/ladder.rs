//! What all steps of a ramp show together.

use serde::Serialize;

use super::{Came, Level, Ramp, Search};
use crate::exit::Exit;
use crate::muster::Muster;
use crate::protocol::RunId;
use crate::summary::Summary;

/// One step that took place.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rung {
    /// The value of the parameter.
    pub at: Level,
    /// Its run.
    pub run: RunId,
    /// The exit code of the run.
    pub exit: Exit,
    /// What the exit code means.
    pub verdict: String,
    /// The closing sentence of the run: its evidence in a few words.
    pub sentence: String,
    /// Whether the hypothesis was seen to hold again after it; `None` where that was not watched.
    pub recovered: Option<bool>,
}

impl Rung {
    /// A step on one host.
    pub fn of(at: Level, summary: &Summary) -> Rung {
        Rung {
            at,
            run: summary.run.clone(),
            exit: summary.exit,
            verdict: summary.exit.meaning().to_owned(),
            sentence: summary.sentence.clone(),
            recovered: recovered(summary),
        }
    }

    /// A step over several hosts.
    pub fn of_all(at: Level, muster: &Muster) -> Rung {
        let each = muster.hosts.iter().filter_map(|on| recovered(on.summary.as_ref()?));
        Rung {
            at,
            run: muster.began.run.clone(),
            exit: muster.exit,
            verdict: muster.verdict.clone(),
            sentence: muster.sentence.clone(),
            recovered: each.reduce(|all, one| all && one),
        }
    }

    /// What it says for the search.
    pub fn came(&self) -> Came {
        match (self.exit, self.recovered) {
            (Exit::Held, _) => Came::Held,
            (Exit::Deviated, Some(false)) => Came::Unwell,
            (Exit::Deviated, _) => Came::Deviated,
            _ => Came::Nothing,
        }
    }
}

/// Whether all hypotheses that were watched after the fault held again.
fn recovered(summary: &Summary) -> Option<bool> {
    summary.hypotheses.iter().filter_map(|claim| claim.recovered).reduce(|all, one| all && one)
}

/// A ramp, as far as it came.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ladder {
    /// What was made harder.
    pub parameter: String,
    /// The hardest value at which the hypothesis held.
    pub held: Option<Level>,
    /// The mildest value at which it did not.
    pub deviated: Option<Level>,
    /// How many steps it might have taken: each has this part of the error.
    pub of_most: usize,
    /// The exit code: deviated where the system gives way, held where it held at the hardest value.
    pub exit: Exit,
    /// One sentence: the breaking point with its interval.
    pub sentence: String,
    /// The steps, in the order in which they were taken.
    pub steps: Vec<Rung>,
}

impl Ladder {
    /// What these steps show, in the order in which they were taken. A step that the search would not have taken is left out.
    pub fn of(ramp: &Ramp, steps: Vec<Rung>) -> Ladder {
        let mut search = Search::new(ramp);
        let mut taken: Vec<Rung> = Vec::new();
        for step in steps {
            if search.next() == Some(step.at) {
                search.tell(step.at, step.came());
                taken.push(step);
            }
        }
        let worst = taken.iter().map(|step| step.exit).reduce(Exit::worse);
        let exit = match worst {
            None => Exit::Inconclusive,
            // It was ended before it came to an answer.
            Some(Exit::Held) if !search.held_throughout() => Exit::Inconclusive,
            Some(exit) => exit,
        };
        let mut ladder = Ladder {
            parameter: ramp.parameter.clone(),
            held: search.held,
            deviated: search.deviated,
            of_most: ramp.most(),
            exit,
            sentence: String::new(),
            steps: taken,
        };
        ladder.sentence = ladder.in_words(search.next());
        ladder
    }

    fn in_words(&self, next: Option<Level>) -> String {
        let parameter = &self.parameter;
        let found = match (self.held, self.deviated) {
            (None, None) => format!("nothing is known of `{parameter}`"),
            (Some(held), None) if self.exit == Exit::Held => {
                return format!("held: with `{parameter}` up to {held}, the hardest that was to be tried");
            }
            (Some(held), None) => format!("`{parameter}` held at {held}"),
            (None, Some(deviated)) => {
                format!("`{parameter}` deviated at {deviated} already, the mildest that was to be tried")
            }
            (Some(held), Some(deviated)) => format!(
                "`{parameter}` held at {held}, deviated at {deviated}: gives way between {held} and {deviated}"
            ),
        };
        let last = self.steps.last();
        let rest = match last.map(|step| (step, step.came())) {
            Some((step, Came::Unwell)) => {
                format!("; after {} it did not hold again in time, so nothing more was tried", step.at)
            }
            Some((step, Came::Nothing)) => {
                let own = format!("{}: ", step.verdict);
                let said = step.sentence.strip_prefix(&own).unwrap_or(&step.sentence);
                format!("; the step at {} is {}, and ended the search: {said}", step.at, step.verdict)
            }
            _ => next.map_or_else(String::new, |next| format!("; {next} was not tried")),
        };
        format!("{}: {found}{rest}", self.exit.meaning())
    }

    /// What is known of the error, in a sentence.
    pub fn error_in_words(&self) -> String {
        match self.of_most {
            1 => "the only step has all of the error that claims about rates allow".to_owned(),
            most => format!(
                "claims about rates have 1/{most} of their error in each of at most {most} steps: over all steps together \
                 it is what they allow"
            ),
        }
    }
}
