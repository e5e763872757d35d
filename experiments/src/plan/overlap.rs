//! Faults that would hit what looks at the system, or each other: said before the run, decided by the reader.

use super::PlanStep;
use crate::experiment::Experiment;

/// A line for each thing that the reader should know.
pub(super) fn warnings(_experiment: &Experiment, _steps: &[PlanStep]) -> Vec<String> {
    Vec::new()
}
