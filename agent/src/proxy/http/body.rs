//! Bodies that pass: counted, noted, and where a toxic says so broken off.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::{Body, Frame, SizeHint};

use super::faults::Cut;
use super::notes::{Notes, Part};

/// A body of any origin.
pub(super) type Flow = UnsyncBoxBody<Bytes, Broken>;

/// Why a body ends before its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    /// A toxic says so.
    #[error("cut off")]
    Cut,
    /// Who sends it has gone, or does not keep to the protocol.
    #[error("{0}")]
    Peer(#[from] hyper::Error),
}

/// A body that is noted as it passes.
pub(super) struct Noted {
    flow: Flow,
    notes: Arc<Notes>,
    part: Part,
    /// After how many more bytes it breaks off.
    left: Option<u64>,
    cut: Option<Cut>,
    /// What came before that may be written first: hyper writes when a body makes it wait.
    waited: bool,
    /// Bytes were left out.
    lost: bool,
}

impl Noted {
    pub(super) fn around(flow: Flow, notes: Arc<Notes>, part: Part, cut: Option<Cut>) -> Flow {
        if flow.is_end_stream() && cut.is_none() {
            notes.over(part);
        }
        let left = cut.as_ref().map(|cut| cut.after);
        Noted { flow, notes, part, left, cut, waited: false, lost: false }.boxed_unsync()
    }
}

impl Body for Noted {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if self.left == Some(0) && (self.lost || !self.flow.is_end_stream()) {
            if !std::mem::replace(&mut self.waited, true) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if let Some(cut) = self.cut.take() {
                cut.hit(&self.notes);
            }
            self.notes.ended("fault");
            return Poll::Ready(Some(Err(Broken::Cut)));
        }
        let frame = std::task::ready!(Pin::new(&mut self.flow).poll_frame(cx));
        let part = self.part;
        Poll::Ready(match frame {
            None => {
                self.notes.over(part);
                None
            }
            Some(Err(error)) => {
                self.notes.broken(part, &error);
                Some(Err(error))
            }
            Some(Ok(mut frame)) => {
                if let (Some(left), Some(data)) = (self.left, frame.data_mut()) {
                    self.lost |= data.len() as u64 > left;
                    data.truncate(usize::try_from(left).unwrap_or(usize::MAX));
                    self.left = Some(left - data.len() as u64);
                }
                if let Some(data) = frame.data_ref() {
                    self.notes.data(part, data);
                }
                if let Some(trailers) = frame.trailers_ref() {
                    self.notes.grpc(trailers);
                }
                if self.left.is_none() && self.flow.is_end_stream() {
                    self.notes.over(part);
                }
                Some(Ok(frame))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_none() && self.flow.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.flow.size_hint()
    }
}
