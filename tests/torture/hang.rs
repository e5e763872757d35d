//! A hang is a death: deadlocked, or starved of the processor. Waiting for the kernel is none.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use squall_agent::host::sys::boot_nanos;
use squall_tests::cgroup;
use squall_tests::netns::{PREFIX, Process, signal};
use squall_tests::wait::holds;

use crate::faults::fault;
use crate::harness::{Ground, Job, discard, lock};
use crate::stage::{Orders, Stage, enter};
use crate::strike::{Outcome, Strike, mend};

/// Who hangs, and where. Whoever waits for the guardian's disk waits for 10 s.
const DEADLOCKS: [&str; 4] = [
    "worker/after-record:2:hang",
    "worker/after-perform:1:hang",
    "worker/before-undo:1:hang",
    "guardian/before-record:2:hang",
];

/// Where the worker waits for 2.5 s, longer than the guardian would for a beat: before something is written down, while
/// something is live, while it is taken back.
const WAITS: &str = "worker/before-record:1:late,worker/before-perform:1:late,worker/after-perform:1:late,worker/before-undo:1:late";

/// How long a starved worker's fault may be seen: a hand that does nothing for 3 s hangs, and silence for 1.2 s is death.
const STARVED: Duration = Duration::from_secs(12);
/// Who shares its processor.
const OTHERS: usize = 16;

/// The jobs of this subject.
pub fn jobs() -> Vec<Job> {
    let needs = fault("latency").needs;
    vec![
        Job::new("a_deadlock_is_a_death", needs, deadlocks),
        Job::new("a_worker_that_waits_for_the_kernel_is_alive", needs, waits),
        Job::new("a_worker_that_is_starved_is_dead", needs, starves),
    ]
}

fn deadlocks(ground: &Ground) -> Result<(), String> {
    let stage = Stage::new(fault("latency"), &ground.agent);
    for (number, at) in DEADLOCKS.iter().enumerate() {
        let outcome = Strike::At((*at).to_owned()).fall(&stage, number)?;
        let other = if at.starts_with("worker") { "guardian" } else { "worker" };
        if outcome.layer != other {
            return Err(format!("{at}: the {other} was to revert: {outcome:?}"));
        }
        lock(&ground.table).note(stage.fault.name, outcome);
    }
    Ok(())
}

/// The whole life is as without the waits.
fn waits(ground: &Ground) -> Result<(), String> {
    let stage = Stage::new(fault("latency"), &ground.agent);
    let mut life = stage.begin(&Orders { at: WAITS.to_owned(), ..Orders::default() });
    let all = WAITS.split(',').filter_map(|order| order.strip_suffix(":late"));
    for at in all {
        life.reached(at).ok_or_else(|| format!("{at} was never reached: {:?}", life.passed()))?;
    }
    life.end_orderly().map_err(|why| format!("a worker that waited was taken for dead: {why}"))?;
    mend(&stage, 0).map(drop)
}

/// The hierarchy of control groups with processor time, and the file and word of a thousandth of one processor.
fn processor() -> Option<(PathBuf, Vec<(&'static str, &'static str)>)> {
    let old = Path::new("/sys/fs/cgroup/cpu");
    if old.join("cpu.cfs_quota_us").exists() || old.join("cgroup.procs").exists() {
        let mut narrow = vec![("cpu.cfs_period_us", "1000000"), ("cpu.cfs_quota_us", "1000")];
        // Where real-time threads have a share of their own, a group without one does not take them.
        if old.join("cpu.rt_runtime_us").exists() {
            narrow.extend([("cpu.rt_period_us", "1000000"), ("cpu.rt_runtime_us", "1000")]);
        }
        return Some((old.to_owned(), narrow));
    }
    let new = Path::new("/sys/fs/cgroup");
    let controllers = fs::read_to_string(new.join("cgroup.subtree_control")).unwrap_or_default();
    controllers.contains("cpu").then(|| (new.to_owned(), vec![("cpu.max", "1000 1000000")]))
}

/// A worker that shares a thousandth of a processor with others that want all of it, and want it as much.
fn starves(ground: &Ground) -> Result<(), String> {
    let Some((root, narrow)) = processor() else {
        squall_tests::skip::log_as(
            "a_worker_that_is_starved_is_dead",
            "needs control groups with processor time",
        );
        return Ok(());
    };
    let stage = Stage::new(fault("partition"), &ground.agent);
    let group = root.join(format!("{PREFIX}{}-starved", std::process::id()));
    fs::create_dir(&group).map_err(|error| format!("`{}`: {error}", group.display()))?;
    let came = starved(&stage, &group, &narrow);
    let went = cgroup::clear(&group).map_err(|error| format!("`{}`: {error}", group.display()));
    match came.and_then(|outcome| went.map(|()| outcome)) {
        Ok(outcome) => lock(&ground.table).note(stage.fault.name, outcome),
        Err(why) => {
            discard(stage);
            return Err(why);
        }
    }
    Ok(())
}

fn starved(stage: &Stage, group: &Path, narrow: &[(&str, &str)]) -> Result<Outcome, String> {
    let put = |file: &str, word: &str| {
        fs::write(group.join(file), word)
            .map_err(|error| format!("`{file}` of `{}`: {error}", group.display()))
    };
    let life = stage.begin(&Orders { held: true, ..Orders::default() });
    if !life.live() {
        return Err(format!("it never was live: {:?}", life.finish()));
    }
    let [_, Some(worker)] = life.pair() else { return Err("there is no worker".to_owned()) };
    // As nice as the worker is to others while something is live: before them it would get what little there is, which is
    // all that it needs.
    let loops = format!("{}exec nice -n -20 sh -c 'while :; do :; done'", enter(group));
    let others: Vec<Process> =
        (0..OTHERS).map(|_| stage.world.program(1, None, &["sh", "-c", &loops])).collect();
    let there = || fs::read_to_string(group.join("cgroup.procs")).map_or(0, |all| all.lines().count());
    holds("all that want the processor", STARVED, || there() == OTHERS);
    narrow.iter().try_for_each(|(file, word)| put(file, word))?;
    put("cgroup.procs", &worker.pid.to_string())?;
    let struck = boot_nanos();
    let watched = stage.watch_until(struck, &life, STARVED, |watched| watched.effects.is_some());
    // Dead or alive, it needs the processor to go; the others would take it from everybody once they may.
    for other in &others {
        signal(other, Signal::KILL);
    }
    let (file, wide) = if narrow.len() == 1 { ("cpu.max", "max") } else { ("cpu.cfs_quota_us", "-1") };
    put(file, wide)?;
    let gone = stage.watch(struck, &life, STARVED * 2);
    let by_guardian = life
        .passed()
        .iter()
        .any(|passed| passed.nanos > struck && passed.at.starts_with("guardian/before-revert"));
    let came = life.end();
    let (Some(took), Some(_)) = (watched.effects, gone.dead) else {
        return Err(format!("a starved worker's fault lived on: {watched:?}, {gone:?}, {came:?}"));
    };
    let rest = mend(stage, 0)?;
    let layer = if by_guardian { "guardian" } else { "kernel timers" };
    let (victim, way) = ("worker".to_owned(), "starved".to_owned());
    Ok(Outcome { victim, way, layer, rest, took, live: false, deaths: 1 })
}
