//! What other controllers on the same PostgreSQL did, heard as soon as it is committed (`LISTEN` and `NOTIFY`, PostgreSQL 15
//! documentation, section 31.9 and SQL commands).
//!
//! Nothing depends on it but how soon something is known: whoever waits also looks from time to time. A connection of its own
//! listens; where it is lost it is made anew, and whoever waits is woken, because nobody heard what was said meanwhile.

use std::future::poll_fn;
use std::pin::pin;
use std::thread;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::{sleep, timeout};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{AsyncMessage, Config, NoTls, Socket};

use super::StoreError;
use super::encrypted;
use super::postgres::{LONGEST, failed, in_a_runtime};
use super::sql::Said;

/// The channel of all controllers on one database.
pub(super) const CHANNEL: &str = "squall";
/// How long after a lost connection another one is tried.
const AGAIN: Duration = Duration::from_secs(1);
/// After how long without a word the system looks whether the other side is still there.
const IDLE: Duration = Duration::from_secs(15);

/// Who is woken.
#[derive(Clone, Debug, Default)]
pub(super) struct Woken {
    /// Where runs and game days got something.
    pub(super) changes: watch::Sender<u64>,
    /// Where somebody wants something of all of them: a halt.
    pub(super) orders: watch::Sender<u64>,
}

impl Woken {
    pub(super) fn of(&self, said: Said) {
        let woken = match said {
            Said::Changed => &self.changes,
            Said::Ordered => &self.orders,
        };
        woken.send_modify(|count| *count += 1);
    }

    /// By what stands in a notification, unless it is our own.
    fn heard(&self, payload: &str, own: &str) {
        let (word, origin) = payload.split_once(' ').unwrap_or((payload, ""));
        if origin == own {
            return;
        }
        for said in [Said::Changed, Said::Ordered] {
            if said.word() == word {
                self.of(said);
            }
        }
    }
}

/// A thread that listens, for as long as this lives.
#[derive(Debug)]
pub(super) struct Hearing {
    _ends: oneshot::Sender<()>,
}

/// Begins to listen to what others than `own` say.
///
/// Errors: an address that is not understood. A database that does not let it listen is none: it is tried again and again.
pub(super) fn begin(at: &str, own: String, woken: Woken) -> Result<Hearing, StoreError> {
    let (mut config, encryption) = encrypted::read(at)?;
    config.application_name("squall listens").connect_timeout(LONGEST).tcp_user_timeout(LONGEST);
    config.keepalives_idle(IDLE).keepalives_interval(IDLE / 3).keepalives_retries(3);
    let (ends, ended) = oneshot::channel();
    let runtime = in_a_runtime()?;
    let listening = async move {
        let mut told = false;
        loop {
            let lost = match encryption.clone() {
                Some(encryption) => listen(&config, encryption, &own, &woken, &mut told).await,
                None => listen(&config, NoTls, &own, &woken, &mut told).await,
            };
            if !std::mem::replace(&mut told, true) {
                tracing::warn!(error = %lost, "other controllers are not heard: what they do is seen a little later");
            }
            sleep(AGAIN).await;
        }
    };
    let heard = move || {
        runtime.block_on(async {
            tokio::select! {
                _ = ended => {}
                () = listening => {}
            }
        });
    };
    let started = thread::Builder::new().name("store-hear".to_owned()).spawn(heard);
    started.map_err(|cause| StoreError::Away(cause.to_string()))?;
    Ok(Hearing { _ends: ends })
}

/// Listens over one connection; gives why that is over.
async fn listen<T>(config: &Config, tls: T, own: &str, woken: &Woken, told: &mut bool) -> StoreError
where
    T: MakeTlsConnect<Socket>,
{
    let away = |why: &str| StoreError::Away(why.to_owned());
    let (client, mut connection) = match timeout(LONGEST, config.connect(tls)).await {
        Ok(Ok(connected)) => connected,
        Ok(Err(error)) => return failed(&error),
        Err(_) => return away("no connection in time"),
    };
    let asked = format!("LISTEN {CHANNEL}");
    let mut asking = pin!(timeout(LONGEST, client.batch_execute(&asked)));
    let mut listens = false;
    loop {
        tokio::select! {
            asked = &mut asking, if !listens => match asked {
                Ok(Ok(())) => {
                    (listens, *told) = (true, false);
                    woken.of(Said::Changed);
                    woken.of(Said::Ordered);
                }
                Ok(Err(error)) => return failed(&error),
                Err(_) => return away("no answer in time"),
            },
            message = poll_fn(|context| connection.poll_message(context)) => match message {
                Some(Ok(AsyncMessage::Notification(said))) if said.channel() == CHANNEL => {
                    woken.heard(said.payload(), own);
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return failed(&error),
                None => return away("the connection was closed"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_speaks_is_not_woken_by_himself_and_what_is_not_understood_wakes_nobody() {
        let woken = Woken::default();
        let seen = || (*woken.changes.borrow(), *woken.orders.borrow());
        for (payload, after) in [
            ("changed a", (0, 0)),
            ("changed b", (1, 0)),
            ("ordered b", (1, 1)),
            ("ordered a", (1, 1)),
            ("", (1, 1)),
            ("of a later version b", (1, 1)),
            ("changed", (2, 1)),
        ] {
            woken.heard(payload, "a");
            assert_eq!(seen(), after, "{payload}");
        }
    }
}
