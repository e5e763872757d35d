//! PostgreSQL: one connection for each thread of the store, made again when it was lost.

use std::collections::HashMap;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, Config, NoTls, Socket, Statement};

use super::StoreError;
use super::encrypted::{self, Encryption};
use super::hearing::CHANNEL;
use super::sql::{Row, Said, Sql, Value};

/// How long a connection or an answer may take before the database counts as away.
pub(super) const LONGEST: Duration = Duration::from_secs(10);
/// The advisory lock that whoever migrates holds: any number that nobody else uses in this database.
const MIGRATING: &str = "SELECT pg_advisory_xact_lock(7237128896)";

/// One connection, with the runtime that carries it.
pub(super) struct Postgres {
    config: Config,
    encryption: Option<Encryption>,
    runtime: Runtime,
    live: Option<Live>,
    /// By which whoever listens knows what he said himself.
    own: String,
}

struct Live {
    client: Client,
    carrier: JoinHandle<()>,
    prepared: HashMap<&'static str, Statement>,
}

impl Drop for Live {
    fn drop(&mut self) {
        self.carrier.abort();
    }
}

/// Connects to the database that a URL or a string of `key=value` names (`postgres://user@host/name`,
/// `host=/run/postgresql`). One who only `reads` sees each transaction's beginning throughout; what one says to the others is said
/// as `own`.
pub(super) fn connect(at: &str, reads: bool, own: &str) -> Result<Postgres, StoreError> {
    let (mut config, encryption) = encrypted::read(at)?;
    config.application_name("squall").connect_timeout(LONGEST).tcp_user_timeout(LONGEST);
    if reads {
        let ours = "-c default_transaction_isolation=repeatable\\ read -c default_transaction_read_only=on";
        let theirs = config.get_options().unwrap_or_default();
        config.options(format!("{theirs} {ours}").trim());
    }
    let mut postgres =
        Postgres { config, encryption, runtime: in_a_runtime()?, live: None, own: own.to_owned() };
    postgres.ready()?;
    Ok(postgres)
}

/// A runtime that carries connections of one thread.
pub(super) fn in_a_runtime() -> Result<Runtime, StoreError> {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.map_err(|cause| StoreError::Away(cause.to_string()))
}

impl Postgres {
    /// Asks the database something, within its time. A connection that does not answer is given up.
    fn ask<T>(
        &mut self,
        asking: impl AsyncFnOnce(&mut Live) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, StoreError> {
        let Some(live) = &mut self.live else {
            return Err(StoreError::Away("there is no connection".to_owned()));
        };
        let answered = self.runtime.block_on(async { timeout(LONGEST, asking(live)).await });
        let result = match answered {
            Ok(result) => result.map_err(|error| failed(&error)),
            Err(_) => Err(StoreError::Away(format!("no answer within {} s", LONGEST.as_secs()))),
        };
        // A serialisation failure is away too, and its connection is well; a new one does it no harm.
        if let Err(StoreError::Away(_)) = result {
            self.live = None;
        }
        result
    }
}

impl Live {
    async fn prepared(&mut self, sql: &'static str) -> Result<Statement, tokio_postgres::Error> {
        if let Some(statement) = self.prepared.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql).await?;
        self.prepared.insert(sql, statement.clone());
        Ok(statement)
    }
}

impl Sql for Postgres {
    fn execute(&mut self, sql: &'static str, values: &[Value]) -> Result<u64, StoreError> {
        self.ask(async |live| {
            let statement = live.prepared(sql).await?;
            live.client.execute_raw(&statement, values).await
        })
    }

    fn query(&mut self, sql: &'static str, values: &[Value]) -> Result<Vec<Row>, StoreError> {
        let values: Vec<&(dyn ToSql + Sync)> = values.iter().map(|value| value as _).collect();
        let rows = self.ask(async |live| {
            let statement = live.prepared(sql).await?;
            live.client.query(&statement, &values).await
        })?;
        rows.iter().map(row).collect()
    }

    fn batch(&mut self, sql: &str) -> Result<(), StoreError> {
        self.ask(async |live| live.client.batch_execute(sql).await)
    }

    fn migrates_alone(&mut self) -> Result<(), StoreError> {
        self.batch(MIGRATING)
    }

    fn say(&mut self, said: Said) -> Result<(), StoreError> {
        let what = format!("{} {}", said.word(), self.own);
        self.execute("SELECT pg_notify($1, $2)", &[CHANNEL.into(), (&what).into()]).map(drop)
    }

    fn ready(&mut self) -> Result<(), StoreError> {
        if self.live.as_ref().is_some_and(|live| !live.client.is_closed()) {
            return Ok(());
        }
        self.live = None;
        let (config, encryption) = (&self.config, self.encryption.clone());
        let connected = self.runtime.block_on(async {
            match encryption {
                Some(encryption) => live(config, encryption).await,
                None => live(config, NoTls).await,
            }
        });
        self.live = Some(connected?);
        Ok(())
    }
}

/// Connects. Must be called in a runtime.
async fn live<T>(config: &Config, tls: T) -> Result<Live, StoreError>
where
    T: MakeTlsConnect<Socket>,
    T::Stream: Send + 'static,
{
    let (client, connection) = timeout(LONGEST, config.connect(tls))
        .await
        .map_err(|_| StoreError::Away(format!("no connection within {} s", LONGEST.as_secs())))?
        .map_err(|error| match failed(&error) {
            // Whatever is wrong with connecting, such as a database that is starting up, may pass.
            StoreError::Sql(why) => StoreError::Away(why),
            other => other,
        })?;
    let carrier = tokio::spawn(async move {
        // Its end is seen by whoever asks next.
        let _ = connection.await;
    });
    Ok(Live { client, carrier, prepared: HashMap::new() })
}

fn row(row: &tokio_postgres::Row) -> Result<Row, StoreError> {
    let strange = |error: tokio_postgres::Error| StoreError::Strange(error.to_string());
    let value = |(at, column): (usize, &tokio_postgres::Column)| match *column.type_() {
        Type::INT8 => Ok(row.try_get::<_, Option<i64>>(at).map_err(strange)?.map_or(Value::Null, Value::Int)),
        Type::TEXT => {
            Ok(row.try_get::<_, Option<String>>(at).map_err(strange)?.map_or(Value::Null, Value::Text))
        }
        ref other => Err(StoreError::Strange(format!("a value of type `{other}`"))),
    };
    Ok(Row(row.columns().iter().enumerate().map(value).collect::<Result<_, _>>()?))
}

impl ToSql for Value {
    fn to_sql(
        &self,
        kind: &Type,
        out: &mut tokio_postgres::types::private::BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self {
            Value::Null => Ok(IsNull::Yes),
            Value::Int(number) => number.to_sql(kind, out),
            Value::Text(text) => text.as_str().to_sql(kind, out),
        }
    }

    fn accepts(kind: &Type) -> bool {
        matches!(*kind, Type::INT8 | Type::TEXT)
    }

    to_sql_checked!();
}

/// PostgreSQL's error in our words, by the class of its code (PostgreSQL 15, appendix A).
pub(super) fn failed(error: &tokio_postgres::Error) -> StoreError {
    let Some(state) = error.code() else {
        let cause = std::error::Error::source(error).map(ToString::to_string);
        return StoreError::Away(
            cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}")),
        );
    };
    let said = error.as_db_error().map_or_else(|| error.to_string(), |error| error.message().to_owned());
    match (state.code().get(..2), state) {
        (_, &SqlState::DISK_FULL) => StoreError::Full(said),
        (_, &SqlState::READ_ONLY_SQL_TRANSACTION) => StoreError::ReadOnly(said),
        (Some("23"), _) => StoreError::Clash(said),
        // Connections, shutdowns, and transactions that lost against another's and can be begun again.
        (Some("08" | "57" | "40"), _) => StoreError::Away(said),
        _ => StoreError::Sql(said),
    }
}
