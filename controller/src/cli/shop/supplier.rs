//! Catalogue, payments and stock: services that think for a moment and answer.

use std::time::Duration;

use axum::Router;
use axum::routing::get;

/// Options of a service that others call.
#[derive(Debug, clap::Args)]
pub(super) struct Supplier {
    /// Where it listens, on 127.0.0.1.
    #[arg(long)]
    port: u16,
}

impl Supplier {
    /// Serves until the process ends.
    pub(super) async fn run(&self, name: &'static str) -> anyhow::Result<()> {
        let (thinks, says) = match name {
            "catalogue" => (5, "umbrella, raincoat, boots\n"),
            "stock" => (5, "3 left\n"),
            _ => (20, "paid\n"),
        };
        let answer = move || async move {
            tokio::time::sleep(Duration::from_millis(thinks)).await;
            says
        };
        let router = Router::new().route("/", get(answer));
        Ok(axum::serve(super::listen(self.port).await?, router).await?)
    }
}
