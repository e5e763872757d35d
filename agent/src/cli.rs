//! `squall-agent …` and `squall agent …`: the same verbs.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};
use squall_experiments::exit::Exit;
use squall_experiments::protocol::{Call, Message, Refusal, Reply, Request, VERSION};

use crate::fingerprint::command as fingerprint;
use crate::fleet::{options, process};
use crate::outage::child;
use crate::policy::Policy;
use crate::recover::RecoverError;
use crate::recover::from_host::{self, Found, Wanted};
use crate::state::{self, Place};
use crate::talk::LogFormat;
use crate::{guardian, join, preflight, recover, say, selftest, talk};

/// The privileged process of a host: it injects faults, undoes them, and answers for both.
#[derive(Debug, Parser)]
#[command(name = "squall-agent", version, max_term_width = 100)]
pub struct Cli {
    /// Where journals are kept [default: /var/lib/squall for root, else $XDG_STATE_HOME/squall].
    #[arg(long, global = true, env = "SQUALL_STATE_DIR", value_name = "DIR")]
    state_dir: Option<PathBuf>,
    #[command(flatten)]
    agent: Agent,
}

impl Cli {
    /// Runs a verb in the calling process, which must still be single-threaded.
    pub fn run(self) -> Exit {
        self.agent.run(self.state_dir.as_deref())
    }
}

/// The agent's verbs.
#[derive(Debug, clap::Args)]
pub struct Agent {
    #[command(subcommand)]
    verb: Verb,
}

/// How results are printed. The verbs of `squall` share it, so that a flag means the same before and behind a verb.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    Human,
    /// One JSON document.
    Json,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Serve this network namespace until told to end.
    Run {
        /// Speak on standard input, which is a connected socket, and leave when idle.
        #[arg(long, hide = true)]
        on_stdin: bool,
        /// How it talks on standard error.
        #[arg(long, value_enum, default_value_t)]
        log_format: LogFormat,
        #[command(flatten)]
        fleet: Box<options::Options>,
    },
    /// Say what is active here.
    Status,
    /// Say what works on this host, and what is missing.
    Preflight {
        /// How results are printed.
        #[arg(long, value_enum, default_value_t = Format::Human)]
        format: Format,
    },
    Fingerprint(fingerprint::Arguments),
    /// Inject faults into namespaces of the test's own and kill the agent in the middle of each: says which layer cleaned
    /// up, after how long, and what was left.
    SelfTest {
        /// How results are printed.
        #[arg(long, value_enum, default_value_t = Format::Human)]
        format: Format,
        /// Be what the faults act on.
        #[arg(long, hide = true, value_enum)]
        be: Option<selftest::Role>,
    },
    /// The unprivileged process that looks at guards.
    #[command(hide = true)]
    Prober(crate::probe::Prober),
    /// Carry what an outage leads to it.
    #[command(hide = true)]
    OutageProxy(child::Arguments),
    /// The unprivileged process that holds the connection to the controller.
    #[command(hide = true)]
    Link(process::Arguments),
    /// Undo what a dead agent left behind. Needs no daemon, no controller and no network.
    Recover {
        /// Also what no journal tells of: find Squall's objects by their marks, and take those away alone.
        #[arg(long)]
        from_host: bool,
        /// Only say what would be taken away.
        #[arg(long, requires = "from_host")]
        dry_run: bool,
        /// Look into this network namespace too: a name of ip-netns(8), or a path. Can be given several times.
        #[arg(long, requires = "from_host", value_name = "NETNS")]
        netns: Vec<String>,
    },
}

impl Agent {
    /// Runs a verb in the calling process, which must still be single-threaded.
    pub fn run(self, state_dir: Option<&Path>) -> Exit {
        let done = match self.verb {
            Verb::Run { on_stdin, log_format, fleet } => {
                talk::begin(log_format, "warn,hickory_resolver=error,hickory_net=error");
                serve(state_dir, on_stdin, &fleet)
            }
            Verb::Status => status(state_dir),
            Verb::Preflight { format } => {
                clear_up(state_dir);
                preflight(format == Format::Json)
            }
            Verb::Prober(prober) => return prober.run(),
            Verb::Fingerprint(arguments) => {
                clear_up(state_dir);
                fingerprint::run(&arguments)
            }
            Verb::SelfTest { be: Some(role), .. } => selftest::be(role).map(|()| Exit::Held),
            Verb::SelfTest { format, .. } => {
                clear_up(state_dir);
                selftest::run(format)
            }
            Verb::OutageProxy(arguments) => return child::run(&arguments),
            Verb::Link(arguments) => return process::run(&arguments),
            Verb::Recover { from_host: false, .. } => return recovered(state_dir),
            Verb::Recover { dry_run, netns, .. } => {
                let wanted = Wanted { dry: dry_run, netns: &netns };
                from_host::run(state_dir, &wanted).map(|found| told(&found, dry_run))
            }
        };
        done.unwrap_or_else(|refusal| {
            talk::error(&refusal, refusal.help.as_deref());
            Exit::try_from(refusal.exit).unwrap_or(Exit::Refused)
        })
    }
}

/// Undoes what dead agents left behind, as every command does first that acts on this host or looks at it, and says so
/// on standard error.
fn recover_first(state_dir: Option<&Path>) -> Result<(), RecoverError> {
    let outcome = recover::at_start(state_dir)?;
    let told = outcome.undone.iter();
    told.for_each(|what| talk::notice(format_args!("recovered from a dead agent: {what}"), &[]));
    Ok(())
}

/// The same for those that only look, or that look at their own place once more: what cannot be undone does not keep them
/// from going on.
fn clear_up(state_dir: Option<&Path>) {
    if let Err(error) = recover_first(state_dir) {
        talk::warning(&error, Some(error.help()));
    }
}

fn serve(state_dir: Option<&Path>, on_stdin: bool, fleet: &options::Options) -> Result<Exit, Refusal> {
    let place = Place::here(&state::root(state_dir))?;
    let control = if on_stdin {
        let socket = std::io::stdin().as_fd().try_clone_to_owned();
        let socket =
            socket.map_err(|error| Refusal::bare(format!("standard input is no socket: {error}")))?;
        // Signals of the terminal are for the command, which then asks the agent to end.
        let _ = nix::unistd::setsid();
        Some(UnixStream::from(socket))
    } else {
        // Of other network namespaces, too; whoever begins an agent for itself has done so.
        clear_up(state_dir);
        let directory = place.directory().display();
        talk::notice(
            format_args!("squall-agent serves this network namespace; its state is in `{directory}`"),
            &[],
        );
        None
    };
    let uplink = fleet.uplink(&place.root())?;
    if uplink.is_some() {
        Policy::of_this_host()?.permits_controllers()?;
    }
    guardian::run(place, control, (fleet.ways(), uplink))
}

fn status(state_dir: Option<&Path>) -> Result<Exit, Refusal> {
    recover_first(state_dir).map_err(|error| error.refusal())?;
    let Some(stream) = join::resident(state_dir)? else {
        recover::nothing_kept(state_dir)?;
        say::line("no agent is running in this network namespace, and nothing is injected by one");
        return Ok(Exit::Held);
    };
    ask(&stream, 1, Request::Hello { version: VERSION })?;
    let Reply::Status(active) = ask(&stream, 2, Request::Status)? else {
        return Err(Refusal::bare("the agent gave another answer than was asked for"));
    };
    if active.is_empty() {
        say::line("nothing is injected here");
    }
    let stuck = active.iter().any(|active| active.stuck);
    for active in active {
        say::line(format!("run {} (`{}`), reverted within {} s", active.run, active.title, active.expires_s));
        for (change, evidence) in active.changes {
            say::line(format!("  {change}: {} matched, {} impaired", evidence.matched, evidence.impaired));
        }
    }
    Ok(if stuck { Exit::Modified } else { Exit::Held })
}

fn ask(stream: &UnixStream, number: u64, request: Request) -> Result<Reply, Refusal> {
    let lost = |error: std::io::Error| Refusal::bare(format!("the agent does not answer: {error}"));
    let line = serde_json::to_string(&Call { number, request }).map_err(|error| lost(error.into()))?;
    let mut writer = stream;
    writer.write_all(format!("{line}\n").as_bytes()).map_err(lost)?;
    // One answer per question, so nothing that is read ahead is lost with the reader.
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).map_err(lost)?;
    match serde_json::from_str(&answer).map_err(|error| lost(error.into()))? {
        Message::Answer { reply: Reply::Refused(refusal), .. } => Err(refusal),
        Message::Answer { reply, .. } => Ok(reply),
        Message::Ended { .. } | Message::Guard { .. } | Message::Saw { .. } => {
            Err(Refusal::bare("the agent gave another answer than was asked for"))
        }
    }
}

fn preflight(json: bool) -> Result<Exit, Refusal> {
    let report = preflight::Report::of(&Policy::of_this_host()?);
    if json {
        say::json(&report);
    } else {
        say::line(report.to_string().trim_end());
    }
    Ok(if report.is_whole() { Exit::Held } else { Exit::Refused })
}

fn recovered(state_dir: Option<&Path>) -> Exit {
    match recover::at_start(state_dir) {
        Ok(outcome) => {
            outcome.undone.iter().for_each(|what| say::line(format!("undone: {what}")));
            for held in &outcome.held {
                say::line(format!("left alone: `{held}` is held by a living agent, or by another recovery"));
            }
            if outcome.undone.is_empty() && outcome.held.is_empty() {
                let root: PathBuf = state::root(state_dir);
                say::line(format!("no dead agent has left anything behind in `{}`", root.display()));
            }
            Exit::Held
        }
        Err(error) => {
            eprintln!("error: {error}");
            eprintln!("help: {}", error.help());
            Exit::Modified
        }
    }
}

/// Says what `--from-host` came to.
fn told(found: &Found, dry: bool) -> Exit {
    let done = if dry { "would be undone" } else { "undone" };
    found.done.iter().for_each(|what| say::line(format!("{done}: {what}")));
    found.left.iter().for_each(|what| say::line(format!("left alone: {what}")));
    found.stuck.iter().for_each(|what| eprintln!("error: {what}"));
    if found.done.is_empty() && found.stuck.is_empty() {
        say::line("nothing here bears Squall's marks");
    }
    if found.stuck.is_empty() { Exit::Held } else { Exit::Modified }
}
