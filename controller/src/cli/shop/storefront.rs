//! The storefront: every page takes one of a few workers for as long as it is made, as in most servers with a pool of
//! threads or processes.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use squall_experiments::quantity::Period;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::call;

/// Options of the storefront.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Storefront {
    /// Where it listens, on 127.0.0.1.
    #[arg(long)]
    port: u16,
    /// How many pages are made at the same time; further ones queue.
    #[arg(long, default_value_t = 8)]
    workers: usize,
    /// Where the catalogue listens.
    #[arg(long, default_value_t = 7001)]
    catalogue: u16,
    /// Where the stock service listens.
    #[arg(long, default_value_t = 7002)]
    stock: u16,
    /// Where payments listens.
    #[arg(long, default_value_t = 7003)]
    payments: u16,
    /// How long a checkout waits for payments, per attempt; `0s` waits for ever.
    #[arg(long, default_value = "0s")]
    payment_timeout: Period,
    /// How often a checkout asks payments again.
    #[arg(long, default_value_t = 0)]
    retries: u32,
    /// Accept an order when payments does not answer, and take the payment later.
    #[arg(long)]
    fallback: bool,
}

/// What `/health` says.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(in super::super) struct Health {
    /// How many workers there are.
    pub(in super::super) workers: usize,
    /// How many of them make a page.
    pub(in super::super) busy: usize,
    /// How many requests wait for a worker.
    pub(in super::super) queued: usize,
}

struct Shopfront {
    options: Storefront,
    workers: Arc<Semaphore>,
    queued: AtomicUsize,
}

type Shared = State<Arc<Shopfront>>;

impl Storefront {
    /// Serves until the process ends.
    pub(super) async fn run(&self) -> anyhow::Result<()> {
        let shop = Arc::new(Shopfront {
            options: self.clone(),
            workers: Arc::new(Semaphore::new(self.workers)),
            queued: AtomicUsize::new(0),
        });
        let router = Router::new()
            .route("/", get(front))
            .route("/checkout", get(checkout))
            .route("/health", get(health))
            .with_state(shop);
        Ok(axum::serve(super::listen(self.port).await?, router).await?)
    }
}

async fn front(State(shop): Shared) -> Response {
    let catalogue = shop.options.catalogue;
    shop.page(async move {
        match call::get(catalogue, "/").await {
            Ok((StatusCode::OK, goods)) => format!("Today: {goods}").into_response(),
            _ => (StatusCode::BAD_GATEWAY, "the catalogue is away\n").into_response(),
        }
    })
    .await
}

async fn checkout(State(shop): Shared) -> Response {
    let options = shop.options.clone();
    shop.page(async move {
        if !matches!(call::get(options.stock, "/").await, Ok((StatusCode::OK, _))) {
            return (StatusCode::BAD_GATEWAY, "the stock is not known\n").into_response();
        }
        for _ in 0..=options.retries {
            if options.pay().await {
                return "order paid\n".into_response();
            }
        }
        if options.fallback {
            return "order accepted, payment will be taken later\n".into_response();
        }
        (StatusCode::BAD_GATEWAY, "the payment failed\n").into_response()
    })
    .await
}

/// Needs no worker: who asks how busy they are must not wait for one.
async fn health(State(shop): Shared) -> Json<Health> {
    let workers = shop.options.workers;
    Json(Health {
        workers,
        busy: workers - shop.workers.available_permits(),
        queued: shop.queued.load(Ordering::Relaxed),
    })
}

impl Storefront {
    async fn pay(&self) -> bool {
        let paid = async { matches!(call::get(self.payments, "/").await, Ok((StatusCode::OK, _))) };
        match self.payment_timeout.get() {
            Duration::ZERO => paid.await,
            limit => timeout(limit, paid).await.unwrap_or(false),
        }
    }
}

impl Shopfront {
    /// Makes a page as soon as a worker is free. A page that was begun is finished even when its customer has left:
    /// a worker that waits for somebody else notices nothing.
    async fn page(&self, work: impl Future<Output = Response> + Send + 'static) -> Response {
        let queued = Queued::new(&self.queued);
        let Ok(worker) = self.workers.clone().acquire_owned().await else {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        };
        drop(queued);
        let page = tokio::spawn(async move {
            let page = work.await;
            drop(worker);
            page
        });
        page.await.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
    }
}

/// Counted while it waits, however the waiting ends.
struct Queued<'a>(&'a AtomicUsize);

impl<'a> Queued<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Queued(count)
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
