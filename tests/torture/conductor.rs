//! Who asks something of an agent that lives on a stage.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use squall_experiments::change::Change;
use squall_experiments::protocol::{Call, Message, Reply, Request, RunId, VERSION};
use squall_tests::netns::{Process, signal};

use crate::stage::Shared;

/// For an agent that a command of its own will talk to: waits until it listens, and asks who its worker is.
pub fn serves(state: &Path, shared: &Shared) -> Result<(), String> {
    Conductor::call(state, shared).map(drop)
}

/// A conductor's part: begins, applies, lifts, ends; then the agent is told to end, too.
pub fn script(state: &Path, changes: Vec<Change>, held: bool, shared: &Shared) -> Result<(), String> {
    let guardian = Process::of(shared.guardian.load(Ordering::Relaxed));
    let came = lived(state, changes, held, shared);
    if came.as_ref().is_err_and(|why| !why.starts_with("refused")) {
        return came;
    }
    // Its orderly end; it may have been killed in the same breath.
    guardian.map(|guardian| signal(&guardian, Signal::TERM));
    came
}

fn lived(state: &Path, changes: Vec<Change>, held: bool, shared: &Shared) -> Result<(), String> {
    let mut agent = Conductor::call(state, shared)?;
    let run = RunId("torture".to_owned());
    let begin = Request::Begin {
        run: run.clone(),
        title: "torture".to_owned(),
        plan: String::new(),
        seed: 7,
        lease_ms: 60_000,
        deadline_ms: 60_000,
        guards: Vec::new(),
        mandate: Box::default(),
    };
    agent.ask(begin)?;
    agent.ask(Request::Apply { run: run.clone(), part: 1, changes, lasts_ms: 60_000, at_ns: None })?;
    shared.live.store(true, Ordering::Relaxed);
    let mut go_on = shared.go_on.lock().expect("nobody panics with it");
    while held && !*go_on {
        go_on = shared.word.wait(go_on).expect("nobody panics with it");
    }
    drop(go_on);
    agent.ask(Request::Lift { run: run.clone(), part: 1 })?;
    agent.ask(Request::End { run }).map(drop)
}

fn lost(what: impl std::fmt::Display) -> String {
    format!("the agent is gone: {what}")
}

struct Conductor {
    answers: BufReader<UnixStream>,
    number: u64,
}

impl Conductor {
    /// Connects as soon as the agent listens.
    fn call(state: &Path, shared: &Shared) -> Result<Self, String> {
        let guardian = Process::of(shared.guardian.load(Ordering::Relaxed));
        let stream = loop {
            let places = fs::read_dir(state).into_iter().flatten().flatten();
            let mut sockets = places.map(|place| place.path().join("agent.sock"));
            if let Some(stream) = sockets.find_map(|socket| UnixStream::connect(socket).ok()) {
                break stream;
            }
            if !guardian.as_ref().is_some_and(Process::lives) {
                return Err(lost("it never listened"));
            }
            thread::sleep(Duration::from_millis(1));
        };
        stream.set_read_timeout(Some(Duration::from_secs(60))).map_err(lost)?;
        let mut agent = Conductor { answers: BufReader::new(stream), number: 0 };
        if let Reply::Hello { worker, .. } = agent.ask(Request::Hello { version: VERSION })? {
            shared.worker.store(i32::try_from(worker).unwrap_or(0), Ordering::Relaxed);
        }
        Ok(agent)
    }

    fn ask(&mut self, request: Request) -> Result<Reply, String> {
        self.number += 1;
        let call = Call { number: self.number, request };
        let line = serde_json::to_string(&call).map_err(lost)?;
        writeln!(self.answers.get_mut(), "{line}").map_err(lost)?;
        loop {
            let mut line = String::new();
            if self.answers.read_line(&mut line).map_err(lost)? == 0 {
                return Err(lost("it hung up"));
            }
            match serde_json::from_str(&line).map_err(lost)? {
                Message::Answer { reply: Reply::Refused(refusal), .. } => {
                    return Err(format!("refused: {refusal}"));
                }
                Message::Answer { reply, .. } => return Ok(reply),
                Message::Ended { .. } | Message::Guard { .. } | Message::Saw { .. } => {}
            }
        }
    }
}
