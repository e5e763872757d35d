//! What one controller was asked to halt, and others on the same database have to: everything, a run that one of them carries on,
//! hosts that are connected to one of them.

use super::sql::Row;
use super::{Store, StoreError, now_ms};

/// How long the halt of a host stands for whoever has it, in milliseconds: who hears of it later has reverted by his lease.
const STANDS_MS: u64 = 60_000;
/// How long it is kept, in milliseconds.
const KEPT_MS: u64 = 3_600_000;

/// What controllers are asked to halt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Halts {
    /// What blocks new runs, where something does: everything is to be undone everywhere.
    pub all: Option<String>,
    /// Runs that are to end, of those that were asked for.
    pub runs: Vec<String>,
    /// Hosts on which everything is to be undone, by whichever controller has them.
    pub hosts: Vec<HostHalt>,
}

/// The halt of one host, of which no controller has said yet what it did.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostHalt {
    /// The halt, which may be of several hosts.
    pub halt: String,
    /// The host's name.
    pub host: String,
}

/// How far the halt of one host is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HaltOfHost {
    /// The host's name.
    pub host: String,
    /// Whether a controller that is connected to the host has begun.
    pub taken: bool,
    /// What that controller says of it, in the end.
    pub did: Option<String>,
}

impl Store {
    /// Lets whoever carries a run on know that it is to be halted.
    pub async fn want_halt(&self, id: &str) -> Result<(), StoreError> {
        let (id, now) = (id.to_owned(), now_ms());
        self.order(move |sql| {
            let wanted = "UPDATE runs SET halted_at = COALESCE(halted_at, $2) WHERE id = $1";
            sql.execute(wanted, &[(&id).into(), now.into()]).map(drop)
        })
        .await
    }

    /// Lets whoever has these hosts know that everything on them is to be undone; gives the name of this halt.
    pub async fn want_host_halts(&self, hosts: &[String]) -> Result<String, StoreError> {
        let (halt, hosts, now) = (format!("{:032x}", rand::random::<u128>()), hosts.to_vec(), now_ms());
        let kept = halt.clone();
        self.order(move |sql| {
            let old = now.saturating_sub(KEPT_MS);
            sql.execute("DELETE FROM host_halts WHERE at < $1", &[old.into()])?;
            for host in &hosts {
                // Begun again after an answer was lost, it is there already.
                let added =
                    "INSERT INTO host_halts (halt, host, at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
                sql.execute(added, &[(&kept).into(), host.into(), now.into()])?;
            }
            Ok(())
        })
        .await?;
        Ok(halt)
    }

    /// Says that the one who is connected to the host begins to undo.
    pub async fn take_host_halt(&self, of: &HostHalt) -> Result<(), StoreError> {
        let (of, now) = (of.clone(), now_ms());
        self.order(move |sql| {
            let taken =
                "UPDATE host_halts SET taken_at = COALESCE(taken_at, $3) WHERE halt = $1 AND host = $2";
            sql.execute(taken, &[(&of.halt).into(), (&of.host).into(), now.into()]).map(drop)
        })
        .await
    }

    /// Says what became of the halt of a host; the first who says so counts.
    pub async fn host_halted(&self, of: &HostHalt, did: &str) -> Result<(), StoreError> {
        let (of, did) = (of.clone(), did.to_owned());
        self.order(move |sql| {
            let said = "UPDATE host_halts SET did = $3 WHERE halt = $1 AND host = $2 AND did IS NULL";
            sql.execute(said, &[(&of.halt).into(), (&of.host).into(), (&did).into()]).map(drop)
        })
        .await
    }

    /// How far a halt is, for each of its hosts.
    pub async fn host_halts(&self, halt: &str) -> Result<Vec<HaltOfHost>, StoreError> {
        let halt = halt.to_owned();
        self.read(move |sql| {
            let asked = "SELECT host, taken_at, did FROM host_halts WHERE halt = $1 ORDER BY host";
            let rows = sql.query(asked, &[(&halt).into()])?;
            let of = |row: &Row| {
                Ok(HaltOfHost {
                    host: row.text(0)?,
                    taken: row.some_number(1)?.is_some(),
                    did: row.some_text(2)?,
                })
            };
            rows.iter().map(of).collect()
        })
        .await
    }

    /// What is to be halted: all, by the name of its fact; of these runs those that somebody [wants](Store::want_halt); and
    /// hosts.
    pub async fn halts(&self, fact: &'static str, runs: Vec<String>) -> Result<Halts, StoreError> {
        let now = now_ms();
        self.read(move |sql| {
            let all = sql.one("SELECT value FROM facts WHERE name = $1", &[fact.into()])?;
            let all = all.map(|row| row.text(0)).transpose()?;
            let mut wanted = Vec::new();
            for run in &runs {
                let halted = "SELECT halted_at FROM runs WHERE id = $1 AND halted_at IS NOT NULL";
                if sql.one(halted, &[run.into()])?.is_some() {
                    wanted.push(run.clone());
                }
            }
            let hosts =
                "SELECT halt, host FROM host_halts WHERE at >= $1 AND did IS NULL ORDER BY at, halt, host";
            let hosts = sql.query(hosts, &[now.saturating_sub(STANDS_MS).into()])?;
            let hosts = hosts.iter().map(|row| Ok(HostHalt { halt: row.text(0)?, host: row.text(1)? }));
            Ok(Halts { all, runs: wanted, hosts: hosts.collect::<Result<_, StoreError>>()? })
        })
        .await
    }
}
