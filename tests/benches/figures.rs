//! The figures that the project promises, each beside its control in the same run. Not a test: nothing here fails on a
//! slow machine.
//!
//! `cargo build --release --workspace --bins && cargo bench -p squall-tests`, as root. Words after `--` choose
//! among the groups below: `cargo bench -p squall-tests -- delay stream`. With `SQUALL_ROUNDS=N` the figures of the packet
//! engine are taken in so many rounds: one shows that they can be measured here, and says nothing about them.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on ends with the place where it stopped")]

mod agent;
mod command;
mod fleet;
mod flows;
mod load;
mod people;
mod proxy;
mod shaping;
mod table;

/// A group of figures: its name, and what measures and prints it.
type Group = (&'static str, fn());

const GROUPS: &[Group] = &[
    ("run", command::trivial_run),
    ("packet", agent::first_packet),
    ("idle", agent::idle_agent),
    ("delay", shaping::delay::errors),
    ("shares", shaping::shares::counts),
    ("stream", shaping::stream::rates),
    ("beside", shaping::stream::beside),
    ("cost", shaping::stream::cost_of_a_packet),
    ("crash", shaping::crash::losses),
    ("load", load::figures),
    ("flows", flows::figures),
    ("proxy", proxy::figures),
    ("fleet", fleet::figures),
    ("schedules", people::schedules),
    ("pages", people::pages),
];

/// How often something is measured: as often as it says, or as `SQUALL_ROUNDS` does.
///
/// # Panics
/// When that is no number above zero.
fn rounds(usual: usize) -> usize {
    let Ok(word) = std::env::var("SQUALL_ROUNDS") else { return usual };
    let number = word.parse().ok().filter(|number| *number > 0);
    number.unwrap_or_else(|| panic!("SQUALL_ROUNDS is a number of rounds, at least 1, not `{word}`"))
}

fn main() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: the figures need root");
        return;
    }
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    for word in &wanted {
        assert!(GROUPS.iter().any(|(name, _)| name == word), "no group of figures is called `{word}`");
    }
    for (name, measure) in GROUPS {
        if wanted.is_empty() || wanted.iter().any(|word| word == name) {
            measure();
        }
    }
}
