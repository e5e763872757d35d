//! JSON lines over a byte stream: what the agent and the probers speak.

use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use squall_experiments::protocol::LONGEST_LINE;

/// The next message; `None` at the end of the stream. A line that is cut off, too long or not understood is an error.
pub(super) async fn read<T: DeserializeOwned>(
    stream: &mut (impl AsyncBufRead + Unpin),
    line: &mut Vec<u8>,
) -> io::Result<Option<T>> {
    line.clear();
    let read = stream.take(LONGEST_LINE as u64 + 1).read_until(b'\n', line).await?;
    if read == 0 {
        return Ok(None);
    }
    if line.last() != Some(&b'\n') {
        let what = if read > LONGEST_LINE { "a line is too long" } else { "a line is cut off" };
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    let message = serde_json::from_slice(line);
    message.map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// A message as one line.
pub(super) fn line(message: &impl Serialize) -> Vec<u8> {
    // Only a map with keys that are not text could fail, and no message has one.
    let mut line = serde_json::to_vec(message).unwrap_or_default();
    line.push(b'\n');
    line
}

/// Writes what arrives, in order, until the senders or the stream are gone; the stream is shut down then. A stream that is gone
/// is noticed by its reader, which says so.
pub(super) async fn write(mut stream: impl AsyncWrite + Unpin, mut lines: mpsc::UnboundedReceiver<Vec<u8>>) {
    while let Some(line) = lines.recv().await {
        if stream.write_all(&line).await.is_err() || stream.flush().await.is_err() {
            return;
        }
    }
    let _ = stream.shutdown().await;
}
