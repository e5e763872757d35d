//! What the controller remembers: hosts, tokens, runs with their events, and the audit log; in SQLite or in PostgreSQL.
//!
//! Both are asked by one text of SQL, through one thread that writes and one that reads. Whatever is answered is on disk.

mod admission;
mod answers;
mod audit;
mod encrypted;
mod gamedays;
mod halts;
mod hearing;
mod hosts;
mod lease;
mod migrations;
mod notices;
mod page;
mod plans;
mod postgres;
mod rebuild;
mod runs;
mod schedules;
mod secrets;
mod sessions;
mod sql;
mod sqlite;
mod tokens;
mod writer;

#[cfg(test)]
pub(crate) mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

pub(crate) use admission::first;
pub use admission::{Admission, Admitted};
pub use answers::{Answered, Asked};
pub use audit::{Entry, NOTHING, Verified};
pub use gamedays::{GameDayRow, NewGameDay};
pub use halts::{HaltOfHost, Halts, HostHalt};
pub use hosts::{HostRow, NewHost};
pub use lease::LEASE_MS;
pub(crate) use notices::Notice;
pub use page::Page;
pub use plans::{Eyes, NewPlan, PlanRow};
pub use rebuild::Rebuilt;
pub use runs::{Ended, LIVE, NewRun, RunRow, RunsPage, Tested};
pub(crate) use schedules::too_near;
pub use schedules::{Approved, Due, EntryKey, EntryRow, NewSchedule, Paused, ScheduleRow, states};
pub use secrets::{Minted, Secrets};
pub use tokens::{JoinToken, NewJoinToken, NewToken, Role, Token};

use sql::{Said, Sql};
use tokio::sync::watch;
use writer::Line;

/// Where a store is.
#[derive(Clone, Debug)]
pub enum Where {
    /// SQLite in this directory, which is made when it is not there; one process at a time.
    Sqlite(PathBuf),
    /// PostgreSQL 15 or newer at this URL (`postgres://user@host/name`) or string of `key=value`; any number of
    /// controllers. Off this machine with `sslmode=verify-full`, unless it says `sslmode=disable`.
    Postgres(String),
}

impl Where {
    /// Whether there is something to open. Of a database elsewhere whoever opens it is told.
    pub fn is_there(&self) -> bool {
        match self {
            Where::Sqlite(directory) => sqlite::file(directory).exists(),
            Where::Postgres(_) => true,
        }
    }
}

/// Why the store did not do something. Nothing of what was asked is kept then, but for [`StoreError::Away`] where it says so.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process uses the directory.
    #[error("`{}` is used by {holder}; help: stop it, or give each controller a directory of its own", directory.display())]
    Taken {
        /// The data directory.
        directory: PathBuf,
        /// Who uses it.
        holder: String,
    },
    /// The database was written by a newer program.
    #[error(
        "the database has version {has}, and this program knows versions up to {known}; help: use the newer program, or restore a backup from before"
    )]
    Newer {
        /// The database's version.
        has: u64,
        /// The newest that this program knows.
        known: u64,
    },
    /// The disk is full; what was acknowledged before is kept.
    #[error("the store's disk is full ({0}); help: make room, nothing that was acknowledged is lost")]
    Full(String),
    /// The database cannot be written.
    #[error("the store is read-only ({0}); help: make its file system or database writable")]
    ReadOnly(String),
    /// The database does not answer. Where its answer to the last step was lost, what was asked may have been done: asking
    /// again finds out, because everything that is asked for is idempotent or clashes with itself.
    #[error("the store does not answer ({0})")]
    Away(String),
    /// There is something of that name, or what was referred to is not there.
    #[error("the store refuses a second one of the same name ({0})")]
    Clash(String),
    /// There is no such thing.
    #[error("there is no {0}")]
    Missing(String),
    /// A join token or a token that is wrong, revoked, expired or used up; which of them is not told.
    #[error("the token is not valid")]
    Token,
    /// Events that do not follow on what is there.
    #[error("events from {first} on leave a gap: the next is {next}; help: send them from there on")]
    Gap {
        /// The first that was sent.
        first: u64,
        /// The one that is missing.
        next: u64,
    },
    /// A run or a game day is carried on by somebody else since.
    #[error(
        "it is at epoch {now}, and this was asked in epoch {asked}; help: another controller has taken it over"
    )]
    Fenced {
        /// The epoch that it was asked in.
        asked: u64,
        /// That of the run or the day.
        now: u64,
    },
    /// An address of a database that does not parse.
    #[error("the database's address is not understood: {0}")]
    Where(String),
    /// A file of the data directory.
    #[error("cannot use `{}`: {cause}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        cause: Arc<io::Error>,
    },
    /// A secret that others may read.
    #[error("others may read `{}`; help: chmod 600, and think about who has read it", path.display())]
    Open {
        /// The file.
        path: PathBuf,
    },
    /// The database holds what this program never wrote.
    #[error("the store holds something strange: {0}")]
    Strange(String),
    /// The database refuses a statement.
    #[error("the database refuses: {0}")]
    Sql(String),
}

impl StoreError {
    fn file(path: &Path, cause: io::Error) -> Self {
        match cause.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                StoreError::Full(format!("`{}`", path.display()))
            }
            io::ErrorKind::ReadOnlyFilesystem => StoreError::ReadOnly(format!("`{}`", path.display())),
            _ => StoreError::File { path: path.to_owned(), cause: Arc::new(cause) },
        }
    }

    /// Whether it says something of the database as a whole, not of what was asked.
    pub(crate) fn is_of_the_database(&self) -> bool {
        matches!(self, StoreError::Full(_) | StoreError::ReadOnly(_) | StoreError::Away(_))
    }
}

/// The store. Clones share it; it is closed when the last is dropped and all that was asked is done.
#[derive(Clone, Debug)]
pub struct Store {
    write: Line,
    read: Line,
    place: Arc<Where>,
    /// Who is woken by what is done, here or by another controller on the same database.
    woken: hearing::Woken,
    /// Hears the others, where there may be some.
    hearing: Option<Arc<hearing::Hearing>>,
    /// What people are to be told of.
    telling: Arc<notices::Telling>,
}

impl Store {
    /// Opens a store and brings its schema up to date. Blocks for as long as that takes.
    ///
    /// Errors: a directory that another process uses, a database of a newer version, one that does not answer.
    pub fn open(place: &Where) -> Result<Self, StoreError> {
        // In a thread of its own: a connection to PostgreSQL brings a runtime along, and whoever opens it may be in one.
        let opened = thread::scope(|scope| scope.spawn(|| Store::open_here(place)).join());
        opened.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    fn open_here(place: &Where) -> Result<Self, StoreError> {
        match place {
            Where::Sqlite(directory) => {
                let held = sqlite::hold(directory)?;
                let writer = sqlite::writer(directory, Some(held))?;
                Store::over(place, writer, || sqlite::reader(directory))
            }
            Where::Postgres(at) => {
                let own = format!("{:032x}", rand::random::<u128>());
                let writer = postgres::connect(at, false, &own)?;
                let mut store = Store::over(place, writer, || postgres::connect(at, true, &own))?;
                store.hearing = Some(Arc::new(hearing::begin(at, own, store.woken.clone())?));
                Ok(store)
            }
        }
    }

    fn over<S: Sql + Send + 'static>(
        place: &Where,
        mut writer: S,
        reader: impl FnOnce() -> Result<S, StoreError>,
    ) -> Result<Self, StoreError> {
        migrations::migrate(&mut writer)?;
        audit::begin(&mut writer)?;
        let read = Line::start("store-read", reader()?)?;
        let write = Line::start("store-write", writer)?;
        let (place, woken) = (Arc::new(place.clone()), hearing::Woken::default());
        Ok(Store { write, read, place, woken, hearing: None, telling: Arc::default() })
    }

    async fn write<T: Send + 'static>(
        &self,
        job: impl FnMut(&mut dyn Sql) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.write.run(job).await
    }

    async fn read<T: Send + 'static>(
        &self,
        job: impl FnMut(&mut dyn Sql) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.read.run(job).await
    }

    /// What `Debug` and messages call the place: a file, or `PostgreSQL` (its address may hold a password).
    pub fn place(&self) -> String {
        match &*self.place {
            Where::Sqlite(directory) => sqlite::file(directory).display().to_string(),
            Where::Postgres(_) => "PostgreSQL".to_owned(),
        }
    }

    /// Tells whoever watches that some run or game day got events or another state, through this process or through another
    /// controller on the same database. One that cannot be heard is not told of: who waits for runs also looks by himself from
    /// time to time.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.woken.changes.subscribe()
    }

    /// Tells whoever watches, in the same way, that controllers have something to do: [`Store::halts`].
    pub fn orders(&self) -> watch::Receiver<u64> {
        self.woken.orders.subscribe()
    }

    /// Whether other controllers may use the same database.
    pub fn is_shared(&self) -> bool {
        self.hearing.is_some()
    }

    /// Keeps what adds to runs or game days, and tells everybody.
    async fn change<T: Send + 'static>(
        &self,
        job: impl FnMut(&mut dyn Sql) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.tell_all(Said::Changed, job).await
    }

    /// Keeps what controllers have to act on, and tells everybody.
    async fn order<T: Send + 'static>(
        &self,
        job: impl FnMut(&mut dyn Sql) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.tell_all(Said::Ordered, job).await
    }

    async fn tell_all<T: Send + 'static>(
        &self,
        said: Said,
        mut job: impl FnMut(&mut dyn Sql) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let done = self.write(move |sql| {
            let done = job(sql)?;
            sql.say(said)?;
            Ok(done)
        });
        let done = done.await;
        self.woken.of(said);
        done
    }

    /// Whether the database answers.
    pub async fn ready(&self) -> Result<(), StoreError> {
        self.read(|sql| sql.query("SELECT version FROM schema_version", &[]).map(drop)).await
    }

    /// Binds the store to the key under which its tokens are hashed, the first time; later another key is refused, because
    /// under it no token would be valid.
    pub async fn bind(&self, secrets: &Secrets) -> Result<(), StoreError> {
        let mark = secrets.mark();
        let kept = self.fact_or("token-key", &mark).await?;
        match kept == mark {
            true => Ok(()),
            false => Err(StoreError::Strange(format!(
                "its tokens were hashed under another key than `{}`; help: use the data directory of the first \
                 controller, or a copy of that file",
                secrets.path("token-key").display()
            ))),
        }
    }

    /// Keeps a fact under a name unless there is one; gives the one that is there then.
    async fn fact_or(&self, name: &'static str, value: &str) -> Result<String, StoreError> {
        let value = value.to_owned();
        self.write(move |sql| {
            let kept = "INSERT INTO facts (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING";
            sql.execute(kept, &[name.into(), (&value).into()])?;
            let row = sql.one("SELECT value FROM facts WHERE name = $1", &[name.into()])?;
            row.ok_or_else(|| StoreError::Strange(format!("the fact `{name}` is missing")))?.text(0)
        })
        .await
    }

    /// The fact of a name, such as what blocks new runs; see [`Store::set_fact`].
    pub async fn fact(&self, name: &'static str) -> Result<Option<String>, StoreError> {
        self.read(move |sql| {
            let row = sql.one("SELECT value FROM facts WHERE name = $1", &[name.into()])?;
            row.map(|row| row.text(0)).transpose()
        })
        .await
    }

    /// Forgets the fact of a name if it is still this one; says whether it was. What somebody else has set since stays.
    pub async fn forget_fact(&self, name: &'static str, known: &str) -> Result<bool, StoreError> {
        let known = known.to_owned();
        self.order(move |sql| {
            let gone = "DELETE FROM facts WHERE name = $1 AND value = $2";
            sql.execute(gone, &[name.into(), (&known).into()]).map(|rows| rows > 0)
        })
        .await
    }

    /// Sets the fact of a name, or forgets it.
    pub async fn set_fact(&self, name: &'static str, value: Option<String>) -> Result<(), StoreError> {
        self.order(move |sql| {
            let set = "INSERT INTO facts (name, value) VALUES ($1, $2) \
                       ON CONFLICT (name) DO UPDATE SET value = excluded.value";
            match &value {
                Some(value) => sql.execute(set, &[name.into(), value.into()]).map(drop),
                None => sql.execute("DELETE FROM facts WHERE name = $1", &[name.into()]).map(drop),
            }
        })
        .await
    }
}

/// Milliseconds since 1970, by the wall clock.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
