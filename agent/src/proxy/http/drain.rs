//! Bodies that nobody is given: they are read nevertheless, so that what was sent is known and the connection goes on.

use std::pin::Pin;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Body;
use tokio::time::timeout;

use super::body::Flow;

/// As much is read at most, in bytes.
const MOST: usize = 16 << 20;
/// And for as long.
const PATIENCE: Duration = Duration::from_secs(5);

/// Reads a body to its end, or as much of it as is worth the while: a connection whose client sends more is closed behind
/// the answer, as a server would that has had enough of it (RFC 9112 section 9.3).
pub(super) async fn drain(mut body: Flow) {
    let read = async {
        let mut left = MOST;
        while !Pin::new(&body).is_end_stream()
            && let Some(Ok(frame)) = body.frame().await
        {
            left = left.saturating_sub(frame.data_ref().map_or(0, |data| data.len()));
            if left == 0 {
                return;
            }
        }
    };
    // Whoever sends no more in time is not waited for.
    let _ = timeout(PATIENCE, read).await;
}
