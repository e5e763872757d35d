//! The machine: the agent's own network namespace, and those in which changes act now.
//!
//! One worker, several namespaces. What acts in a foreign one is done by the worker's thread while it is inside; the
//! sockets that it opened there stay, and nothing else does. A namespace in which nothing is live any more is let go of
//! at once: a socket of ours would keep it, and its devices, after its owner's end.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use squall_experiments::change::Change;
use squall_experiments::evidence::Evidence;
use squall_experiments::protocol::{Refusal, RunId};

use super::aim::{Aim, News};
use super::means::Means;
use super::netns::{Id, Netns};
use super::redirect::proxy::Proxy;
use super::site::Site;
use super::table::Lease;
use super::undo::{Undo, Undone};
use super::view::Viewpoint;
use super::witness::Question;
use super::{Host, Live, Place, Prepared, Record};

/// The tables that must be renewed while the worker's only hand is at work, each with its namespace.
pub type Renewed = Arc<Mutex<Vec<(Option<Id>, Lease)>>>;

/// See the module.
#[derive(Debug)]
pub struct Machine {
    home: Netns,
    own: Host,
    others: BTreeMap<Id, Other>,
    renewed: Renewed,
    means: Means,
}

#[derive(Debug)]
struct Other {
    netns: Netns,
    host: Host,
    /// How many changes act inside, or are about to.
    changes: usize,
}

impl Machine {
    /// Opens what is needed in the calling thread's network namespace. A missing mechanism is noted, not an error.
    pub fn open(means: Means) -> io::Result<Self> {
        let mut machine = Machine {
            home: Netns::here()?,
            own: Host::open(means.clone()),
            others: BTreeMap::new(),
            renewed: Renewed::default(),
            means,
        };
        machine.renew_also(None);
        Ok(machine)
    }

    /// See [`Renewed`].
    pub fn renewed(&self) -> Renewed {
        self.renewed.clone()
    }

    /// Where a change acts. Changes nothing.
    pub fn site(&self, change: &Change) -> Result<Site, Refusal> {
        Site::of(change, self.home.id())
    }

    /// What probes ask before a change is made; `None` where none are wanted, or where its site is not found: that is told
    /// when it is prepared.
    pub fn question(&self, change: &Change) -> Option<Question> {
        let from = Viewpoint::of(change);
        let Site { change, netns, .. } = self.site(change).ok()?;
        Question::of(&change, from, netns)
    }

    /// Looks at the host from inside a site. Anything wrong here aborts before any change. What succeeds must be given
    /// back once, by [`Machine::forget`] or [`Machine::leave`].
    pub fn prepare(&mut self, site: &mut Site, place: &Place, aim: &Aim<'_>) -> Result<Prepared, Refusal> {
        aim.spares(site)?;
        self.come(site)?;
        let prepared = self
            .inside(site.at, aim, |host, aim| host.prepare(&site.change, place, aim))
            .unwrap_or_else(|error| Err(unreachable(&error)));
        if prepared.is_err() {
            self.leave(site.at);
        }
        prepared
    }

    /// Gives back what a change that is not performed after all had been promised.
    pub fn forget(&mut self, site: &Site, prepared: &Prepared, place: &Place) {
        if let Some(host) = self.host(site.at) {
            host.forget(prepared, place);
        }
        self.leave(site.at);
    }

    /// Makes a change; see [`Host::perform`].
    pub fn perform(
        &mut self,
        site: &Site,
        prepared: Prepared,
        place: &Place,
        aim: &Aim<'_>,
        record: Record<'_>,
    ) -> Result<Live, Refusal> {
        if let Some(ground) = &site.ground {
            ground.watch(&self.means.watch);
        }
        let at = site.at;
        let mut within = recorded_at(at, record);
        self.inside(at, aim, |host, aim| host.perform(&site.change, prepared, place, aim, &mut within))
            .unwrap_or_else(|error| Err(unreachable(&error)))
    }

    /// Does what is due of a live change, and follows its targets. Called whenever the worker wakes.
    pub fn tick(&mut self, at: Option<Id>, live: &mut Live, aim: &Aim<'_>, record: Record<'_>) {
        let mut within = recorded_at(at, record);
        let _ = self.inside(at, aim, |host, aim| host.tick(live, aim, &mut within));
    }

    /// A name has been asked again; see [`Host::hear`].
    pub fn hear(&mut self, at: Option<Id>, live: &mut Live, news: &News, aim: &Aim<'_>) {
        let _ = self.inside(at, aim, |host, aim| host.hear(live, news, aim));
    }

    /// What has been measured of a live change; `None` where its namespace cannot be entered.
    pub fn observe(&mut self, at: Option<Id>, live: &mut Live, place: &Place) -> Option<Evidence> {
        self.enter(at, |host| host.observe(live, place)).ok()
    }

    /// What has been measured of a change that has just been undone.
    pub fn last(&mut self, at: Option<Id>, live: Live, before: &Evidence) -> Evidence {
        match self.host(at) {
            Some(host) => host.last(live, before),
            None => before.clone(),
        }
    }

    /// Whether connections are still carried on that an undo would end.
    pub fn carries(&self, undo: &Undo) -> bool {
        matches!(undo, Undo::Proxy(process) if self.means.proxies.carries(process))
    }

    /// What the proxies of a run have seen and nobody has read yet: a page of each at most.
    pub fn saw(&self, run: &RunId) -> Vec<Vec<Value>> {
        self.means.proxies.saw(run)
    }

    /// What they have seen is wanted no more.
    pub fn forget_sights(&self, run: &RunId) {
        self.means.proxies.forget(run);
    }

    /// The target of a live change has ended: what serves it there ends at once.
    pub fn abandon(&self, live: &Live) {
        if let Live::Redirect(live) = live {
            self.means.proxies.with(live.proxy(), Proxy::kill);
        }
    }

    /// To be called when the guardian knows what has been undone: lets go of what was held meanwhile, too.
    pub fn settle(&mut self, at: Option<Id>) {
        if let Some(host) = self.host(at) {
            host.settle();
        }
    }

    /// Whether an undo should wait a little more, after so long, because packets are held that it would take along.
    pub fn drains(&mut self, undo: &Undo, waited: Duration) -> bool {
        match undo {
            Undo::Within { netns, undo } => {
                self.enter(Some(*netns), |host| host.drains(undo, waited)).unwrap_or(false)
            }
            undo => self.own.drains(undo, waited),
        }
    }

    /// Makes one undo so, and looks whether it is.
    pub fn undo(&mut self, undo: &Undo) -> Undone {
        match undo {
            Undo::Within { netns, undo } => self
                .enter(Some(*netns), |host| host.undo(undo))
                .unwrap_or_else(|error| Err(format!("its network namespace cannot be entered: {error}"))),
            undo => self.own.undo(undo),
        }
    }

    /// One change less acts at a site. With the last one everything that is held there is closed.
    pub fn leave(&mut self, at: Option<Id>) {
        let Some(at) = at else { return };
        let Some(other) = self.others.get_mut(&at) else { return };
        other.changes = other.changes.saturating_sub(1);
        if other.changes == 0 {
            let other = self.others.remove(&at);
            let mut renewed = self.renewed.lock().unwrap_or_else(PoisonError::into_inner);
            let duplicates = renewed.extract_if(.., |(netns, _)| *netns == Some(at)).collect::<Vec<_>>();
            // Whoever closes the last duplicate of a table's socket waits for the kernel to clean up; the worker has to
            // beat.
            std::thread::spawn(move || drop((other, duplicates)));
        }
    }

    /// Keeps the rules matching, everywhere; `false`: nobody did for too long, and they have been inert.
    pub fn renew(&mut self) -> bool {
        // None may be left out because another one came too late.
        let renewed: Vec<bool> = self.hosts().map(Host::renew).collect();
        self.means.leases.renew() && !renewed.contains(&false)
    }

    /// Whether every packet engine answers. To be asked once a beat.
    pub fn engines_answer(&mut self) -> bool {
        let answers: Vec<bool> = self.hosts().map(Host::engines_answer).collect();
        !answers.contains(&false)
    }

    fn hosts(&mut self) -> impl Iterator<Item = &mut Host> {
        std::iter::once(&mut self.own).chain(self.others.values_mut().map(|other| &mut other.host))
    }

    fn host(&mut self, at: Option<Id>) -> Option<&mut Host> {
        match at {
            None => Some(&mut self.own),
            Some(at) => self.others.get_mut(&at).map(|other| &mut other.host),
        }
    }

    /// Opens what is needed at a site, where nothing acts there yet.
    fn come(&mut self, site: &mut Site) -> Result<(), Refusal> {
        let (Some(at), Some(netns)) = (site.at, site.netns.take()) else { return Ok(()) };
        if let Some(other) = self.others.get_mut(&at) {
            other.changes += 1;
            return Ok(());
        }
        let means = self.means.clone();
        let host = netns.enter(|| Host::open(means)).map_err(|error| unreachable(&error))?;
        self.others.insert(at, Other { netns, host, changes: 1 });
        self.renew_also(Some(at));
        Ok(())
    }

    fn renew_also(&mut self, at: Option<Id>) {
        let lease = self.host(at).and_then(|host| host.lease());
        let mut renewed = self.renewed.lock().unwrap_or_else(PoisonError::into_inner);
        renewed.extend(lease.map(|lease| (at, lease)));
    }

    /// [`Machine::enter`], with what is known of the request. What was seen of one namespace is not true of another.
    fn inside<T>(
        &mut self,
        at: Option<Id>,
        aim: &Aim<'_>,
        act: impl FnOnce(&mut Host, &Aim<'_>) -> T,
    ) -> io::Result<T> {
        match at {
            None => Ok(act(&mut self.own, aim)),
            Some(_) => self.enter(at, |host| act(host, &aim.anew())),
        }
    }

    /// Does something with the host of a namespace, on the calling thread, from inside.
    fn enter<T>(&mut self, at: Option<Id>, act: impl FnOnce(&mut Host) -> T) -> io::Result<T> {
        match at {
            None => Ok(act(&mut self.own)),
            Some(at) => {
                let gone = || io::Error::from(io::ErrorKind::NotFound);
                let Other { netns, host, .. } = self.others.get_mut(&at).ok_or_else(gone)?;
                netns.enter(|| act(host))
            }
        }
    }
}

fn unreachable(error: &io::Error) -> Refusal {
    Refusal::new(
        format!("the target's network namespace cannot be entered: {error}"),
        "run the agent as root (CAP_SYS_ADMIN and CAP_NET_ADMIN)",
    )
}

/// Records undos as what acts in another namespace, where there is one.
fn recorded_at(
    at: Option<Id>,
    record: Record<'_>,
) -> impl FnMut(Undo, Option<BorrowedFd<'_>>) -> Result<(), Refusal> {
    move |undo, socket| match at {
        Some(netns) if undo.within_namespace() => {
            record(Undo::Within { netns, undo: Box::new(undo) }, socket)
        }
        _ => record(undo, socket),
    }
}
