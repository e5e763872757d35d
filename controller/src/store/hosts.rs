//! Enrolled hosts: what they said of themselves, and by which certificate they are known.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::json;

use super::page::Page;
use super::sql::{Row, Sql, Value};
use super::{Store, StoreError, audit, now_ms};

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
    /// Those of the ones before, the oldest first: from the last that was used on. Each is valid until a later one has been used,
    /// because the answer in which a certificate came may have been lost.
    pub earlier_serials: Vec<String>,
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
            && (self.serial == serial || self.earlier_serials.iter().any(|earlier| earlier == serial))
    }

    /// Whether certificates from before this one are still valid.
    pub(crate) fn has_before(&self, serial: &str) -> bool {
        self.earlier_serials.first().is_some_and(|oldest| oldest != serial)
    }
}

/// How many certificates a host has at most; where there would be more, the oldest that were never used are over.
const CERTIFICATES: usize = 16;
/// Whoever has done this is alone with the host until the commit.
const LOCKED: &str = "UPDATE hosts SET name = name WHERE name = $1 AND revoked_at IS NULL";
const NAMED: &str = "SELECT name, labels, zone, cell, serial, previous_serial, key, enrolled_at, revoked_at \
                     FROM hosts WHERE name = $1";
const NEXT: &str = "SELECT name, labels, zone, cell, serial, previous_serial, key, enrolled_at, revoked_at \
                    FROM hosts WHERE name > $1 ORDER BY name LIMIT $2";
const ALL: &str = "SELECT name, labels, zone, cell, serial, previous_serial, key, enrolled_at, revoked_at \
                   FROM hosts ORDER BY name";

fn host(row: &Row) -> Result<HostRow, StoreError> {
    Ok(HostRow {
        name: row.text(0)?,
        labels: row.json(1)?,
        zone: row.some_text(2)?,
        cell: row.some_text(3)?,
        serial: row.text(4)?,
        earlier_serials: row
            .some_text(5)?
            .iter()
            .flat_map(|serials| serials.split(' '))
            .map(str::to_owned)
            .collect(),
        key: row.text(6)?,
        enrolled_at: row.number(7)?,
        revoked_at: row.some_number(8)?,
    })
}

fn labels(labels: &BTreeMap<String, String>) -> Value {
    Value::Text(json!(labels).to_string())
}

fn missing(name: &str) -> StoreError {
    StoreError::Missing(format!("host `{name}`"))
}

/// Serial numbers in one column, which once held one.
fn together(serials: &[String]) -> Value {
    if serials.is_empty() { Value::Null } else { Value::Text(serials.join(" ")) }
}

fn concerned(rows: u64, name: &str) -> Result<(), StoreError> {
    if rows == 0 { Err(missing(name)) } else { Ok(()) }
}

impl Store {
    /// Uses up one use of a join token, adds a host, and writes that into the audit log: all or nothing. A name that was revoked may enrol again, and its
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
                _ => audit::add(sql, &format!("host {}", new.name), &joined(&new.name), now).map(drop),
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

    /// The same, at most `limit`; `after` is the `next` of the page before.
    pub async fn hosts_after(&self, after: Option<&str>, limit: u64) -> Result<Page<HostRow>, StoreError> {
        let after = after.unwrap_or_default().to_owned();
        self.read(move |sql| {
            let rows = sql.query(NEXT, &[(&after).into(), (limit + 1).into()])?;
            let hosts = rows.iter().map(host).collect::<Result<_, _>>()?;
            Ok(Page::of(hosts, limit, |host: &HostRow| host.name.clone()))
        })
        .await
    }

    /// Revokes a host: no certificate speaks for it from now on, and controllers that share the store hear it. Idempotent.
    pub async fn revoke_host(&self, name: &str) -> Result<(), StoreError> {
        let (name, now) = (name.to_owned(), now_ms());
        self.order(move |sql| {
            let revoked = "UPDATE hosts SET revoked_at = COALESCE(revoked_at, $1) WHERE name = $2";
            concerned(sql.execute(revoked, &[now.into(), (&name).into()])?, &name)
        })
        .await
    }

    /// The names of those that are revoked.
    pub async fn revoked_hosts(&self) -> Result<Vec<String>, StoreError> {
        self.read(|sql| {
            let rows = sql.query("SELECT name FROM hosts WHERE revoked_at IS NOT NULL", &[])?;
            rows.iter().map(|row| row.text(0)).collect()
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

    /// Gives a host another certificate, which it asks for with the one of serial `by`; it is refused where that is not valid. Those
    /// before stay valid until [`Store::settle_host`].
    pub async fn renew_host(&self, name: &str, by: &str, serial: &str) -> Result<(), StoreError> {
        let (name, by, serial) = (name.to_owned(), by.to_owned(), serial.to_owned());
        self.write(move |sql| {
            let kept = locked(sql, &name)?;
            match kept.accepts(&by) {
                true => add(sql, kept, &serial),
                false => Err(missing(&name)),
            }
        })
        .await
    }

    /// The same for a host that has proved to have the key by which it is known: the answer to its first question may have been
    /// lost. It stands in the audit log.
    ///
    /// Errors: [`StoreError::Clash`] where it is known by another key.
    pub async fn rejoin_host(&self, name: &str, key: &str, serial: &str) -> Result<(), StoreError> {
        let (name, key, serial, now) = (name.to_owned(), key.to_owned(), serial.to_owned(), now_ms());
        self.write(move |sql| {
            let kept = locked(sql, &name)?;
            if kept.key != key {
                return Err(StoreError::Clash(format!("host `{name}`")));
            }
            let again = json!({ "host-joined": { "host": name, "again": true } });
            audit::add(sql, &format!("host {name}"), &again, now)?;
            add(sql, kept, &serial)
        })
        .await
    }

    /// The host has used this certificate: those before it are over.
    pub async fn settle_host(&self, name: &str, serial: &str) -> Result<(), StoreError> {
        let (name, serial) = (name.to_owned(), serial.to_owned());
        self.write(move |sql| {
            let kept = locked(sql, &name)?;
            let used = kept.earlier_serials.iter().position(|earlier| *earlier == serial);
            let left = match used {
                Some(used) => &kept.earlier_serials[used..],
                None if kept.serial == serial => &[],
                None => return Ok(()),
            };
            let settled = "UPDATE hosts SET previous_serial = $1 WHERE name = $2";
            sql.execute(settled, &[together(left), (&name).into()]).map(drop)
        })
        .await
    }
}

/// A host that is not revoked, with which this transaction is alone.
fn locked(sql: &mut dyn Sql, name: &str) -> Result<HostRow, StoreError> {
    concerned(sql.execute(LOCKED, &[name.into()])?, name)?;
    let row = sql.one(NAMED, &[name.into()])?;
    host(&row.ok_or_else(|| missing(name))?)
}

fn add(sql: &mut dyn Sql, kept: HostRow, serial: &str) -> Result<(), StoreError> {
    if kept.serial == serial {
        return Ok(());
    }
    let mut earlier = kept.earlier_serials;
    earlier.push(kept.serial);
    if earlier.len() >= CERTIFICATES {
        // The first is the one that was used last.
        earlier.remove(1);
    }
    let renewed = "UPDATE hosts SET previous_serial = $1, serial = $2 WHERE name = $3";
    sql.execute(renewed, &[together(&earlier), serial.into(), (&kept.name).into()]).map(drop)
}

fn joined(name: &str) -> serde_json::Value {
    json!({ "host-joined": { "host": name } })
}
