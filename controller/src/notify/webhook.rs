//! A program is told: JSON with a signature, as Standard Webhooks define it (standardwebhooks.com).
//!
//! `webhook-signature` is `v1,` and the Base64 of HMAC-SHA256 over `ID.TIMESTAMP.BODY`, by the bytes that stand in Base64 behind
//! `whsec_` in the secret.

use axum::http::{HeaderName, Method};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use ring::hmac;
use serde_json::{Map, json};

use super::attempt::{Attempt, judged};
use super::receiver::{Receiver, Webhook};
use super::secret::Value;
use super::story::Told;
use crate::ask::{self, Asking};
use crate::conductor::date_of;

/// What every key begins with.
const PREFIX: &str = "whsec_";
/// How long a key may be, in bytes.
const LENGTHS: std::ops::RangeInclusive<usize> = 24..=64;

/// Why a secret is no key. Does not show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "its secret is no key: `whsec_` and 24 to 64 bytes in Base64; help: echo \"whsec_$(head -c 32 /dev/urandom | base64)\""
)]
pub struct NoKey;

/// The key in a secret.
pub(super) fn key(secret: &Value) -> Result<hmac::Key, NoKey> {
    let text = secret.expose().strip_prefix(PREFIX).ok_or(NoKey)?;
    let bytes = STANDARD.decode(text).map_err(|_| NoKey)?;
    if !LENGTHS.contains(&bytes.len()) {
        return Err(NoKey);
    }
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &bytes))
}

fn signature(key: &hmac::Key, id: &str, timestamp: &str, body: &str) -> String {
    let signed = hmac::sign(key, format!("{id}.{timestamp}.{body}").as_bytes());
    format!("v1,{}", STANDARD.encode(signed))
}

fn body(receiver: &Receiver, told: &Told) -> String {
    let mut data = Map::new();
    data.insert("title".to_owned(), json!(told.title));
    let text = match &receiver.template {
        Some(_) => receiver.template().fill(told, str::to_owned),
        None => told.text.clone(),
    };
    data.insert("text".to_owned(), json!(text));
    data.extend(told.facts.iter().map(|(name, value)| (name.clone(), json!(value))));
    if let Some(tags) = &told.tags {
        data.insert("tags".to_owned(), json!(tags));
    }
    json!({ "id": told.id, "type": told.kind, "timestamp": date_of(told.at), "data": data }).to_string()
}

pub(super) async fn tell(webhook: &Webhook, receiver: &Receiver, told: &Told) -> Attempt {
    let secret = match webhook.secret.read() {
        Ok(secret) => secret,
        Err(error) => return Attempt::later(error),
    };
    let key = match key(&secret) {
        Ok(key) => key,
        Err(error) => return Attempt::later(error),
    };
    let body = body(receiver, told);
    // Of this attempt: who is told refuses what is too old.
    let timestamp = Timestamp::now().as_second().to_string();
    let signature = signature(&key, &told.id, &timestamp, &body);
    let headers = vec![
        (HeaderName::from_static("webhook-id"), told.id.clone()),
        (HeaderName::from_static("webhook-timestamp"), timestamp),
        (HeaderName::from_static("webhook-signature"), signature),
    ];
    let asking = Asking {
        method: Method::POST,
        url: &webhook.url,
        body: Some(body),
        token: None,
        headers,
        ca: webhook.ca.as_deref(),
        timeout: receiver.timeout,
    };
    judged(ask::once(asking).await, &secret)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::secret::Secret;

    fn read(text: &str) -> Result<hmac::Key, NoKey> {
        let file = std::env::temp_dir().join(format!(
            "squall-key-{}-{:x}",
            std::process::id(),
            rand::random::<u64>()
        ));
        std::fs::write(&file, text).expect("a file");
        let secret = Secret { file: Some(file.clone()), env: None }.read().expect("a secret");
        let _ = std::fs::remove_file(file);
        key(&secret)
    }

    /// The example of the reference implementations (github.com/standard-webhooks/standard-webhooks).
    #[test]
    fn the_signature_is_that_of_the_standard() {
        let key = read("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").expect("a key");
        let signed = signature(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", "{\"test\": 2432232314}");
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn what_is_no_key_is_refused_and_not_shown() {
        for text in [
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "whsec_",
            "whsec_c2hvcnQ=",
            "whsec_not base64 at all, is it?",
        ] {
            let error = read(text).expect_err(text).to_string();
            assert!(
                error.contains("no key") && !error.contains("c2hvcnQ") && !error.contains("MfKQ"),
                "{error}"
            );
        }
    }
}
