//! The one thread that writes, and the one that reads: each has a connection of its own.
//!
//! What waits when the writer comes back from the disk is committed together (*group commit*): a hundred appends cost one
//! sync. Nothing is answered before its commit is done.

use std::any::Any;
use std::thread;

use tokio::sync::{mpsc, oneshot};

use super::StoreError;
use super::sql::Sql;

/// How many jobs one commit holds at most: bounded, so that the first of them does not wait for long.
const TOGETHER: usize = 256;
/// How many jobs may wait; who comes then waits itself.
const WAITING: usize = 1024;

/// What a job gives back, before its type is known again.
type Given = Result<Box<dyn Any + Send>, StoreError>;

/// What is done in a transaction.
type Doing = Box<dyn FnMut(&mut dyn Sql) -> Given + Send>;

/// A job can be begun again: when others in its transaction failed, or the connection was gone.
struct Job {
    run: Doing,
    answer: oneshot::Sender<Given>,
}

/// The way to a thread with a connection.
#[derive(Clone, Debug)]
pub(super) struct Line(mpsc::Sender<Job>);

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Job")
    }
}

impl Line {
    /// Starts a thread with a connection. It ends when the last [`Line`] to it is dropped and all is done.
    pub(super) fn start<S: Sql + Send + 'static>(name: &str, sql: S) -> Result<Self, StoreError> {
        let (sender, jobs) = mpsc::channel(WAITING);
        let started = thread::Builder::new().name(name.to_owned()).spawn(move || serve(sql, jobs));
        started.map_err(|cause| StoreError::Away(cause.to_string()))?;
        Ok(Line(sender))
    }

    /// Runs a job in a transaction, perhaps together with others, and waits for the commit.
    ///
    /// A job may be run more than once before it is answered; only its last run is kept. Dropped while waiting, it may
    /// still be done.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        mut job: impl FnMut(&mut dyn Sql) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let run = move |sql: &mut dyn Sql| job(sql).map(|given| Box::new(given) as Box<dyn Any + Send>);
        let gone = || StoreError::Away("the store's thread has ended".to_owned());
        self.0.send(Job { run: Box::new(run), answer }).await.map_err(|_| gone())?;
        let given = answered.await.map_err(|_| gone())??;
        Ok(*given.downcast().map_err(|_| StoreError::Strange("an answer of another job".to_owned()))?)
    }
}

fn serve<S: Sql>(mut sql: S, mut jobs: mpsc::Receiver<Job>) {
    let mut batch = Vec::new();
    while let Some(job) = jobs.blocking_recv() {
        batch.push(job);
        while batch.len() < TOGETHER
            && let Ok(job) = jobs.try_recv()
        {
            batch.push(job);
        }
        commit(&mut sql, &mut batch);
    }
}

/// Commits jobs together; where that cannot be, each alone, so that none fails for another.
fn commit(sql: &mut dyn Sql, batch: &mut Vec<Job>) {
    let alone = batch.len() == 1;
    match together(sql, batch) {
        Ok(given) => {
            for (job, given) in batch.drain(..).zip(given) {
                // Who does not wait any more does not want to know.
                let _ = job.answer.send(given);
            }
        }
        Err(error) if alone => {
            for job in batch.drain(..) {
                let _ = job.answer.send(Err(error.clone()));
            }
        }
        Err(_) => {
            for job in std::mem::take(batch) {
                commit(sql, &mut vec![job]);
            }
        }
    }
}

/// One transaction. An error in here is one of the transaction, not of a job: nothing of it was kept, unless the
/// connection went while it was being committed (then nobody knows).
fn together(sql: &mut dyn Sql, batch: &mut [Job]) -> Result<Vec<Given>, StoreError> {
    match transaction(sql, batch) {
        // A connection that went while nobody used it is found out by using it. The commit was not reached, or its
        // outcome is not known: then the jobs themselves know what was done before (they are idempotent, or clash).
        Err(Stopped { error: StoreError::Away(_), committing: false }) => {
            sql.ready()?;
            transaction(sql, batch).map_err(|stopped| stopped.error)
        }
        other => other.map_err(|stopped| stopped.error),
    }
}

struct Stopped {
    error: StoreError,
    committing: bool,
}

fn transaction(sql: &mut dyn Sql, batch: &mut [Job]) -> Result<Vec<Given>, Stopped> {
    let before = |error| Stopped { error, committing: false };
    sql.ready().map_err(before)?;
    sql.batch("BEGIN").map_err(before)?;
    let mut given = Vec::new();
    for job in batch {
        let one = savepoint(sql, job);
        match one {
            Ok(one) => given.push(one),
            Err(error) => {
                // The transaction may be over already: SQLite ends it itself when the disk is full.
                let _ = sql.batch("ROLLBACK");
                return Err(before(error));
            }
        }
    }
    sql.batch("COMMIT").map_err(|error| {
        let _ = sql.batch("ROLLBACK");
        Stopped { error, committing: true }
    })?;
    Ok(given)
}

/// Runs a job so that its failure leaves the others of its transaction alone. `Err`: the transaction is lost.
fn savepoint(sql: &mut dyn Sql, job: &mut Job) -> Result<Given, StoreError> {
    sql.batch("SAVEPOINT job")?;
    match (job.run)(sql) {
        Ok(given) => {
            sql.batch("RELEASE SAVEPOINT job")?;
            Ok(Ok(given))
        }
        Err(error) if error.is_of_the_database() => Err(error),
        Err(error) => {
            sql.batch("ROLLBACK TO SAVEPOINT job")?;
            sql.batch("RELEASE SAVEPOINT job")?;
            Ok(Err(error))
        }
    }
}
