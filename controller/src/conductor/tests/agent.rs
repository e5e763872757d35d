//! An agent for tests: it keeps what is live, speaks the protocol over a real socket, and misbehaves when told to.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use squall_experiments::evidence::Evidence;
use squall_experiments::guard::Stop;
use squall_experiments::protocol::{
    Active, Applied, Call, Lifted, Message, Refusal, Reply, Request, RunId, Said, VERSION,
};

use crate::conductor::boot_ns;

/// How it behaves; the default is well.
#[derive(Clone, Default)]
pub(crate) struct Manners {
    /// Packets that the fault impairs.
    pub(crate) impaired: u64,
    /// While a part is live, this file says `bad` instead of `good`.
    pub(crate) breaks: Option<PathBuf>,
    /// Once broken, the file is not repaired by a lift.
    pub(crate) ruins: bool,
    pub(crate) refuses_apply: bool,
    /// How long `Apply` takes.
    pub(crate) apply_takes: Duration,
    pub(crate) lift_takes: Duration,
    /// What no lift can undo.
    pub(crate) stuck: bool,
    /// Closes the connection right after it answered `Apply`.
    pub(crate) dies: bool,
    /// Answers nothing any more after `Apply`.
    pub(crate) hangs: bool,
    /// After `Apply`, ends the run unasked, for this reason.
    pub(crate) ends: Option<&'static str>,
    /// Lifts the part unasked right after `Apply`.
    pub(crate) overtakes: bool,
    /// Tells its clock, which is so many seconds ahead, and begins at an instant.
    pub(crate) ahead: Option<u64>,
    /// Does not begin at its instant, but waits until it is called off.
    pub(crate) dawdles: bool,
    /// Looks at the guards itself, and stops the run for the first right after `Apply`.
    pub(crate) guards: bool,
}

/// What it did, as long as the test looks.
#[derive(Clone, Default)]
pub(crate) struct Seen {
    pub(crate) asked: Arc<Mutex<Vec<String>>>,
    pub(crate) live: Arc<Mutex<BTreeSet<u32>>>,
    /// How long each part was to last, in milliseconds.
    pub(crate) lasts: Arc<Mutex<Vec<u64>>>,
}

impl Seen {
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// Whether nothing is live any more.
    pub(crate) fn is_clean(&self) -> bool {
        self.live.lock().unwrap().is_empty()
    }
}

/// Serves one connection in a thread of its own.
pub(crate) fn serve(manners: Manners, seen: Seen) -> UnixStream {
    let (ours, theirs) = UnixStream::pair().unwrap();
    thread::spawn(move || {
        let out = theirs.try_clone().unwrap();
        let off = Arc::default();
        let mut agent = Agent { out, manners, seen, run: None, guard: None, off };
        for line in BufReader::new(theirs).lines() {
            let Ok(line) = line else { break };
            let call: Call = serde_json::from_str(&line).unwrap();
            if !agent.answer(call) {
                break;
            }
        }
        // The connection is the lease.
        agent.revert();
    });
    ours
}

struct Agent {
    out: UnixStream,
    manners: Manners,
    seen: Seen,
    run: Option<RunId>,
    guard: Option<u32>,
    /// What waits for its instant is called off.
    off: Arc<AtomicBool>,
}

impl Agent {
    /// Whether the connection goes on.
    fn answer(&mut self, call: Call) -> bool {
        let word = serde_json::to_value(&call.request).unwrap();
        let word = match &word {
            serde_json::Value::String(word) => word.clone(),
            other => other.as_object().unwrap().keys().next().unwrap().clone(),
        };
        if !["renew", "observe", "clock"].contains(&word.as_str()) {
            self.seen.asked.lock().unwrap().push(word);
        }
        let hangs = self.manners.hangs && !self.seen.is_clean();
        if hangs {
            return true;
        }
        if let Request::Apply { at_ns: Some(at_ns), .. } = call.request
            && !self.manners.refuses_apply
        {
            self.appoint(call, at_ns);
            return true;
        }
        let applied = matches!(call.request, Request::Apply { .. });
        let reply = self.reply(call.request);
        let refused = matches!(reply, Reply::Refused(_));
        self.say(&Message::Answer { number: call.number, reply });
        if applied && !refused { self.afterwards() } else { true }
    }

    /// Its boot clock.
    fn clock(&self) -> Option<u64> {
        Some(boot_ns() + self.manners.ahead? * 1_000_000_000)
    }

    /// Answers when the instant has come.
    fn appoint(&self, call: Call, at_ns: u64) {
        let mut later = Agent {
            out: self.out.try_clone().unwrap(),
            manners: self.manners.clone(),
            seen: self.seen.clone(),
            run: self.run.clone(),
            guard: None,
            off: Arc::clone(&self.off),
        };
        thread::spawn(move || {
            let now = later.clock().expect("only an agent that tells its clock is told an instant");
            thread::sleep(Duration::from_nanos(at_ns.saturating_sub(now)));
            let patience = Instant::now() + Duration::from_secs(20);
            while later.manners.dawdles && !later.off.load(Ordering::SeqCst) && Instant::now() < patience {
                thread::sleep(Duration::from_millis(10));
            }
            let reply = match later.off.load(Ordering::SeqCst) {
                true => Reply::Refused(Refusal::bare("it was called off")),
                false => later.reply(call.request),
            };
            later.say(&Message::Answer { number: call.number, reply });
        });
    }

    fn reply(&mut self, request: Request) -> Reply {
        match request {
            Request::Hello { .. } => Reply::Hello {
                version: VERSION,
                guardian: 1,
                worker: 2,
                state: "/tmp".to_owned(),
                policy: "none".to_owned(),
                clock_ns: self.clock(),
            },
            Request::Clock => Reply::Clock { now_ns: self.clock().expect("it was told") },
            Request::Begin { run, guards, .. } => {
                self.run = Some(run);
                let guard = guards.first().filter(|_| self.manners.guards);
                self.guard = guard.map(|guard| guard.number);
                if self.guard.is_some() { Reply::Guarding } else { Reply::Done }
            }
            Request::Apply { .. } if self.manners.refuses_apply => {
                Reply::Refused(Refusal::new("no process matches `name shop`", "start it first"))
            }
            Request::Apply { part, lasts_ms, .. } => {
                self.seen.lasts.lock().unwrap().push(lasts_ms);
                // Some of it is made at once, all of it at the end.
                self.seen.live.lock().unwrap().insert(part);
                self.set("bad");
                thread::sleep(self.manners.apply_takes);
                Reply::Applied(Applied {
                    targets: vec!["127.0.0.1:7003".to_owned()],
                    notes: Vec::new(),
                    took_us: 900,
                    made_ns: self.clock(),
                    ..Applied::default()
                })
            }
            Request::Observe { .. } => Reply::Measured(vec![self.evidence()]),
            Request::Lift { part, .. } => {
                self.off.store(true, Ordering::SeqCst);
                thread::sleep(self.manners.lift_takes);
                Reply::Lifted(self.lift(&[part]))
            }
            Request::End { .. } | Request::Fence { .. } | Request::Halt => {
                let live: Vec<u32> = self.seen.live.lock().unwrap().iter().copied().collect();
                let mut lifted = self.lift(&live);
                lifted.evidence.clear();
                Reply::Lifted(lifted)
            }
            Request::Renew { .. } | Request::Watch { .. } => Reply::Done,
            Request::Status => {
                let live = !self.seen.is_clean();
                let run = self.run.clone().filter(|_| live).map(|run| Active {
                    run,
                    title: String::new(),
                    expires_s: 1,
                    stuck: self.manners.stuck,
                    changes: Vec::new(),
                });
                Reply::Status(run.into_iter().collect())
            }
        }
    }

    /// What happens once a fault is there.
    fn afterwards(&mut self) -> bool {
        let run = self.run.clone().unwrap();
        if self.manners.overtakes {
            let lifted = self.lift(&[1]);
            self.say(&Message::Ended {
                run: run.clone(),
                part: Some(1),
                why: "its time was over".to_owned(),
                lifted,
            });
        }
        if let Some(guard) = self.guard {
            let lifted = self.lift(&[1]);
            let said = Said::Stopped(Stop::Tripped("503".to_owned()));
            self.say(&Message::Guard { run: run.clone(), guard, said });
            let why = "the guard `g` did not hold: 503".to_owned();
            self.say(&Message::Ended { run: run.clone(), part: None, why, lifted });
        }
        if let Some(why) = self.manners.ends {
            let lifted = self.lift(&[1]);
            self.say(&Message::Ended { run, part: None, why: why.to_owned(), lifted });
        }
        !self.manners.dies
    }

    fn lift(&mut self, parts: &[u32]) -> Lifted {
        let mut lifted = Lifted::default();
        for part in parts {
            if !self.seen.live.lock().unwrap().contains(part) {
                continue;
            }
            if self.manners.stuck {
                lifted.stuck.push("the rule is still there".to_owned());
                continue;
            }
            self.seen.live.lock().unwrap().remove(part);
            lifted.evidence.push(self.evidence());
            lifted.undone.push(format!("part {part} is gone: read back"));
        }
        if !self.manners.ruins {
            self.set("good");
        }
        lifted
    }

    fn revert(&mut self) {
        let live: Vec<u32> = self.seen.live.lock().unwrap().iter().copied().collect();
        self.lift(&live);
    }

    fn evidence(&self) -> Evidence {
        Evidence { matched: self.manners.impaired, impaired: self.manners.impaired, ..Evidence::default() }
    }

    fn set(&self, what: &str) {
        if let Some(path) = &self.manners.breaks {
            std::fs::write(path, what).unwrap();
        }
    }

    fn say(&mut self, message: &Message) {
        let line = serde_json::to_string(message).unwrap() + "\n";
        // The other side may be gone already.
        let _ = self.out.write_all(line.as_bytes());
    }
}
