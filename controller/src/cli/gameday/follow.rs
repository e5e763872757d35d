//! `squall gameday run`: a day is begun, and followed from here. It goes on without this command.

use std::collections::BTreeSet;
use std::io::{BufRead, IsTerminal};
use std::time::{Duration, Instant};

use anyhow::Context;
use axum::http::Method;
use serde_json::{Value, json};
use squall_controller::api::client::Remote;
use squall_experiments::exit::Exit;
use squall_experiments::gameday::{Event, GameDay, Mark, Record};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::{path, words};
use crate::cli::remote::{self, At};
use crate::cli::{Common, Format, print};

/// How often it looks what happened.
const LOOK: Duration = Duration::from_millis(500);
/// How long a controller may be away before this gives up; the day goes on when it is back.
const PATIENCE: Duration = Duration::from_secs(120);

/// Begins a day and follows it to its end; the exit code is the worst of its steps.
pub fn run(at: &At, name: &str, day: &GameDay, go: bool, common: &Common) -> anyhow::Result<Exit> {
    let remote = match at.remote() {
        Ok(remote) => remote,
        Err(error) => {
            eprintln!("error: {error:#}");
            return Ok(Exit::Usage);
        }
    };
    let wanted = json!({ "document": serde_json::to_string(day)?, "name": name });
    remote::runtime()?.block_on(async {
        // From here on it is heard, whatever is waited for.
        let mut interrupt = signal(SignalKind::interrupt())?;
        let key = format!("{:032x}", rand::random::<u128>());
        let begun = tokio::select! {
            begun = remote.call(Method::POST, "/v1/game-days", Some(&wanted), Some(&key)) => begun,
            _ = interrupt.recv() => {
                eprintln!("note: nobody has said yet whether the game day began; `squall gameday list` tells");
                return Ok(Exit::Interrupted);
            }
        };
        let begun = match begun {
            Ok((status, begun)) if (200..300).contains(&status) => begun,
            Ok((_, problem)) => return Ok(remote::refused(&problem)),
            Err(error) => {
                eprintln!("error: {error}");
                return Ok(Exit::Refused);
            }
        };
        let id = begun["id"].as_str().context("the controller began no game day")?.to_owned();
        eprintln!("game day {id}; `squall gameday stop {id}` stops it");
        let typed = (!go && std::io::stdin().is_terminal()).then(lines);
        if typed.is_some() {
            eprintln!("type `go`, `no-go WHY`, `detected`, `acknowledged`, `mitigated` or `stop WHY`; anything else is a note");
        }
        let (asked, current, observed) = (BTreeSet::new(), None, None);
        Followed { remote, id, go, next: 0, asked, current, observed }.carried_on(typed, interrupt, common).await
    })
}

/// What is typed, line by line.
fn lines() -> mpsc::UnboundedReceiver<String> {
    let (say, lines) = mpsc::unbounded_channel();
    // Nobody waits for it: a read of a terminal cannot be called off.
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if say.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

struct Followed {
    remote: Remote,
    id: String,
    go: bool,
    /// The number of the event that comes next.
    next: u64,
    /// The steps that were asked for.
    asked: BTreeSet<String>,
    /// The step that somebody has to say go to.
    current: Option<String>,
    /// The step whose run has ended: go is on to what comes next, also where marks are still waited for.
    observed: Option<String>,
}

impl Followed {
    async fn carried_on(
        mut self,
        typed: Option<mpsc::UnboundedReceiver<String>>,
        mut interrupt: Signal,
        common: &Common,
    ) -> anyhow::Result<Exit> {
        let id = self.id.clone();
        let early = tokio::select! {
            early = self.until_it_is_over(typed) => early,
            _ = interrupt.recv() => {
                eprintln!("the game day goes on; `squall gameday stop {id}` stops it");
                Some(Exit::Interrupted)
            }
        };
        if let Some(exit) = early {
            return Ok(exit);
        }
        let shown = tokio::select! {
            shown = self.shown() => shown,
            _ = interrupt.recv() => {
                eprintln!("the game day is over; `squall gameday show {id}` tells what was measured");
                return Ok(Exit::Interrupted);
            }
        };
        let shown = match shown {
            Ok(shown) => shown,
            Err(exit) => return Ok(exit),
        };
        match common.format {
            Format::Json => print::json(&shown)?,
            Format::Human => print::result(&words::one(&shown))?,
        }
        let code = shown["exit"].as_u64().and_then(|code| u8::try_from(code).ok());
        Ok(code.and_then(|code| Exit::try_from(code).ok()).unwrap_or(Exit::Bug))
    }

    /// Follows the day until it is over; gives an exit code where this command ends before that.
    async fn until_it_is_over(&mut self, mut typed: Option<mpsc::UnboundedReceiver<String>>) -> Option<Exit> {
        let mut heard = Instant::now();
        loop {
            match self.look().await {
                Ok(true) => return None,
                Ok(false) => heard = Instant::now(),
                Err(why) if heard.elapsed() > PATIENCE => {
                    eprintln!("error: {why}; the game day goes on when its controller does");
                    return Some(Exit::Refused);
                }
                Err(_) => {}
            }
            let line = async {
                match &mut typed {
                    Some(lines) => lines.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = sleep(LOOK) => {}
                line = line => match line {
                    Some(line) => self.say(line.trim()).await,
                    None => {
                        eprintln!("note: nothing more is read here; `squall gameday go {}` says go", self.id);
                        typed = None;
                    }
                },
            }
        }
    }

    /// The day in the end.
    async fn shown(&self) -> Result<Value, Exit> {
        let begun = Instant::now();
        loop {
            match self.remote.call(Method::GET, &path(&self.id, ""), None, None).await {
                Ok((200, shown)) => return Ok(shown),
                Ok((_, problem)) if begun.elapsed() > PATIENCE => return Err(remote::refused(&problem)),
                Err(error) if begun.elapsed() > PATIENCE => {
                    eprintln!("error: {error}");
                    return Err(Exit::Refused);
                }
                _ => sleep(LOOK).await,
            }
        }
    }

    /// Tells what happened since; whether the day is over.
    async fn look(&mut self) -> Result<bool, String> {
        let events = path(&self.id, &format!("/events?limit=1000&from={}", self.next));
        let (status, page) =
            self.remote.call(Method::GET, &events, None, None).await.map_err(|error| error.to_string())?;
        if status != 200 {
            return Err(format!("the controller answers {status}"));
        }
        let mut over = false;
        for event in page["events"].as_array().into_iter().flatten() {
            self.next = event["seq"].as_u64().unwrap_or(self.next) + 1;
            let Ok(record) = serde_json::from_value::<Record>(event["event"].clone()) else { continue };
            eprintln!("{}", words::line(&record));
            match record.event {
                Event::Asked { step, .. } | Event::Refused { step, .. } => {
                    (self.current, self.observed) = (Some(step.to_string()), None);
                }
                Event::Go { .. } | Event::NoGo { .. } | Event::Done { .. } => {
                    (self.current, self.observed) = (None, None);
                }
                Event::RunEnded { step, .. } => self.observed = Some(step.to_string()),
                Event::Ended => over = true,
                _ => {}
            }
        }
        if let Some(step) = self.current.clone().filter(|_| self.go) {
            let said = match self.asked.contains(&step) {
                false => self.post("/go", json!({ "step": step })).await,
                true => {
                    self.post("/no-go", json!({ "step": step, "reason": "`--go` tries a step once" })).await
                }
            };
            if said {
                self.asked.insert(step);
                self.current = None;
            }
        }
        Ok(over)
    }

    /// What somebody typed.
    async fn say(&mut self, line: &str) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let reason = if rest.trim().is_empty() { "said on a terminal" } else { rest.trim() };
        let asked = match word {
            "go" => self.current.clone().or_else(|| self.observed.clone()),
            _ => self.current.clone(),
        };
        let (verb, body) = match (word, asked) {
            ("", _) => return,
            ("go" | "no-go", None) => return eprintln!("note: no step is asked for"),
            ("go", Some(step)) => ("/go", json!({ "step": step })),
            ("no-go", Some(step)) => ("/no-go", json!({ "step": step, "reason": reason })),
            ("stop", _) => ("/stop", json!({ "reason": reason })),
            (word, _) => match word.parse::<Mark>() {
                Ok(mark) if rest.is_empty() => ("/mark", json!({ "mark": mark })),
                _ => ("/note", json!({ "text": line })),
            },
        };
        // Whoever types sees what came of it, and may type it again.
        let _ = self.post(verb, body).await;
    }

    /// Says something to the day; where it cannot be said now, why is told. Whether the controller has decided about it: where
    /// it could not, it may be said again.
    async fn post(&self, verb: &str, body: Value) -> bool {
        let key = format!("{:032x}", rand::random::<u128>());
        match self.remote.call(Method::POST, &path(&self.id, verb), Some(&body), Some(&key)).await {
            Ok((status, _)) if (200..300).contains(&status) => true,
            Ok((status, problem)) => {
                let _ = remote::refused(&problem);
                status < 500 && status != 429
            }
            Err(error) => {
                eprintln!("error: {error}");
                false
            }
        }
    }
}
