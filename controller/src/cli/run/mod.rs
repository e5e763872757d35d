//! `squall run`, and what every other verb that runs an experiment shares with it.

mod climb;
pub mod elsewhere;
mod files;
mod followed;
mod outputs;
mod pipeline;
mod prepared;
mod session;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use squall_controller::conductor::{LEASE, date, signals};
use squall_controller::report::{self, Paint};
use squall_experiments::document::{Document, Problems};
use squall_experiments::exit::Exit;
use squall_experiments::quantity::Period;
use squall_experiments::suite::{Suite, Tested};

use super::host::{recover, refused};
use super::remote::Shown;
use super::telling::Telling;
use super::{Common, Format, load, print};
pub use files::named;
pub use pipeline::Pipeline;

use climb::Climb;
use elsewhere::Elsewhere;
use outputs::{Events, Outputs};
use prepared::Prepared;
use session::Session;

/// Options of `squall run`.
#[derive(Debug, clap::Args)]
pub struct Run {
    /// The experiments; of a directory all `.yaml`, `.yml` and `.json` files below it, by name; `-` is standard input.
    #[arg(required_unless_present = "approved", value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    vars: load::Vars,
    /// Call the run something else than its file does.
    #[arg(long, value_name = "TEXT")]
    title: Option<String>,
    /// Run each experiment so often, and judge its runs together.
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    repeat: u32,
    /// Run so many experiments at the same time where they want neither the same traffic nor the same processes.
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16))]
    parallel: u32,
    /// Run it on the hosts of the controller at this address, and follow it; one file.
    #[arg(long, value_name = "URL")]
    controller: Option<String>,
    /// Not a file, but the plan with this hash, which was submitted to the controller and approved.
    #[arg(long, value_name = "HASH", requires = "controller", conflicts_with = "files")]
    approved: Option<String>,
    /// Why the controller's gates and budget do not count this time; only for an administrator.
    #[arg(long, value_name = "REASON", requires = "controller")]
    overrule: Option<String>,
    #[command(flatten)]
    shown: Shown,
    #[command(flatten)]
    options: Options,
}

/// A shorter lease would end with any hiccup of the machine.
const SHORTEST_LEASE: Duration = Duration::from_secs(1);

// Not a documentation comment: it would become the description of every command that flattens these options.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Options {
    /// The seed of every choice; the next run of several takes the next number [default: the file's, else a random one].
    #[arg(long, value_name = "NUMBER")]
    pub seed: Option<u64>,
    /// Where every event is written as it happens; a directory gets a file for each run, and several runs need one
    /// [default: runs/RUN.ndjson in the state directory].
    #[arg(long, value_name = "FILE")]
    pub events: Option<PathBuf>,
    /// Where it is written what the proxies of outages see of connections and requests, one JSON object a line.
    #[arg(long, value_name = "FILE")]
    pub observations: Option<PathBuf>,
    /// Without a word from this command for so long the agent undoes everything [default: 5s].
    #[arg(long, value_name = "TIME")]
    pub lease: Option<Period>,
    /// Write a plain log without colour; where a pipeline of GitHub runs it, also annotations and the step's summary.
    #[arg(long)]
    pub ci: bool,
    /// Also write the result as JUnit XML.
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Also write the result as Markdown.
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
    /// Also write what did not hold as GitLab's code quality report.
    #[arg(long, value_name = "FILE")]
    pub code_quality: Option<PathBuf>,
    /// Append a line for each experiment to this file, and say how often it held before.
    #[arg(long, value_name = "FILE")]
    pub history: Option<PathBuf>,
    /// The version under test, as reports and histories call it [default: the commit, where a pipeline tells it].
    #[arg(long, env = "SQUALL_BUILD", value_name = "TEXT")]
    pub build: Option<String>,
    #[command(flatten)]
    pub telling: Telling,
}

impl Run {
    /// Runs the verb.
    pub fn run(&self, common: &Common) -> anyhow::Result<Exit> {
        if let Some(url) = &self.controller {
            return self.elsewhere(url, common);
        }
        // From here on a signal is kept until somebody can act on it.
        let _held = signals::hold()?;
        let documents = match self.documents() {
            Ok(documents) => documents,
            Err(problems) => return Ok(refuse(&problems, self.options.ci, common)),
        };
        let suite = self.repeat > 1 || self.files.len() > 1 || self.files.iter().any(|file| file.is_dir());
        let kind = Kind { suite, repeat: self.repeat, parallel: self.parallel };
        let ramps = documents.iter().any(|read| read.document.experiment.ramp.is_some());
        if ramps && (suite || documents.len() > 1) {
            eprintln!("error: an experiment with a `ramp` is a sequence of runs of its own");
            eprintln!(
                "help: name its file alone and without `--repeat`; `--var PARAMETER=VALUE` runs one step"
            );
            return Ok(Exit::Usage);
        }
        let mut documents = documents;
        let climb = documents.pop_if(|_| ramps).and_then(|Read { file, name, bytes, document }| {
            Climb::of(file, name, bytes, &document, &self.vars)
        });
        let documents = documents.into_iter().map(|read| (read.file, read.document)).collect();
        carry_out(documents, climb, kind, &self.options, common)
    }

    /// On the hosts of a controller.
    fn elsewhere(&self, url: &str, common: &Common) -> anyhow::Result<Exit> {
        if let Some(option) = self.only_here() {
            eprintln!("error: `{option}` is for a run of this host, not for one of a controller");
            eprintln!(
                "help: leave it out; `--events FILE` keeps the run, and `squall verdict FILE --host NAME` takes `--html` \
                 and `--baseline`"
            );
            return Ok(Exit::Usage);
        }
        let (options, overrule) = (&self.options, self.overrule.as_deref());
        let elsewhere = Elsewhere { remote: self.shown.remote(url)?, options, overrule, common };
        match &self.approved {
            Some(hash) => elsewhere.approved(hash),
            None => elsewhere.run(&self.files, &self.vars),
        }
    }

    /// The first of the given options that says nothing to a controller.
    fn only_here(&self) -> Option<&'static str> {
        let Options { lease, history, telling, .. } = &self.options;
        let given = [
            ("--title", self.title.is_some()),
            ("--repeat", self.repeat > 1),
            ("--parallel", self.parallel > 1),
            ("--lease", lease.is_some()),
            ("--history", history.is_some()),
            ("--html` or `--baseline", telling.is_asked_for()),
        ];
        given.into_iter().find_map(|(option, given)| given.then_some(option))
    }

    /// Every document; else everything that is wrong with any of them.
    fn documents(&self) -> Result<Vec<Read>, Vec<Problems>> {
        let mut documents = Vec::new();
        let mut wrong = Vec::new();
        for file in files::named(&self.files)? {
            let read = load::bytes(&file, load::BEGIN).and_then(|(name, bytes)| {
                let document = load::text(&name, &bytes, &self.vars)?;
                Ok(Read { file, name, bytes, document })
            });
            match read {
                Ok(read) => documents.push(read),
                Err(problems) => wrong.push(problems),
            }
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        if let Some(title) = &self.title {
            if documents.len() > 1 {
                let help = "a title is for one experiment: leave `--title` out, or name one file";
                return Err(vec![Problems::unreadable("--title", "several experiments, one title", help)]);
            }
            documents.iter_mut().for_each(|read| read.document.experiment.title.clone_from(title));
        }
        Ok(documents)
    }
}

/// A document, and what it was read from.
struct Read {
    file: PathBuf,
    name: String,
    bytes: Vec<u8>,
    document: Document,
}

/// What kind of run is made of the documents.
#[derive(Clone, Copy, Debug)]
struct Kind {
    /// Whether it is reported as a suite, even of one experiment.
    suite: bool,
    repeat: u32,
    parallel: u32,
}

/// Runs one experiment on this host, reports it on standard output, and says how it ended.
///
/// The process must still be single-threaded. Signals are held back from the start; nothing is left live when this
/// returns, unless the exit code says so.
pub fn execute(document: Document, options: &Options, common: &Common) -> anyhow::Result<Exit> {
    let kind = Kind { suite: false, repeat: 1, parallel: 1 };
    carry_out(vec![(PathBuf::new(), document)], None, kind, options, common)
}

/// Runs the documents, or the steps of a ramp.
fn carry_out(
    documents: Vec<(PathBuf, Document)>,
    mut climb: Option<Climb>,
    mut kind: Kind,
    options: &Options,
    common: &Common,
) -> anyhow::Result<Exit> {
    let held = signals::hold()?;
    if let Err(exit) = recover(common) {
        return Ok(exit);
    }
    let pipeline = Pipeline::of(options.ci);
    let prepare = |(file, document): (PathBuf, Document)| {
        Prepared::of(document, &file, kind.repeat, options.seed, &pipeline).map(Rc::new)
    };
    let experiments: Result<Vec<Rc<Prepared>>, _> = match &mut climb {
        None => documents.into_iter().map(prepare).collect(),
        Some(climb) => {
            kind.suite = true;
            climb.seeded(options.seed);
            let first = climb.may_begin(&pipeline).and_then(|()| climb.next(&pipeline));
            first.map(|first| first.into_iter().map(|(_, prepared)| Rc::new(prepared)).collect())
        }
    };
    let opened = experiments.and_then(|experiments| {
        // The earlier run is read before any file is written, for it may be one of them.
        let single = experiments.first().filter(|_| !kind.suite).map(|experiment| &experiment.document);
        let tellings = options.telling.prepare(single)?;
        let mut outputs = Outputs::open(options, kind.suite, &experiments, &pipeline)?;
        if climb.is_some() {
            outputs.events = outputs.events.map(|events| events.together(common));
        }
        Ok((experiments, outputs, tellings))
    });
    let (experiments, mut outputs, tellings) = match opened {
        Ok(opened) => opened,
        Err(refusal) => {
            let help = refusal.help.as_ref().map_or_else(String::new, |help| format!("\nhelp: {help}"));
            pipeline.tell(&report::annotation(&format!("{refusal}{help}")));
            return Ok(refused(&refusal));
        }
    };
    let (began, date) = (Instant::now(), date());
    let build = options.build.as_deref().or(pipeline.build());
    let together = climb.as_ref().and(outputs.events.as_ref()).and_then(Events::directory);
    let mut session = Session {
        experiments,
        suite: kind.suite,
        parallel: kind.parallel as usize,
        repeat: kind.repeat,
        log: options.ci,
        guard: pipeline.is_github(),
        lease: options.lease.map_or(LEASE, |lease| lease.get().max(SHORTEST_LEASE)),
        events: outputs.events.take(),
        build: build.map(str::to_owned),
        observations: outputs.observations.take(),
        tellings,
        climb,
        common: common.clone(),
    };
    let runs = session.carry_out(held)?;
    let tested = session
        .experiments
        .iter()
        .zip(runs)
        .map(|(experiment, runs)| Tested::of(experiment.subject.clone(), kind.repeat, runs));
    let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let mut suite = Suite::of(tested.collect(), &date, took_ms, outputs.history.as_mut(), build);
    if let Some(climb) = &session.climb {
        suite = suite.climbed(climb.ladder());
    }
    outputs.write(&suite, &pipeline);
    match (&suite.ramp, session.experiments.first()) {
        (Some(ladder), Some(first)) => {
            let redactor = &first.document.redactor;
            let title = redactor.redact(&first.document.experiment.title);
            let stdout = io::stdout();
            let paint = if options.ci { Paint::OFF } else { Paint::on(&stdout) };
            show(&match common.format {
                Format::Human => {
                    let text = report::ladder(&title, ladder, together.as_deref(), paint);
                    pipeline.harmless(&text).into_owned()
                }
                Format::Json => {
                    let text = report::ladder_json(&title, ladder, together.as_deref());
                    pipeline.harmless_json(&text).into_owned()
                }
            });
        }
        _ => print(&suite, kind.suite, &pipeline, options.ci, common.format),
    }
    Ok(suite.exit)
}

/// Prints the result. A reader that went away early is no failure.
fn print(suite: &Suite, whole: bool, pipeline: &Pipeline, ci: bool, format: Format) {
    let stdout = io::stdout();
    let paint = if ci { Paint::OFF } else { Paint::on(&stdout) };
    let single =
        suite.experiments.first().filter(|_| !whole).and_then(|tested| Some((tested, tested.runs.first()?)));
    let text = match (format, single) {
        (Format::Human, Some((tested, ran))) => {
            let text = report::human(&ran.summary, ran.events.as_deref().map(Path::new), paint);
            match &tested.story {
                Some(story) => format!("{text}history: {story}\n"),
                None => text,
            }
        }
        (Format::Json, Some((tested, ran))) => {
            let events = ran.events.as_deref().map(Path::new);
            report::json(&ran.summary, events, tested.story.as_deref())
        }
        (Format::Human, None) => report::suite(suite, paint),
        (Format::Json, None) => report::suite_json(suite),
    };
    let text = match format {
        Format::Human => pipeline.harmless(&text),
        Format::Json => pipeline.harmless_json(&text),
    };
    show(&text);
}

fn show(text: &str) {
    if let Err(error) = print::result(text) {
        let _ = writeln!(io::stderr(), "error: the report cannot be printed: {error}");
    }
}

/// Prints everything that is wrong with the files, and points a pipeline at it.
fn refuse(problems: &[Problems], ci: bool, common: &Common) -> Exit {
    let pipeline = Pipeline::of(ci);
    match common.format {
        Format::Human => problems.iter().for_each(|problems| {
            let colour = !ci && print::colour(&io::stderr());
            let _ = write!(io::stderr(), "{}", pipeline.harmless(&problems.render(colour)));
        }),
        Format::Json => {
            let all = problems.iter().filter_map(|problems| match serde_json::to_value(problems) {
                Ok(serde_json::Value::Array(items)) => Some(items),
                _ => None,
            });
            let all: Vec<serde_json::Value> = all.flatten().collect();
            if let Err(error) = print::json(&serde_json::json!({ "problems": all })) {
                let _ = writeln!(io::stderr(), "error: {error:#}");
            }
        }
    }
    for problems in problems {
        pipeline.tell(&report::problems(problems, |file| pipeline.in_repository(Path::new(file))));
    }
    Exit::Invalid
}
