//! `squall watch`, and how `squall run --controller` follows its run.

use std::time::Duration;

use serde_json::Value;
use squall_controller::api::client::Remote;
use squall_experiments::exit::Exit;

use super::remote::{self, At};
use super::run::Pipeline;
use super::{Common, Format, print};

/// How long between two attempts when the controller does not answer.
const AGAIN: Duration = Duration::from_secs(1);
/// How often it is tried.
const ATTEMPTS: u32 = 30;

/// Options of `squall watch`.
#[derive(Debug, clap::Args)]
pub struct Watch {
    #[command(flatten)]
    at: At,
    /// The run.
    run: String,
}

impl Watch {
    /// Shows a run's events as they come, until it has ended. The exit code is the run's.
    pub fn run(&self, common: &Common) -> anyhow::Result<Exit> {
        follow(&self.at.remote()?, &self.run, common, &Pipeline::default())
    }
}

/// Follows a run to its end, through interruptions of the connection. What is shown is no command to the pipeline.
pub fn follow(remote: &Remote, run: &str, common: &Common, pipeline: &Pipeline) -> anyhow::Result<Exit> {
    remote::runtime()?.block_on(async {
        let path = format!("/v1/runs/{}/stream", remote::part(run));
        let (mut last, mut failed) = (None, 0);
        loop {
            let ended = async {
                let mut events = match remote.follow(&path, last).await? {
                    Ok(events) => events,
                    Err(problem) => return Ok(Some(remote::refused(&problem))),
                };
                while let Some(event) = events.next().await? {
                    if event.kind.as_deref() == Some("end") {
                        let end: Value = serde_json::from_str(&event.data).unwrap_or_default();
                        let state = end["state"].as_str().unwrap_or_default().to_owned();
                        eprintln!("{}: {}", remote::plain(run), remote::plain(&state));
                        return Ok(Some(exit(&state)));
                    }
                    (last, failed) = (event.id.or(last), 0);
                    show(&event.data, common, pipeline)?;
                }
                anyhow::Ok(None)
            };
            match ended.await {
                Ok(Some(exit)) => return Ok(exit),
                // Whoever closed it: what comes next is asked for from where it broke off.
                Ok(None) => {}
                Err(error) if failed >= ATTEMPTS => return Err(error),
                Err(_) => {}
            }
            failed += 1;
            if failed > ATTEMPTS {
                anyhow::bail!("the controller ends every stream of `{run}`");
            }
            tokio::time::sleep(AGAIN).await;
        }
    })
}

fn show(data: &str, common: &Common, pipeline: &Pipeline) -> anyhow::Result<()> {
    if common.format == Format::Json {
        return Ok(print::result(&format!("{data}\n"))?);
    }
    let event: Value = serde_json::from_str(data).unwrap_or_default();
    // What concerns all hosts, or one of them, or a run that has only one.
    let kind = event["fleet"].as_str().or(event["event"].as_str()).unwrap_or("event");
    // Samples come by the hundred; whoever wants them asks for JSON.
    if kind == "sample" {
        return Ok(());
    }
    let members = event.as_object().into_iter().flatten();
    let told = |name: &str| matches!(name, "event" | "fleet" | "host" | "seq");
    let short = members.filter(|(name, value)| !told(name) && (value.is_string() || value.is_number()));
    let host = event["host"].as_str().map(|host| format!("{host}: ")).unwrap_or_default();
    let words: Vec<String> = short
        .take(6)
        .map(|(name, value)| {
            format!("{name} {}", value.as_str().map_or_else(|| value.to_string(), str::to_owned))
        })
        .collect();
    let line = remote::plain(&format!("{host}{kind}  {}\n", words.join(", ").replace('\n', " ")));
    Ok(print::result(&pipeline.harmless(&line))?)
}

/// The exit code of a run that ended so.
pub fn exit(state: &str) -> Exit {
    let known =
        [Exit::Held, Exit::Refused, Exit::Deviated, Exit::Interrupted, Exit::Modified, Exit::Inconclusive];
    match state {
        "modified" => Exit::Modified,
        "interrupted" => Exit::Interrupted,
        // A state that this version does not know says nothing of what held.
        state => known.into_iter().find(|exit| exit.meaning() == state).unwrap_or(Exit::Inconclusive),
    }
}
