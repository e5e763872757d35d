//! What both sides of a connection do with what they want to say.

use std::convert::Infallible;

use futures_util::{Sink, SinkExt};
use tokio::sync::mpsc::Receiver;
use tokio_tungstenite::tungstenite::{Error, Message};

/// Says what comes until the connection breaks, `control` before `data`; what waits already goes out together. Whoever has
/// nothing to say any more drops it. Not cancel-safe: what was taken and not said yet is lost.
pub async fn write(
    sink: &mut (impl Sink<Message, Error = Error> + Unpin),
    control: &mut Receiver<String>,
    data: &mut Receiver<String>,
) -> Result<Infallible, Error> {
    loop {
        let message = tokio::select! {
            biased;
            Some(message) = control.recv() => message,
            Some(message) = data.recv() => message,
            else => std::future::pending().await,
        };
        sink.feed(Message::text(message)).await?;
        while let Ok(message) = control.try_recv() {
            sink.feed(Message::text(message)).await?;
        }
        sink.flush().await?;
    }
}
