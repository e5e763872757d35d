//! `squall demo`: a small shop that breaks twice, and the same shop that holds, in a network of its own.
//!
//! Everything in it is real: processes that talk over TCP, faults by the same agent, verdicts by the same `squall run`
//! that everybody uses. The only thing that it knows better is how to explain what is seen.

mod act;
mod confine;
mod folder;
mod rehearsal;
mod services;
mod story;

use std::time::Duration;

use anyhow::Context;
use nix::unistd::geteuid;
use squall_experiments::exit::Exit;
use tokio::signal::unix::{SignalKind, signal};

use super::Format;
use act::ACTS;
use folder::Folder;
use rehearsal::Rehearsal;
use services::Services;
use story::Story;

/// How long the shop runs before anybody looks at it.
const WARMING: Duration = Duration::from_secs(1);

/// Options of `squall demo`.
#[derive(Debug, clap::Args)]
pub struct Demo {}

impl Demo {
    /// Runs the verb. The process must be single-threaded: it moves into namespaces of its own, for good.
    ///
    /// Held means that all experiments came out as they should: half of them deviated, half of them held. Nothing is
    /// left behind, whatever ends it.
    pub fn run(&self, common: &super::Common) -> anyhow::Result<Exit> {
        let confined = match confine::enter() {
            Ok(confined) => confined,
            Err(forbidden) => {
                eprintln!("error: {forbidden}");
                eprintln!("help: {}", forbidden.help(geteuid().is_root()));
                return Ok(Exit::Refused);
            }
        };
        let story = Story::new(common.format == Format::Json);
        story.opening(confined);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(perform(story))
    }
}

async fn perform(mut story: Story) -> anyhow::Result<Exit> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    // Made after the signals are caught, so that none of them leaves it behind.
    let folder = Folder::new()?;
    let mut services = Services::default();
    let mut rehearsal = None;
    let played = tokio::select! {
        played = play(&folder, &mut services, &mut rehearsal, &mut story) => Some(played),
        _ = interrupt.recv() => None,
        _ = terminate.recv() => None,
        _ = hang_up.recv() => None,
    };
    let ended = match &mut rehearsal {
        Some(rehearsal) => Some(rehearsal.end().await),
        None => None,
    };
    services.stop().await;
    drop(folder);
    match played {
        Some(played) => {
            let as_expected = played?;
            story.closing(as_expected);
            Ok(if as_expected { Exit::Held } else { Exit::Inconclusive })
        }
        None => {
            story.interrupted(ended);
            Ok(Exit::Interrupted)
        }
    }
}

/// All experiments, one after the other. What it starts is held by the caller, so that an interruption can end it in
/// order.
async fn play(
    folder: &Folder,
    services: &mut Services,
    rehearsal: &mut Option<Rehearsal>,
    story: &mut Story,
) -> anyhow::Result<bool> {
    services.open().await.context("the shop does not open")?;
    tokio::time::sleep(WARMING).await;
    story.shop(services.health().await?, services.tally());
    for (index, act) in ACTS.iter().enumerate() {
        if index > 0 {
            services.change_storefront(act.options).await.context("the storefront does not start again")?;
            tokio::time::sleep(WARMING).await;
        }
        story.before(index + 1, ACTS.len(), act);
        let file = folder.write(act.file, act.text)?;
        let running = rehearsal.insert(Rehearsal::start(&file, folder.path())?);
        let seen = running.watch(services).await?;
        *rehearsal = None;
        if !story.after(act, &seen) {
            return Ok(false);
        }
    }
    Ok(true)
}
