//! Connections that are kept: the one that was used last is used next, so that no more stay open than are needed.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::client::conn::http1::SendRequest;

use super::super::request::{Connection, HttpRequest};
use super::super::tcp::Stage;

/// What a request is told that would need one connection more than there may be.
pub(super) const NONE_FREE: &str = "no connection free";

/// The connections of one load.
pub(super) struct Pool {
    idle: RefCell<Vec<Held>>,
    /// Open ones, idle ones among them, and those that are being opened.
    open: Rc<Cell<usize>>,
    most: usize,
}

/// A connection that is in use; it is closed when this is dropped.
pub(super) struct Held {
    connection: Connection,
    used: bool,
    _slot: Slot,
}

/// The place of a connection among those that may be open.
struct Slot(Rc<Cell<usize>>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Pool {
    pub(super) fn new(most: usize) -> Self {
        Pool { idle: RefCell::default(), open: Rc::default(), most }
    }

    /// An idle connection, else a new one. Never waits for one to become free.
    pub(super) async fn take(&self, request: &HttpRequest, stage: &Stage) -> Result<Held, String> {
        loop {
            let Some(held) = self.idle.borrow_mut().pop() else { break };
            if held.connection.sender.is_ready() {
                return Ok(held);
            }
        }
        if self.open.get() >= self.most {
            return Err(NONE_FREE.to_owned());
        }
        self.open.set(self.open.get() + 1);
        let slot = Slot(self.open.clone());
        Ok(Held { connection: request.connect(stage).await?, used: false, _slot: slot })
    }

    /// Keeps a connection whose answer was read to its end, unless the server closes it.
    pub(super) async fn give_back(&self, mut held: Held) {
        if held.connection.sender.ready().await.is_ok() {
            held.used = true;
            self.idle.borrow_mut().push(held);
        }
    }
}

impl Held {
    pub(super) fn sender(&mut self) -> &mut SendRequest<Full<Bytes>> {
        &mut self.connection.sender
    }

    /// Whether it has served a request before; its server may then have closed it meanwhile.
    pub(super) fn was_used(&self) -> bool {
        self.used
    }
}
