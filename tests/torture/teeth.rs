//! The suite has teeth: with a flaw built in, the same blow leaves something, and that is noticed.
//!
//! The program with stopping points can have a flaw (`SQUALL_FLAW`): `late-record` writes each undo only when the next
//! entry comes, so after what it takes back was done; `no-sync` syncs nothing, on a disk that keeps what was synced. Each
//! must turn a blow that leaves nothing into one that does. `SQUALL_TORTURE_FLAW=…` gives the flaw to every agent of the
//! suite, which must then fail.

use crate::faults::fault;
use crate::harness::{Ground, Job, discard, lock};
use crate::stage::{Orders, Stage};
use crate::strike::{Strike, mend};

/// The jobs of this subject.
pub fn jobs() -> Vec<Job> {
    let needs = fault("partition of a process").needs;
    let htb = fault("bandwidth by htb").needs;
    vec![
        // Between the marks on the sockets and the next record.
        Job::new("teeth::a_record_after_the_deed_is_noticed", needs, |ground| {
            bites(ground, "partition of a process", "worker/before-record:3:kill-both", "late-record")
        }),
        Job::new("teeth::a_missing_sync_is_noticed", needs, |ground| {
            bites(ground, "partition of a process", "worker/after-perform:1:kill-both", "no-sync")
        }),
        Job::new("teeth::a_missing_sync_is_noticed_at_an_interface", htb, |ground| {
            bites(ground, "bandwidth by htb", "worker/after-perform:1:kill-both", "no-sync")
        }),
    ]
}

fn bites(ground: &Ground, name: &str, at: &str, flaw: &'static str) -> Result<(), String> {
    let stage = Stage::new(fault(name), &ground.agent);
    let strike = Strike::At(at.to_owned());
    // The control: the same blow without the flaw.
    let outcome = strike.fall(&stage, 0)?;
    lock(&ground.table).note(name, outcome);
    let flawed = strike.fall_with(&stage, 0, Orders { flaw: Some(flaw), ..strike.orders() });
    let noticed = match &flawed {
        // Something is left, or what the disk kept of the journal is refused.
        Err(why) if why.contains("not as found") || why.contains("not recovered") => Ok(()),
        other => Err(format!("an agent with the flaw `{flaw}` passes for whole: {other:?}")),
    };
    if let Err(why) = flawed {
        println!("with `{flaw}`: {}", why.lines().skip(1).map(str::trim).collect::<Vec<_>>().join(" "));
        discard(stage);
    } else {
        mend(&stage, 0)?;
    }
    noticed
}
