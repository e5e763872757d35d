//! `squall halt`.

use std::io::{self, Write};

use squall_agent::join;
use squall_controller::client::Client;
use squall_experiments::exit::Exit;
use squall_experiments::protocol::{Lifted, Refusal};

use super::host::{recover, refused};
use super::{Common, Format};

/// Options of `squall halt`.
#[derive(Debug, clap::Args)]
pub struct Halt {}

impl Halt {
    /// Runs the verb: undoes everything of every run in this network namespace. Nothing to undo is success; what
    /// could not be undone is exit code 7.
    pub fn run(&self, common: &Common) -> anyhow::Result<Exit> {
        if let Err(exit) = recover(common) {
            return Ok(exit);
        }
        let lifted = match ask(common) {
            Ok(lifted) => lifted.unwrap_or_default(),
            Err(refusal) => return Ok(refused(&refusal)),
        };
        let text = match common.format {
            Format::Human => human(&lifted),
            Format::Json => serde_json::to_string_pretty(&lifted)? + "\n",
        };
        // A reader that went away early is no failure.
        let _ = io::stdout().write_all(text.as_bytes());
        Ok(if lifted.stuck.is_empty() { Exit::Held } else { Exit::Modified })
    }
}

/// What was undone; `None` without an agent.
fn ask(common: &Common) -> Result<Option<Lifted>, Refusal> {
    let Some(stream) = join::resident(common.state_dir.as_deref())? else {
        return Ok(None);
    };
    Client::greet(stream)?.halt().map(Some)
}

fn human(lifted: &Lifted) -> String {
    if lifted.undone.is_empty() && lifted.stuck.is_empty() {
        return "nothing was active on this host\n".to_owned();
    }
    let mut text = String::new();
    for (word, lines) in
        [("undone", &lifted.undone), ("STILL THERE", &lifted.stuck), ("changed by others", &lifted.others)]
    {
        lines.iter().for_each(|line| text.push_str(&format!("{word}: {line}\n")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_halt_says_what_was_undone_and_what_was_not() {
        assert_eq!(human(&Lifted::default()), "nothing was active on this host\n");
        let lifted = Lifted {
            undone: vec!["r: the rule is gone".to_owned()],
            stuck: vec!["r: nginx (pid 312) is still stopped".to_owned()],
            ..Lifted::default()
        };
        assert_eq!(
            human(&lifted),
            "undone: r: the rule is gone\nSTILL THERE: r: nginx (pid 312) is still stopped\n"
        );
    }
}
