//! The command line: one file per verb. Results go to standard output, talk to standard error.
//!
//! Nothing here starts a thread or a runtime before a verb asks for it: the agent forks, and the demo enters its own
//! namespaces, while the process is still single-threaded.

mod appendix;
mod approve;
mod audit;
mod calendar;
mod check;
mod completions;
mod demo;
mod events;
mod faults;
mod gameday;
mod halt;
mod host;
mod hosts;
mod init;
mod inject;
mod interface;
mod load;
mod man;
mod notify;
mod plan;
mod print;
mod proxy;
mod rebuild;
mod remote;
mod run;
mod runs;
mod schedule;
mod schema;
mod serve;
mod shop;
mod status;
mod telling;
mod tokens;
mod verdict;
mod watch;
mod written;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use squall_agent::cli::Format;
use squall_experiments::exit::Exit;

/// Chaos engineering that ends when it says: inject faults, measure them, undo them, and say what held.
#[derive(Debug, Parser)]
#[command(name = "squall", version, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    verb: Verb,
}

/// Flags that every verb understands.
#[derive(Clone, Debug, clap::Args)]
struct Common {
    /// How results are printed.
    #[arg(long, global = true, value_enum, default_value_t = Format::Human)]
    format: Format,
    /// Where journals are kept [default: /var/lib/squall for root, else $XDG_STATE_HOME/squall].
    #[arg(long, global = true, env = "SQUALL_STATE_DIR", value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show a small shop breaking and holding, in namespaces of its own: needs no root and no file.
    Demo(demo::Demo),
    /// Say everything that is wrong with experiment files.
    Check(check::Check),
    /// Show what a run would change on each host, without changing anything.
    Plan(plan::Plan),
    /// Run an experiment on this host and say what held.
    Run(run::Run),
    /// Inject one fault from the command line, without a file.
    Inject(inject::Inject),
    /// Make the report of a run again from its events.
    Verdict(verdict::Verdict),
    /// Write a first experiment file.
    Init(init::Init),
    /// List the faults, or explain one.
    Faults(faults::Faults),
    /// Print the JSON Schema of experiment files, for editors.
    Schema(schema::Schema),
    /// Print what a shell needs to complete these commands.
    Completions(completions::Completions),
    /// Write a manual page for each verb.
    Man(man::Man),
    /// Be the controller of a fleet: agents dial in, and are known by certificates of its own.
    Serve(serve::Serve),
    /// The hosts of a controller: list, show, label, revoke.
    Hosts(hosts::Hosts),
    /// Who may use a controller, and which hosts may join it.
    Tokens(tokens::Tokens),
    /// Approve a plan that was submitted to a controller, or list those that were.
    Approve(approve::Approve),
    /// The runs of a controller, the newest first.
    Runs(runs::Runs),
    /// One run of a controller, or its events.
    Show(runs::Show),
    /// Follow a run of a controller to its end.
    Watch(watch::Watch),
    /// The schedules of a controller: add, list, show, pause, resume, remove.
    Schedule(schedule::Schedule),
    /// Game days of a controller: begin and follow one, say go, press marks, write notes, and read what was measured.
    Gameday(gameday::Gameday),
    /// What the schedules of a controller did and will do, and why something will not run.
    Calendar(calendar::Calendar),
    /// Who is notified by a controller, whether that works, and a trial.
    Notify(notify::Notify),
    /// Who decided what on a controller: the log, and whether it is whole.
    Audit(audit::Audit),
    /// Say what is active on this host.
    Status(status::Status),
    /// Stop now: undo everything on this host, or on the hosts of a controller.
    Halt(halt::Halt),
    /// Serve as a proxy to dependencies that can be made slow and unreliable, as Toxiproxy does, and command it.
    Proxy(proxy::Proxy),
    /// The agent, carried in this binary: run, status, preflight, recover.
    Agent(squall_agent::cli::Agent),
    /// The unprivileged process that runs probes.
    #[command(hide = true)]
    Prober(squall_agent::probe::Prober),
    /// One service of the demo's shop.
    #[command(hide = true)]
    Shop(shop::Shop),
}

/// Parses the command line and runs one verb.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let exit = match cli.verb {
        Verb::Demo(verb) => verb.run(&cli.common),
        Verb::Check(verb) => verb.run(&cli.common),
        Verb::Plan(verb) => verb.run(&cli.common),
        Verb::Run(verb) => verb.run(&cli.common),
        Verb::Inject(verb) => verb.run(&cli.common),
        Verb::Verdict(verb) => verb.run(&cli.common),
        Verb::Init(verb) => verb.run(&cli.common),
        Verb::Faults(verb) => verb.run(&cli.common),
        Verb::Schema(verb) => verb.run(&cli.common),
        Verb::Completions(verb) => verb.run(&cli.common),
        Verb::Man(verb) => verb.run(&cli.common),
        Verb::Serve(verb) => verb.run(&cli.common),
        Verb::Hosts(verb) => verb.run(&cli.common),
        Verb::Tokens(verb) => verb.run(&cli.common),
        Verb::Approve(verb) => verb.run(&cli.common),
        Verb::Runs(verb) => verb.run(&cli.common),
        Verb::Show(verb) => verb.run(&cli.common),
        Verb::Watch(verb) => verb.run(&cli.common),
        Verb::Schedule(verb) => verb.run(&cli.common),
        Verb::Gameday(verb) => verb.run(&cli.common),
        Verb::Calendar(verb) => verb.run(&cli.common),
        Verb::Notify(verb) => verb.run(&cli.common),
        Verb::Audit(verb) => verb.run(&cli.common),
        Verb::Status(verb) => verb.run(&cli.common),
        Verb::Halt(verb) => verb.run(&cli.common),
        Verb::Proxy(verb) => verb.run(&cli.common),
        Verb::Agent(agent) => Ok(agent.run(cli.common.state_dir.as_deref())),
        Verb::Prober(prober) => Ok(prober.run()),
        Verb::Shop(verb) => verb.run(),
    };
    match exit {
        Ok(exit) => exit.into(),
        Err(error) => {
            squall_agent::talk::error(format_args!("{error:#}"), None);
            Exit::Bug.into()
        }
    }
}
