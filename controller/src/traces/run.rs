//! From the log of a run to its spans: the run; in it each host; in that its phases, in them steps, actions and injections, each
//! injection with its undo.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use squall_experiments::exit::Exit;
use squall_experiments::muster::{Began, FleetEvent, Line, What};
use squall_experiments::protocol::Lifted;
use squall_experiments::run::{Event, Record, State, next};

use super::context::Context;
use super::export::Export;
use super::span::{Kind, Span};
use crate::store::now_ms;

/// Hears the log of a run, line by line, and puts each span as soon as it has ended. One that is dropped before the run's end
/// puts what is open as failed.
pub(crate) struct RunSpans(Option<Telling>);

struct Telling {
    export: Arc<Export>,
    /// When the run began: milliseconds since 1970.
    since_ms: u64,
    /// The last time that was told of.
    now_ns: u64,
    root: Span,
    hosts: BTreeMap<String, OnHost>,
    over: bool,
}

struct OnHost {
    span: Span,
    state: State,
    phase: Option<(&'static str, Span)>,
    steps: BTreeMap<String, Span>,
    actions: BTreeMap<String, Span>,
    parts: BTreeMap<u32, Span>,
    over: bool,
}

impl RunSpans {
    pub(super) fn new(export: Option<Arc<Export>>, run: &str, under: Option<Context>) -> RunSpans {
        RunSpans(export.map(|export| {
            let own = blake3::hash(run.as_bytes());
            let own = own.as_bytes();
            let number = |from: usize| u64::from_be_bytes(std::array::from_fn(|at| own[from + at]));
            let trace = ((u128::from(number(0)) << 64) | u128::from(number(8))).max(1);
            let since_ms = now_ms();
            let root = Span {
                trace: under.map_or(trace, |under| under.trace),
                id: number(16).max(1),
                parent: under.map(|under| under.span),
                name: "run".to_owned(),
                kind: Kind::Internal,
                from_ns: nanos(since_ms),
                to_ns: nanos(since_ms),
                attributes: vec![("squall.run", json!(run))],
                events: Vec::new(),
                failed: None,
            };
            let now_ns = root.from_ns;
            Telling { export, since_ms, now_ns, root, hosts: BTreeMap::new(), over: false }
        }))
    }

    pub(crate) fn hear(&mut self, line: &Line) {
        let Some(telling) = &mut self.0 else { return };
        match &line.what {
            What::Fleet { at_ms, event } => telling.fleet(*at_ms, event),
            What::OnHost { host, record } => telling.on_host(host, record),
        }
    }
}

fn nanos(ms: u64) -> u64 {
    ms.saturating_mul(1_000_000)
}

impl Telling {
    fn at(&mut self, at_ms: u64) -> u64 {
        let at = nanos(self.since_ms.saturating_add(at_ms));
        self.now_ns = self.now_ns.max(at);
        at
    }

    fn fleet(&mut self, at_ms: u64, event: &FleetEvent) {
        if let FleetEvent::Began(began) = event {
            return self.began(began, at_ms);
        }
        let at = self.at(at_ms);
        let mut happened = |name, attributes| self.root.happened(at, name, attributes);
        match event {
            FleetEvent::Began(_) => {}
            FleetEvent::Passed { gate, .. } => happened("passed", vec![("squall.gate", json!(gate))]),
            FleetEvent::CalledOff { host, why } => happened("called off", about(host, why)),
            FleetEvent::LeftOut { host, why } => happened("left out", about(host, why)),
            FleetEvent::Interrupted { by } => happened("interrupted", vec![("squall.by", json!(by))]),
            FleetEvent::Finished { exit, sentence, .. } => {
                ended(&mut self.root, *exit, sentence);
                self.end(None);
            }
        }
    }

    fn began(&mut self, began: &Began, at_ms: u64) {
        self.since_ms = began.at.unwrap_or(self.since_ms).saturating_sub(at_ms);
        self.root.from_ns = self.at(at_ms);
        self.now_ns = self.root.from_ns;
        let hosts: Vec<&str> = began.hosts.iter().map(String::as_str).collect();
        self.root.attributes.extend([
            ("squall.title", json!(began.title)),
            ("squall.plan", json!(began.plan)),
            ("squall.seed", json!(began.seed)),
            ("squall.hosts", json!(hosts.join(","))),
        ]);
    }

    fn on_host(&mut self, host: &str, record: &Record) {
        let at = self.at(record.at_ms);
        let run = &self.root.attributes[0].1;
        let on = self.hosts.entry(host.to_owned()).or_insert_with(|| OnHost {
            span: self.root.within("host", at).with("squall.run", run.clone()).with("squall.host", host),
            state: State::New,
            phase: None,
            steps: BTreeMap::new(),
            actions: BTreeMap::new(),
            parts: BTreeMap::new(),
            over: false,
        });
        if !on.over {
            on.hear(&self.export, at, &record.event);
        }
    }

    /// Ends everything that is open.
    fn end(&mut self, why: Option<&str>) {
        for on in self.hosts.values_mut().filter(|on| !on.over) {
            on.span.failed = on.span.failed.take().or_else(|| why.map(str::to_owned));
            on.end(&self.export, self.now_ns);
        }
        self.root.failed = self.root.failed.take().or_else(|| why.map(str::to_owned));
        put(&self.export, self.root.clone(), self.now_ns);
        self.over = true;
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        if !self.over {
            self.now_ns = self.now_ns.max(nanos(now_ms()));
            self.end(Some("nothing was heard of its end"));
        }
    }
}

impl OnHost {
    fn hear(&mut self, export: &Export, at: u64, event: &Event) {
        if matches!(event, Event::Sample(_) | Event::Measured { .. }) {
            return;
        }
        if let Ok(after) = next(self.state.clone(), event) {
            self.state = after;
        }
        // What an undo took belongs to the phase in which it was done, and ends before that does.
        if let Event::Lifted { part, lifted, why } = event {
            self.lifted(export, at, *part, lifted, why.as_deref());
        }
        self.turn(export, at);
        match event {
            Event::StepBegan { step, what } => {
                let span = self.part_of_phase("step", at).with("squall.step", step.as_str());
                self.steps.insert(step.clone(), span.with("squall.what", what.as_str()));
            }
            Event::StepEnded { step } => close(export, self.steps.remove(step), at, None),
            Event::ActionBegan { step, name, .. } => {
                let span = self.part_of_phase("action", at).with("squall.step", step.as_str());
                self.actions.insert(step.clone(), span.with("squall.name", name.as_str()));
            }
            Event::ActionEnded { step, good, seen } => {
                close(export, self.actions.remove(step), at, (!good).then(|| seen.clone()));
            }
            Event::Injecting { part, name, lasts_ms, .. } => {
                let span = self.part_of_phase("injection", at).with("squall.part", *part);
                let span = span.with("squall.name", name.as_str()).with("squall.lasts_ms", *lasts_ms);
                self.parts.insert(*part, span);
            }
            Event::Injected { part, .. } => {
                if let Some(span) = self.parts.get_mut(part) {
                    span.happened(at, "injected", Vec::new());
                }
            }
            Event::Refused { part: Some(part), refusal } => {
                close(export, self.parts.remove(part), at, Some(refusal.what.clone()));
            }
            Event::Finished { exit, sentence } => {
                ended(&mut self.span, *exit, sentence);
                self.end(export, at);
            }
            Event::Stuck { sentence, .. } => {
                ended(&mut self.span, Exit::Modified, sentence);
                self.end(export, at);
            }
            other => {
                if let Some((name, attributes)) = marked(other) {
                    self.span.happened(at, name, attributes);
                }
            }
        }
    }

    /// Ends the phase that is over, and begins the one that has begun.
    fn turn(&mut self, export: &Export, at: u64) {
        let now = match self.state {
            State::Baseline => Some("baseline"),
            State::Method(_) => Some("method"),
            State::Reverting(_) => Some("revert"),
            State::Recovery => Some("recovery"),
            State::New | State::Settled | State::Finished { .. } | State::Stuck { .. } => None,
        };
        if now == self.phase.as_ref().map(|(name, _)| *name) {
            return;
        }
        if let Some((_, span)) = self.phase.take() {
            // A step that was broken off ends with its phase; what is live is undone in the next one.
            for (_, step) in std::mem::take(&mut self.steps) {
                close(export, Some(step), at, Some("broken off".to_owned()));
            }
            put(export, span, at);
        }
        self.phase = now.map(|name| (name, self.span.within(name, at).with("squall.host", self.host())));
    }

    fn host(&self) -> Value {
        let host = self.span.attributes.iter().find(|(name, _)| *name == "squall.host");
        host.map_or(Value::Null, |(_, host)| host.clone())
    }

    fn part_of_phase(&self, name: &str, at: u64) -> Span {
        let of = self.phase.as_ref().map_or(&self.span, |(_, phase)| phase);
        let run = self.span.attributes[0].1.clone();
        of.within(name, at).with("squall.run", run).with("squall.host", self.host())
    }

    fn lifted(&mut self, export: &Export, at: u64, part: Option<u32>, lifted: &Lifted, why: Option<&str>) {
        let failed = (!lifted.stuck.is_empty()).then(|| lifted.stuck.join("; "));
        let of = match part {
            Some(part) => self.parts.get(&part),
            None => self.phase.as_ref().map(|(_, phase)| phase),
        };
        let from = at.saturating_sub(lifted.took_us.saturating_mul(1000));
        let mut undo = of.unwrap_or(&self.span).within("undo", from).with("squall.host", self.host());
        undo = undo.with("squall.undone", lifted.undone.len());
        if let Some(why) = why {
            undo = undo.with("squall.why", why);
        }
        close(export, Some(undo), at, failed.clone());
        let ended = match part {
            Some(part) => self.parts.remove(&part).into_iter().collect(),
            None => std::mem::take(&mut self.parts).into_values().collect::<Vec<_>>(),
        };
        ended.into_iter().for_each(|span| close(export, Some(span), at, failed.clone()));
    }

    fn end(&mut self, export: &Export, at: u64) {
        let open = std::mem::take(&mut self.steps).into_values();
        let open = open.chain(std::mem::take(&mut self.actions).into_values());
        for span in open.chain(std::mem::take(&mut self.parts).into_values()) {
            close(export, Some(span), at, Some("broken off".to_owned()));
        }
        if let Some((_, phase)) = self.phase.take() {
            put(export, phase, at);
        }
        put(export, self.span.clone(), at);
        self.over = true;
    }
}

/// What stands in the host's span as something that happened.
fn marked(event: &Event) -> Option<(&'static str, Vec<(&'static str, Value)>)> {
    let seen = |name: &str, seen: &str| vec![("squall.name", json!(name)), ("squall.seen", json!(seen))];
    let why = |why: &str| vec![("squall.why", json!(why))];
    Some(match event {
        Event::BaselineNotMet { name, seen: it } => ("baseline not met", seen(name, it)),
        Event::GuardTripped { name, seen: it } => ("guard tripped", seen(name, it)),
        Event::GaveWay { name, seen: it, .. } => ("gave way", seen(name, it)),
        Event::BudgetSpent { name, .. } => ("budget spent", vec![("squall.name", json!(name))]),
        Event::Interrupted { by } => ("interrupted", vec![("squall.by", json!(by))]),
        Event::AgentLost { why: it } => ("agent lost", why(it)),
        Event::Blind { why: it } => ("blind", why(it)),
        Event::Refused { refusal, .. } => ("refused", why(&refusal.what)),
        Event::UndoPlayed { step, good, seen: it } => {
            let mut attributes = seen(step, it);
            attributes.push(("squall.good", json!(good)));
            ("undo of an action", attributes)
        }
        Event::WellAgain { after_ms } => ("well again", vec![("squall.after_ms", json!(after_ms))]),
        Event::NotRecovered { names, .. } => {
            ("not recovered", vec![("squall.names", json!(names.join(", ")))])
        }
        _ => return None,
    })
}

fn about(host: &str, why: &str) -> Vec<(&'static str, Value)> {
    vec![("squall.host", json!(host)), ("squall.why", json!(why))]
}

/// Says how something ended. A deviation, what is left and a bug are failures of a span.
fn ended(span: &mut Span, exit: Exit, sentence: &str) {
    span.attributes.push(("squall.exit", json!(exit as u8)));
    span.attributes.push(("squall.verdict", json!(exit.meaning())));
    if matches!(exit, Exit::Deviated | Exit::Modified | Exit::Bug) {
        span.failed = Some(sentence.to_owned());
    }
}

fn close(export: &Export, span: Option<Span>, at: u64, failed: Option<String>) {
    if let Some(mut span) = span {
        span.failed = failed;
        put(export, span, at);
    }
}

fn put(export: &Export, mut span: Span, at: u64) {
    span.to_ns = at;
    export.put(span);
}
