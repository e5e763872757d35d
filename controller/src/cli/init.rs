//! `squall init`: writes a first experiment by asking three questions.

use std::fs::OpenOptions;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::PathBuf;

use clap::ValueEnum;
use squall_experiments::exit::Exit;
use squall_experiments::peer::Peer;
use squall_experiments::quantity::Period;
use squall_experiments::url::HttpUrl;

use super::load::{self, Vars};
use super::{Common, print};

/// Options of `squall init`.
#[derive(Debug, clap::Args)]
pub struct Init {
    /// The file to write; an existing one is never replaced.
    #[arg(default_value = "experiment.yaml", value_name = "FILE")]
    file: PathBuf,
    /// What answers with HTTP 2xx while the system is well.
    #[arg(long)]
    url: Option<String>,
    /// What to do to it.
    #[arg(long, value_enum)]
    fault: Option<Break>,
    /// To whom: the peer of a dependency (`db.internal:5432`), or the name of a process (`nginx`).
    #[arg(long)]
    target: Option<String>,
    /// For how long.
    #[arg(long = "for", value_name = "PERIOD")]
    lasts: Option<Period>,
}

/// The faults that a first experiment can begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Break {
    /// A dependency does not answer.
    Partition,
    /// A dependency refuses connections.
    Refuse,
    /// A process hangs.
    Pause,
    /// A process ends.
    Kill,
}

impl Break {
    /// Whether its target is the peer of a dependency; else it is a process.
    fn wants_peer(self) -> bool {
        matches!(self, Break::Partition | Break::Refuse)
    }
}

/// Every answer, each of them checked.
struct Answers {
    url: String,
    fault: Break,
    target: String,
    lasts: Period,
}

impl Init {
    /// Asks on a terminal for what the flags leave open, and writes the file.
    pub fn run(&self, common: &Common) -> anyhow::Result<Exit> {
        let name = self.file.display();
        if self.file.symlink_metadata().is_ok() {
            eprintln!("error: `{name}` exists and is not replaced");
            eprintln!("help: name another file: `squall init other.yaml`");
            return Ok(Exit::Usage);
        }
        let answers = match self.answers() {
            Ok(answers) => answers,
            Err(wrong) => {
                eprintln!("error: {}", wrong.what);
                eprintln!("help: {}", wrong.help);
                return Ok(Exit::Usage);
            }
        };
        let text = answers.document();
        // Answers are checked one by one; what they make together is checked as any file is.
        if let Err(problems) = load::text(&name.to_string(), text.as_bytes(), &Vars::default()) {
            return Ok(load::refuse(&problems, common));
        }
        // `create_new` decides, not the look before: another command may have been faster.
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&self.file)
            .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
        if let Err(error) = written {
            eprintln!("error: `{name}` cannot be written: {error}");
            return Ok(Exit::Usage);
        }
        match common.format {
            super::Format::Json => print::json(&serde_json::json!({ "file": self.file }))?,
            super::Format::Human => print::result(&format!(
                "wrote {name}\n\n  squall plan {name}    what it would change\n  squall run {name}     run it\n"
            ))?,
        }
        Ok(Exit::Held)
    }

    fn answers(&self) -> Result<Answers, Wrong> {
        let asks = Questions { terminal: io::stdin().is_terminal() && io::stderr().is_terminal() };
        let url = asks.answer(
            self.url.clone(),
            "--url",
            "What answers with HTTP 2xx while the system is well?",
            "http://127.0.0.1:8080/health",
            |text| match text.parse::<HttpUrl>() {
                Ok(_) => Ok(text.to_owned()),
                Err(error) => Err(Wrong::new(error.what, error.help.unwrap_or_default())),
            },
        )?;
        let kinds = "partition: a dependency does not answer, refuse: a dependency refuses connections, \
                     pause: a process hangs, kill: a process ends";
        let fault = asks.answer(
            self.fault.and_then(|fault| Some(fault.to_possible_value()?.get_name().to_owned())),
            "--fault",
            &format!("What should happen to it? ({kinds})"),
            "partition",
            |text| {
                Break::from_str(text, true)
                    .map_err(|_| Wrong::new(format!("`{text}` is none of them"), kinds))
            },
        )?;
        let (question, example) = match fault.wants_peer() {
            true => ("Which dependency, as host:port?", "db.internal:5432"),
            false => ("Which process, by its exact command name?", "nginx"),
        };
        let target = asks.answer(self.target.clone(), "--target", question, example, |text| {
            if !fault.wants_peer() {
                return Ok(text.to_owned());
            }
            match text.parse::<Peer>() {
                Ok(_) => Ok(text.to_owned()),
                Err(error) => Err(Wrong::new(error.what, error.help.unwrap_or_default())),
            }
        })?;
        let lasts = asks.answer(
            self.lasts.map(|lasts| lasts.to_string()),
            "--for",
            "For how long?",
            "30s",
            |text| match text.parse::<Period>() {
                Ok(lasts) => Ok(lasts),
                Err(error) => Err(Wrong::new(error.what, error.help.unwrap_or_default())),
            },
        )?;
        Ok(Answers { url, fault, target, lasts })
    }
}

/// Why an answer is none.
#[derive(Debug)]
struct Wrong {
    what: String,
    help: String,
}

impl Wrong {
    fn new(what: impl Into<String>, help: impl Into<String>) -> Self {
        Wrong { what: what.into(), help: help.into() }
    }
}

struct Questions {
    terminal: bool,
}

impl Questions {
    /// The flag's value, or what a person says; without a terminal a missing flag is an error. A wrong answer is asked
    /// again, a wrong flag is not.
    fn answer<T>(
        &self,
        given: Option<String>,
        flag: &str,
        question: &str,
        example: &str,
        check: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Result<T, Wrong> {
        if let Some(given) = given {
            return check(given.trim());
        }
        if !self.terminal {
            let help = format!("without a terminal nobody can be asked: give `{flag} {example}`");
            return Err(Wrong::new(format!("`{flag}` is missing"), help));
        }
        loop {
            eprint!("{question} [{example}] ");
            let mut line = String::new();
            let read = io::stdin().lock().read_line(&mut line);
            if !read.is_ok_and(|bytes| bytes > 0) {
                return Err(Wrong::new("no answer", format!("give `{flag} {example}`")));
            }
            let text = if line.trim().is_empty() { example } else { line.trim() };
            match check(text) {
                Ok(value) => return Ok(value),
                Err(wrong) => eprintln!("  {}\n  {}", wrong.what, wrong.help),
            }
        }
    }
}

impl Answers {
    /// The file, with a comment where a reader would ask.
    fn document(&self) -> String {
        let quoted = |text: &str| serde_json::Value::from(text.replace("${", "$${")).to_string();
        let (url, target) = (quoted(&self.url), quoted(&self.target));
        let (title, fault, scope) = match self.fault {
            Break::Partition => {
                ("does not answer", format!("{{ partition: {{ to: [{target}] }} }}"), String::new())
            }
            Break::Refuse => {
                ("refuses connections", format!("{{ refuse: {{ to: [{target}] }} }}"), String::new())
            }
            Break::Pause => (
                "hangs",
                "{ pause: {} }".to_owned(),
                format!("    in: {{ process: {{ name: {target} }} }}\n"),
            ),
            Break::Kill => {
                ("ends", "{ kill: {} }".to_owned(), format!("    in: {{ process: {{ name: {target} }} }}\n"))
            }
        };
        let title = quoted(&format!("The system stays up while {} {title}", self.target));
        format!(
            "\
# `squall plan` shows what this would change, `squall run` runs it, `squall faults` lists what else can break.
squall: 1
title: {title}

# What holds while the system is well: before, during and after the fault.
hypothesis:
  - name: the system answers
    http: {{ url: {url}, timeout: 2s }}
    expect: {{ tolerate: 1% }}      # the share of bad samples that is still well; any HTTP 2xx is good

# The hypothesis must hold for so long first, or nothing is injected.
baseline: 10s

method:
  - fault: {fault}
{scope}    for: {}

# After the fault the hypothesis must hold again within this time.
recovery: 30s
",
            self.lasts
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_answered_the_file_passes_check() {
        for fault in Break::value_variants() {
            let target = if fault.wants_peer() { "[2001:db8::7]:443" } else { "a \"b\" ${c}" };
            let answers = Answers {
                url: "http://127.0.0.1:8080/x?y=\"".to_owned(),
                fault: *fault,
                target: target.to_owned(),
                lasts: Period::from_secs(90),
            };
            let text = answers.document();
            let document = load::text("x", text.as_bytes(), &Vars::default())
                .unwrap_or_else(|problems| panic!("{text}{}", problems.render(false)));
            let step = &document.experiment.method[0];
            assert_eq!(step.r#for, Some(Period::from_secs(90)));
            assert_eq!(step.fault.as_ref().unwrap().name(), fault.to_possible_value().unwrap().get_name());
        }
    }
}
