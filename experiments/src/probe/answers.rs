//! What names and certificates say: DNS and TLS.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Tls, two_seconds};
use crate::quantity::Period;

/// One question to a name server. The value is the list of the answers as texts, in the order of their letters: addresses,
/// or what the record says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct DnsProbe {
    /// The name; search domains do not apply.
    pub name: String,
    /// What is asked for.
    #[serde(default, rename = "type")]
    pub kind: RecordKind,
    /// The name server, by address, with its port where that is not 53; without it the first of `/etc/resolv.conf`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// After this time the sample is bad.
    #[serde(default = "two_seconds")]
    pub timeout: Period,
}

/// A kind of DNS record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum RecordKind {
    /// IPv4 addresses.
    #[default]
    A,
    /// IPv6 addresses.
    Aaaa,
    /// The name that another name stands for.
    Cname,
    /// Mail servers.
    Mx,
    /// Name servers.
    Ns,
    /// The name of an address.
    Ptr,
    /// Services with their ports.
    Srv,
    /// Texts.
    Txt,
}

/// A TLS handshake. It is good when the chain of certificates is trusted, none of them has expired, and the server's carries
/// the name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TlsProbe {
    /// Host and port: `shop.example:443`.
    pub address: String,
    /// The name that the certificate must carry; without it the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// Whom to trust.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// After this time, connecting included, the sample is bad.
    #[serde(default = "two_seconds")]
    pub timeout: Period,
}
