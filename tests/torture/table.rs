//! What came of all blows, as a table.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::strike::Outcome;

/// The outcomes of one kind of blow.
#[derive(Debug, Default)]
struct Row {
    took: Vec<Duration>,
    residue: usize,
}

/// All outcomes so far.
#[derive(Debug, Default)]
pub struct Table {
    rows: BTreeMap<[String; 5], Row>,
    /// How many processes were ended, or held until they were ended.
    pub deaths: usize,
    /// How many blows fell.
    pub blows: usize,
    /// How many left something behind.
    pub residues: usize,
    /// How long it took the kernel, where both were killed while a fault was certainly live.
    pub killed: Vec<Duration>,
    /// The same where both were stopped or frozen.
    pub stopped: Vec<Duration>,
}

impl Table {
    /// Notes one outcome of a fault.
    pub fn note(&mut self, fault: &str, outcome: Outcome) {
        let Outcome { victim, way, layer, rest, took, live, deaths } = outcome;
        self.blows += 1;
        self.deaths += deaths;
        if live && layer == "kernel" && ["both", "control group"].contains(&victim.as_str()) {
            self.killed.push(took);
        }
        if live && layer == "kernel timers" {
            self.stopped.push(took);
        }
        let key = [fault.to_owned(), victim, way, layer.to_owned(), rest.to_owned()];
        self.rows.entry(key).or_default().took.push(took);
    }

    /// Notes a blow that left something, or was not what it should have been.
    pub fn fail(&mut self, fault: &str, victim: &str, way: &str) {
        self.blows += 1;
        self.residues += 1;
        let key = [fault, victim, way, "?", "?"].map(str::to_owned);
        self.rows.entry(key).or_default().residue += 1;
    }

    /// Prints it.
    pub fn print(&mut self) {
        println!(
            "\n{:<30} {:<21} {:<17} {:<14} {:<13} {:>5} {:>9} {:>9} {:>8}",
            "fault", "victim", "way", "ended by", "the rest by", "blows", "p50 ms", "max ms", "residue"
        );
        for ([fault, victim, way, layer, rest], row) in &mut self.rows {
            let (middle, longest) = middle_and_longest(&mut row.took);
            println!(
                "{fault:<30} {victim:<21} {way:<17} {layer:<14} {rest:<13} {:>5} {middle:>9.1} {longest:>9.1} {:>8}",
                row.took.len() + row.residue,
                row.residue
            );
        }
    }
}

/// In milliseconds; 0 of none.
pub fn middle_and_longest(took: &mut [Duration]) -> (f64, f64) {
    took.sort_unstable();
    let ms = |took: Option<&Duration>| took.map_or(0.0, |took| took.as_secs_f64() * 1000.0);
    (ms(took.get(took.len() / 2)), ms(took.last()))
}
