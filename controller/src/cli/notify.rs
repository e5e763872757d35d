//! `squall notify`.

use axum::http::Method;
use clap::Subcommand;
use serde_json::Value;
use squall_experiments::exit::Exit;

use super::remote::{self, At, table, text};
use super::{Common, Format, print};

/// Options of `squall notify`.
#[derive(Debug, clap::Args)]
pub struct Notify {
    #[command(flatten)]
    at: At,
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// All receivers with what became of their notices, which is also what `squall notify` alone shows.
    List,
    /// Send one receiver a trial message now, and say what it answers. It takes an administrator's token.
    Test {
        /// The receiver, as the controller's configuration calls it.
        name: String,
    },
}

impl Notify {
    /// Runs the verb. A trial that was not taken is exit code 4.
    pub fn run(&self, common: &Common) -> anyhow::Result<Exit> {
        let asked = match self.what.as_ref().unwrap_or(&What::List) {
            What::List => self.at.ask(Method::GET, "/v1/notify", None)?,
            What::Test { name } => {
                self.at.ask(Method::POST, &format!("/v1/notify/{}/test", remote::part(name)), None)?
            }
        };
        let answer = match asked {
            Ok(answer) => answer,
            Err(exit) => return Ok(exit),
        };
        match (common.format, &self.what) {
            (Format::Json, _) => print::json(&answer)?,
            (_, Some(What::Test { name })) => {
                let did = if answer["delivered"] == true { "has taken it" } else { "has not taken it" };
                print::result(&format!("`{name}` {did}: {}\n", text(&answer, "said")))?;
            }
            (_, _) => print::result(&receivers(&answer))?,
        }
        Ok(if answer["delivered"] == false { Exit::Refused } else { Exit::Held })
    }
}

fn receivers(answer: &Value) -> String {
    let row = |it: &Value| {
        let mut row: Vec<String> =
            ["name", "kind", "waiting", "sent", "failed", "dropped"].map(|name| text(it, name)).into();
        row.push(match &it["trouble"] {
            Value::Null => "-".to_owned(),
            trouble => format!("{} times: {}", text(trouble, "attempts"), text(trouble, "why")),
        });
        row
    };
    let rows: Vec<Vec<String>> = answer["receivers"].as_array().into_iter().flatten().map(row).collect();
    if rows.is_empty() {
        return "nobody is told of anything; `notify:` in the configuration of the controller names receivers\n".to_owned();
    }
    table(&["name", "kind", "waiting", "sent", "failed", "dropped", "trouble"], &rows)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn receivers_are_lines_with_their_trouble_and_none_is_said() {
        let chat = |trouble: Value| json!({ "name": "chat", "kind": "slack", "waiting": 1, "sent": 2, "failed": 0, "dropped": 0, "trouble": trouble });
        let trouble = json!({ "attempts": 3, "why": "there is no answer within 5s" });
        let told = receivers(&json!({ "receivers": [chat(Value::Null), chat(trouble)] }));
        let lines: Vec<&str> = told.lines().collect();
        assert!(
            lines[1].ends_with("0        -") && lines[2].ends_with("3 times: there is no answer within 5s"),
            "{told}"
        );
        assert!(receivers(&json!({ "receivers": [] })).starts_with("nobody is told of anything; `notify:`"));
    }
}
