//! On the machine of the tests: boots the kernels, and says what came of every case.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use squall_tests::{netns::PREFIX, skip};

use crate::cases;
use crate::guest::{Outcome, SECOND_TRY, Word};
use crate::userland::{self, Kernel};

/// The longest that one kernel may take: more than the lane has on a machine with nothing else to do.
const LONGEST: Duration = Duration::from_secs(400);

/// What the whole lane may take on a machine with nothing else to do. On a busy one an emulator takes as long as it takes, so
/// the time is shown, and no failure.
const WHOLE: Duration = Duration::from_secs(180);

/// The emulator.
const EMULATOR: &str = "qemu-system-x86_64";

/// The counts of the line at the end, and what failed.
#[derive(Default)]
struct Tally {
    passed: usize,
    failed: Vec<(String, String)>,
    aloud: bool,
}

impl Tally {
    fn note(&mut self, name: &str, outcome: Outcome, said: &str, took: f64) {
        let strict = std::env::var("CI").is_ok_and(|ci| !["", "0", "false"].contains(&ci.as_str()));
        let outcome = match outcome {
            Outcome::Skipped(why) if strict => {
                Outcome::Failed(format!("skipped, which fails where `CI` is set: {why}"))
            }
            other => other,
        };
        let word = match &outcome {
            Outcome::Failed(_) => "FAILED",
            // As Rust's own harness counts a test that skips itself; the log of skips says so.
            Outcome::Passed | Outcome::Skipped(_) => "ok",
        };
        println!("test {name} ... {word}");
        eprintln!("     {took:.1} s");
        // A case that needed two tries says so whoever asks.
        if (self.aloud || outcome == Outcome::Passed && said.starts_with(SECOND_TRY)) && !said.is_empty() {
            println!("{said}");
        } else {
            said.lines()
                .filter(|line| line.starts_with(cases::FIGURE))
                .for_each(|line| println!("     {line}"));
        }
        match outcome {
            Outcome::Failed(why) => self.failed.push((name.to_owned(), format!("{said}\n{why}"))),
            Outcome::Skipped(why) => {
                skip::log_as(name, &why);
                self.passed += 1;
            }
            Outcome::Passed => self.passed += 1,
        }
    }

    /// The end, in the words of Rust's own harness, which `tests/run` reads.
    fn close(&self, begun: Instant, left_out: usize) -> ExitCode {
        if !self.failed.is_empty() {
            println!("\nfailures:\n");
        }
        for (name, why) in &self.failed {
            println!("---- {name} ----\n{why}\n");
        }
        let verdict = if self.failed.is_empty() { "ok" } else { "FAILED" };
        println!(
            "\ntest result: {verdict}. {} passed; {} failed; 0 ignored; 0 measured; {left_out} filtered out; finished in {:.2}s\n",
            self.passed,
            self.failed.len(),
            begun.elapsed().as_secs_f64()
        );
        ExitCode::from(u8::from(!self.failed.is_empty()))
    }
}

/// Runs the lane with the arguments of a test program: words that names must hold; `--list`; `--nocapture`.
pub fn run(arguments: &[String]) -> ExitCode {
    let begun = Instant::now();
    let (options, words): (Vec<&str>, Vec<&str>) =
        arguments.iter().map(String::as_str).partition(|argument| argument.starts_with("--"));
    let all = cases::all();
    let wanted: Vec<&str> = all
        .iter()
        .map(|case| case.name)
        .filter(|name| words.is_empty() || words.iter().any(|word| name.contains(word)))
        .collect();
    if options.contains(&"--list") {
        wanted.iter().for_each(|name| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let mut tally = Tally { aloud: options.contains(&"--nocapture"), ..Tally::default() };
    println!("\nrunning {} tests on each kernel", wanted.len());
    if !wanted.is_empty() {
        match kernels() {
            Err(why) => tally.note("the_lane", Outcome::Skipped(why), "", 0.0),
            Ok(kernels) => {
                let share = |index| -> Vec<&str> {
                    let mut share = wanted.clone();
                    if kernels.len() > 1 && words.is_empty() {
                        share.retain(|name| {
                            cases::on_later_kernels(name) == (index > 0) || cases::on_all(name)
                        });
                    }
                    share
                };
                // All at once: while the first works, the others mostly wait (see `cases::all`).
                let noted = Mutex::new(&mut tally);
                thread::scope(|scope| {
                    for (index, kernel) in kernels.iter().enumerate() {
                        let (share, noted) = (share(index), &noted);
                        scope.spawn(move || boot(kernel, &share, noted));
                    }
                });
            }
        }
    }
    if words.is_empty() && wanted.len() == all.len() {
        println!("the lane took {:.0} s of {}", begun.elapsed().as_secs_f64(), WHOLE.as_secs());
    }
    tally.close(begun, all.len() - wanted.len())
}

/// The kernels to boot, or why none can be.
fn kernels() -> Result<Vec<Kernel>, String> {
    if !cfg!(target_arch = "x86_64") {
        return Err("needs an x86-64 machine: the kernels are of that kind".to_owned());
    }
    if userland::program(EMULATOR).is_none() {
        return Err(format!("needs `{EMULATOR}` (package `qemu-system-x86`, which `tests/run` installs)"));
    }
    let missing = userland::missing();
    if !missing.is_empty() {
        return Err(format!("needs {} for the guest's root", missing.join(", ")));
    }
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    // Tests stand in `target/<profile>/deps`.
    let folder = own.ancestors().nth(3).unwrap_or(Path::new("target")).join("vm/kernels");
    let wanted = std::env::var("SQUALL_VM_KERNEL").unwrap_or_default();
    let mut kernels = Kernel::below(&folder);
    kernels.retain(|kernel| kernel.version.starts_with(&wanted));
    if kernels.is_empty() {
        return Err(format!(
            "needs a kernel of Debian below `{}`: `tests/run` fetches them",
            folder.display()
        ));
    }
    Ok(kernels)
}

/// Boots a kernel in a folder of its own, and notes at the end whether every case had its say.
fn boot(kernel: &Kernel, wanted: &[&str], tally: &Mutex<&mut Tally>) {
    let note = |name: &str, outcome, said: &str, seconds| {
        let name = format!("{}::{name}", kernel.short());
        tally.lock().expect("nobody panics with it").note(&name, outcome, said, seconds);
    };
    let begun = Instant::now();
    let folder = std::env::temp_dir().join(format!("{PREFIX}{}-vm-{}", std::process::id(), kernel.short()));
    let mut results = 0;
    let ended = watch(kernel, &folder, wanted, |name, outcome, said, seconds| {
        results += 1;
        note(name, outcome, said, seconds);
    });
    let (outcome, said) = match ended {
        Ok(()) if results == wanted.len() => (Outcome::Passed, String::new()),
        Ok(()) => (Outcome::Failed(format!("{results} results of {} cases", wanted.len())), String::new()),
        Err(error) => {
            let console = fs::read(folder.join("console")).unwrap_or_default();
            let console = String::from_utf8_lossy(&console);
            (Outcome::Failed(format!("{error:#}")), format!("the kernel's console:\n{console}"))
        }
    };
    note("every_case_has_a_result", outcome, &said, begun.elapsed().as_secs_f64());
    if folder.exists()
        && let Err(error) = fs::remove_dir_all(&folder)
    {
        eprintln!("cannot remove `{}`: {error}", folder.display());
    }
}

/// Boots a kernel and notes every result as it comes, until the machine is off.
fn watch(
    kernel: &Kernel,
    folder: &Path,
    wanted: &[&str],
    note: impl FnMut(&str, Outcome, &str, f64),
) -> Result<()> {
    fs::create_dir(folder).with_context(|| folder.display().to_string())?;
    let root = folder.join("root");
    userland::write(&root, kernel, wanted)?;
    let mut command = Command::new(EMULATOR);
    command.args(["-M", "pc,accel=tcg", "-cpu", "max", "-smp", "2", "-m", "1024"]);
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    command
        .arg("-serial")
        .arg(format!("file:{}", folder.join("console").display()))
        .args(["-serial", "stdio"]);
    command.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(&root);
    // The emulator translates code by the address that it runs at: with random addresses every start of a program would
    // be translated anew, which is most of its time.
    command.args(["-append", "console=ttyS0 quiet panic=-1 norandmaps mitigations=off"]);
    // The agent in the guest takes a second of silence for death: on a busy machine the guest goes first, where that is
    // allowed. Linux has a niceness per thread, which its children inherit.
    let _ = rustix::process::setpriority_process(None, -10);
    let mut machine = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run `{EMULATOR}`"))?;
    let port = BufReader::new(machine.stdout.take().context("the machine's port")?);
    let (send, lines) = mpsc::channel();
    thread::spawn(move || port.lines().map_while(Result::ok).all(|line| send.send(line).is_ok()));
    let ended = listen(&lines, note);
    // Off by itself, or to be ended now.
    if ended.is_err() {
        drop(machine.kill());
    }
    machine.wait().context("the machine")?;
    ended
}

/// Hears what init says until the machine is off.
fn listen(lines: &Receiver<String>, mut note: impl FnMut(&str, Outcome, &str, f64)) -> Result<()> {
    let begun = Instant::now();
    let mut done = false;
    loop {
        match lines.recv_timeout(LONGEST.saturating_sub(begun.elapsed())) {
            Ok(line) => match serde_json::from_str(line.trim_end()) {
                Ok(Word::Case { name, outcome, said, seconds }) => note(&name, outcome, &said, seconds),
                Ok(Word::Trouble(why)) => bail!("init: {why}"),
                Ok(Word::Done) => done = true,
                Err(error) => bail!("not a word of init ({error}): {line}"),
            },
            Err(RecvTimeoutError::Timeout) => bail!("the machine is not off after {LONGEST:?}"),
            Err(RecvTimeoutError::Disconnected) if done => return Ok(()),
            Err(RecvTimeoutError::Disconnected) => bail!("the machine ended before init was done"),
        }
    }
}
