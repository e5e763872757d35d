//! The command dies: at points of the life of the agent that it has found, and at random instants.

use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use squall_agent::host::sys::boot_nanos;
use squall_tests::netns::{Process, signal};
use squall_tests::squall::Background;

use crate::choice::{self, Dice};
use crate::faults::{MECHANISMS, fault};
use crate::harness::{Ground, Job, lock};
use crate::stage::{Life, Orders, Stage};
use crate::strike::{Outcome, mend, nothing_in, shown};

/// What it gets.
const SIGNALS: [Signal; 4] = [Signal::KILL, Signal::TERM, Signal::INT, Signal::HUP];
/// From its start to its end on an idle machine, in microseconds.
const LIFE: usize = 1_100_000;
/// How long the fault is meant to last: long enough to be met by a blow, and short enough to see its orderly end.
const LASTS: &str = "400ms";
/// How long what it began may go on: its agent hears of its end at once.
const KILLED: Duration = Duration::from_secs(6);

/// The jobs of this subject.
pub fn jobs() -> Vec<Job> {
    let job = |(number, name): (usize, &&'static str)| {
        let fault = fault(name);
        let name = format!("the_command_dies::{}", fault.name.replace(' ', "_"));
        Job::new(name, fault.needs, move |ground| dies(ground, number, &Stage::new(fault, &ground.agent)))
    };
    MECHANISMS.iter().enumerate().map(job).collect()
}

/// Every signal at some point each, or two where there is little time; and the next two at some instant.
fn dies(ground: &Ground, number: usize, stage: &Stage) -> Result<(), String> {
    let mut dice = Dice::new(ground.seed.wrapping_add(number as u64));
    let lives = |at: &String| !at.contains(',') && !at.starts_with("recovery");
    // What is only there when nothing is asked of it any more, no command waits for.
    let met = |at: &String| !["remove", "clear", "revert"].iter().any(|part| at.contains(part));
    let points: Vec<String> = choice::points(stage)?.into_iter().filter(|at| lives(at) && met(at)).collect();
    let times = if ground.blows.is_some() { 8 } else { 2 };
    for turn in 0..times {
        let hits = SIGNALS[(number + turn) % SIGNALS.len()];
        let at = dice.one(&points).clone();
        blow(ground, stage, hits, &Moment::At(at))?;
        let hits = SIGNALS[(number + turn + 2) % SIGNALS.len()];
        blow(ground, stage, hits, &Moment::After(Duration::from_micros(dice.below(LIFE) as u64)))?;
    }
    Ok(())
}

/// When it dies.
#[derive(Debug)]
enum Moment {
    /// While its agent stands at a point.
    At(String),
    /// So long after its start.
    After(Duration),
}

/// How long it may take until the agent stands at a point.
const MET: Duration = Duration::from_secs(60);

fn blow(ground: &Ground, stage: &Stage, hits: Signal, moment: &Moment) -> Result<(), String> {
    let way = shown(hits);
    let story = |what: String| format!("{}: the command, {way}, {moment:?}: {what}", stage.fault.name);
    let at = match moment {
        Moment::At(at) => format!("{at}:stop"),
        Moment::After(_) => String::new(),
    };
    let mut life = stage.begin(&Orders { at, serves: true, ..Orders::default() });
    let mut run = life.serving().map_err(story).map(|()| stage.command(LASTS).start())?;
    let pid = run.pid();
    let struck = match moment {
        Moment::After(after) => {
            thread::sleep(*after);
            Some(boot_nanos())
        }
        Moment::At(at) => met(&life, at),
    };
    let Some(struck) = struck else {
        let [guardian, worker] = life.pair();
        return Err(story(format!("never reached by {guardian:?} and {worker:?}: {}", run.story())));
    };
    let hit = Process::of(pid).is_some_and(|command| signal(&command, hits));
    if matches!(moment, Moment::At(_)) {
        for process in life.pair().iter().flatten() {
            signal(process, Signal::CONT);
        }
    }
    if !hit {
        // It had ended by itself: no blow.
        life.end_orderly().map_err(story)?;
        return mend(stage, 0).map(drop).map_err(story);
    }
    let came = over(stage, &life, &mut run, struck);
    let ended = life.end_orderly();
    match came.and_then(|took| Ok((took, mend(stage, 0)?))) {
        Ok((took, rest)) => {
            let victim = "command".to_owned();
            let outcome = Outcome { victim, way, layer: "worker", rest, took, live: false, deaths: 1 };
            lock(&ground.table).note(stage.fault.name, outcome);
            Ok(())
        }
        Err(why) => Err(story(format!("{why}; {ended:?}"))),
    }
}

/// When the agent stood at a point. It serves on, whatever becomes of the command: `None` after a while.
fn met(life: &Life, at: &str) -> Option<u64> {
    let begun = boot_nanos();
    loop {
        if let Some(passed) = life.passed().into_iter().find(|passed| passed.at == at) {
            return Some(passed.nanos);
        }
        if Duration::from_nanos(boot_nanos() - begun) > MET {
            return None;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// How long it took until the command had ended, its agent had nothing to do any more, and nothing could be seen.
fn over(stage: &Stage, life: &Life, run: &mut Background, struck: u64) -> Result<Duration, String> {
    let since = || Duration::from_nanos(boot_nanos().saturating_sub(struck));
    let idle = || stage.left("journal").is_none_or(nothing_in);
    loop {
        let ended = run.ended();
        let watched = stage.watch_until(boot_nanos(), life, Duration::ZERO, |_| true);
        if ended && watched.effects.is_some() && idle() {
            return Ok(since());
        }
        if since() > KILLED {
            return Err(format!("not over: ended: {ended}, {watched:?}: {}", run.story()));
        }
        thread::sleep(Duration::from_millis(2));
    }
}
