//! Enrolled hosts: what they said of themselves, and by which certificate they are known.

use std::collections::BTreeMap;

use serde::Serialize;

use super::sql::{Row, Value};
use super::{Store, StoreError, now_ms};

/// A host that enrols.
#[derive(Clone, Debug, Default)]
pub struct NewHost {
    /// Its name, unique among all that are not revoked.
    pub name: String,
    /// By which experiments choose it.
    pub labels: BTreeMap<String, String>,
    /// Where it stands, such as a data centre.
    pub zone: Option<String>,
    /// Which part of the service it carries.
    pub cell: Option<String>,
    /// The serial number of its certificate.
    pub serial: String,
    /// A fingerprint of its public key.
    pub key: String,
}

/// An enrolled host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HostRow {
    /// Its name.
    pub name: String,
    /// By which experiments choose it.
    pub labels: BTreeMap<String, String>,
    /// Where it stands.
    pub zone: Option<String>,
    /// Which part of the service it carries.
    pub cell: Option<String>,
    /// The serial number of its newest certificate.
    pub serial: String,
    /// That of the one before, which is valid until the newest has been used.
    pub previous_serial: Option<String>,
    /// A fingerprint of its public key.
    pub key: String,
    /// When it enrolled: milliseconds since 1970.
    pub enrolled_at: u64,
    /// When it was revoked.
    pub revoked_at: Option<u64>,
}

impl HostRow {
    /// Whether a certificate with this serial number speaks for this host now.
    pub fn accepts(&self, serial: &str) -> bool {
        self.revoked_at.is_none()
            && (self.serial == serial || self.previous_serial.as_deref() == Some(serial))
    }
}

const NAMED: &str = "SELECT name, labels, zone, cell, serial, previous_serial, key, enrolled_at, revoked_at \
                     FROM hosts WHERE name = $1";
const ALL: &str = "SELECT name, labels, zone, cell, serial, previous_serial, key, enrolled_at, revoked_at \
                   FROM hosts ORDER BY name";

fn host(row: &Row) -> Result<HostRow, StoreError> {
    Ok(HostRow {
        name: row.text(0)?,
        labels: row.json(1)?,
        zone: row.some_text(2)?,
        cell: row.some_text(3)?,
        serial: row.text(4)?,
        previous_serial: row.some_text(5)?,
        key: row.text(6)?,
        enrolled_at: row.number(7)?,
        revoked_at: row.some_number(8)?,
    })
}

fn labels(labels: &BTreeMap<String, String>) -> Value {
    Value::Text(serde_json::json!(labels).to_string())
}

fn missing(name: &str) -> StoreError {
    StoreError::Missing(format!("host `{name}`"))
}

fn concerned(rows: u64, name: &str) -> Result<(), StoreError> {
    if rows == 0 { Err(missing(name)) } else { Ok(()) }
}

impl Store {
    /// Uses up one use of a join token and adds a host, both or neither. A name that was revoked may enrol again, and its
    /// old certificates stay refused.
    ///
    /// Errors: [`StoreError::Token`]; [`StoreError::Clash`] for a name that a host has which is not revoked.
    pub async fn enrol(&self, token_hash: &str, new: NewHost) -> Result<(), StoreError> {
        let (hash, now) = (token_hash.to_owned(), now_ms());
        self.write(move |sql| {
            let used = "UPDATE join_tokens SET uses_left = uses_left - 1 \
                        WHERE hash = $1 AND uses_left > 0 AND expires_at > $2 AND revoked_at IS NULL";
            if sql.execute(used, &[(&hash).into(), now.into()])? == 0 {
                return Err(StoreError::Token);
            }
            let added = "INSERT INTO hosts (name, labels, zone, cell, serial, key, enrolled_at) \
                         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (name) DO UPDATE SET \
                         labels = excluded.labels, zone = excluded.zone, cell = excluded.cell, \
                         serial = excluded.serial, previous_serial = NULL, key = excluded.key, \
                         enrolled_at = excluded.enrolled_at, revoked_at = NULL \
                         WHERE hosts.revoked_at IS NOT NULL";
            let values = [
                (&new.name).into(),
                labels(&new.labels),
                new.zone.as_ref().into(),
                new.cell.as_ref().into(),
                (&new.serial).into(),
                (&new.key).into(),
                now.into(),
            ];
            match sql.execute(added, &values)? {
                0 => Err(StoreError::Clash(format!("host `{}`", new.name))),
                _ => Ok(()),
            }
        })
        .await
    }

    /// The host of a name.
    pub async fn host(&self, name: &str) -> Result<Option<HostRow>, StoreError> {
        let name = name.to_owned();
        self.read(move |sql| {
            let row = sql.one(NAMED, &[(&name).into()])?;
            row.as_ref().map(host).transpose()
        })
        .await
    }

    /// All hosts by name, the revoked ones too.
    pub async fn hosts(&self) -> Result<Vec<HostRow>, StoreError> {
        self.read(|sql| {
            let rows = sql.query(ALL, &[])?;
            rows.iter().map(host).collect()
        })
        .await
    }

    /// Revokes a host: no certificate speaks for it from now on. Idempotent.
    pub async fn revoke_host(&self, name: &str) -> Result<(), StoreError> {
        let (name, now) = (name.to_owned(), now_ms());
        self.write(move |sql| {
            let revoked = "UPDATE hosts SET revoked_at = COALESCE(revoked_at, $1) WHERE name = $2";
            concerned(sql.execute(revoked, &[now.into(), (&name).into()])?, &name)
        })
        .await
    }

    /// Sets all labels of a host.
    pub async fn set_labels(&self, name: &str, new: BTreeMap<String, String>) -> Result<(), StoreError> {
        let name = name.to_owned();
        self.write(move |sql| {
            let set = "UPDATE hosts SET labels = $1 WHERE name = $2";
            concerned(sql.execute(set, &[labels(&new), (&name).into()])?, &name)
        })
        .await
    }

    /// Gives a host a new certificate; the one before stays valid until [`Store::settle_host`]. A host that is revoked
    /// gets none.
    pub async fn renew_host(&self, name: &str, serial: &str) -> Result<(), StoreError> {
        let (name, serial) = (name.to_owned(), serial.to_owned());
        self.write(move |sql| {
            let renewed = "UPDATE hosts SET previous_serial = serial, serial = $1 \
                           WHERE name = $2 AND revoked_at IS NULL AND serial <> $1";
            sql.execute(renewed, &[(&serial).into(), (&name).into()])?;
            let row = sql.one(
                "SELECT name FROM hosts WHERE name = $1 AND serial = $2 AND revoked_at IS NULL",
                &[(&name).into(), (&serial).into()],
            )?;
            row.map(drop).ok_or_else(|| missing(&name))
        })
        .await
    }

    /// The host has used its newest certificate: the one before is over.
    pub async fn settle_host(&self, name: &str, serial: &str) -> Result<(), StoreError> {
        let (name, serial) = (name.to_owned(), serial.to_owned());
        self.write(move |sql| {
            let settled = "UPDATE hosts SET previous_serial = NULL WHERE name = $1 AND serial = $2";
            sql.execute(settled, &[(&name).into(), (&serial).into()]).map(drop)
        })
        .await
    }
}
