//! HTTP probes: one new connection per sample, so that a probe sees what a new client sees.

use std::time::{Duration, Instant};

use squall_experiments::probe::{Expect, HttpProbe};
use squall_experiments::quantity::Period;

use super::expect::{Answer, ExpectHttp, Seen};
use super::looks::shorter;
use super::request::{HttpRequest, Keep, Message, reason, whole};
use super::tcp::{self, Stage};

/// An HTTP probe, ready to be sampled.
pub(super) struct HttpLook {
    fetch: Fetch,
    expect: ExpectHttp,
}

/// A request that can be sent again and again.
pub(super) struct Fetch {
    request: HttpRequest,
    timeout: Period,
}

impl HttpLook {
    /// Understands the request and loads what it trusts; an error says why not.
    pub(super) fn new(probe: &HttpProbe, expect: &Expect) -> Result<Self, String> {
        Ok(HttpLook { fetch: Fetch::new(probe)?, expect: ExpectHttp::new(expect)? })
    }

    /// Asks once.
    pub(super) async fn look(&self, left: Option<Duration>) -> Seen {
        let begun = Instant::now();
        match self.fetch.fetch(left).await {
            Err(failure) => Seen::bad(failure),
            Ok(answer) => self.expect.judge(&answer, begun.elapsed()),
        }
    }
}

impl Fetch {
    /// Understands the request and loads what it trusts; an error says why not.
    pub(super) fn new(probe: &HttpProbe) -> Result<Self, String> {
        Ok(Fetch { request: HttpRequest::new(probe, Keep::Close)?, timeout: probe.timeout })
    }

    /// Resolves, connects, shakes hands, asks and reads the whole body, all within the time-out and what is left.
    pub(super) async fn fetch(&self, left: Option<Duration>) -> Result<Answer, String> {
        self.limited(self.request.message(), left).await
    }

    /// The same with another body.
    pub(super) async fn fetch_with(&self, body: String, left: Option<Duration>) -> Result<Answer, String> {
        self.limited(self.request.message_with(body.into()), left).await
    }

    async fn limited(&self, message: Message, left: Option<Duration>) -> Result<Answer, String> {
        let stage = Stage::new(tcp::RESOLVING);
        tcp::limited(shorter(self.timeout.get(), left), &stage, self.exchange(message, &stage)).await
    }

    async fn exchange(&self, message: Message, stage: &Stage) -> Result<Answer, String> {
        let mut connection = self.request.connect(stage).await?;
        stage.set(tcp::WAITING);
        let response = connection.sender.send_request(message).await.map_err(reason)?;
        stage.set(tcp::READING);
        whole(response, true).await
    }
}
