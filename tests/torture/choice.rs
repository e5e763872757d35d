//! Which blows fall: one at every point of a fault's life and of its revert, and a seeded choice among all others.

use std::collections::BTreeSet;
use std::time::Duration;

use rustix::process::Signal;

use crate::harness::Job;
use crate::stage::{Orders, Stage};
use crate::strike::{Outside, Strike, Whom, mend};

/// Numbers that the same seed repeats (SplitMix64, Steele, Lea and Flood 2014).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Thrown from a seed.
    pub fn new(seed: u64) -> Self {
        Dice(seed)
    }

    /// The next number below a bound.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let wide = u128::from(mixed ^ (mixed >> 31)) * bound as u128;
        (wide >> 64) as usize
    }

    /// One of several.
    pub fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    fn shuffle<T>(&mut self, all: &mut [T]) {
        for last in (1..all.len()).rev() {
            all.swap(last, self.below(last + 1));
        }
    }
}

/// The points that lives on a stage pass, each as the orders that lead there: `role/point:nth`, or such an order, a blow
/// that begins a revert, and a point of that revert.
///
/// # Errors
/// When a life without a blow was not lived to its end, or left something.
pub fn points(stage: &Stage) -> Result<Vec<String>, String> {
    let whole = lived(stage, "")?;
    let mut all = whole.clone();
    // Each of the two reverts when the other has died in the midst of it.
    for blow in ["worker/after-perform:1:kill-self", "worker/after-perform:1:kill-other"] {
        let known: BTreeSet<&String> = whole.iter().collect();
        let reverting: Vec<String> = lived(stage, blow)?
            .into_iter()
            .filter(|at| !known.contains(at) || at.contains("/before-revert") || at.contains("-undo:"))
            .collect();
        all.extend(reverting.into_iter().map(|at| format!("{blow},{at}")));
    }
    Ok(all)
}

fn lived(stage: &Stage, at: &str) -> Result<Vec<String>, String> {
    let life = stage.begin(&Orders { at: at.to_owned(), ..Orders::default() });
    let log = life.log();
    let came = life.finish();
    if at.is_empty()
        && let Err(why) = came
    {
        return Err(format!("{} cannot be injected at all: {why}", stage.fault.name));
    }
    mend(stage, 0)?;
    Ok(crate::stage::passed(&log).into_iter().map(|passed| passed.at).collect())
}

/// What the agent may do to itself at a point.
const BLOWS: [&str; 8] =
    ["kill-self", "kill-other", "kill-both", "panic", "exit", "abort", "stop", "stop-both"];

/// What happens to it from outside while it stands at a point.
const OUTSIDE: [Outside; 2] = [Outside::KillGroup, Outside::Signal(Whom::Both, Signal::TERM)];

fn role(at: &str) -> &str {
    at.rsplit(',').next().and_then(|last| last.split('/').next()).unwrap_or_default()
}

/// Whether a blow at a point can be.
fn possible(at: &str, blow: &str) -> bool {
    // Before the fork, and after the first death, there is no other.
    let alone = role(at) == "recovery" || at.contains(',');
    // A command that recovers is its user's, who may stop it and let it go on; a survivor has a timer of its own.
    let users = role(at) == "recovery" && blow == "stop";
    !(users || alone && (blow.ends_with("other") || blow.ends_with("both")))
}

/// Blows on a stage, at least as many as are asked for: first one at each point, however many there are, then the other
/// ones that can be there, mixed with blows at random instants.
pub fn all(points: &[String], least: usize, dice: &mut Dice) -> Vec<Strike> {
    let (mut first, mut rest) = (Vec::new(), Vec::new());
    for at in points {
        let blows = BLOWS.into_iter().filter(|blow| possible(at, blow));
        let mut here: Vec<Strike> = blows.map(|blow| Strike::At(format!("{at}:{blow}"))).collect();
        if !at.contains(',') && role(at) != "recovery" {
            here.extend(OUTSIDE.map(|outside| Strike::Stopped(at.clone(), outside)));
        }
        dice.shuffle(&mut here);
        first.extend(here.pop());
        rest.extend(here);
    }
    dice.shuffle(&mut first);
    rest.extend(live(dice));
    dice.shuffle(&mut rest);
    while first.len() + rest.len() < least {
        rest.extend(live(dice));
    }
    let others = least.saturating_sub(first.len());
    first.extend(rest.into_iter().take(others));
    first
}

/// The jobs of this subject.
pub fn jobs() -> Vec<Job> {
    vec![Job::new("choice::a_blow_falls_at_every_point_first", &[], |ground| {
        let roles = ["worker", "guardian", "recovery"];
        let plain = (0..90).map(|number| format!("{}/before-record:{number}", roles[number % 3]));
        let reverts =
            (0..30).map(|number| format!("worker/after-perform:1:kill-self,guardian/undo:{number}"));
        let points: Vec<String> = plain.chain(reverts).collect();
        for least in [1, points.len(), points.len() + 50, 5000] {
            let strikes = all(&points, least, &mut Dice::new(ground.seed));
            if strikes.len() < least {
                return Err(format!("{} blows where {least} are asked for", strikes.len()));
            }
            let first = strikes.iter().take(points.len()).filter_map(|strike| match strike {
                Strike::At(order) => order.rsplit_once(':').map(|(at, _)| at),
                Strike::Stopped(at, _) => Some(at),
                Strike::Live(..) => None,
            });
            let met: BTreeSet<&str> = first.collect();
            if let Some(missed) = points.iter().find(|at| !met.contains(at.as_str())) {
                return Err(format!("of {least} blows none of the first falls at {missed}"));
            }
        }
        Ok(())
    })]
}

/// Some of each kind, as CI has the time for.
pub fn some(points: &[String], dice: &mut Dice) -> Vec<Strike> {
    let ends = *dice.one(&["panic", "exit", "abort"]);
    let hangs = *dice.one(&["stop", "stop-both"]);
    let mut some = Vec::new();
    for blow in ["kill-self", "kill-other", "kill-both", "kill-both", ends, hangs] {
        let fits: Vec<&String> = points
            .iter()
            .filter(|at| possible(at, blow))
            // A guardian that hangs while it writes is waited for 10 s, a survivor that undoes 15 s, on purpose: only where
            // there is time for it.
            .filter(|at| !(blow.starts_with("stop") && (role(at) == "guardian" || at.contains(','))))
            .collect();
        some.push(Strike::At(format!("{}:{blow}", dice.one(&fits))));
    }
    let reverts: Vec<&String> = points.iter().filter(|at| at.contains(',')).collect();
    some.push(Strike::At(format!("{}:kill-self", dice.one(&reverts))));
    let alive: Vec<&String> =
        points.iter().filter(|at| !at.contains(',') && role(at) != "recovery").collect();
    some.push(Strike::Stopped((*dice.one(&alive)).clone(), *dice.one(&OUTSIDE)));
    let one = *dice.one(&[Whom::Worker, Whom::Guardian]);
    let hang = *dice.one(&[Outside::Signal(Whom::Both, Signal::STOP), Outside::FreezeGroup]);
    let asked = *dice.one(&[
        Outside::Signal(one, Signal::TERM),
        Outside::KillGroup,
        Outside::Signal(one, Signal::STOP),
    ]);
    let live = [Outside::Signal(Whom::Both, Signal::KILL), Outside::Signal(one, Signal::KILL), hang, asked];
    some.extend(live.map(|outside| later(dice, outside)));
    some
}

/// At a random instant while the fault is live.
fn later(dice: &mut Dice, outside: Outside) -> Strike {
    Strike::Live(Duration::from_micros(dice.below(400_000) as u64), outside)
}

/// Blows at random instants while the fault is live.
fn live(dice: &mut Dice) -> Vec<Strike> {
    let mut all = Vec::new();
    for _ in 0..8 {
        for whom in [Whom::Worker, Whom::Guardian, Whom::Both] {
            all.push(Outside::Signal(whom, Signal::KILL));
        }
        all.push(Outside::Signal(Whom::Both, Signal::STOP));
        all.push(Outside::Signal(*dice.one(&[Whom::Worker, Whom::Guardian]), Signal::STOP));
        all.push(Outside::Signal(*dice.one(&[Whom::Worker, Whom::Guardian, Whom::Both]), Signal::TERM));
        all.push(*dice.one(&[Outside::KillGroup, Outside::FreezeGroup]));
    }
    all.into_iter().map(|outside| later(dice, outside)).collect()
}
