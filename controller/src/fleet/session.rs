//! The streams of one host, which outlive its connection for a while.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use squall_experiments::fleet::{Held, Session as Said};

use super::carry::{Lane, Out};

/// All streams of a host. Only its newest connection may do something with them. A clone is the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Session(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
pub(super) struct Kept {
    /// By which the host knows it; empty where its connections lose their streams.
    number: String,
    /// The connection that may.
    owner: u64,
    /// The number of the last stream.
    last: u64,
    pub(super) lanes: BTreeMap<u64, Lane>,
}

impl Kept {
    /// The number of a new stream.
    pub(super) fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}

impl Session {
    /// A connection takes the streams over from the one before, which is heard no more. Where the host still has the
    /// session, the streams that both have go on, and all others are closed; where it has not, all are. Gives what the host
    /// is to be told; `resumes` is whether it knows of sessions at all.
    pub(super) fn take_over(&self, owner: u64, resumes: bool, theirs: Option<&Said>) -> Option<Said> {
        self.with(None, |kept| {
            kept.owner = owner;
            let same =
                theirs.filter(|theirs| resumes && !kept.number.is_empty() && theirs.number == kept.number);
            match same {
                Some(theirs) => kept.lanes.retain(|stream, lane| {
                    !lane.is_over() && theirs.streams.iter().any(|held| held.stream == *stream)
                }),
                None => *kept = Kept { owner, ..Kept::default() },
            }
            if !resumes {
                return None;
            }
            if same.is_none() {
                kept.number = format!("{:032x}", rand::random::<u128>());
            }
            kept.lanes.values().for_each(Lane::lost);
            let streams = kept.lanes.iter().map(|(stream, lane)| lane.held(*stream)).collect();
            Some(Said { number: kept.number.clone(), streams })
        })?
    }

    /// The streams go on over this connection, whose other side is so far.
    pub(super) fn resume(&self, owner: u64, out: &Out, theirs: &[Held]) {
        self.with(Some(owner), |kept| {
            for held in theirs {
                if let Some(lane) = kept.lanes.get(&held.stream) {
                    lane.resume(out.clone(), *held);
                }
            }
        });
    }

    /// This connection is gone: its streams wait for another one, where the host knows of that.
    pub(super) fn lost(&self, owner: u64) {
        self.with(Some(owner), |kept| {
            if kept.number.is_empty() {
                kept.lanes.clear();
            }
            kept.lanes.values().for_each(Lane::lost);
        });
    }

    /// The host is not served any more: its streams end now.
    pub(super) fn end(&self, owner: Option<u64>) {
        self.with(owner, |kept| *kept = Kept { owner: kept.owner, ..Kept::default() });
    }

    /// Does something with the streams, unless a newer connection has them.
    pub(super) fn with<T>(&self, owner: Option<u64>, work: impl FnOnce(&mut Kept) -> T) -> Option<T> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        owner.is_none_or(|owner| owner == kept.owner).then(|| work(&mut kept))
    }
}
