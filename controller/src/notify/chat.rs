//! A channel is told: `{"text": …}`, as Slack, Mattermost and Rocket.Chat take it.

use axum::http::Method;
use serde_json::json;

use super::attempt::{Attempt, judged};
use super::receiver::{Receiver, Slack};
use super::story::Told;
use crate::ask::{self, Asking};

pub(super) async fn tell(slack: &Slack, receiver: &Receiver, told: &Told) -> Attempt {
    let url = match slack.url.read() {
        Ok(url) => url,
        Err(error) => return Attempt::later(error),
    };
    // Also where the file was changed since the start.
    if ask::is_readable_on_the_way(url.expose()) {
        return Attempt::later("its `url` is not encrypted and not on this machine");
    }
    let text = receiver.template().fill(told, escaped);
    let asking = Asking {
        method: Method::POST,
        url: url.expose(),
        body: Some(json!({ "text": text }).to_string()),
        token: None,
        headers: Vec::new(),
        ca: slack.ca.as_deref(),
        timeout: receiver.timeout,
    };
    judged(ask::once(asking).await, &url)
}

/// As Slack wants it; a title cannot call a whole channel then.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
