//! `squall run`, and what every other verb that runs an experiment shares with it.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::net::ToSocketAddrs;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use squall_agent::policy::Policy;
use squall_agent::{join, state};
use squall_controller::conductor::{LEASE, Order, Outlet, conduct, run_id, signals};
use squall_controller::report::{self, Paint, Progress};
use squall_experiments::document::Document;
use squall_experiments::exit::Exit;
use squall_experiments::plan::{Plan, PlanStep};
use squall_experiments::protocol::{Refusal, RunId};
use squall_experiments::quantity::Period;
use squall_experiments::summary::Summary;

use super::host::{LocalHost, host_name, recover, refused};
use super::{Common, Format, load};

/// A shorter lease would end with any hiccup of the machine.
const SHORTEST_LEASE: Duration = Duration::from_secs(1);

/// Options of `squall run`.
#[derive(Debug, clap::Args)]
pub struct Run {
    /// The experiment; `-` is standard input.
    file: PathBuf,
    #[command(flatten)]
    vars: load::Vars,
    /// Call the run something else than its file does.
    #[arg(long, value_name = "TEXT")]
    title: Option<String>,
    #[command(flatten)]
    options: Options,
}

// Not a documentation comment: it would become the description of every command that flattens these options.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Options {
    /// The seed of every choice [default: the file's, else a random one].
    #[arg(long, value_name = "NUMBER")]
    pub seed: Option<u64>,
    /// Where every event is written as it happens [default: runs/RUN.ndjson in the state directory].
    #[arg(long, value_name = "FILE")]
    pub events: Option<PathBuf>,
    /// Without a word from this command for so long the agent undoes everything [default: 5s].
    #[arg(long, value_name = "TIME")]
    pub lease: Option<Period>,
    /// Also write the result as JUnit XML.
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
}

impl Run {
    /// Runs the verb.
    pub fn run(&self, common: &Common) -> anyhow::Result<Exit> {
        // From here on a signal is kept until somebody can act on it.
        let _held = signals::hold()?;
        let mut document = match load::document(&self.file, &self.vars, common) {
            Ok(document) => document,
            Err(exit) => return Ok(exit),
        };
        if let Some(title) = &self.title {
            document.experiment.title.clone_from(title);
        }
        execute(document, &self.options, common)
    }
}

/// Runs an experiment on this host, reports it on standard output, and says how it ended.
///
/// The process must still be single-threaded. Signals are held back from the start; nothing is left live when this
/// returns, unless the exit code says so.
pub fn execute(document: Document, options: &Options, common: &Common) -> anyhow::Result<Exit> {
    let held = signals::hold()?;
    if let Err(exit) = recover(common) {
        return Ok(exit);
    }
    let run = run_id();
    let (plan, events, junit) = match prepare(&document, options, common, &run) {
        Ok(prepared) => prepared,
        Err(refusal) => return Ok(refused(&refusal)),
    };
    let agent = plan.has_changes().then(|| join::agent(common.state_dir.as_deref()));
    let redactor = &document.redactor;
    let mut progress = Progress::on(io::stderr(), false);
    for warning in &plan.warnings {
        progress.note(&format!("warning: {}", redactor.redact(warning)));
    }
    let (path, file) = events.map_or((None, None), |(path, file)| (Some(path), Some(file)));

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let summary = runtime.block_on(async {
        let interruptions = held.listen()?;
        let order = Order {
            run,
            experiment: &document.experiment,
            plan: &plan,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            lease: options.lease.map_or(LEASE, |lease| lease.get().max(SHORTEST_LEASE)),
            agent,
        };
        let outlet = Outlet {
            file,
            redact: (!redactor.is_empty()).then(|| redact(redactor)),
            watcher: Box::new(|tell| progress.tell(&tell)),
        };
        let mut host = LocalHost::new(common);
        io::Result::Ok(conduct(order, &mut host, interruptions, outlet).await)
    })?;
    runtime.shutdown_background();
    report(&summary, path.as_deref(), junit, common.format)
}

fn redact(redactor: &squall_experiments::document::Redactor) -> Box<dyn Fn(&str) -> String + '_> {
    Box::new(|text| redactor.redact(text).into_owned())
}

type Opened = Option<(PathBuf, File)>;

/// Everything that can be refused before anything is started.
fn prepare(
    document: &Document,
    options: &Options,
    common: &Common,
    run: &RunId,
) -> Result<(Plan, Opened, Opened), Refusal> {
    let seed = options.seed.or(document.experiment.seed);
    // 32 bits are enough to repeat a run, and stay exact in every JSON reader.
    let seed = seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    let policy = Policy::of_this_host()?;
    let plan = Plan::of(&document.experiment, seed, &[host_name()], &policy.version);
    // The agent asks its policy again; asked here, what is not allowed is known before the baseline.
    for step in plan.faults() {
        if let PlanStep::Fault { changes, lasts, .. } = step {
            changes.iter().try_for_each(|change| policy.permits(change, *lasts))?;
        }
    }
    // So is a name that does not resolve, unless a step of the user's own may yet make it known.
    if !plan.steps.iter().any(PlanStep::has_action) {
        plan.names().into_iter().try_for_each(resolves)?;
    }
    let events = match &options.events {
        Some(path) => Some((path.clone(), create(path)?)),
        None => default_events(common, run),
    };
    let junit = options.junit.as_ref().map(|path| Ok((path.clone(), create(path)?)));
    Ok((plan, events, junit.transpose()?))
}

fn resolves(name: &str) -> Result<(), Refusal> {
    (name, 0).to_socket_addrs().map(drop).map_err(|error| {
        Refusal::new(
            format!("the name `{name}` does not resolve on this host: {error}"),
            "nothing was injected; check the spelling and this host's resolver (`getent ahosts NAME`)",
        )
    })
}

fn create(path: &Path) -> Result<File, Refusal> {
    let opened = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    opened.map_err(|error| {
        Refusal::new(
            format!("cannot write `{}`: {error}", path.display()),
            "nothing was injected; name a file that can be written",
        )
    })
}

/// The event file that nobody asked for: a run goes on without it.
fn default_events(common: &Common, run: &RunId) -> Opened {
    let directory = state::root(common.state_dir.as_deref()).join("runs");
    let path = directory.join(format!("{run}.ndjson"));
    let created = DirBuilder::new().recursive(true).mode(0o700).create(&directory);
    let opened =
        created.map_err(|error| Refusal::bare(format!("cannot make `{}`: {error}", directory.display())));
    match opened.and_then(|()| create(&path)) {
        Ok(file) => Some((path, file)),
        Err(refusal) => {
            let _ = writeln!(io::stderr(), "warning: no event file: {refusal}");
            None
        }
    }
}

/// Prints the result. A reader that went away early is no failure.
fn report(summary: &Summary, events: Option<&Path>, junit: Opened, format: Format) -> anyhow::Result<Exit> {
    let mut stdout = io::stdout();
    let text = match format {
        Format::Human => report::human(summary, events, Paint::on(&stdout)),
        Format::Json => report::json(summary, events),
    };
    let printed = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    if let Err(error) = printed
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        let _ = writeln!(io::stderr(), "error: the report cannot be printed: {error}");
    }
    if let Some((path, mut file)) = junit
        && let Err(error) = report::junit(summary).and_then(|text| file.write_all(text.as_bytes()))
    {
        let _ = writeln!(io::stderr(), "error: cannot write `{}`: {error}", path.display());
    }
    Ok(summary.exit)
}
