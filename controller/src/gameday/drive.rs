//! One day, from where it stands to its end.

use std::time::Duration;

use squall_experiments::gameday::{Course, Event, Phase, Turn};
use tokio::time::{Instant, sleep, timeout};

use super::day::{Day, DayError};
use super::step::Following;
use super::{GameDays, SQUALL};
use crate::api::halted;
use crate::store::{GameDayRow, LEASE_MS, StoreError, now_ms};

/// How often a day is held anew.
const BEAT: Duration = Duration::from_secs(2);
/// How long a day is driven although the store has not said that nobody else does: shorter than a lease.
const BEARABLE: Duration = Duration::from_millis(LEASE_MS * 3 / 4);
/// How long nothing is heard before the store is looked at: another controller may have added something.
const LOOK: Duration = Duration::from_millis(500);

impl GameDays {
    /// Drives a day until it is over, or somebody else does.
    pub(super) async fn drive(self, row: GameDayRow) {
        let (id, epoch) = (row.id.clone(), row.epoch);
        loop {
            let error = tokio::select! {
                driven = self.carry_on(row.clone()) => match driven {
                    Ok(()) => return,
                    Err(error) => error,
                },
                error = self.hold(&id, epoch) => error,
            };
            match error {
                StoreError::Fenced { .. } => {
                    tracing::warn!(day = id, "another controller carries the game day on");
                    return;
                }
                error => tracing::warn!(day = id, %error, "a game day waits for its store"),
            }
            sleep(BEAT).await;
        }
    }

    /// Holds a day for as long as this is polled; gives why it is not held any more.
    async fn hold(&self, id: &str, epoch: u64) -> StoreError {
        let mut held = Instant::now();
        loop {
            sleep(BEAT).await;
            let asked = Instant::now();
            match timeout(BEARABLE, self.0.store.hold_game_day(id, epoch)).await {
                Ok(Ok(())) => held = asked,
                Ok(Err(error @ StoreError::Fenced { .. })) => return error,
                _ if held.elapsed() >= BEARABLE => {
                    return StoreError::Away("nobody can say who carries the game day on".to_owned());
                }
                _ => {}
            }
        }
    }

    async fn carry_on(&self, row: GameDayRow) -> Result<(), StoreError> {
        let epoch = Some(row.epoch);
        let mut day = Day::read(&self.0.store, row).await?;
        self.find_lost_run(&mut day).await?;
        let mut following: Option<Following> = None;
        let mut changes = self.0.store.changes();
        loop {
            changes.mark_unchanged();
            day.refresh(&self.0.store).await?;
            if day.course.phase == Phase::Open
                && let Some(why) = halted(&self.0.store).await?
            {
                self.say(&mut day, epoch, Event::Stopped { why }).await?;
                continue;
            }
            let mut until = None;
            match day.course.turn(&day.document, now_ms()) {
                Turn::Over => return Ok(()),
                Turn::Say(event) => {
                    let event = self.asks_another(&day, event);
                    self.say(&mut day, epoch, event).await?;
                    continue;
                }
                Turn::Begin(step) => {
                    // Whoever is slow must not begin what somebody else drives by now.
                    self.0.store.hold_game_day(&day.row.id, day.row.epoch).await?;
                    let event = self.begin_step(&day, &step).await;
                    // What could not be told of may have begun all the same: then it is that which is written down.
                    if matches!(event, Event::Refused { .. }) {
                        self.find_lost_run(&mut day).await?;
                    }
                    self.say(&mut day, epoch, event).await?;
                    continue;
                }
                Turn::Follow(step, run) => {
                    let follow = match following.take().filter(|following| following.run == run) {
                        Some(following) => following,
                        None => Following::of(&self.0.store, &step, &run).await?,
                    };
                    let follow = following.insert(follow);
                    if day.course.phase == Phase::Stopping && !follow.halted {
                        follow.halted = self.0.launch.engine().halt_run(&run).await.is_ok();
                    }
                    let seen = follow.news(&self.0.store).await?;
                    let any = !seen.is_empty();
                    for event in seen {
                        if is_news(&day.course, &event) {
                            self.say(&mut day, epoch, event).await?;
                        }
                    }
                    if any {
                        continue;
                    }
                }
                Turn::Wait(time) => until = time,
            }
            let wait = until.map(|until| Duration::from_millis(until.saturating_sub(now_ms()).max(1)));
            let _ = timeout(wait.map_or(LOOK, |wait| wait.min(LOOK)), changes.changed()).await;
        }
    }

    /// Writes something down as the controller. What cannot happen any more, because of what somebody said meanwhile, is not
    /// written: the day is looked at again.
    async fn say(&self, day: &mut Day, epoch: Option<u64>, event: Event) -> Result<(), StoreError> {
        match day.add(&self.0.store, epoch, SQUALL, event).await {
            Ok(()) => Ok(()),
            Err(DayError::Refused(refused)) => {
                tracing::info!(day = day.row.id, %refused, "a game day went on otherwise");
                Ok(())
            }
            Err(DayError::Store(error)) => Err(error),
        }
    }

    /// A run that a controller before this one began, and could not write down any more.
    async fn find_lost_run(&self, day: &mut Day) -> Result<(), StoreError> {
        let by = super::step::by(&day.row.id);
        let known = |run: &String| {
            day.course.steps.iter().flat_map(|step| &step.attempts).any(|attempt| attempt.run == *run)
        };
        let runs = self.0.store.runs_begun_by(&by, day.row.at).await?;
        let Some(lost) = runs.into_iter().rev().find(|run| !known(run)) else { return Ok(()) };
        let waits = day.course.steps.iter().find(|step| {
            let begun = step.attempts.iter().all(|attempt| !attempt.is_open()) && step.go.is_some();
            begun && matches!(step.state.word(), "beginning" | "stopped")
        });
        let Some(step) = waits.map(|step| step.name.clone()) else { return Ok(()) };
        let epoch = Some(day.row.epoch);
        self.say(day, epoch, Event::RunBegan { step, run: lost }).await
    }
}

/// Whether a run says something that the day does not know.
fn is_news(course: &Course, event: &Event) -> bool {
    let step = event.step().and_then(|step| course.step(step));
    step.and_then(|step| step.last()).is_some_and(|attempt| attempt.is_news(event))
}
