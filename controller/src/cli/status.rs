//! `squall status`.

use std::io::{self, Write};

use squall_agent::{join, recover};
use squall_controller::client::Client;
use squall_experiments::exit::Exit;
use squall_experiments::protocol::{Active, Refusal};

use super::host::{self, refused};
use super::{Common, Format};

/// Options of `squall status`.
#[derive(Debug, clap::Args)]
pub struct Status {}

impl Status {
    /// Runs the verb: says what the agent of this network namespace holds. Something that could not be undone is
    /// exit code 7.
    pub fn run(&self, common: &Common) -> anyhow::Result<Exit> {
        if let Err(exit) = host::recover(common) {
            return Ok(exit);
        }
        let active = match ask(common) {
            Ok(active) => active,
            Err(refusal) => return Ok(refused(&refusal)),
        };
        let text = match common.format {
            Format::Human => human(active.as_deref()),
            Format::Json => {
                let document = serde_json::json!({
                    "agent": active.is_some(),
                    "active": active.as_deref().unwrap_or_default(),
                });
                serde_json::to_string_pretty(&document)? + "\n"
            }
        };
        // A reader that went away early is no failure.
        let _ = io::stdout().write_all(text.as_bytes());
        let stuck = active.iter().flatten().any(|active| active.stuck);
        Ok(if stuck { Exit::Modified } else { Exit::Held })
    }
}

/// What is active; `None` without an agent.
fn ask(common: &Common) -> Result<Option<Vec<Active>>, Refusal> {
    let Some(stream) = join::resident(common.state_dir.as_deref())? else {
        recover::nothing_kept(common.state_dir.as_deref())?;
        return Ok(None);
    };
    Client::greet(stream)?.status().map(Some)
}

fn human(active: Option<&[Active]>) -> String {
    let Some(active) = active else {
        return "nothing is active on this host: no agent runs in this network namespace\n".to_owned();
    };
    if active.is_empty() {
        return "nothing is active on this host\n".to_owned();
    }
    let mut text = String::new();
    for run in active {
        let state = match run.stuck {
            true => "STUCK: could not be undone, and is tried again".to_owned(),
            false => format!("ends in {} s at the latest", run.expires_s),
        };
        text.push_str(&format!("{}  {}\n  {state}\n", run.run, run.title));
        for (change, evidence) in &run.changes {
            let unit = format!("{:?}", evidence.unit).to_lowercase();
            text.push_str(&format!(
                "  {change}: {} of {} {unit} impaired\n",
                evidence.impaired, evidence.matched
            ));
        }
    }
    text.push_str("`squall halt` undoes everything at once\n");
    text
}

#[cfg(test)]
mod tests {
    use squall_experiments::evidence::{Evidence, Unit};
    use squall_experiments::protocol::RunId;

    use super::*;

    #[test]
    fn what_is_active_is_named_with_its_figures() {
        let mut active = Active {
            run: RunId("20261121-105112000-0a1b2c".to_owned()),
            title: "Checkout survives".to_owned(),
            expires_s: 12,
            stuck: false,
            changes: vec![(
                "drop packets to 127.0.0.1:7003".to_owned(),
                Evidence { unit: Unit::Packets, matched: 14, impaired: 14, ..Evidence::default() },
            )],
        };
        assert_eq!(
            human(Some(std::slice::from_ref(&active))),
            "20261121-105112000-0a1b2c  Checkout survives\n  ends in 12 s at the latest\n  drop packets to \
             127.0.0.1:7003: 14 of 14 packets impaired\n`squall halt` undoes everything at once\n"
        );
        active.stuck = true;
        assert!(human(Some(&[active])).contains("STUCK"));
        assert_eq!(human(Some(&[])), "nothing is active on this host\n");
    }
}
