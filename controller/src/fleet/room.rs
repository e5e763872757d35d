//! How many files and sockets this process may have open, and who has them: what there is no room for is refused before it
//! begins, and whoever wants to halt something finds room in any case.

use std::sync::Arc;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use squall_experiments::protocol::Refusal;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What a controller has open beside hosts, runs and callers: its store, listeners, log and runtimes.
const OWN: usize = 64;
/// How many hosts at a time are told that there is no room for them.
const TURNED_AWAY: usize = 16;
/// How many callers of the interface there are at most.
const CALLERS: usize = 1024;
/// With fewer a controller does not begin.
const LEAST: usize = 128;

/// Room for hosts and runs. A clone is the same.
#[derive(Clone, Debug)]
pub struct Room {
    free: Arc<Semaphore>,
    /// For those that find no room, until they know.
    away: Arc<Semaphore>,
    limit: usize,
    callers: usize,
}

/// Room that somebody has; dropped, it is free again.
#[derive(Debug)]
pub struct Taken {
    _permit: OwnedSemaphorePermit,
}

impl Default for Room {
    /// As much as anybody wants.
    fn default() -> Self {
        Room {
            free: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
            away: Arc::new(Semaphore::new(TURNED_AWAY)),
            limit: usize::MAX,
            callers: CALLERS,
        }
    }
}

impl Room {
    /// What this process may have open: as many as its hard limit allows, which becomes the soft one. Refused where that is
    /// too little for any work.
    pub fn of_this_process() -> Result<Room, Refusal> {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)
            .map_err(|error| Refusal::bare(format!("the limit of open files is not known: {error}")))?;
        let limit = match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
            Ok(()) => hard,
            Err(error) => {
                tracing::warn!(%error, "no more than {soft} files may be open");
                soft
            }
        };
        Room::within(usize::try_from(limit).unwrap_or(usize::MAX))
    }

    /// Room where no more than so many files may be open.
    pub fn within(limit: usize) -> Result<Room, Refusal> {
        if limit < LEAST {
            return Err(Refusal::new(
                format!(
                    "only {limit} files may be open here, and a controller needs {LEAST}, with hosts more"
                ),
                help(),
            ));
        }
        let callers = (limit / 4).min(CALLERS);
        let free = (limit - OWN - TURNED_AWAY - callers).min(Semaphore::MAX_PERMITS);
        Ok(Room {
            free: Arc::new(Semaphore::new(free)),
            away: Arc::new(Semaphore::new(TURNED_AWAY)),
            limit,
            callers,
        })
    }

    /// How many callers the interface may have at a time.
    pub fn callers(&self) -> usize {
        self.callers
    }

    /// Room for the connection of a host; `None` where there is none.
    pub(super) fn host(&self) -> Option<Taken> {
        self.take(1)
    }

    /// Room to tell a host that there is none; `None` where there is not even that.
    pub(super) fn away(&self) -> Option<Taken> {
        Some(Taken { _permit: Arc::clone(&self.away).try_acquire_owned().ok()? })
    }

    /// Room for a run that needs so many, on so many hosts, for as long as it takes.
    pub fn run(&self, needed: usize, hosts: usize) -> Result<Taken, Refusal> {
        self.take(needed).ok_or_else(|| {
            let (limit, left) = (self.limit, self.free.available_permits());
            let what = format!(
                "the controller has no room for this run: it needs {needed} open files for {hosts} hosts, and of {limit} that \
                 may be open {left} are free"
            );
            Refusal::new(what, format!("take fewer hosts, wait for other runs to end, or {}", help()))
        })
    }

    /// What a host is told where there is no room for it.
    pub(super) fn full(&self, host: &str) -> Refusal {
        let limit = self.limit;
        Refusal::new(
            format!("the controller has no room for `{host}`: it may have {limit} files open, and has them"),
            help(),
        )
    }

    fn take(&self, many: usize) -> Option<Taken> {
        let many = u32::try_from(many).ok()?;
        let permit = Arc::clone(&self.free).try_acquire_many_owned(many).ok()?;
        Some(Taken { _permit: permit })
    }
}

fn help() -> &'static str {
    "raise the controller's limit of open files (`LimitNOFILE=` of its unit, `ulimit -Hn` in a shell)"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_free_again_when_it_is_given_back_and_callers_keep_theirs() {
        let room = Room::within(256).unwrap();
        assert_eq!((room.callers(), room.free.available_permits()), (64, 112));
        let hosts: Vec<Taken> = (0..100).map_while(|_| room.host()).collect();
        let refused = room.run(13, 4).unwrap_err();
        assert_eq!(
            refused.what,
            "the controller has no room for this run: it needs 13 open files for 4 hosts, and of 256 that may be open 12 are free"
        );
        let run = room.run(12, 3).unwrap();
        assert!(room.host().is_none() && room.full("web-1").what.contains("no room for `web-1`"));
        drop(run);
        drop(room.host().unwrap());
        drop(hosts);
        assert_eq!(room.free.available_permits(), 112);
        assert!(room.run(usize::MAX, 1).is_err());
    }

    #[test]
    fn a_limit_with_which_nothing_works_is_refused_and_a_large_one_is_enough_for_ten_thousand_hosts() {
        assert!(Room::within(LEAST - 1).unwrap_err().what.contains("only 127 files"));
        let room = Room::within(20_000).unwrap();
        let _hosts: Vec<Taken> = (0..10_000).map_while(|_| room.host()).collect();
        assert!(room.run(64, 10_000).is_ok());
        assert!(Room::within(usize::MAX).is_ok());
    }
}
