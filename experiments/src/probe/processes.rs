//! Looking at processes: how many there are, and what they take.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Comparison, Expect, Take};
use crate::quantity::Period;
use crate::scope::ProcessSelector;

/// Processes of the host, by what `/proc` shows of them (proc(5)). All that is given must match, and nothing is a part of a
/// name. Zombies do not count, and neither does the prober.
///
/// `exe` and `listening`, and open files by a kernel before 6.2, are shown only to the processes' own user and to root: see
/// `user`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ProcessesProbe {
    /// The absolute path of the executable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exe: Option<String>,
    /// The exact command name (`comm`, at most 15 bytes).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A regular expression searched in the arguments, joined by single spaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<String>,
    /// The process id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// A port on which the process listens (TCP) or to which it is bound (UDP).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listening: Option<u16>,
    /// A systemd unit, by its full name such as `shop.service`: the processes of its control group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// What becomes of the figures of several processes.
    #[serde(default)]
    pub take: Take,
    /// How long processor time is measured for `cpu-percent`.
    #[serde(default = "a_second")]
    pub over: Period,
    /// The user to look as, by name; `nobody` when squall runs as root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

fn a_second() -> Period {
    Period::from_secs(1)
}

impl ProcessesProbe {
    /// What the processes are, but for their unit.
    pub fn selector(&self) -> ProcessSelector {
        ProcessSelector {
            exe: self.exe.clone(),
            name: self.name.clone(),
            args: self.args.clone(),
            pid: self.pid,
            listening: self.listening,
        }
    }
}

/// A figure of a process. Each is an expectation of its own name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// Processor time in [`ProcessesProbe::over`], as a share of one processor, in percent.
    Cpu,
    /// Resident memory (`VmRSS`), in MiB.
    Memory,
    /// Open files.
    OpenFiles,
    /// Seconds since it began.
    Age,
}

impl Figure {
    /// The expectation's key.
    pub fn key(self) -> &'static str {
        match self {
            Figure::Cpu => "cpu-percent",
            Figure::Memory => "memory-mib",
            Figure::OpenFiles => "open-files",
            Figure::Age => "age-seconds",
        }
    }
}

impl Expect {
    /// What is expected of each figure of processes, where something is.
    pub fn figures(&self) -> impl Iterator<Item = (Figure, &Comparison)> {
        let expected = [
            (Figure::Cpu, &self.cpu_percent),
            (Figure::Memory, &self.memory_mib),
            (Figure::OpenFiles, &self.open_files),
            (Figure::Age, &self.age_seconds),
        ];
        expected.into_iter().filter_map(|(figure, comparison)| Some((figure, comparison.as_ref()?)))
    }
}
