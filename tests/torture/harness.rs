//! Runs the jobs, several at a time, and says what came of each.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use squall_tests::skip::{self, Need};

use crate::choice::{self, Dice};
use crate::faults::{FAULTS, Fault};
use crate::stage::Stage;
use crate::table::{Table, middle_and_longest};
use crate::{alone, command, faults, hang, instants, recovery, scarce, teeth};

/// Worlds at a time: most of what is done is waiting.
const WORLDS: usize = 4;
/// How long the kernel may take to end what it owns.
const AT_ONCE: Duration = Duration::from_millis(50);
/// Blows that a run has at least where nothing is asked for and nothing is missing.
const LEAST: usize = 200;
/// How long rules may go on to act when both processes hang.
const LEASE: Duration = Duration::from_secs(2);

/// What every job needs.
const ALWAYS: [Need; 2] = [Need::Root, Need::Nftables];

/// What all jobs know.
pub struct Ground {
    /// The program with stopping points.
    pub agent: PathBuf,
    /// At least so many blows; `None` is what CI has time for.
    pub blows: Option<usize>,
    /// Where all choices come from.
    pub seed: u64,
    /// What all blows came to.
    pub table: Mutex<Table>,
}

/// Does a job; what went wrong is told in full.
type Work = Box<dyn Fn(&Ground) -> Result<(), String> + Send + Sync>;

/// Something to be done in a world of its own.
pub struct Job {
    /// Its name, as of a test.
    pub name: String,
    /// What the machine must have.
    pub needs: Vec<Need>,
    /// Does it.
    pub run: Work,
}

impl Job {
    /// One of its own.
    pub fn new(
        name: impl Into<String>,
        needs: &[Need],
        run: impl Fn(&Ground) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        Job { name: name.into(), needs: needs.to_vec(), run: Box::new(run) }
    }

    fn of(fault: &'static Fault) -> Self {
        let name = format!("every_death_of::{}", fault.name.replace(' ', "_"));
        Job::new(name, fault.needs, move |ground| deaths(ground, fault))
    }
}

/// Runs what the arguments ask for: words that names must hold; `--list`.
pub fn run(arguments: &[String]) -> ExitCode {
    let begun = Instant::now();
    let (options, words): (Vec<&str>, Vec<&str>) =
        arguments.iter().map(String::as_str).partition(|argument| argument.starts_with("--"));
    let others = [
        faults::jobs(),
        choice::jobs(),
        // They wait longest.
        alone::jobs(),
        recovery::jobs(),
        hang::jobs(),
        scarce::jobs(),
        command::jobs(),
        instants::jobs(),
        teeth::jobs(),
    ];
    let jobs: Vec<Job> = others.into_iter().flatten().chain(FAULTS.iter().map(Job::of)).collect();
    let all = jobs.len();
    let chosen = |job: &Job| words.is_empty() || words.iter().any(|word| job.name.contains(word));
    let jobs: VecDeque<Job> = jobs.into_iter().filter(chosen).collect();
    if options.contains(&"--list") {
        jobs.iter().for_each(|job| println!("{}: test", job.name));
        return ExitCode::SUCCESS;
    }
    let (left_out, wanted) = (all - jobs.len(), jobs.len());
    println!("\nrunning {wanted} tests");
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let blows = number("SQUALL_TORTURE").map(|blows| blows as usize);
    let seed = number("SQUALL_TORTURE_SEED").unwrap_or(if blows.is_some() { clock() } else { 1 });
    let agent = if wanted > 0 && skip::is_root() { build() } else { PathBuf::new() };
    let ground = Ground { agent, blows, seed, table: Mutex::default() };
    let queue = Mutex::new(jobs);
    let tally = Mutex::new((0, Vec::<(String, String)>::new()));
    thread::scope(|scope| {
        for _ in 0..WORLDS {
            scope.spawn(|| {
                // A job is taken in a statement of its own: a `while let` would hold the lock while the job runs.
                loop {
                    let next = lock(&queue).pop_front();
                    let Some(job) = next else { break };
                    let begun = Instant::now();
                    let came = attempt(&ground, &job);
                    let word = if came.is_ok() { "ok" } else { "FAILED" };
                    println!("test {} ... {word}", job.name);
                    eprintln!("     {:.1} s", begun.elapsed().as_secs_f64());
                    // At once too: of a long output a part may be all that is kept.
                    if let Err(why) = &came {
                        eprintln!("{}: {why}", job.name);
                    }
                    let mut tally = lock(&tally);
                    match came {
                        Ok(()) => tally.0 += 1,
                        Err(why) => tally.1.push((job.name, why)),
                    }
                }
            });
        }
    });
    let (mut passed, mut failed) = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut table = ground.table.into_inner().unwrap_or_else(PoisonError::into_inner);
    table.print();
    println!("\nseed {seed}: {} blows, {} deaths, {} residues", table.blows, table.deaths, table.residues);
    match punctual(&mut table) {
        Ok(true) => passed += 1,
        Ok(false) => {}
        Err(why) => failed.push(("the_kernel_ends_what_it_owns_in_time".to_owned(), why)),
    }
    // What a machine cannot do gets no blows.
    let share = LEAST * possible() / FAULTS.len();
    let asked = words.is_empty().then(|| ground.blows.filter(|_| possible() > 0).unwrap_or(share));
    if let Err(why) = enough(asked, table.blows) {
        failed.push(("as_many_blows_as_were_asked_for".to_owned(), why));
    }
    let within = number("SQUALL_TORTURE_WITHIN").map(Duration::from_secs);
    if let Some(within) = within.filter(|within| begun.elapsed() > *within) {
        let why = format!(
            "it took {:.0} s, and {} s were allowed",
            begun.elapsed().as_secs_f64(),
            within.as_secs()
        );
        failed.push(("in_the_time_that_was_allowed".to_owned(), why));
    }
    if !failed.is_empty() {
        println!("\nfailures:\n");
    }
    for (name, why) in &failed {
        println!("---- {name} ----\n{why}\n");
    }
    let verdict = if failed.is_empty() { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {verdict}. {passed} passed; {} failed; 0 ignored; 0 measured; {left_out} filtered out; finished in {:.2}s\n",
        failed.len(),
        begun.elapsed().as_secs_f64()
    );
    ExitCode::from(u8::from(!failed.is_empty()))
}

/// How many faults this machine can be tortured with: they share the blows.
fn possible() -> usize {
    let had = |need: &Need| need.missing().is_none();
    if !ALWAYS.iter().all(had) {
        return 0;
    }
    FAULTS.iter().filter(|fault| fault.needs.iter().all(had)).count()
}

/// Whether as many blows fell as were asked for, where nothing was left out.
fn enough(asked: Option<usize>, fell: usize) -> Result<(), String> {
    match asked {
        Some(asked) if fell < asked => Err(format!("{fell} blows fell, {asked} were asked for")),
        _ => Ok(()),
    }
}

/// A lock that a failed job has not spoilt.
pub fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn clock() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(1, |now| now.as_secs())
}

/// Runs a job, or skips it loudly.
fn attempt(ground: &Ground, job: &Job) -> Result<(), String> {
    let needs = ALWAYS.iter().chain(&job.needs);
    if let Some(why) = needs.copied().find_map(Need::missing) {
        skip::log_as(&job.name, &why);
        return Ok(());
    }
    catch_unwind(AssertUnwindSafe(|| (job.run)(ground))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default())
    })
}

/// Builds the program with stopping points, beside the one without: only the agent's own crate is built twice.
fn build() -> PathBuf {
    let own = std::env::current_exe().expect("a test knows its own executable");
    let profile = own.ancestors().nth(2).expect("tests stand in `target/<profile>/deps`");
    let mut command = Command::new(env!("CARGO"));
    command.args(["build", "--quiet", "--package", "squall-agent", "--features", "stopping-points"]);
    command.args(["--bin", "squall-agent-stopping", "--target-dir"]);
    command.arg(profile.parent().expect("profiles stand in the target directory"));
    if profile.ends_with("release") {
        command.arg("--release");
    }
    let status = command.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo can be run");
    assert!(status.success(), "the agent with stopping points cannot be built");
    profile.join("squall-agent-stopping")
}

/// Every death of one fault, as many as there is time for.
fn deaths(ground: &Ground, fault: &'static Fault) -> Result<(), String> {
    let seed = fault
        .name
        .bytes()
        .fold(ground.seed, |seed, byte| seed.wrapping_mul(0x0100_0000_01b3) ^ u64::from(byte));
    let mut dice = Dice::new(seed);
    let mut stage = Stage::new(fault, &ground.agent);
    let points = choice::points(&stage)?;
    println!("{}: {} points", fault.name, points.len());
    let mut strikes = match ground.blows {
        None => choice::some(&points, &mut dice),
        Some(blows) => choice::all(&points, blows.div_ceil(possible().max(1)), &mut dice),
    };
    let mut troubles = Vec::new();
    for (number, strike) in strikes.drain(..).enumerate() {
        let begun = Instant::now();
        let came = strike.fall(&stage, number);
        if std::env::var_os("SQUALL_TORTURE_ALOUD").is_some() {
            eprintln!("{}: {:.2} s {strike:?} {came:?}", fault.name, begun.elapsed().as_secs_f64());
        }
        match came {
            Ok(outcome) => lock(&ground.table).note(fault.name, outcome),
            Err(why) => {
                let (victim, way) = strike.shown();
                lock(&ground.table).fail(fault.name, &victim, &way);
                troubles.push(why);
                if troubles.len() == 3 {
                    break;
                }
                // What it left must not be counted twice.
                discard(std::mem::replace(&mut stage, Stage::new(fault, &ground.agent)));
            }
        }
    }
    if !troubles.is_empty() {
        discard(stage);
    }
    if troubles.is_empty() { Ok(()) } else { Err(troubles.join("\n\n")) }
}

/// Drops a stage or a world of which it is known that it is not as it was found: that would be told instead of the reason.
pub fn discard<T>(left: T) {
    drop(catch_unwind(AssertUnwindSafe(|| drop(left))));
}

/// Whether what the kernel owns ended in time; `false`: there was nothing to measure.
fn punctual(table: &mut Table) -> Result<bool, String> {
    if table.killed.is_empty() && table.stopped.is_empty() {
        return Ok(false);
    }
    let mut control: Vec<Duration> = (0..15).map(|_| death_of_a_program()).collect();
    let (control, _) = middle_and_longest(&mut control);
    let limit = |within: Duration| within.as_secs_f64() * 1000.0 + 3.0 * control;
    let (killed, most_killed) = middle_and_longest(&mut table.killed);
    let (stopped, most_stopped) = middle_and_longest(&mut table.stopped);
    println!(
        "both killed, {} times: the fault is over after {killed:.1} ms, {most_killed:.1} at most (a program's death is seen after {control:.1})",
        table.killed.len()
    );
    println!(
        "both stopped or frozen, {} times: after {stopped:.0} ms, {most_stopped:.0} at most",
        table.stopped.len()
    );
    if killed > limit(AT_ONCE) || stopped > limit(LEASE) {
        return Err(format!(
            "{killed:.1} ms after both were killed, {stopped:.0} ms after both were stopped"
        ));
    }
    println!("test the_kernel_ends_what_it_owns_in_time ... ok");
    Ok(true)
}

/// From a signal to the first look that finds a program dead, by the same kind of looking.
fn death_of_a_program() -> Duration {
    let mut child: Child = Command::new("sleep").arg("60").spawn().expect("`sleep` runs");
    let begun = Instant::now();
    child.kill().expect("it lives");
    while child.try_wait().expect("it is ours").is_none() {
        thread::sleep(Duration::from_millis(1));
    }
    begun.elapsed()
}
