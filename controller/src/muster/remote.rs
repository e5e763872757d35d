//! One host of a run over several, as its conductor sees it.

use std::pin::Pin;
use std::sync::Arc;

use squall_experiments::protocol::Refusal;
use tokio::time::Instant;

use super::Machines;
use super::barrier::Barrier;
use crate::conductor::{Answer, Gate, Host, Probing};
use crate::stream::Stream;

pub(super) struct Remote {
    pub(super) name: String,
    pub(super) machines: Arc<dyn Machines>,
    pub(super) barrier: Arc<Barrier>,
}

impl Host for Remote {
    fn prober(&self, user: Option<&str>) -> Answer<Probing> {
        let prober = self.machines.prober(&self.name, user);
        Box::pin(async move { prober.await.map(Probing::Elsewhere) })
    }

    /// A host that cannot be reached is never one without an agent: what is there is not known.
    fn resident(&mut self) -> Answer<Option<Stream>> {
        let agent = self.machines.agent(&self.name);
        Box::pin(async move { agent.await.map(Some) })
    }

    fn recover(&mut self) -> Result<Vec<String>, Refusal> {
        Err(Refusal::bare(format!(
            "what a dead agent left on `{}` is undone there, by the next one",
            self.name
        )))
    }

    fn gate(&self, gate: Gate) -> Pin<Box<dyn Future<Output = Option<Instant>>>> {
        let passed = self.barrier.arrive(&self.name, gate);
        Box::pin(async move { Some(passed.await) })
    }

    fn is_one_of_several(&self) -> bool {
        true
    }
}
