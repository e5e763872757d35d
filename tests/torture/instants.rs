//! The programs that users run, killed at random instants: without stopping points, in the release build where there is one.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use squall_tests::host::Host;
use squall_tests::netns::{Process, signal};
use squall_tests::squall::{Squall, binary};
use squall_tests::trial::calm;
use squall_tests::world::World;

use crate::choice::Dice;
use crate::faults::fault;
use crate::harness::{Ground, Job, discard, lock};
use crate::strike::{Outcome, shown};

/// What only a program with stopping points knows.
const POINTS: &[u8] = b"SQUALL_STOP_AT";
/// Blows that CI has time for.
const FEW: usize = 24;
/// From the start of a command to its end, on an idle machine: fault and all.
const LIFE: usize = 1_100_000;
/// How long all processes may take to be gone: a stopped command is known by its lease, which is 5 s long.
const GONE: Duration = Duration::from_secs(20);

/// What it gets.
const SIGNALS: [Signal; 4] = [Signal::KILL, Signal::TERM, Signal::INT, Signal::HUP];
/// Who is hit.
const VICTIMS: [&str; 5] = ["command", "worker", "guardian", "both", "everything"];

/// The jobs of this subject.
pub fn jobs() -> Vec<Job> {
    vec![Job::new("any_instant", fault("latency").needs, any_instant)]
}

/// Where `squall` is that users would run: what `SQUALL_TORTURE_BIN` names, else the release build, unless it is older than
/// what is tested.
fn program() -> PathBuf {
    if let Some(named) = std::env::var_os("SQUALL_TORTURE_BIN") {
        return PathBuf::from(named);
    }
    let debug = binary("squall");
    let release = debug.ancestors().nth(2).map(|target| target.join("release/squall"));
    let built = |path: &PathBuf| path.metadata().and_then(|metadata| metadata.modified()).ok();
    release.filter(|release| built(release) >= built(&debug)).unwrap_or(debug)
}

fn any_instant(ground: &Ground) -> Result<(), String> {
    let mut dice = Dice::new(ground.seed);
    let world = World::new(2);
    world.echo(1, 7);
    world.program(0, None, &["sleep", "100000"]);
    let step = "{ parallel: [{ fault: { latency: { delay: 50ms, to: [\"10.77.1.2:7\"] } }, for: 400ms }, \
                { fault: { pause: {} }, in: { process: { name: sleep } }, for: 400ms }] }";
    let file = world.file("instants.yaml", calm(&[step]));
    let program = program();
    let known = program.to_string_lossy();
    // Made for tests, it would show nothing about what users run.
    let words = std::fs::read(&program).map_err(|error| format!("`{known}`: {error}"))?;
    if words.windows(POINTS.len()).any(|word| word == POINTS) {
        return Err(format!("`{known}` was built with stopping points: users do not run that"));
    }
    println!("at random instants: {known}");
    let came = (0..ground.blows.map_or(FEW, |blows| blows / 8)).try_for_each(|number| {
        let (mut victim, mut hits) = (*dice.one(&VICTIMS), *dice.one(&SIGNALS));
        // Each signal meets the command at least twice, and every second of all is a kill.
        if number < 2 * SIGNALS.len() {
            (victim, hits) = ("command", SIGNALS[number % SIGNALS.len()]);
        } else if number % 2 == 0 {
            hits = Signal::KILL;
        }
        let instant = Duration::from_micros(dice.below(LIFE) as u64);
        let came = blow(&world, &program, &file, (victim, hits, instant));
        let outcome =
            came.map_err(|why| format!("blow {number}: {victim} {hits:?} after {instant:?}: {why}"))?;
        lock(&ground.table).note("latency and pause, at once", outcome);
        Ok(())
    });
    if came.is_err() {
        discard(world);
    }
    came
}

fn blow(
    world: &World,
    program: &PathBuf,
    file: &str,
    (victim, hits, instant): (&'static str, Signal, Duration),
) -> Result<Outcome, String> {
    let host = &world.hosts[0];
    let events = world.directory.join("instants.ndjson");
    drop(std::fs::remove_file(&events));
    let command = |verbs: &[&str]| {
        let mut command = host.netns.command(program);
        command.args(verbs).env("SQUALL_STATE_DIR", &host.state);
        command
    };
    let mut running = command(&["run", file, "--events"]);
    running.arg(&events);
    let mut run = Squall::with(running, "squall run", &host.directory).start();
    thread::sleep(instant);
    let hit = victims(host, run.pid(), victim);
    // Held first, so that none notices another's end.
    if hit.len() > 1 {
        for process in &hit {
            signal(process, Signal::STOP);
        }
    }
    for process in &hit {
        signal(process, hits);
        signal(process, Signal::CONT);
    }
    let struck = Instant::now();
    // The command itself is a child of this test, which must hear of its end.
    while !run.ended() | !host.squalls().is_empty() {
        if struck.elapsed() > GONE {
            return Err(format!("{:?} lived on: {}", host.squalls(), run.story()));
        }
        thread::sleep(Duration::from_millis(5));
    }
    let took = struck.elapsed();
    let recovered =
        Squall::with(command(&["agent", "recover"]), "squall agent recover", &host.directory).run();
    if recovered.status.code() != Some(0) {
        return Err(recovered.story());
    }
    let rest = if recovered.stdout.contains("undone:") { "recover" } else { "–" };
    if let Some(difference) = world.difference() {
        thread::sleep(Duration::from_secs(2));
        if world.difference().is_some() {
            return Err(format!("not as found:\n{difference}"));
        }
    }
    let (victim, way, deaths) = (victim.to_owned(), format!("{}, any time", shown(hits)), hit.len());
    Ok(Outcome { victim, way, layer: "as came", rest, took, live: false, deaths })
}

/// Those of the chosen that are there at this instant.
fn victims(host: &Host, command: i32, victim: &str) -> Vec<Process> {
    let all = host.squalls();
    let agents: Vec<Process> = all
        .iter()
        .filter(|process| process.arguments().get(1).is_some_and(|verb| verb == "agent"))
        .cloned()
        .collect();
    let is_worker = |process: &Process| agents.iter().any(|other| other.pid == process.parent);
    let chosen: Vec<Process> = match victim {
        "worker" => agents.iter().filter(|process| is_worker(process)).cloned().collect(),
        "guardian" => agents.iter().filter(|process| !is_worker(process)).cloned().collect(),
        "both" => agents.clone(),
        "everything" => all.clone(),
        _ => Vec::new(),
    };
    if chosen.is_empty() {
        all.into_iter().filter(|process| process.pid == command).collect()
    } else {
        chosen
    }
}
