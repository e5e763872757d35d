//! The shop's customers: an open loop, because people do not wait with coming until others have been served.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at, timeout};

use super::call;

/// How long a customer waits for a page before leaving.
const PATIENCE: Duration = Duration::from_secs(4);

/// Options of the customers.
#[derive(Debug, clap::Args)]
pub(super) struct Customers {
    /// Where the storefront listens.
    #[arg(long)]
    port: u16,
    /// How many front pages, and how many checkouts, are asked for per second.
    #[arg(long, default_value_t = 20)]
    rate: u32,
}

/// What customers got so far, both pages together. Printed as a line of JSON four times a second.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(in super::super) struct Tally {
    /// Pages that arrived.
    pub(in super::super) served: u64,
    /// Pages that did not: an error, or the customer left.
    pub(in super::super) lost: u64,
}

#[derive(Default)]
struct Counts {
    served: AtomicU64,
    lost: AtomicU64,
}

impl Customers {
    /// Comes until the process ends, or until nobody reads its lines.
    pub(super) async fn run(&self) -> anyhow::Result<()> {
        let counts = Arc::new(Counts::default());
        let between = Duration::from_secs(1) / self.rate.max(1);
        // Half a step apart, so that they do not always meet at the door.
        tokio::spawn(come(self.port, "/", Duration::ZERO, between, counts.clone()));
        tokio::spawn(come(self.port, "/checkout", between / 2, between, counts.clone()));
        let mut ticks = interval(Duration::from_millis(250));
        loop {
            ticks.tick().await;
            let tally = Tally {
                served: counts.served.load(Ordering::Relaxed),
                lost: counts.lost.load(Ordering::Relaxed),
            };
            let mut line = serde_json::to_string(&tally)?;
            line.push('\n');
            if std::io::stdout().write_all(line.as_bytes()).is_err() {
                return Ok(());
            }
        }
    }
}

async fn come(port: u16, path: &'static str, first: Duration, between: Duration, counts: Arc<Counts>) {
    let mut ticks = interval_at(Instant::now() + first, between);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let counts = counts.clone();
        tokio::spawn(async move {
            let page = timeout(PATIENCE, call::get(port, path)).await;
            let served = matches!(page, Ok(Ok((StatusCode::OK, _))));
            let count = if served { &counts.served } else { &counts.lost };
            count.fetch_add(1, Ordering::Relaxed);
        });
    }
}

impl Tally {
    /// What came to it since an earlier one.
    pub(in super::super) fn since(self, earlier: Tally) -> Tally {
        Tally { served: self.served - earlier.served, lost: self.lost - earlier.lost }
    }
}
