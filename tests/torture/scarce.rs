//! What a process can lack: memory, room on the disk, a right.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use squall_agent::host::sys::boot_nanos;
use squall_tests::cgroup;
use squall_tests::netns::{PREFIX, signal};

use crate::alone;
use crate::choice::{self, Dice};
use crate::faults::{Fault, MECHANISMS, fault};
use crate::harness::{Ground, Job, discard, lock};
use crate::stage::{Life, Orders, Stage, enter, passed};
use crate::strike::{Outcome, mend};

/// How long the kernel may take to find that there is no memory, and to choose.
const CHOICE: Duration = Duration::from_secs(20);
/// What the agent may have beside what it has when its fault is live.
const SPARE: u64 = 8 << 20;

/// What becomes of a fault where something is scarce.
type Want = fn(&Ground, &'static Fault) -> Result<(), String>;

/// The jobs of this subject: each way to alter a host meets each want.
pub fn jobs() -> Vec<Job> {
    let wants: [(&str, Want); 3] =
        [("out_of_memory", out_of_memory), ("a_full_disk", full_disk), ("a_right_that_is_revoked", revoked)];
    let of = |name: &'static str| {
        let fault = fault(name);
        wants.map(|(want, run)| {
            let name = format!("{want}::{}", name.replace(' ', "_"));
            Job::new(name, fault.needs, move |ground| run(ground, fault))
        })
    };
    let heirs = ["partition of a process", "bandwidth by htb"].map(|name| {
        let fault = fault(name);
        let name = format!("a_guardian_without_the_right::{}", name.replace(' ', "_"));
        Job::new(name, fault.needs, move |ground| barred(ground, fault))
    });
    MECHANISMS.into_iter().flat_map(of).chain(heirs).collect()
}

/// Where a life passes, of one role: the first and the last time at each of some points; where there is little time, of
/// one of them.
fn places(ground: &Ground, stage: &Stage, role: &str, points: &[&str]) -> Result<Vec<String>, String> {
    let passed = choice::points(stage)?;
    let ends = |point: &str| {
        let place = format!("{role}/{point}:");
        let mut there = passed.iter().filter(move |at| at.starts_with(&place) && !at.contains(','));
        let first = there.next();
        let last = there.next_back();
        first.into_iter().chain(last).cloned().collect::<Vec<_>>()
    };
    let mut all: Vec<String> = points.iter().flat_map(|point| ends(point)).collect();
    if all.is_empty() {
        return Err(format!("{role} passes none of {points:?}: {passed:?}"));
    }
    if ground.blows.is_none() && stage.fault.name != MECHANISMS[0] {
        let seed =
            stage.fault.name.bytes().fold(ground.seed, |seed, byte| seed.wrapping_mul(31) ^ u64::from(byte));
        all = vec![Dice::new(seed).one(&all).clone()];
    }
    Ok(all)
}

fn outcome(victim: &str, way: &str, layer: &'static str, rest: &'static str, took: Duration) -> Outcome {
    Outcome { victim: victim.to_owned(), way: way.to_owned(), layer, rest, took, live: false, deaths: 2 }
}

/// A neighbour in the agent's control group takes all memory that there is, and the kernel chooses who goes.
fn out_of_memory(ground: &Ground, fault: &'static Fault) -> Result<(), String> {
    (0..if ground.blows.is_some() { 3 } else { 1 }).try_for_each(|_| one_is_chosen(ground, fault))
}

fn one_is_chosen(ground: &Ground, fault: &'static Fault) -> Result<(), String> {
    let root = Path::new("/sys/fs/cgroup/memory");
    let (usage, limit, root) =
        if root.join("memory.limit_in_bytes").exists() || root.join("cgroup.procs").exists() {
            ("memory.usage_in_bytes", "memory.limit_in_bytes", root)
        } else {
            ("memory.current", "memory.max", Path::new("/sys/fs/cgroup"))
        };
    let name = fault.name.replace(' ', "-");
    let group = root.join(format!("{PREFIX}{}-memory-{name}", std::process::id()));
    fs::create_dir(&group).map_err(|error| format!("`{}`: {error}", group.display()))?;
    if !group.join(limit).exists() {
        squall_tests::skip::log_as("out_of_memory", "needs control groups with memory");
        return fs::remove_dir(&group).map_err(|error| error.to_string());
    }
    let stage = Stage::new(fault, &ground.agent);
    let came = starved_of_memory(&stage, &group, usage, limit);
    let went = cgroup::clear(&group).map_err(|error| format!("`{}`: {error}", group.display()));
    lock(&ground.table).note(stage.fault.name, came?);
    went
}

fn starved_of_memory(stage: &Stage, group: &Path, usage: &str, limit: &str) -> Result<Outcome, String> {
    let life = stage.begin(&Orders { held: true, in_another: Some(group.to_owned()), ..Orders::default() });
    if !life.live() {
        return Err(format!("it never was live: {:?}", life.finish()));
    }
    let used = fs::read_to_string(group.join(usage)).map_err(|error| error.to_string())?;
    let used: u64 = used.trim().parse().map_err(|_| format!("`{used}` is no number"))?;
    fs::write(group.join(limit), (used + SPARE).to_string()).map_err(|error| error.to_string())?;
    // It must never be chosen itself; what it can take is bounded by the group.
    let hog = format!("echo -1000 >/proc/self/oom_score_adj; {}exec tail /dev/zero", enter(group));
    let hog = stage.world.program(1, None, &["sh", "-c", &hog]);
    let struck = boot_nanos();
    let watched = stage.watch(struck, &life, CHOICE);
    signal(&hog, Signal::KILL);
    let seen = life.passed();
    let by = |role: &str| {
        seen.iter()
            .any(|passed| passed.nanos > struck && passed.at.starts_with(&format!("{role}/before-revert")))
    };
    let layer = if by("guardian") {
        "guardian"
    } else if by("worker") {
        "worker"
    } else {
        "kernel"
    };
    let came = life.end();
    let (Some(took), Some(_)) = (watched.effects, watched.dead) else {
        return Err(format!("nobody was killed for memory, or the fault lived on: {watched:?}, {came:?}"));
    };
    let rest = mend(stage, 1)?;
    Ok(outcome("as the kernel chose", "out of memory", layer, rest, took))
}

/// The disk is full from the moment when the guardian is about to write something.
fn full_disk(ground: &Ground, fault: &'static Fault) -> Result<(), String> {
    let stage = Stage::new(fault, &ground.agent);
    stage.world.tmpfs(&stage.host().state, 256 * 1024);
    let writes = ["before-begin", "before-record", "before-undone", "before-end"];
    for (number, at) in places(ground, &stage, "guardian", &writes)?.into_iter().enumerate() {
        for kills in [false, true] {
            let mut life = stage.begin(&Orders { at: format!("{at}:stop"), ..Orders::default() });
            let struck = life.reached(&at).ok_or_else(|| format!("{at} was never reached"))?;
            let filler = stage.host().state.join("filler");
            fill(&filler);
            let outcome = if kills { killed(&stage, life, struck) } else { lives(&stage, life, struck) };
            let outcome = outcome.map_err(|why| format!("{at}, full disk, killed: {kills}: {why}"))?;
            fs::remove_file(&filler).map_err(|error| error.to_string())?;
            mend(&stage, number)?;
            lock(&ground.table).note(stage.fault.name, outcome);
        }
    }
    Ok(())
}

fn fill(path: &Path) {
    let mut file = fs::File::create(path).expect("one more file fits");
    for size in [4096, 1] {
        while file.write_all(&vec![b'x'; size]).is_ok() {}
    }
}

/// The agent goes on: it refuses what it cannot write down, and undoes what it did.
fn lives(stage: &Stage, life: Life, struck: u64) -> Result<Outcome, String> {
    let [Some(guardian), _] = life.pair() else { return Err("there is no guardian".to_owned()) };
    signal(&guardian, Signal::CONT);
    let watched =
        stage.watch_until(struck, &life, Duration::from_secs(10), |watched| watched.effects.is_some());
    let took = watched.effects.ok_or("the fault can still be seen")?;
    let came = life.end_orderly();
    match came {
        Err(why) if !why.contains("refused") => return Err(format!("not a refusal: {why}")),
        _ => {}
    }
    Ok(outcome("guardian", "full disk", "worker", "–", took))
}

/// Both are killed in that moment, and the recovery has no room either.
fn killed(stage: &Stage, life: Life, struck: u64) -> Result<Outcome, String> {
    for process in life.pair().iter().flatten() {
        signal(process, Signal::STOP);
    }
    for process in life.pair().iter().flatten() {
        signal(process, Signal::KILL);
    }
    let watched = stage.watch(struck, &life, Duration::from_secs(5));
    let took = watched.effects.ok_or("the fault can still be seen")?;
    drop(life.end());
    let recovered = stage.host().agent(&["recover"]).run();
    if recovered.status.code() != Some(0) {
        return Err(format!("no recovery without room: {}", recovered.story()));
    }
    Ok(outcome("both", "SIGKILL, full disk", "kernel", "recover", took))
}

/// From some moment on the worker may not alter the network any more. What it cannot undo it says and tries again, while
/// its rules match nothing for want of renewal; once it is told to end, the guardian does it with its own rights.
fn revoked(ground: &Ground, fault: &'static Fault) -> Result<(), String> {
    let stage = Stage::new(fault, &ground.agent);
    let acts = ["before-record", "after-perform", "before-undo"];
    for (number, at) in places(ground, &stage, "worker", &acts)?.into_iter().enumerate() {
        let mut life = stage.begin(&Orders { at: format!("{at}:revoke"), ..Orders::default() });
        let struck = life.reached(&at).ok_or_else(|| format!("{at} was never reached"))?;
        let log = life.log();
        let came = life.end_orderly();
        let took = Duration::from_nanos(boot_nanos().saturating_sub(struck));
        let reverts =
            |at: &crate::stage::Passed| at.nanos > struck && at.at.starts_with("guardian/before-undo");
        let layer = if passed(&log).iter().any(reverts) { "guardian" } else { "worker" };
        match mend(&stage, number) {
            Ok(rest) => {
                let outcome = outcome("worker", "no CAP_NET_ADMIN", layer, rest, took);
                lock(&ground.table).note(stage.fault.name, outcome);
            }
            Err(why) => {
                discard(stage);
                return Err(format!("{at}, without CAP_NET_ADMIN: {why}; {came:?}"));
            }
        }
    }
    Ok(())
}

/// The worker dies, and the guardian may not alter the network any more: what the kernel owns goes with the two of them, the
/// rest is left for the next command, and the guardian does not pretend otherwise.
fn barred(ground: &Ground, fault: &'static Fault) -> Result<(), String> {
    let stage = Stage::new(fault, &ground.agent);
    let at = "guardian/after-begin:1:revoke,worker/after-perform:1:kill-self".to_owned();
    let mut life = stage.begin(&Orders { at, ..Orders::default() });
    let struck = life.reached("worker/after-perform:1").ok_or("the fault was never made")?;
    let watched = stage.watch(struck, &life, alone::ENDED);
    let pair = life.pair();
    drop(life.end());
    let (Some(took), Some(_)) = (watched.effects, watched.dead) else {
        return Err(format!("{pair:?} live on, or the fault does: {watched:?}"));
    };
    if stage.left("journal").is_none() {
        return Err("a guardian that could not undo it has removed the journal".to_owned());
    }
    let rest = mend(&stage, 0)?;
    lock(&ground.table).note(stage.fault.name, outcome("guardian", "no CAP_NET_ADMIN", "kernel", rest, took));
    Ok(())
}
