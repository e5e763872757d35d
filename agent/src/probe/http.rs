//! HTTP probes: one new connection per sample, so that a probe sees what a new client sees.

use std::time::Instant;

use squall_experiments::probe::{Expect, HttpProbe};
use squall_experiments::quantity::Period;
use tokio::time::timeout;

use super::expect::{Answer, ExpectHttp, Seen};
use super::request::{HttpRequest, Keep, reason, whole};
use super::tcp::{self, Stage, timed_out};

/// An HTTP probe, ready to be sampled.
pub(super) struct HttpLook {
    request: HttpRequest,
    timeout: Period,
    expect: ExpectHttp,
}

impl HttpLook {
    /// Understands the request and loads what it trusts; an error says why not.
    pub(super) fn new(probe: &HttpProbe, expect: &Expect) -> Result<Self, String> {
        Ok(HttpLook {
            request: HttpRequest::new(probe, Keep::Close)?,
            timeout: probe.timeout,
            expect: ExpectHttp::new(expect)?,
        })
    }

    /// Asks once: resolve, connect, handshake, request, whole body, all within the time-out.
    pub(super) async fn look(&self) -> Seen {
        let begun = Instant::now();
        let stage = Stage::new(tcp::RESOLVING);
        match timeout(self.timeout.get(), self.exchange(&stage)).await {
            Err(_) => Seen::bad(timed_out(self.timeout, &stage)),
            Ok(Err(failure)) => Seen::bad(failure),
            Ok(Ok(answer)) => self.expect.judge(&answer, begun.elapsed()),
        }
    }

    async fn exchange(&self, stage: &Stage) -> Result<Answer, String> {
        let mut connection = self.request.connect(stage).await?;
        stage.set(tcp::WAITING);
        let response = connection.sender.send_request(self.request.message()).await.map_err(reason)?;
        stage.set(tcp::READING);
        whole(response, true).await
    }
}
