//! Over how many hosts a fault grows, stage by stage.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::quantity::{Period, Pick};
use crate::ramp::Factor;

/// Inject on a few hosts first, and on more from stage to stage; those of earlier stages stay. Before each further stage the
/// hypothesis decides: where it has surely failed, all hosts revert.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Stages {
    /// So many times as many hosts in each stage as in the one before; the first has one host, the last has all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grow: Option<Factor>,
    /// Instead of `grow`: how many of the chosen hosts each stage has, those of the stages before among them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sizes: Vec<Pick>,
    /// How long each stage but the last is watched before the next one begins; the last is as long as the fault's `for`.
    pub bake: Period,
}

impl Stages {
    /// How many hosts each stage has, of so many that were chosen: each more than the one before. Sizes that come out alike are
    /// one stage. `None` where there are fewer hosts than a stage needs, or the sizes do not grow.
    pub fn of(&self, hosts: usize) -> Option<Vec<usize>> {
        if hosts == 0 {
            return None;
        }
        let Some(grow) = self.grow else {
            let sizes: Option<Vec<usize>> = self.sizes.iter().map(|size| size.of(hosts)).collect();
            let mut sizes = sizes.filter(|sizes| !sizes.is_empty() && sizes.is_sorted())?;
            sizes.dedup();
            return Some(sizes);
        };
        let mut sizes = vec![1];
        let mut exact = 1.0;
        while let Some(last) = sizes.last().copied().filter(|last| *last < hosts) {
            exact *= grow.get();
            // Rounded down as every share of hosts is; where that is no more, one more.
            sizes.push((exact as usize).clamp(last + 1, hosts));
        }
        Some(sizes)
    }
}

#[cfg(test)]
mod tests;
