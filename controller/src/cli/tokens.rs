//! `squall tokens`.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use anyhow::Context;
use axum::http::Method;
use clap::Subcommand;
use serde_json::{Value, json};
use squall_experiments::exit::Exit;

use super::remote::{self, At, table, text, time};
use super::{Common, Format, print};

/// Options of `squall tokens`.
#[derive(Debug, clap::Args)]
pub struct Tokens {
    #[command(flatten)]
    at: At,
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Role {
    /// Look.
    Viewer,
    /// Also start and halt runs.
    Operator,
    /// Also give and take access.
    Admin,
}

#[derive(Debug, Subcommand)]
enum What {
    /// All tokens, which is also what `squall tokens` alone shows.
    List,
    /// Make a token for a person or a pipeline. It is shown once.
    New {
        /// Whose it is: this name stands in the audit log.
        name: String,
        /// What it may do.
        #[arg(long, value_enum, default_value_t = Role::Viewer)]
        role: Role,
        /// After how many hours it ends; 0: never.
        #[arg(long, default_value_t = 2160)]
        hours: u64,
        /// Write it to this file, which must not be there yet, instead of showing it.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Revoke a token by its id.
    Revoke {
        /// The id, as the list shows it.
        id: String,
    },
    /// All join tokens.
    Joins,
    /// Make a join token, by which hosts enrol. It is shown once.
    Join {
        /// After how many hours it ends.
        #[arg(long, default_value_t = 1)]
        hours: u64,
        /// How many hosts it lets in.
        #[arg(long, default_value_t = 1)]
        uses: u64,
        /// Write it to this file, which must not be there yet, instead of showing it.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Revoke a join token by its id.
    RevokeJoin {
        /// The id, as the list shows it.
        id: String,
    },
}

impl Tokens {
    /// Runs the verb.
    pub fn run(&self, common: &Common) -> anyhow::Result<Exit> {
        let what = self.what.as_ref().unwrap_or(&What::List);
        let one = |kind: &str, id: &str| format!("/v1/{kind}/{}/revoke", remote::part(id));
        let asked = match what {
            What::List => self.at.all("/v1/tokens", "tokens")?,
            What::Joins => self.at.all("/v1/join-tokens", "join_tokens")?,
            What::New { name, role, hours, .. } => {
                let role = format!("{role:?}").to_lowercase();
                let wanted = json!({ "name": name, "role": role, "hours": hours });
                self.at.ask(Method::POST, "/v1/tokens", Some(&wanted))?
            }
            What::Join { hours, uses, .. } => {
                let wanted = json!({ "hours": hours, "uses": uses });
                self.at.ask(Method::POST, "/v1/join-tokens", Some(&wanted))?
            }
            What::Revoke { id } => self.at.ask(Method::POST, &one("tokens", id), None)?,
            What::RevokeJoin { id } => self.at.ask(Method::POST, &one("join-tokens", id), None)?,
        };
        let mut answer = match asked {
            Ok(answer) => answer,
            Err(exit) => return Ok(exit),
        };
        if let What::New { out: Some(file), .. } | What::Join { out: Some(file), .. } = what {
            let token = answer["token"].take();
            let mut made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
            let written = made.as_mut().map(|made| writeln!(made, "{}", token.as_str().unwrap_or_default()));
            if !matches!(written, Ok(Ok(()))) {
                let id = text(&answer, "id");
                made.with_context(|| format!("cannot write `{}`; revoke the token `{id}`", file.display()))?;
            }
            eprintln!("written to `{}`", file.display());
        }
        match (common.format, what) {
            (Format::Json, _) => print::json(&answer)?,
            (_, What::List) => print::result(&people(&answer))?,
            (_, What::Joins) => print::result(&joins(&answer))?,
            (_, What::Revoke { id } | What::RevokeJoin { id }) => {
                print::result(&format!("`{id}` is revoked\n"))?
            }
            (_, What::New { .. } | What::Join { .. }) => {
                eprintln!(
                    "id {}, until {}; it is shown once:",
                    text(&answer, "id"),
                    time(&answer["expires_at"])
                );
                if let Some(token) = answer["token"].as_str() {
                    print::result(&format!("{token}\n"))?;
                }
            }
        }
        Ok(Exit::Held)
    }
}

fn people(answer: &Value) -> String {
    let row = |token: &Value| {
        vec![
            text(token, "id"),
            text(token, "name"),
            text(token, "role"),
            time(&token["made_at"]),
            time(&token["expires_at"]),
            time(&token["revoked_at"]),
        ]
    };
    let rows: Vec<Vec<String>> = answer["tokens"].as_array().into_iter().flatten().map(row).collect();
    table(&["id", "name", "role", "made", "until", "revoked"], &rows)
}

fn joins(answer: &Value) -> String {
    let row = |token: &Value| {
        vec![
            text(token, "id"),
            text(token, "made_by"),
            text(token, "uses_left"),
            time(&token["expires_at"]),
            time(&token["revoked_at"]),
        ]
    };
    let rows: Vec<Vec<String>> = answer["join_tokens"].as_array().into_iter().flatten().map(row).collect();
    table(&["id", "made by", "uses", "until", "revoked"], &rows)
}
