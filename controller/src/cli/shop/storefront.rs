//! The storefront: every page takes one of a few workers for as long as it is made, as in most servers with a pool of
//! threads or processes.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
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
    /// How long a front page waits for the catalogue, per attempt; `0s` waits for ever.
    #[arg(long, default_value = "0s")]
    catalogue_timeout: Period,
    /// How often a supplier that did not answer is asked again.
    #[arg(long, default_value_t = 0)]
    retries: u32,
    /// Do without a supplier that does not answer: accept an order and take the payment later, show the goods that were
    /// seen last.
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
    goods: Mutex<String>,
}

type Shared = State<Arc<Shopfront>>;

impl Storefront {
    /// Serves until the process ends.
    pub(super) async fn run(&self) -> anyhow::Result<()> {
        let shop = Arc::new(Shopfront {
            options: self.clone(),
            workers: Arc::new(Semaphore::new(self.workers)),
            queued: AtomicUsize::new(0),
            goods: Mutex::new("umbrellas, as always".to_owned()),
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
    let this = shop.clone();
    shop.page(async move {
        let Storefront { catalogue, catalogue_timeout, retries, fallback, .. } = this.options;
        let found = ask(catalogue, catalogue_timeout, retries).await;
        let mut seen = this.goods.lock().unwrap_or_else(PoisonError::into_inner);
        match found {
            Some(goods) => *seen = goods,
            None if fallback => {}
            None => return (StatusCode::BAD_GATEWAY, "the catalogue is away\n").into_response(),
        }
        format!("Today: {seen}").into_response()
    })
    .await
}

async fn checkout(State(shop): Shared) -> Response {
    let Storefront { stock, payments, payment_timeout, retries, fallback, .. } = shop.options;
    shop.page(async move {
        if ask(stock, Period::ZERO, 0).await.is_none() {
            return (StatusCode::BAD_GATEWAY, "the stock is not known\n").into_response();
        }
        match ask(payments, payment_timeout, retries).await {
            Some(_) => "order paid\n".into_response(),
            None if fallback => "order accepted, payment will be taken later\n".into_response(),
            None => (StatusCode::BAD_GATEWAY, "the payment failed\n").into_response(),
        }
    })
    .await
}

/// What a supplier answers; each attempt has a new connection and so much time.
async fn ask(port: u16, limit: Period, retries: u32) -> Option<String> {
    for _ in 0..=retries {
        let answer = async {
            match call::get(port, "/").await {
                Ok((StatusCode::OK, body)) => Some(body),
                _ => None,
            }
        };
        let answer = match limit.get() {
            Duration::ZERO => answer.await,
            limit => timeout(limit, answer).await.ok().flatten(),
        };
        if answer.is_some() {
            return answer;
        }
    }
    None
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
