//! What a change has had written before each of its parts was made, and how it is taken back.

use std::os::fd::BorrowedFd;

use squall_experiments::protocol::{Refusal, RunId};

use crate::host::undo::{Undo, Undone};
use crate::records::{Ask, Records};

/// Undos by their numbers in the journal, in the order in which they were written.
pub type Written = Vec<(u64, Undo)>;

/// Who writes: the guardian, at the other end of a socket.
pub trait Pen {
    /// Returns when it is on disk, with its number. The socket that an undo needs may be attached.
    fn ask(&self, ask: &Ask, attached: Option<BorrowedFd<'_>>) -> Result<u64, Refusal>;
}

impl Pen for Records {
    fn ask(&self, ask: &Ask, attached: Option<BorrowedFd<'_>>) -> Result<u64, Refusal> {
        Records::ask(self, ask, attached)
    }
}

/// Where a change has its undos written.
#[derive(Debug)]
pub struct Books<'a, P: Pen = Records> {
    /// To the guardian.
    pub records: &'a P,
    /// What outlasts its step, of the whole run.
    pub footings: &'a mut Written,
}

impl<P: Pen> Books<'_, P> {
    /// Has an undo written; only then may be done what it takes back. One that outlasts its step is the whole run's, and
    /// written once, unless it acts where nothing `may_outlast` the change.
    pub fn record(
        &mut self,
        run: &RunId,
        written: &mut Written,
        may_outlast: bool,
        undo: Undo,
        socket: Option<BorrowedFd<'_>>,
    ) -> Result<(), Refusal> {
        let outlasts = undo.outlasts_its_step() && (may_outlast || !undo.within_namespace());
        if outlasts && self.footings.iter().any(|(_, recorded)| *recorded == undo) {
            return Ok(());
        }
        let number = self.records.ask(&Ask::Record { run: run.clone(), undo: undo.clone() }, socket)?;
        if outlasts { &mut *self.footings } else { written }.push((number, undo));
        Ok(())
    }
}

/// What taking back came to.
#[derive(Debug, Default)]
pub struct TakenBack {
    /// What was undone, and how it was verified.
    pub undone: Vec<String>,
    /// What is still there.
    pub stuck: Vec<String>,
    numbers: Vec<u64>,
}

/// Applies every undo, latest first. What fails stays written, for the next time, and so does what may be kept by what
/// failed: it would be left alone now, as it still serves, and nobody would come back for it. [`TakenBack::mark`] must
/// follow.
pub fn take_back(written: &mut Written, mut undo: impl FnMut(&Undo) -> Undone) -> TakenBack {
    let mut taken = TakenBack::default();
    let mut left = Vec::new();
    for (number, one) in std::mem::take(written).into_iter().rev() {
        if !left.is_empty() && one.spares_what_serves() {
            left.push((number, one));
            continue;
        }
        match undo(&one) {
            Ok(what) => {
                taken.undone.push(what);
                taken.numbers.push(number);
            }
            Err(what) => {
                taken.stuck.push(what);
                left.push((number, one));
            }
        }
    }
    left.reverse();
    *written = left;
    taken
}

impl TakenBack {
    /// Has written what was undone.
    pub fn mark(&mut self, pen: &impl Pen) {
        let numbers = std::mem::take(&mut self.numbers);
        if !numbers.is_empty()
            && let Err(refusal) = pen.ask(&Ask::Undone { numbers }, None)
        {
            tracing::info!(%refusal, "the journal does not know yet of what was undone");
        }
    }
}
