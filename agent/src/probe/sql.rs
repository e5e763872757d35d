//! SQL probes: one query to PostgreSQL, in a transaction that can only read and that the server ends by itself.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use squall_experiments::probe::compare::Found;
use squall_experiments::probe::{Expect, SqlProbe};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

use super::expect::{Seen, short};
use super::looks::shorter;
use super::stream::{Bounded, Secured};
use super::tcp::{self, Address, Stage, limited, words};
use super::value::ExpectValue;

/// Classes of errors (PostgreSQL, appendix A) that say that the question was wrong, not that the server is unwell: data,
/// transaction state, authorization, authentication, names and syntax.
const WRONG_QUESTION: [&str; 6] = ["22", "25", "28", "3D", "3F", "42"];

/// An SQL probe, ready to be sampled.
pub(super) struct SqlLook {
    address: Address,
    tls: Option<Secured>,
    config: Config,
    query: String,
    timeout: Duration,
    expect: ExpectValue,
}

impl SqlLook {
    /// Understands the address; an error says why not.
    pub(super) fn new(probe: &SqlProbe, expect: &Expect) -> Result<Self, String> {
        let address = Address::new(&probe.address)?;
        let mut config = Config::new();
        config.user(&probe.user).application_name("squall");
        config.ssl_mode(if probe.tls.is_some() { SslMode::Require } else { SslMode::Disable });
        if let Some(password) = &probe.password {
            config.password(password);
        }
        if let Some(database) = &probe.database {
            config.dbname(database);
        }
        Ok(SqlLook {
            tls: probe.tls.as_ref().map(|tls| Secured::new(&address.host, Some(tls))).transpose()?,
            address,
            config,
            query: probe.query.clone(),
            timeout: probe.timeout.get(),
            expect: ExpectValue::new(expect)?,
        })
    }

    /// Connects, asks once, and closes the connection.
    pub(super) async fn look(&self, left: Option<Duration>) -> Seen {
        let begun = Instant::now();
        let stage = Stage::new(tcp::RESOLVING);
        let limit = shorter(self.timeout, left);
        match limited(limit, &stage, self.exchange(limit, &stage)).await {
            Err(seen) => seen,
            Ok(found) => self.expect.judge(&found, begun.elapsed()),
        }
    }

    async fn exchange(&self, limit: Duration, stage: &Stage) -> Result<Found, Seen> {
        let stream = Bounded::new(self.address.connect(stage).await.map_err(Seen::bad)?);
        stage.set("logging in");
        // Dropped with this look, whatever it was doing.
        let mut driver = JoinSet::new();
        let client = match &self.tls {
            None => {
                let (client, connection) = self.config.connect_raw(stream, NoTls).await.map_err(seen)?;
                driver.spawn(connection);
                client
            }
            Some(secured) => {
                let (client, connection) =
                    self.config.connect_raw(stream, secured.clone()).await.map_err(seen)?;
                driver.spawn(connection);
                client
            }
        };
        stage.set("waiting for the answer of the query");
        let found = self.ask(&client, limit).await;
        // Said goodbye to, a server has nothing to complain about in its log.
        let _ = client.batch_execute("ROLLBACK").await;
        drop(client);
        driver.join_next().await;
        found
    }

    async fn ask(&self, client: &Client, limit: Duration) -> Result<Found, Seen> {
        let ms = limit.as_millis().max(1);
        // The server ends the query even where nobody can tell it to.
        let begin = format!("BEGIN READ ONLY; SET LOCAL statement_timeout = {ms}");
        client.batch_execute(&begin).await.map_err(seen)?;
        // Only one statement can be prepared: a second one could end the transaction, and write.
        let statement = client.prepare(&self.query).await.map_err(seen)?;
        let Some(column) = statement.columns().first() else {
            return Err(Seen::unclear("the query has no column to compare"));
        };
        let kind = column.type_().clone();
        drop(statement);
        let mut first = None;
        let mut rows = 0_u64;
        for message in client.simple_query(&self.query).await.map_err(seen)? {
            if let SimpleQueryMessage::Row(row) = message {
                rows += 1;
                if rows == 1 {
                    first = row.try_get(0).map_err(seen)?.map(str::to_owned);
                }
            }
        }
        if rows > 1 {
            return Err(Seen::unclear(format!(
                "{rows} rows, and one is compared: aggregate them in the query"
            )));
        }
        Ok(first.map_or(Found::Nothing, |text| typed(text, &kind)))
    }
}

/// Truth values and JSON as such; everything else as the text that the server makes of it.
fn typed(text: String, kind: &Type) -> Found {
    match *kind {
        Type::BOOL => Found::Typed((text == "t").into()),
        Type::JSON | Type::JSONB => match serde_json::from_str(&text) {
            Ok(value) => Found::Typed(value),
            Err(_) => Found::Text(text),
        },
        _ => Found::Text(text),
    }
}

/// What an error says of the server, or of the question.
fn seen(error: tokio_postgres::Error) -> Seen {
    if let Some(error) = error.as_db_error() {
        let text = short(error.message());
        let class = error.code().code().get(..2).unwrap_or_default();
        return match error.code() {
            &SqlState::QUERY_CANCELED => Seen::bad(text),
            _ if WRONG_QUESTION.contains(&class) => Seen::unclear(text),
            _ => Seen::bad(text),
        };
    }
    let mut cause: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(&error);
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref::<io::Error>() {
            return Seen::bad(words(io));
        }
        cause = inner.source();
    }
    match error.is_closed() {
        true => Seen::bad("connection closed by the server"),
        false => Seen::bad(short(&error.to_string())),
    }
}

/// TLS as PostgreSQL wants it: after a request in the clear.
impl TlsConnect<Bounded<TcpStream>> for Secured {
    type Stream = Encrypted;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Encrypted>> + Send>>;

    fn connect(self, stream: Bounded<TcpStream>) -> Self::Future {
        Box::pin(async move { Ok(Encrypted(self.handshake(stream).await?)) })
    }
}

/// An encrypted connection to PostgreSQL, without channel binding.
pub(super) struct Encrypted(tokio_rustls::client::TlsStream<Bounded<TcpStream>>);

impl TlsStream for Encrypted {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl AsyncRead for Encrypted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Encrypted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
