//! SQLite in the data directory: write-ahead log, synced at every commit, and one process at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, OpenFlags, ToSql};

use super::StoreError;
use super::sql::{Row, Said, Sql, Value};

/// The file of the database in its directory.
const FILE: &str = "squall.db";
/// Who holds the directory: locked while the process lives, with its id inside.
const LOCK: &str = "lock";

/// How long a start waits for the directory: one who is just ending lets go of it soon.
const PATIENCE: Duration = Duration::from_secs(1);

/// One connection. The writer's keeps the directory held until it is closed.
pub(super) struct Lite(Connection, #[expect(dead_code, reason = "it is held, not looked at")] Option<Held>);

/// Keeps other processes from the directory; gone with the process however that ends.
#[derive(Debug)]
pub(super) struct Held(#[expect(dead_code, reason = "the lock lives as long as this file is open")] File);

/// Takes the data directory, which is made when it is not there (readable by its owner alone).
pub(super) fn hold(directory: &Path) -> Result<Held, StoreError> {
    super::secrets::directory(directory)?;
    let path = directory.join(LOCK);
    let unusable = |cause| StoreError::file(&path, cause);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(unusable)?;
    let begun = Instant::now();
    let locked = loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if begun.elapsed() < PATIENCE => {
                thread::sleep(Duration::from_millis(10));
            }
            other => break other,
        }
    };
    match locked {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            let holder = match holder.trim() {
                "" => "another process".to_owned(),
                pid => format!("process {pid}"),
            };
            return Err(StoreError::Taken { directory: directory.to_owned(), holder });
        }
        Err(TryLockError::Error(cause)) => return Err(unusable(cause)),
    }
    file.set_len(0).map_err(unusable)?;
    file.rewind().map_err(unusable)?;
    writeln!(file, "{}", std::process::id()).map_err(unusable)?;
    Ok(Held(file))
}

/// Opens the database for the one who writes, who holds the directory.
pub(super) fn writer(directory: &Path, held: Option<Held>) -> Result<Lite, StoreError> {
    let path = directory.join(FILE);
    // SQLite would make it readable by everybody; its log and its index take over the mode of the file.
    OpenOptions::new().append(true).create(true).mode(0o600).open(&path).map_err(|cause| {
        match cause.kind() {
            std::io::ErrorKind::ReadOnlyFilesystem => StoreError::ReadOnly(path.display().to_string()),
            _ => StoreError::file(&path, cause),
        }
    })?;
    let connection = Connection::open(&path).map_err(failed)?;
    let set = |name: &str, value: &str| connection.pragma_update(None, name, value).map_err(failed);
    connection.busy_timeout(Duration::from_secs(5)).map_err(failed)?;
    set("journal_mode", "WAL")?;
    set("synchronous", "FULL")?;
    set("foreign_keys", "ON")?;
    Ok(Lite(connection, held))
}

/// Opens it for one who only reads, beside the writer.
pub(super) fn reader(directory: &Path) -> Result<Lite, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(directory.join(FILE), flags).map_err(failed)?;
    connection.busy_timeout(Duration::from_secs(5)).map_err(failed)?;
    Ok(Lite(connection, None))
}

/// Where the database of a directory is, for messages and for backups.
pub(super) fn file(directory: &Path) -> PathBuf {
    directory.join(FILE)
}

impl Lite {
    /// Lets the database grow to so many pages and no further, as a full disk would.
    #[cfg(test)]
    pub(super) fn limit(&mut self, pages: u32) {
        let pages = i64::from(pages);
        self.0.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(())).expect("it can be set");
    }
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Value::Null => ValueRef::Null,
            Value::Int(number) => ValueRef::Integer(*number),
            Value::Text(text) => ValueRef::Text(text.as_bytes()),
        }))
    }
}

/// As SQLite takes it: `$1` is a name for it, and names are numbered as they come, where `?1` is a number; and rows are not locked,
/// as who writes is alone.
fn adapted(sql: &str) -> String {
    sql.replace('$', "?").replace(" FOR UPDATE SKIP LOCKED", "")
}

impl Sql for Lite {
    fn execute(&mut self, sql: &'static str, values: &[Value]) -> Result<u64, StoreError> {
        let mut statement = self.0.prepare(&adapted(sql)).map_err(failed)?;
        let rows = statement.execute(rusqlite::params_from_iter(values)).map_err(failed)?;
        Ok(rows as u64)
    }

    fn query(&mut self, sql: &'static str, values: &[Value]) -> Result<Vec<Row>, StoreError> {
        let mut statement = self.0.prepare(&adapted(sql)).map_err(failed)?;
        let columns = statement.column_count();
        let mut rows = statement.query(rusqlite::params_from_iter(values)).map_err(failed)?;
        let mut found = Vec::new();
        while let Some(row) = rows.next().map_err(failed)? {
            let value = |at| -> Result<Value, StoreError> {
                match row.get_ref(at).map_err(failed)? {
                    ValueRef::Null => Ok(Value::Null),
                    ValueRef::Integer(number) => Ok(Value::Int(number)),
                    ValueRef::Text(text) => Ok(Value::Text(String::from_utf8_lossy(text).into_owned())),
                    other => Err(StoreError::Strange(format!("a value of kind {:?}", other.data_type()))),
                }
            };
            found.push(Row((0..columns).map(value).collect::<Result<_, _>>()?));
        }
        Ok(found)
    }

    fn batch(&mut self, sql: &str) -> Result<(), StoreError> {
        self.0.execute_batch(sql).map_err(failed)
    }

    fn migrates_alone(&mut self) -> Result<(), StoreError> {
        // The directory is held by this process.
        Ok(())
    }

    fn say(&mut self, _: Said) -> Result<(), StoreError> {
        // Nobody else may use this database.
        Ok(())
    }

    fn ready(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// SQLite's error in our words; what it names differently for a full disk and a disk that is read-only.
fn failed(error: rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::Full(error.to_string()),
        Some(ErrorCode::ReadOnly) => StoreError::ReadOnly(error.to_string()),
        Some(ErrorCode::ConstraintViolation) => StoreError::Clash(error.to_string()),
        Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen | ErrorCode::DatabaseBusy) => {
            StoreError::Away(error.to_string())
        }
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreError::Strange(error.to_string()),
        _ => StoreError::Sql(error.to_string()),
    }
}
