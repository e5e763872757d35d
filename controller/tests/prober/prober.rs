//! A running prober, and the words to talk to it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use squall_experiments::probe::{Expect, Probe, ProberReply, ProberRequest, Sample};

pub struct Prober {
    pub child: Child,
    stdin: Option<ChildStdin>,
    replies: Receiver<ProberReply>,
}

pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_squall"));
    command.arg("prober").stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

impl Prober {
    pub fn start() -> Self {
        Prober::with(command())
    }

    pub fn with(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (heard, replies) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines() {
                let _ = heard.send(serde_json::from_str(&line.unwrap()).unwrap());
            }
        });
        Prober { child, stdin, replies }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn say(&mut self, request: &ProberRequest) {
        let mut line = serde_json::to_vec(request).unwrap();
        line.push(b'\n');
        self.stdin.as_mut().unwrap().write_all(&line).unwrap();
    }

    pub fn say_raw(&mut self, line: &str) {
        self.stdin.as_mut().unwrap().write_all(line.as_bytes()).unwrap();
    }

    /// Loads a probe from the JSON that stands in a hypothesis: `{"http": {…}}`.
    pub fn load(&mut self, probe: u32, what: Value, expect: Value) {
        let what: Probe = serde_json::from_value(what).unwrap();
        let expect: Box<Expect> = serde_json::from_value(expect).unwrap();
        self.say(&ProberRequest::Load { probe, what, expect, looks: None, promptly: false });
    }

    /// The next reply; `None` at the end. Thirty seconds of silence are a failure.
    pub fn hear(&mut self) -> Option<ProberReply> {
        match self.replies.recv_timeout(Duration::from_secs(30)) {
            Ok(reply) => Some(reply),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("the prober says nothing"),
        }
    }

    pub fn sample(&mut self) -> Sample {
        match self.hear() {
            Some(ProberReply::Sample(sample)) => sample,
            other => panic!("a sample was expected, not {other:?}"),
        }
    }

    pub fn unusable(&mut self) -> String {
        match self.hear() {
            Some(ProberReply::Unusable { why, .. }) => why,
            other => panic!("`unusable` was expected, not {other:?}"),
        }
    }

    /// Closes its input and waits for its end; returns the exit code.
    pub fn end(&mut self) -> i32 {
        drop(self.stdin.take());
        self.child.wait().unwrap().code().unwrap()
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.wait();
    }
}

/// One sample of a probe by a prober of its own.
pub fn once(what: Value, expect: Value) -> Sample {
    let mut prober = Prober::start();
    prober.load(1, what, expect);
    prober.say(&ProberRequest::Once { probe: 1 });
    prober.sample()
}

/// What a probe that cannot be loaded says.
pub fn refused(what: Value, expect: Value) -> String {
    let mut prober = Prober::start();
    prober.load(1, what, expect);
    prober.unusable()
}

pub fn expect_nothing() -> Value {
    json!({})
}

/// Waits until something is so, up to twenty seconds.
pub fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}: not within 20 s");
        std::thread::sleep(Duration::from_millis(5));
    }
}
