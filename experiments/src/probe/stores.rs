//! Asking a store: Redis and PostgreSQL.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Tls, two_seconds};
use crate::quantity::Period;

/// One command to a Redis server (RESP, <https://redis.io/docs/latest/develop/reference/protocol-spec/>), on a new
/// connection. Its answer is the value; an error of the server is a bad sample.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RedisProbe {
    /// Host and port: `cache.internal:6379`.
    pub address: String,
    /// The command and its arguments.
    #[serde(default = "ping")]
    pub command: Vec<String>,
    /// The user to log in as; `password` is needed with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The password: `${secret:REDIS}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// The number of the database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<u32>,
    /// Speak TLS, and whom to trust.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// After this time, connecting included, the sample is bad.
    #[serde(default = "two_seconds")]
    pub timeout: Period,
}

fn ping() -> Vec<String> {
    vec!["PING".to_owned()]
}

/// One query to a PostgreSQL server, on a new connection, in a read-only transaction that the server itself ends after
/// the time-out. The first column of the only row is the value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SqlProbe {
    /// Host and port: `db.internal:5432`.
    pub address: String,
    /// The user to log in as.
    pub user: String,
    /// The password: `${secret:DB}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// The database; without it the one that is named as the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// One statement that only reads.
    #[serde(default = "select_one")]
    pub query: String,
    /// Speak TLS, and whom to trust.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// After this time, connecting included, the sample is bad.
    #[serde(default = "two_seconds")]
    pub timeout: Period,
}

fn select_one() -> String {
    "SELECT 1".to_owned()
}
