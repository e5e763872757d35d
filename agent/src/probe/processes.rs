//! Looking at processes: what `/proc` shows of them to the prober's user.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use nix::unistd::{getpid, getppid};
use procfs::ProcError;
use procfs::net::TcpState;
use procfs::process::{Process, all_processes};
use regex::Regex;
use squall_experiments::probe::compare::{Compared, Found};
use squall_experiments::probe::{Comparison, Expect, Figure, ProcessesProbe, Take};
use squall_experiments::quantity::Period;
use squall_experiments::scope::ProcessSelector;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::expect::{Seen, in_time, regex};
use super::looks::shorter;
use super::value::{Objection, objection_to_all, shown};
use crate::host::descriptors;

/// A processes probe, ready to be sampled.
pub(super) struct ProcessesLook {
    which: Arc<Which>,
    take: Take,
    over: Duration,
    count: Comparison,
    restarts: Option<Comparison>,
    figures: Vec<(Figure, Comparison)>,
    within: Option<Period>,
    /// When it was loaded, in seconds since boot, and who was seen that began later.
    loaded: f64,
    later: RefCell<BTreeSet<Identity>>,
}

/// Which processes.
struct Which {
    selector: ProcessSelector,
    args: Option<Regex>,
    unit: Option<String>,
    /// Whether open files are counted.
    files: bool,
}

/// A process that no other is taken for: its pid, and when it began in ticks since boot.
type Identity = (i32, u64);

/// What is seen of a process.
struct Shown {
    name: String,
    /// Ticks of processor time.
    spent: u64,
    memory_mib: f64,
    /// `None` where they are not shown.
    open_files: Option<usize>,
    age: f64,
}

/// What is seen at one moment.
struct Snapshot {
    at: Instant,
    matching: BTreeMap<Identity, Shown>,
    /// How many may match or not: what would tell is not shown.
    hidden: usize,
}

/// Whether a process is meant.
enum Meant {
    Yes,
    No,
    /// What would tell is not shown to this user.
    Hidden,
}

impl ProcessesLook {
    /// Understands the selector; an error says why not.
    pub(super) fn new(probe: &ProcessesProbe, expect: &Expect) -> Result<Self, String> {
        let selector = probe.selector();
        if selector.is_empty() && probe.unit.is_none() {
            return Err("nothing says which processes".to_owned());
        }
        let some = || Comparison::try_from(serde_json::Value::from(">= 1")).map_err(|why| why.to_string());
        let figures: Vec<_> =
            expect.figures().map(|(figure, comparison)| (figure, comparison.clone())).collect();
        let files = figures.iter().any(|(figure, _)| *figure == Figure::OpenFiles);
        let args = selector.args.as_deref().map(regex).transpose()?;
        Ok(ProcessesLook {
            which: Arc::new(Which { selector, args, unit: probe.unit.clone(), files }),
            take: probe.take,
            over: probe.over.get(),
            count: expect.count.clone().map_or_else(some, Ok)?,
            restarts: expect.restarts.clone(),
            figures,
            within: expect.within,
            loaded: since_boot(),
            later: RefCell::default(),
        })
    }

    /// Looks once, for processor time twice.
    pub(super) async fn look(&self, left: Option<Duration>) -> Seen {
        let begun = Instant::now();
        let mut before = None;
        if self.figures.iter().any(|(figure, _)| *figure == Figure::Cpu) {
            match self.snapshot().await {
                Ok(snapshot) => before = Some(snapshot),
                Err(why) => return Seen::unclear(why),
            }
            sleep(shorter(self.over, left)).await;
        }
        match self.snapshot().await {
            Ok(now) => self.judge(before.as_ref(), &now, begun.elapsed()),
            Err(why) => Seen::unclear(why),
        }
    }

    /// In a thread of its own: with many processes it takes long.
    async fn snapshot(&self) -> Result<Snapshot, String> {
        let which = Arc::clone(&self.which);
        spawn_blocking(move || which.look()).await.map_err(|error| error.to_string())?
    }

    fn judge(&self, before: Option<&Snapshot>, now: &Snapshot, took: Duration) -> Seen {
        match self.objection(before, now) {
            Ok(text) => in_time(text, took, self.within),
            Err(objection) => objection.into(),
        }
    }

    /// What was seen, in words; an error is what is not as expected.
    fn objection(&self, before: Option<&Snapshot>, now: &Snapshot) -> Result<String, Objection> {
        let many = now.matching.len();
        self.number(&self.count, many, now.hidden).map_or(Ok(()), Err)?;
        let mut text = if many == 1 { "1 process".to_owned() } else { format!("{many} processes") };
        if now.hidden > 0 {
            text.push_str(&format!(", {} not shown to this user", now.hidden));
        }
        // What is asked of all is not known of those, unless one that is seen says it.
        let unknown = |what: &str| {
            (now.hidden > 0).then(|| {
                let many = now.hidden;
                Objection::Unclear(format!(
                    "{what}: of {many} more it is not shown to this user whether they match (`user:`)"
                ))
            })
        };
        let mut later = self.later.borrow_mut();
        // Ticks are rounded down: one that began in the tick of the loading is not a restart.
        let ticks = procfs::ticks_per_second();
        later.extend(now.matching.keys().filter(|(_, start)| *start as f64 > self.loaded * ticks as f64));
        if let Some(restarts) = &self.restarts {
            unknown("restarts").map_or(Ok(()), Err)?;
            let found = Found::Typed(later.len().into());
            Objection::of(restarts.judge(&found), "restarts: ").map_or(Ok(()), Err)?;
            text.push_str(&format!(", {} restarts", later.len()));
        }
        if many == 0 {
            return match self.figures.first().and_then(|(figure, _)| unknown(figure.key())) {
                Some(unknown) => Err(unknown),
                None => Ok(text),
            };
        }
        for (figure, comparison) in &self.figures {
            let values = values(*figure, before, now)?;
            if values.is_empty() {
                let what = "no process was there all the time".to_owned();
                return Err(Objection::Unclear(format!("{}: {what}", figure.key())));
            }
            let objection = objection_to_all(comparison, &values, self.take);
            if !matches!((&objection, self.take), (Some(Objection::Bad(_)), Take::All)) {
                unknown(figure.key()).map_or(Ok(()), Err)?;
            }
            match objection {
                None => text.push_str(&format!(", {} {}", figure.key(), shown(&values, self.take))),
                Some(Objection::Bad(why)) => {
                    return Err(Objection::Bad(format!("{}: {why}", figure.key())));
                }
                Some(Objection::Unclear(why)) => {
                    return Err(Objection::Unclear(format!("{}: {why}", figure.key())));
                }
            }
        }
        Ok(text)
    }

    /// What is not as expected of a number of processes, of which some may be more: it is said only where all of them say it.
    fn number(&self, expected: &Comparison, many: usize, hidden: usize) -> Option<Objection> {
        let compared = |many: usize| expected.judge(&Found::Typed(many.into()));
        let first = compared(many);
        let other = (many + 1..=many + hidden)
            .any(|many| matches!(compared(many), Compared::Holds) != matches!(first, Compared::Holds));
        match other {
            true => Some(Objection::Unclear(format!(
                "count: {many}, and of {hidden} more it is not shown to this user whether they match (`user:`)"
            ))),
            false => Objection::of(first, "count: "),
        }
    }
}

/// A figure of each process, with its name. An error says that it is not shown.
fn values(
    figure: Figure,
    before: Option<&Snapshot>,
    now: &Snapshot,
) -> Result<Vec<(String, String)>, Objection> {
    let mut values = Vec::new();
    for (identity, shown) in &now.matching {
        let name = format!("{} (pid {})", shown.name, identity.0);
        let value = match figure {
            Figure::Cpu => {
                // One that began meanwhile has no share yet.
                let Some((then, before)) = before.and_then(|then| Some((then, then.matching.get(identity)?)))
                else {
                    continue;
                };
                let ticks = shown.spent.saturating_sub(before.spent) as f64;
                let seconds = now.at.duration_since(then.at).as_secs_f64();
                format!("{:.1}", 100.0 * ticks / procfs::ticks_per_second() as f64 / seconds.max(0.001))
            }
            Figure::Memory => format!("{:.1}", shown.memory_mib),
            Figure::OpenFiles => {
                let what = || format!("open-files: those of {name} are not shown to this user (`user:`)");
                shown.open_files.ok_or_else(|| Objection::Unclear(what()))?.to_string()
            }
            Figure::Age => format!("{:.1}", shown.age),
        };
        values.push((name, value));
    }
    Ok(values)
}

impl Which {
    fn look(&self) -> Result<Snapshot, String> {
        let listeners = self.selector.listening.map(listeners).transpose()?;
        let ourselves = [getpid().as_raw(), getppid().as_raw()];
        let all = all_processes().map_err(|error| format!("`/proc` cannot be read: {error}"))?;
        let mut candidates = Vec::new();
        let mut hidden = 0;
        // Processes that end meanwhile are not there.
        for process in all.flatten().filter(|process| !ourselves.contains(&process.pid)) {
            match self.means(&process) {
                Meant::Yes => candidates.push(process),
                Meant::Hidden => hidden += 1,
                Meant::No => {}
            }
        }
        if let Some(listeners) = listeners {
            let mut open: BTreeSet<u64> = listeners;
            let wanted = open.clone();
            let mut closed = 0;
            candidates.retain(|process| match descriptors::sockets(process.pid) {
                Ok(held) => {
                    let held: BTreeSet<u64> = held.into_iter().map(|(_, inode)| inode.into()).collect();
                    open.retain(|inode| !held.contains(inode));
                    !held.is_disjoint(&wanted)
                }
                Err(error) => {
                    closed += usize::from(error.kind() == ErrorKind::PermissionDenied);
                    false
                }
            });
            // Where each socket has a holder that is seen, nobody else is asked about.
            hidden = if open.is_empty() { 0 } else { hidden + closed };
        }
        let at = Instant::now();
        let matching = candidates.iter().filter_map(|process| self.shown(process)).collect();
        Ok(Snapshot { at, matching, hidden })
    }

    /// Whether a process is meant, but for its sockets.
    fn means(&self, process: &Process) -> Meant {
        let selector = &self.selector;
        if selector.pid.is_some_and(|pid| i64::from(pid) != i64::from(process.pid)) {
            return Meant::No;
        }
        let Ok(stat) = process.stat() else { return Meant::No };
        let argued = |args: &Regex| args.is_match(&process.cmdline().unwrap_or_default().join(" "));
        let member = |unit: &String| {
            process.cgroups().is_ok_and(|groups| {
                groups.into_iter().any(|group| group.pathname.split('/').any(|part| part == unit))
            })
        };
        if matches!(stat.state, 'Z' | 'X')
            || selector.name.as_ref().is_some_and(|name| *name != stat.comm)
            || self.args.as_ref().is_some_and(|args| !argued(args))
            || self.unit.as_ref().is_some_and(|unit| !member(unit))
        {
            return Meant::No;
        }
        let Some(exe) = &selector.exe else { return Meant::Yes };
        match process.exe() {
            // A file that was replaced since is still what the process runs.
            Ok(found) => match found.to_string_lossy().trim_end_matches(" (deleted)") == exe {
                true => Meant::Yes,
                false => Meant::No,
            },
            // Threads of the kernel have no arguments, and run no file.
            Err(ProcError::PermissionDenied(_)) if process.cmdline().is_ok_and(|words| !words.is_empty()) => {
                Meant::Hidden
            }
            Err(_) => Meant::No,
        }
    }

    fn shown(&self, process: &Process) -> Option<(Identity, Shown)> {
        let stat = process.stat().ok()?;
        let memory = process.statm().ok()?.resident * procfs::page_size();
        let age = since_boot() - stat.starttime as f64 / procfs::ticks_per_second() as f64;
        let shown = Shown {
            spent: stat.utime + stat.stime,
            memory_mib: memory as f64 / f64::from(1 << 20),
            open_files: if self.files { process.fd_count().ok() } else { None },
            age: age.max(0.0),
            name: stat.comm,
        };
        Some(((process.pid, stat.starttime), shown))
    }
}

/// The inodes of sockets of this network namespace that listen on a port, or are bound to it.
fn listeners(port: u16) -> Result<BTreeSet<u64>, String> {
    let unread = |error: ProcError| format!("`/proc/net` cannot be read: {error}");
    let mut inodes = BTreeSet::new();
    for table in [procfs::net::tcp(), procfs::net::tcp6().or_else(absent)] {
        let sockets = table.map_err(unread)?;
        let listens = sockets
            .iter()
            .filter(|socket| socket.state == TcpState::Listen && socket.local_address.port() == port);
        inodes.extend(listens.map(|socket| socket.inode));
    }
    for table in [procfs::net::udp(), procfs::net::udp6().or_else(absent)] {
        let sockets = table.map_err(unread)?;
        inodes.extend(
            sockets.iter().filter(|socket| socket.local_address.port() == port).map(|socket| socket.inode),
        );
    }
    Ok(inodes)
}

/// A kernel without IPv6 has no such table.
fn absent<T>(error: ProcError) -> Result<Vec<T>, ProcError> {
    match error {
        ProcError::NotFound(_) => Ok(Vec::new()),
        error => Err(error),
    }
}

fn since_boot() -> f64 {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0.0, |now| Duration::from(now).as_secs_f64())
}
