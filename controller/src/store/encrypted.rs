//! The way to PostgreSQL: encrypted, or not where that is nobody's business, as its address says.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect};
use tokio_postgres::{Config, Socket};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::StoreError;

/// What an address says of encryption, which the driver does not know all of.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    mode: Option<String>,
    roots: Option<String>,
    /// The address without it.
    rest: String,
}

const ENCRYPT: &str = "help: add `sslmode=verify-full` (and `sslrootcert=FILE` for an authority of your own), or \
                       `sslmode=disable` where the network is trusted";

/// Reads an address; gives the driver's configuration, and the means to encrypt, where that is to be done.
///
/// `sslmode=verify-full` encrypts, and knows the server by its certificate; so does `require`, because a connection to nobody
/// knows whom keeps nothing secret. `sslrootcert` is a file with whom to trust (PEM), by default whom the system trusts. Without
/// `sslmode` only a Unix socket and loopback are used; `sslmode=disable` says that the network is trusted.
pub(super) fn read(at: &str) -> Result<(Config, Option<Encryption>), StoreError> {
    let Said { mode, roots, rest } = said(at);
    let mut config: Config = rest.parse().map_err(|error: tokio_postgres::Error| {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        StoreError::Where(cause.unwrap_or_else(|| error.to_string()))
    })?;
    let encryption = match mode.as_deref() {
        Some("require" | "verify-full") => Some(Encryption::trusting(roots.as_deref())?),
        Some("disable") => None,
        // The driver dials these first.
        None | Some("allow" | "prefer")
            if config.get_hostaddrs().iter().any(|at| !at.to_canonical().is_loopback()) =>
        {
            let what = "what is said to its `hostaddr` would not be encrypted";
            return Err(StoreError::Where(format!("{what}; {ENCRYPT}")));
        }
        None | Some("allow" | "prefer") => match config.get_hosts().iter().find(|host| !is_here(host)) {
            Some(Host::Tcp(host)) => {
                return Err(StoreError::Where(format!(
                    "what is said to `{host}` would not be encrypted; {ENCRYPT}"
                )));
            }
            _ => None,
        },
        Some(other) => {
            return Err(StoreError::Where(format!(
                "`sslmode={other}` is not known; help: `verify-full` or `disable`"
            )));
        }
    };
    config.ssl_mode(if encryption.is_some() { SslMode::Require } else { SslMode::Disable });
    Ok((config, encryption))
}

/// Whether nobody else sees what is said to a host.
fn is_here(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => {
            name == "localhost" || name.parse::<IpAddr>().is_ok_and(|at| at.to_canonical().is_loopback())
        }
        Host::Unix(_) => true,
    }
}

/// Takes out of an address what is about encryption: of a URL its query, else `key=value` separated by spaces.
fn said(at: &str) -> Said {
    let mut said = Said::default();
    let mut take = |key: &str, value: &str| match key {
        "sslmode" => said.mode.replace(value.to_owned()).is_none_or(|_| true),
        "sslrootcert" => said.roots.replace(value.to_owned()).is_none_or(|_| true),
        _ => false,
    };
    let rest = if at.starts_with("postgres://") || at.starts_with("postgresql://") {
        let (before, query) = at.split_once('?').unwrap_or((at, ""));
        let query = query.replace('+', "%2B");
        let pairs = form_urlencoded::parse(query.as_bytes());
        let mut others = form_urlencoded::Serializer::new(String::new());
        for (key, value) in pairs {
            if !take(&key, &value) {
                others.append_pair(&key, &value);
            }
        }
        // The driver reads `+` as it stands.
        match others.finish().replace('+', "%20") {
            none if none.is_empty() => before.to_owned(),
            query => format!("{before}?{query}"),
        }
    } else {
        let words = pairs(at);
        let others = words.iter().filter(|(key, value, _)| !take(key, value));
        others.map(|(.., text)| *text).collect::<Vec<_>>().join(" ")
    };
    said.rest = rest;
    said
}

/// The pairs of a connection string, each with its text (PostgreSQL 15, 34.1.1.1).
fn pairs(at: &str) -> Vec<(String, String, &str)> {
    let mut found = Vec::new();
    let mut rest = at.trim_start();
    while !rest.is_empty() {
        let (mut value, mut quoted, mut escaped, mut end) = (String::new(), false, false, rest.len());
        let begin = rest.find('=').map_or(rest.len(), |equals| equals + 1);
        let spaces = rest[begin..].len() - rest[begin..].trim_start().len();
        for (place, c) in rest[begin + spaces..].char_indices() {
            match c {
                _ if escaped => {
                    value.push(c);
                    escaped = false;
                }
                '\\' => escaped = true,
                '\'' => quoted = !quoted,
                c if c.is_whitespace() && !quoted => {
                    end = begin + spaces + place;
                    break;
                }
                c => value.push(c),
            }
        }
        let key = rest[..begin].trim_end_matches('=').trim().to_owned();
        found.push((key, value, rest[..end].trim()));
        rest = rest[end..].trim_start();
    }
    found
}

/// TLS as PostgreSQL wants it: after a request in the clear.
#[derive(Clone)]
pub(super) struct Encryption(TlsConnector);

impl Encryption {
    fn trusting(file: Option<&str>) -> Result<Self, StoreError> {
        let mut roots = RootCertStore::empty();
        match file {
            Some(file) => {
                let unusable = |why: String| StoreError::Where(format!("`sslrootcert={file}`: {why}"));
                let pem = std::fs::read(file).map_err(|error| unusable(error.to_string()))?;
                for certificate in CertificateDer::pem_slice_iter(&pem) {
                    let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
                    roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
                }
                if roots.is_empty() {
                    return Err(unusable("it holds no certificate (PEM is expected)".to_owned()));
                }
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                if roots.is_empty() {
                    let what = "this system has no trusted certificates; help: name an authority with `sslrootcert=FILE`";
                    return Err(StoreError::Where(what.to_owned()));
                }
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| StoreError::Where(error.to_string()))?;
        let config = builder.with_root_certificates(roots).with_no_client_auth();
        Ok(Encryption(TlsConnector::from(Arc::new(config))))
    }
}

impl MakeTlsConnect<Socket> for Encryption {
    type Stream = Encrypted;
    type TlsConnect = Handshake;
    type Error = io::Error;

    fn make_tls_connect(&mut self, host: &str) -> io::Result<Handshake> {
        let name = ServerName::try_from(host.to_owned());
        let name = name
            .map_err(|_| io::Error::other(format!("`{host}` is not a name that a certificate can carry")))?;
        Ok(Handshake { connector: self.0.clone(), name })
    }
}

/// A connection that is about to be encrypted.
pub(super) struct Handshake {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl TlsConnect<Socket> for Handshake {
    type Stream = Encrypted;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Encrypted>> + Send>>;

    fn connect(self, socket: Socket) -> Self::Future {
        Box::pin(async move { Ok(Encrypted(self.connector.connect(self.name, socket).await?)) })
    }
}

/// An encrypted connection to PostgreSQL, without channel binding.
pub(super) struct Encrypted(TlsStream<Socket>);

impl tokio_postgres::tls::TlsStream for Encrypted {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_address_says_of_encryption_is_taken_out_of_it() {
        let is = |at: &str, mode: Option<&str>, roots: Option<&str>, rest: &str| {
            let owned = |text: Option<&str>| text.map(str::to_owned);
            let expected = Said { mode: owned(mode), roots: owned(roots), rest: rest.to_owned() };
            assert_eq!(said(at), expected, "{at}");
        };
        is("postgres://u:p@db/n", None, None, "postgres://u:p@db/n");
        is("postgres://db/n?sslmode=require", Some("require"), None, "postgres://db/n");
        is(
            "postgresql://db/n?connect_timeout=3&sslrootcert=%2Fetc%2Fca.pem&sslmode=verify-full",
            Some("verify-full"),
            Some("/etc/ca.pem"),
            "postgresql://db/n?connect_timeout=3",
        );
        is("host=/run/postgresql user=a", None, None, "host=/run/postgresql user=a");
        is(
            "host=db  password='a sslmode=\\'x' sslmode = verify-full sslrootcert='/my ca.pem' user=a",
            Some("verify-full"),
            Some("/my ca.pem"),
            "host=db password='a sslmode=\\'x' user=a",
        );
        is("", None, None, "");
        is("nonsense", None, None, "nonsense");
    }

    #[test]
    fn off_this_machine_nothing_is_said_in_the_clear_unless_somebody_says_so() {
        for here in [
            "host=/run/postgresql",
            "postgres://localhost/n",
            "postgres://127.0.0.1/n",
            "host=::1",
            "dbname=n",
        ] {
            assert!(matches!(read(here), Ok((_, None))), "{here}");
        }
        for (away, why) in [
            ("postgres://db.example/n", "would not be encrypted"),
            ("host=10.0.0.1 sslmode=prefer", "would not be encrypted"),
            ("host=localhost,db.example", "would not be encrypted"),
            ("hostaddr=10.0.0.1", "would not be encrypted"),
            ("host=localhost hostaddr=10.0.0.1", "would not be encrypted"),
            ("host=localhost sslmode=verify-ca", "`sslmode=verify-ca` is not known"),
            ("host=db sslmode=require sslrootcert=/nowhere.pem", "/nowhere.pem"),
        ] {
            let Err(error) = read(away) else { panic!("{away}") };
            assert!(error.to_string().contains(why), "{away}: {error}");
        }
        assert!(matches!(read("postgres://db.example/n?sslmode=disable"), Ok((_, None))));
    }
}
