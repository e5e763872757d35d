//! The only code that alters a machine.
//!
//! Each mechanism has `prepare` (only reads), `perform`, `observe` (evidence) and an [`undo::Undo`] that stands in the
//! journal before it is performed. All of it is synchronous and runs on one thread, the worker's: tracing a process is
//! bound to a thread, and nothing here waits for anybody but the kernel.
//!
//! | mechanism | undo |
//! |---|---|
//! | [`block`]: rules in [`table`], our own nftables table, with [`mark`]s for scopes | rules, table, marks |
//! | [`shape`]: rules in [`slot`]s of that table, and [`engines`] that read the [`queue`]s to which they send packets | rules, queues, table, marks |
//! | [`qdisc`]: the kernel's own disciplines below an inert root, entered by rules of that table | rules, classes, roots, a device |
//! | [`redirect`]: BPF programs on connect(2), and a proxy without privileges | closed with their descriptors; the process, marks |
//! | [`disconnect`]: destroyed connections | none: they cannot be taken back |
//! | [`signal`]: signals to processes | none |
//! | [`pause`]: traced or stopped processes | released by the kernel, or resumed |
//!
//! A [`Host`] is one network namespace; the [`machine`] holds the agent's own and those of its targets, and a [`site`]
//! says in which of them a change acts.

pub mod aim;
pub mod block;
pub mod bpf;
pub mod carve;
pub mod cgroup;
pub mod container;
pub mod descriptors;
pub mod disconnect;
pub mod engines;
pub mod follow;
pub mod interface;
pub mod kept;
mod live;
pub mod machine;
pub mod mark;
pub mod matching;
pub mod means;
pub mod modules;
pub mod netlink;
pub mod netns;
pub mod nft;
pub mod offspring;
mod open;
mod owed;
pub mod pause;
pub mod peers;
pub mod process;
pub mod prospect;
pub mod qdisc;
pub mod queue;
pub mod ranges;
pub mod reach;
pub mod redirect;
pub mod rule;
pub mod set;
pub mod shape;
pub mod signal;
pub mod site;
pub mod slot;
pub mod sockets;
pub mod sys;
pub mod table;
pub mod traces;
pub mod undo;
pub(crate) mod unit;
pub mod view;
pub mod watch;
pub mod whom;
pub mod witness;

use std::collections::BTreeSet;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use squall_experiments::change::Change;
use squall_experiments::evidence::{Evidence, Incident};
use squall_experiments::protocol::{Refusal, RunId};

use aim::{Aim, News};
use carve::CarveOut;
use engines::Engines;
pub use live::{Live, Prepared};
use means::Means;
use qdisc::Discs;
use shape::Ground;
use slot::{Levels, Slots};
use table::{Lease, Table};
use undo::{Duplicates, Undo, Undone};

/// What a change is called in the journal, in rule comments and in choices.
#[derive(Clone, Debug)]
pub struct Place {
    /// The prefix of rule comments; ends in a character that no number contains.
    pub tag: String,
    /// Where in the run, without the run's name: choices depend on it.
    pub choice: String,
    /// The run's seed.
    pub seed: u64,
    /// The run and its step, where somebody wants to know what proxies see.
    pub watched: Option<(RunId, u32)>,
}

impl Place {
    /// The seed of a proxy: the same run seed and place give the same choices.
    fn proxy_seed(&self) -> u64 {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.seed.to_le_bytes()).update(self.choice.as_bytes()).update(b"proxy");
        let hash = hasher.finalize();
        hash.as_bytes()[..8].try_into().map(u64::from_le_bytes).unwrap_or(self.seed)
    }
}

/// Asks the guardian to write an undo and sync it, and to hold a duplicate of the socket that it needs.
pub type Record<'a> = &'a mut dyn FnMut(Undo, Option<BorrowedFd<'_>>) -> Result<(), Refusal>;

/// One host, as one network namespace. Everything is done, and everything opened, in that of the calling thread: see
/// [`machine`].
#[derive(Debug)]
pub struct Host {
    table: Result<Table, String>,
    standing: bool,
    marks: BTreeSet<u32>,
    slots: Slots,
    /// Decided once for each table: its chains ask for them.
    levels: Option<Option<Levels>>,
    engines: Engines,
    means: Means,
    discs: Discs,
    /// What the table lets through, whatever is injected.
    carved: BTreeSet<CarveOut>,
}

impl Host {
    /// Opens what is needed in the calling thread's network namespace. A missing mechanism is noted, not an error.
    pub fn open(means: Means) -> Self {
        Host {
            table: Table::open().map_err(|error| error.to_string()),
            standing: false,
            marks: BTreeSet::new(),
            slots: Slots::default(),
            levels: None,
            engines: Engines::default(),
            means,
            discs: Discs::default(),
            carved: BTreeSet::new(),
        }
    }

    /// The socket that owns the table, for the guardian to hold a duplicate of.
    pub fn table_socket(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        self.table.as_ref().ok().map(Table::as_fd)
    }

    /// What keeps the table's rules matching, for another thread.
    pub fn lease(&self) -> Option<Lease> {
        self.table.as_ref().ok().and_then(|table| table.lease().ok())
    }

    /// Looks at the host. Anything wrong here aborts before any change.
    pub fn prepare(&mut self, change: &Change, place: &Place, aim: &Aim<'_>) -> Result<Prepared, Refusal> {
        let mut prepared = match change {
            Change::Block(block) => {
                self.own_table()?;
                let witness = witness::prepare(change, aim)?;
                let mut prepared = block::prepare(block, &place.tag, aim, &self.marks)?;
                prepared.packets.witnessed(witness);
                self.marks.extend(prepared.packets.whom.mark.iter().map(|mark| mark.bit));
                Prepared::Block(prepared)
            }
            Change::Shape(shape) => {
                self.own_table()?;
                let witness = witness::prepare(change, aim)?;
                let (marks, mut ground) = self.ground()?;
                let mut prepared = shape::prepare(shape, place, aim, marks, &mut ground)?;
                prepared.packets.witnessed(witness);
                self.marks.extend(prepared.packets.whom.mark.iter().map(|mark| mark.bit));
                Prepared::Shape(prepared)
            }
            Change::Redirect(redirect) => {
                let prepared = redirect::prepare(redirect, &place.tag, aim, &self.marks, &self.means.held)?;
                self.marks.extend(prepared.whom.mark.iter().map(|mark| mark.bit));
                Prepared::Redirect(prepared)
            }
            Change::Disconnect(change) => Prepared::Disconnect(disconnect::prepare(change, aim)?),
            Change::Signal(change) => {
                Prepared::Signal(signal::prepare(change, place.seed, &place.choice, aim)?)
            }
            Change::Pause(change) => Prepared::Pause(pause::prepare(change, place.seed, &place.choice, aim)?),
        };
        prepared.carved(aim);
        Ok(prepared)
    }

    /// Gives back what a change that is not performed after all had been promised.
    pub fn forget(&mut self, prepared: &Prepared, place: &Place) {
        let whom = match prepared {
            Prepared::Block(prepared) => &prepared.packets.whom,
            Prepared::Shape(prepared) => {
                prepared.forget(&mut self.discs);
                &prepared.packets.whom
            }
            Prepared::Redirect(prepared) => &prepared.whom,
            Prepared::Disconnect(_) | Prepared::Signal(_) | Prepared::Pause(_) => return,
        };
        if let Some(mark) = &whom.mark {
            self.marks.remove(&mark.bit);
        }
        self.slots.give_back(&place.tag);
    }

    /// Where levels stand in the mark; what was decided holds as long as the table.
    fn levels(&mut self) -> Option<Levels> {
        if !self.standing {
            self.levels = None;
        }
        // Where sockets cannot be listed nothing is known to be free; what needs no levels still works.
        *self.levels.get_or_insert_with(|| mark::free_levels().ok().flatten())
    }

    /// What shaping needs, and which marks are taken.
    fn ground(&mut self) -> Result<(&BTreeSet<u32>, Ground<'_>), Refusal> {
        let levels = self.levels();
        let table = self.table.as_mut().map_err(|why| Refusal::bare(why.clone()))?;
        let (slots, engines, discs) = (&mut self.slots, &mut self.engines, &mut self.discs);
        Ok((&self.marks, Ground { table, slots, levels, engines, discs }))
    }

    /// The table, made where it does not stand yet.
    fn stand(&mut self, aim: &Aim<'_>, record: Record<'_>) -> Result<(), Refusal> {
        // Each change owes the table's end, whoever made it: the last one that is undone removes it.
        record(Undo::Table, self.table_socket())?;
        let made = |error| {
            Refusal::new(
                format!("cannot make the table `inet squall`: {error}"),
                "`squall-agent preflight` says what this kernel lacks",
            )
        };
        let mut wanted: BTreeSet<CarveOut> = CarveOut::all(aim).into_iter().collect();
        if self.standing {
            // Somebody may have connected, or listen, since it was made.
            wanted.retain(|one| !self.carved.contains(one));
        }
        let rules = wanted.iter().flat_map(CarveOut::rules).collect();
        if self.standing {
            self.own_table()?.never_touch(rules).map_err(made)?;
        } else {
            self.carved.clear();
            self.own_table()?.create(rules).map_err(made)?;
            self.standing = true;
        }
        self.carved.extend(wanted);
        Ok(())
    }

    /// The table's socket; refuses where another table has our mark and nobody's record.
    fn own_table(&mut self) -> Result<&mut Table, Refusal> {
        let standing = self.standing;
        let lacks = |what: String| Refusal::new(what, "load `nf_tables`, and run as root (CAP_NET_ADMIN)");
        let table = self.table.as_mut();
        let table = table.map_err(|why| lacks(format!("this kernel offers no nftables here: {why}")))?;
        let existing =
            table.existing().map_err(|error| lacks(format!("nftables cannot be used: {error}")))?;
        match existing {
            Some(owner) if !standing => {
                let owner = owner.map(|port| format!(", owned by netlink port {port}")).unwrap_or_default();
                Err(Refusal::new(
                    format!("a table `inet squall` is here already{owner}, and no journal knows of it"),
                    "another agent works in this network namespace with another state directory: `squall status` there, \
                     or `squall-agent recover`",
                ))
            }
            _ => Ok(table),
        }
    }

    /// Makes a change. Every undo is recorded before the part of the change that it takes back.
    ///
    /// After an error the recorded undos must be applied: some parts may have been made.
    pub fn perform(
        &mut self,
        change: &Change,
        prepared: Prepared,
        place: &Place,
        aim: &Aim<'_>,
        record: Record<'_>,
    ) -> Result<Live, Refusal> {
        match (prepared, change) {
            (Prepared::Block(mut prepared), _) => {
                self.stand(aim, record)?;
                let mark = marked(prepared.packets.whom.mark.as_ref(), record)?;
                record(Undo::Rules(place.tag.clone()), None)?;
                let reset = prepared.packets.reset()?;
                block::perform(&mut prepared, self.own_table()?)?;
                let mut live = matching::Live::new(prepared.packets, mark);
                reset.into_iter().for_each(|what| live.happened(what));
                live.watch(&self.means.watch)?;
                live.testify();
                Ok(Live::Block(live))
            }
            (Prepared::Shape(prepared), _) => {
                let performed = self.stand(aim, record).and_then(|()| {
                    let mark = marked(prepared.packets.whom.mark.as_ref(), record)?;
                    let reset = prepared.packets.reset()?;
                    let (_, mut ground) = self.ground()?;
                    let mut live = shape::perform(prepared, place, mark, &mut ground, record)?;
                    reset.into_iter().for_each(|what| live.packets.happened(what));
                    Ok(live)
                });
                let watched = performed.and_then(|mut live| {
                    live.watch(&self.means.watch)?;
                    live.packets.testify();
                    Ok(Live::Shape(live))
                });
                watched.inspect_err(|_| self.slots.give_back(&place.tag))
            }
            (Prepared::Redirect(prepared), _) => self.redirect(prepared, place, record),
            (Prepared::Disconnect(prepared), Change::Disconnect(change)) => {
                let began = sys::boot_nanos();
                let mut evidence = Evidence::default();
                disconnect::perform(change, &prepared, aim, 0, &mut evidence)?;
                let next = change.every.map(|every| began + every.get().as_nanos() as u64);
                Ok(Live::Disconnect { change: change.clone(), prepared, evidence, began, next })
            }
            (Prepared::Signal(prepared), Change::Signal(change)) => {
                signal::Live::perform(change, &prepared, place.seed, &place.choice).map(Live::Signal)
            }
            (Prepared::Pause(prepared), _) => {
                let mut live = pause::Live::none();
                let mut paused = Ok(());
                for target in &prepared.chosen {
                    paused =
                        record(Undo::Release(target.clone()), None).and_then(|()| live.pause(target, record));
                    if paused.is_err() {
                        live.release();
                        break;
                    }
                }
                paused.map(|()| Live::Pause(live))
            }
            (Prepared::Disconnect(_) | Prepared::Signal(_), _) => {
                Err(Refusal::bare("a change was performed that had not been prepared"))
            }
        }
    }

    /// Starts a proxy, and leads connections to it.
    fn redirect(
        &mut self,
        prepared: redirect::Prepared,
        place: &Place,
        record: Record<'_>,
    ) -> Result<Live, Refusal> {
        let mut proxy = redirect::start(&prepared, place.proxy_seed(), place.watched.as_ref())?;
        let process = proxy.target().clone();
        // Until here it is a process that knows nothing and ends with this one.
        record(Undo::Proxy(process), None)?;
        proxy.wait(&self.means.hand)?;
        let mark = marked(prepared.whom.mark.as_ref(), record)?;
        let live = redirect::perform(prepared, &mut proxy, mark, &self.means);
        if live.is_err() {
            // Nothing was led to it: nobody has to wait for its end.
            proxy.heal();
        }
        self.means.proxies.add(proxy);
        live.map(|live| Live::Redirect(Box::new(live)))
    }

    /// Does what is due of a live change, and follows its targets. Called whenever the worker wakes.
    pub fn tick(&mut self, live: &mut Live, aim: &Aim<'_>, record: Record<'_>) {
        live.tick(self.table.as_mut().ok(), &self.means, aim);
        if let (Live::Shape(live), Ok(table)) = (live, &mut self.table) {
            live.follow(table, &mut self.discs, record);
        }
    }

    /// A name has been asked again: a live change meets its new addresses too.
    pub fn hear(&mut self, live: &mut Live, news: &News, aim: &Aim<'_>) {
        match live {
            Live::Redirect(live) => live.hear(news, &self.means, aim),
            Live::Block(packets) | Live::Shape(shape::Live { packets, .. }) => {
                if let Ok(table) = &mut self.table {
                    packets.hear(news, table);
                }
            }
            Live::Disconnect { prepared, evidence, began, .. } => {
                let after_ms = (sys::boot_nanos() - *began) / 1_000_000;
                let happened = prepared.hear(news).into_iter();
                evidence.incidents.extend(happened.map(|what| Incident { after_ms, what }));
            }
            Live::Signal(_) | Live::Pause(_) => {}
        }
    }

    /// What has been measured of a live change.
    pub fn observe(&mut self, live: &mut Live, place: &Place) -> Evidence {
        match live {
            Live::Block(packets) => {
                let observe = |table: &mut Table| block::observe(table, &place.tag);
                let mut evidence = self.table.as_mut().map(observe).unwrap_or_default();
                packets.tell(&mut evidence);
                evidence.witness = packets.testimony();
                evidence
            }
            Live::Shape(live) => match &mut self.table {
                Ok(table) => {
                    let evidence = live.observe(table, &mut self.engines, &place.tag);
                    Evidence { witness: live.packets.testimony(), ..evidence }
                }
                Err(_) => Evidence::default(),
            },
            Live::Redirect(live) => live.observe(&self.means.proxies),
            Live::Disconnect { evidence, .. } => evidence.clone(),
            Live::Signal(live) => live.observe(),
            Live::Pause(live) => live.observe(),
        }
    }

    /// What has been measured of a change that has just been undone: engines count until they end.
    pub fn last(&mut self, live: Live, before: &Evidence) -> Evidence {
        match live {
            Live::Shape(mut live) => {
                Evidence { witness: before.witness.clone(), ..live.last(before, &mut self.engines) }
            }
            Live::Redirect(live) => {
                // What it still carries goes on without harm, until the run ends.
                self.means.proxies.heal(live.proxy());
                before.clone()
            }
            Live::Block(_) | Live::Disconnect { .. } | Live::Signal(_) | Live::Pause(_) => before.clone(),
        }
    }

    /// To be called when the guardian knows what has been undone: lets go of what it held meanwhile, too.
    pub fn settle(&mut self) {
        self.engines.settle();
    }

    /// Whether an undo should wait a little more, after so long, because packets are held that it would take along.
    pub fn drains(&self, undo: &Undo, waited: Duration) -> bool {
        match undo {
            Undo::Class { device, minor, wait_ms } => {
                waited.as_millis() < u128::from(*wait_ms) && qdisc::class::holds(device, *minor)
            }
            _ => false,
        }
    }

    /// Makes one undo so, and looks whether it is.
    pub fn undo(&mut self, undo: &Undo) -> Undone {
        if let Undo::Queue { number, .. } = undo {
            return self.engines.stop(*number);
        }
        if let Undo::Proxy(process) = undo
            && let Some(done) = self.means.proxies.end(process)
        {
            return done;
        }
        let done = undo.apply(self.table.as_mut().ok(), &mut Duplicates::new());
        match (undo, &done) {
            (Undo::Table, Ok(_)) => {
                self.standing =
                    self.table.as_mut().is_ok_and(|table| matches!(table.existing(), Ok(Some(_))));
            }
            (Undo::Mark(bit), Ok(_)) => {
                self.marks.remove(bit);
            }
            (Undo::Rules(tag), Ok(_)) => self.slots.give_back(tag),
            (Undo::Class { minor, .. }, Ok(_)) => self.discs.freed(*minor),
            (Undo::Root { device, .. }, Ok(_)) => self.discs.lifted(device),
            (Undo::Entry, Ok(_)) => self.discs.closed(),
            _ => {}
        }
        done
    }

    /// Keeps the rules matching; `false`: nobody did for too long, and they have been inert.
    pub fn renew(&mut self) -> bool {
        match &mut self.table {
            Ok(table) if self.standing => table.renew().unwrap_or(false),
            _ => true,
        }
    }

    /// Whether every packet engine answers. To be asked once a beat.
    pub fn engines_answer(&mut self) -> bool {
        self.engines.answer()
    }
}

/// Marks a scope's sockets, where it needs that.
fn marked(mark: Option<&mark::Prepared>, record: Record<'_>) -> Result<Option<mark::Live>, Refusal> {
    let Some(mark) = mark else { return Ok(None) };
    record(Undo::Mark(mark.bit), None)?;
    mark::perform(mark).map(Some)
}
