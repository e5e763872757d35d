//! From the log of all hosts to what it adds up to.

use std::collections::BTreeMap;

use super::{Began, FleetEvent, Grown, Line, Muster, OnHost, Start, What, words};
use crate::exit::Exit;
use crate::protocol::Moment;
use crate::run::{Event, Record, State, next};
use crate::summary::Summary;

impl Muster {
    /// What a log adds up to; `None` for one without its first line. Of a log that was cut off, what was live on a host counts
    /// as still there.
    pub fn of(log: &[Line]) -> Option<Muster> {
        let mut began: Option<Began> = None;
        let mut stopped = None;
        let mut audited = None;
        let mut took_ms = 0;
        let mut records: BTreeMap<&str, Vec<Record>> = BTreeMap::new();
        for line in log {
            match &line.what {
                What::OnHost { host, record } => {
                    took_ms = took_ms.max(record.at_ms);
                    records.entry(host).or_default().push(record.clone());
                }
                What::Fleet { at_ms, event } => {
                    took_ms = took_ms.max(*at_ms);
                    match event {
                        FleetEvent::Began(first) => began = Some(first.clone()),
                        FleetEvent::CalledOff { why, .. } => stopped = stopped.or_else(|| Some(why.clone())),
                        FleetEvent::Interrupted { by } => stopped = stopped.or_else(|| Some(by.clone())),
                        FleetEvent::Finished { audit, .. } => audited.clone_from(audit),
                        FleetEvent::Passed { .. } | FleetEvent::LeftOut { .. } => {}
                    }
                }
            }
        }
        let began = began?;
        let called_off: Vec<&str> = log.iter().filter_map(called_off).collect();
        let on_host = |host: &String| {
            let own = records.get(host.as_str()).map_or(&[][..], Vec::as_slice);
            on_host(host, own, &called_off)
        };
        let hosts: Vec<OnHost> = began.hosts.iter().map(on_host).collect();
        let mut exit = hosts.iter().fold(Exit::Held, |exit, on| exit.worse(on.exit));
        // Whatever stopped it: a run that was called off did not show that anything holds.
        if exit == Exit::Held && stopped.is_some() {
            exit = Exit::Inconclusive;
        }
        let grown = grown(&began, &records, exit);
        let stages = grown.as_ref().map_or_else(String::new, |grown| format!("; {}", grown.in_words()));
        Some(Muster {
            took_ms,
            verdict: exit.meaning().to_owned(),
            exit,
            sentence: format!("{}{stages}", words::sentence(exit, &hosts)),
            grown,
            stopped,
            // In stages hosts begin one after the other, as they were told to.
            starts: if began.stages.is_empty() { starts(&records) } else { Vec::new() },
            hosts,
            audit: audited,
            began,
        })
    }
}

/// How far the stages came: each is a step of every host.
fn grown(began: &Began, records: &BTreeMap<&str, Vec<Record>>, exit: Exit) -> Option<Grown> {
    if began.stages.is_empty() {
        return None;
    }
    let step = |record: &Record| match &record.event {
        Event::StepBegan { step, .. } => step.parse::<u32>().ok(),
        _ => None,
    };
    let reached = records.values().flatten().filter_map(step).max().unwrap_or(0);
    let sizes = began.stages.iter().map(|hosts| u32::try_from(hosts.len()).unwrap_or(u32::MAX));
    Some(Grown { sizes: sizes.collect(), reached, gave_way: exit == Exit::Deviated && reached > 0 })
}

fn called_off(line: &Line) -> Option<&str> {
    match &line.what {
        What::Fleet { event: FleetEvent::CalledOff { why, .. }, .. } => Some(why),
        _ => None,
    }
}

fn on_host(host: &str, records: &[Record], called_off: &[&str]) -> OnHost {
    let Some(summary) = Summary::of(records) else {
        return OnHost {
            host: host.to_owned(),
            exit: Exit::Bug,
            verdict: "nothing was heard of it".to_owned(),
            summary: None,
        };
    };
    // What it was told to stop by is not its own; what follows from being stopped is not, either.
    let for_another =
        matches!(turn(records), Some(Event::Interrupted { by }) if called_off.contains(&by.as_str()));
    let found = |exit: Exit| matches!(exit, Exit::Deviated | Exit::Modified | Exit::Bug);
    let told = |what: &str| called_off.iter().any(|by| what.strip_prefix("interrupted: ") == Some(by));
    let reasons = summary.reasons.iter().filter(|reason| !told(&reason.what));
    let exits = reasons.map(|reason| reason.exit).filter(|exit| !for_another || found(*exit));
    let exit = exits.fold(Exit::Held, Exit::worse);
    let verdict = match for_another && exit == Exit::Held {
        true => "reverted because of another host".to_owned(),
        false => exit.meaning().to_owned(),
    };
    OnHost { host: host.to_owned(), exit, verdict, summary: Some(summary) }
}

/// The event at which a run turned back.
fn turn(records: &[Record]) -> Option<&Event> {
    let mut state = State::New;
    records.iter().map(|record| &record.event).find(|event| {
        state = next(std::mem::take(&mut state), event).unwrap_or_default();
        !matches!(state, State::New | State::Baseline | State::Method(_))
    })
}

fn starts(records: &BTreeMap<&str, Vec<Record>>) -> Vec<Start> {
    /// When each host was asked, and when it had it.
    #[derive(Default)]
    struct Times {
        name: String,
        asked: Vec<u64>,
        injected: Vec<u64>,
        began: Vec<Moment>,
        late: u32,
    }
    let mut parts: BTreeMap<u32, Times> = BTreeMap::new();
    for record in records.values().flatten() {
        match &record.event {
            Event::Injecting { part, name, .. } => {
                let times = parts.entry(*part).or_default();
                times.name.clone_from(name);
                times.asked.push(record.at_ms);
            }
            Event::Injected { part, applied } => {
                let times = parts.entry(*part).or_default();
                times.injected.push(record.at_ms);
                times.began.extend(applied.began);
                times.late += u32::from(applied.late_us.is_some());
            }
            _ => {}
        }
    }
    let spread = |times: &[u64]| {
        let (first, last) = (times.iter().min(), times.iter().max());
        first.zip(last).map_or(0, |(first, last)| last - first)
    };
    let micros = |moments: &[Moment]| moments.iter().map(|moment| moment.at_us).collect::<Vec<_>>();
    let all_tell = |times: &Times| times.began.len() == times.injected.len();
    let several = parts.into_iter().filter(|(_, times)| times.injected.len() > 1);
    several
        .map(|(part, times)| Start {
            part,
            hosts: u32::try_from(times.injected.len()).unwrap_or(u32::MAX),
            asked_ms: spread(&times.asked),
            injected_ms: spread(&times.injected),
            began_us: all_tell(&times).then(|| spread(&micros(&times.began))),
            within_us: times.began.iter().map(|moment| moment.within_us).max().filter(|_| all_tell(&times)),
            late: times.late,
            name: times.name,
        })
        .collect()
}
