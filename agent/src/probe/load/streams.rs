//! Connections of HTTP/2, each of which carries many requests at the same time.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use tokio::sync::OnceCell;

use super::super::request::{HttpRequest, Shared};
use super::super::tcp::{CONNECTING, Stage};
use super::pool::NONE_FREE;

/// The most requests on one connection, unless the server allows fewer: what servers are asked to allow at least
/// (RFC 9113, 6.5.2).
const MOST: usize = 100;

/// The connections of one load to one group.
pub(super) struct Streams {
    lines: RefCell<Vec<Rc<Line>>>,
    most: usize,
}

/// One connection, from before it is open.
#[derive(Default)]
struct Line {
    shared: OnceCell<Shared>,
    /// Requests that are under way on it.
    under_way: Cell<usize>,
    served: Cell<bool>,
    gone: Cell<bool>,
}

/// The place of one request on a connection.
pub(super) struct Stream(Rc<Line>);

impl Streams {
    pub(super) fn new(most: usize) -> Self {
        Streams { lines: RefCell::default(), most }
    }

    /// A place on the first connection that has one; with whoever waits for it, where it is being opened. Where all are
    /// full, on a new one. Never waits for a place.
    pub(super) async fn take(&self, request: &HttpRequest, stage: &Stage) -> Result<Stream, String> {
        let stream = self.place()?;
        stage.set(CONNECTING);
        // Whoever opens it may run out of time; then the next one who waits for it goes on.
        stream.0.shared.get_or_try_init(|| request.connect_shared(stage)).await?;
        Ok(stream)
    }

    fn place(&self) -> Result<Stream, String> {
        let mut lines = self.lines.borrow_mut();
        lines.retain(|line| !line.is_gone());
        let free = lines.iter().find(|line| line.under_way.get() < line.room());
        let line = match free {
            Some(line) => line.clone(),
            None if lines.len() >= self.most => return Err(NONE_FREE.to_owned()),
            None => {
                lines.push(Rc::default());
                lines.last().map(Rc::clone).unwrap_or_default()
            }
        };
        line.under_way.set(line.under_way.get() + 1);
        Ok(Stream(line))
    }
}

impl Line {
    fn is_gone(&self) -> bool {
        self.gone.get() || self.shared.get().is_some_and(|shared| shared.sender.is_closed())
    }

    fn room(&self) -> usize {
        self.shared.get().map_or(MOST, |shared| shared.room().clamp(1, MOST))
    }
}

impl Stream {
    /// The connection; none where it is not open.
    pub(super) fn shared(&self) -> Option<&Shared> {
        self.0.shared.get()
    }

    /// Whether it has served a request before; its server may then have closed it meanwhile.
    pub(super) fn was_used(&self) -> bool {
        self.0.served.get()
    }

    /// A request was answered to its end.
    pub(super) fn served(&self) {
        self.0.served.set(true);
    }

    /// No request begins on this connection any more; those under way go on.
    pub(super) fn leave(&self) {
        self.0.gone.set(true);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.under_way.set(self.0.under_way.get() - 1);
    }
}
