//! Torture: every fault, every death, at every point; and the host is as it was.
//!
//! An agent of its own program, `squall-agent-stopping`, is built here with the feature `stopping-points`, lives through one
//! fault after the other, and is killed, stopped, frozen, starved or robbed of a right: at each place around which its
//! journal, its changes and its undos stand, and at random instants. After every blow the fault must be over in time,
//! whoever is left or comes next must have done the rest, and the host's fingerprint must be the one before.
//!
//! ```text
//! cargo test -p squall-tests --test torture [WORD]       what CI has time for: some blows of each kind
//! SQUALL_TORTURE=2000 cargo test … --test torture        at least so many blows, one at every point first
//! SQUALL_TORTURE_SEED=7                                  the same choices again
//! SQUALL_TORTURE_FLAW=no-sync                            a flaw is built in, and the suite must fail (`teeth.rs`)
//! ```
//!
//! It ends with a table, and with a line as of Rust's own test harness.

mod alone;
mod choice;
mod command;
mod conductor;
mod faults;
mod hang;
mod harness;
mod instants;
mod recovery;
mod scarce;
mod stage;
mod strike;
mod table;
mod teeth;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    harness::run(&arguments)
}
