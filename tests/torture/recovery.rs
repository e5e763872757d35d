//! A recovery that is killed is recovered, at whichever point and however often.

use std::time::Duration;

use crate::faults::{Fault, fault};
use crate::harness::{Ground, Job, lock};
use crate::stage::{Stage, passed};
use crate::strike::{Outcome, Strike, mend};

/// Faults that leave most: marks on sockets, a root and its classes, processes; one with nothing but a table.
const LEAVING: [&str; 4] = ["partition of a process", "bandwidth by htb", "pause", "latency"];

/// The jobs of this subject.
pub fn jobs() -> Vec<Job> {
    let job = |name: &&str| {
        let fault = fault(name);
        let name = format!("recovery_dies::{}", fault.name.replace(' ', "_"));
        Job::new(name, fault.needs, move |ground| dies(ground, fault))
    };
    LEAVING.iter().map(job).collect()
}

/// Both die while the fault is live: what the kernel does not own is left.
fn leave(stage: &Stage) -> Result<(), String> {
    let mut life = stage.begin(&Strike::At("worker/after-perform:1:kill-both".to_owned()).orders());
    let struck = life.reached("worker/after-perform:1").ok_or("the fault was never made")?;
    let watched = stage.watch(struck, &life, Duration::from_secs(5));
    drop(life.end());
    match (watched.effects, watched.dead, stage.left("journal")) {
        (Some(_), Some(_), Some(_)) => Ok(()),
        other => Err(format!("a killed pair leaves its journal and no effect: {other:?}")),
    }
}

fn dies(ground: &Ground, fault: &'static Fault) -> Result<(), String> {
    let stage = Stage::new(fault, &ground.agent);
    let log = stage.world.directory.join("recovered");
    leave(&stage)?;
    stage.recover("", &log).expect_exit(0);
    let points: Vec<String> = passed(&log).into_iter().map(|passed| passed.at).collect();
    if points.len() < 4 {
        return Err(format!("a recovery passes more points than {points:?}"));
    }
    mend(&stage, 0)?;
    for (number, point) in points.iter().enumerate() {
        leave(&stage)?;
        // Again and again at the same place: what was undone before is undone again, and is no error.
        let times = 1 + number % 3;
        for _ in 0..times {
            if stage.left("journal").is_none() && !point.contains("before-remove") {
                break;
            }
            let killed = stage.recover(&format!("{point}:kill-self"), &log);
            if killed.status.code().is_some() {
                return Err(format!("it was not killed at {point}: {}", killed.story()));
            }
        }
        let rest = mend(&stage, number)?;
        let outcome = Outcome {
            victim: "a recovery".to_owned(),
            way: "SIGKILL".to_owned(),
            layer: "kernel",
            rest,
            took: Duration::ZERO,
            live: false,
            deaths: 2 + times,
        };
        lock(&ground.table).note(fault.name, outcome);
    }
    Ok(())
}
