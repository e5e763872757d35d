//! Why a request is refused, in the words that clients of Toxiproxy know.

use crate::proxy::matcher::BadMatcher;
use crate::proxy::tls::BadTls;
use crate::proxy::toxics::values::BadAttribute;

/// Why a request is refused. The texts are those that clients of Toxiproxy compare with.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// A field that must be there is not.
    #[error("missing required field: {0}")]
    Missing(String),
    /// No proxy has this name.
    #[error("proxy not found")]
    NoProxy,
    /// A proxy has this name.
    #[error("proxy already exists")]
    ProxyExists,
    /// No toxic of this proxy has this name.
    #[error("toxic not found")]
    NoToxic,
    /// A toxic of this proxy has this name.
    #[error("toxic already exists")]
    ToxicExists,
    /// Neither of the two directions.
    #[error("stream was invalid, can be either upstream or downstream")]
    Stream,
    /// No such kind of toxic.
    #[error("invalid toxic type")]
    Kind,
    /// An attribute is not what it has to be.
    #[error("bad request body: {0}")]
    Attribute(#[from] BadAttribute),
    /// A matcher is not what it has to be.
    #[error("bad request body: {0}")]
    Matcher(#[from] BadMatcher),
    /// The proxy does not understand requests, which this is about.
    #[error("{0} needs a proxy with `protocol` `http`")]
    Protocol(&'static str),
    /// Certificates or keys that cannot be used.
    #[error("bad request body: {0}")]
    Tls(#[from] BadTls),
    /// No header is called so, or can hold that.
    #[error("bad request body: `{0}` cannot be the {1} of a header")]
    Header(String, &'static str),
    /// The proxy has no handshakes with its clients.
    #[error("{0} needs a proxy with `tls`")]
    NoTls(&'static str),
    /// The toxic works on bytes or connections, and is to tell requests.
    #[error("bad request body: `method`, `path`, `header` and `grpc` are matchers of toxics for HTTP")]
    Requests,
    /// No such protocol.
    #[error("bad request body: protocol is to be `tcp` or `http`, not `{0}`")]
    NoProtocol(String),
    /// The address cannot be listened at.
    #[error("{0}")]
    Listen(String),
}
