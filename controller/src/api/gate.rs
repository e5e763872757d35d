//! Who gets through to a handler: the right name, no foreign web page, a valid token of a sufficient role, a bounded body.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Bytes;
use tokio::time::timeout;

use super::Api;
use super::problem::Problem;
use crate::store::{Role, StoreError, Token, now_ms};

/// The longest body, in bytes.
pub const LARGEST_BODY: usize = 1 << 20;
/// How long a body may take to arrive.
const BODY_PATIENCE: Duration = Duration::from_secs(30);
/// How many refused tokens an address may show in a minute.
pub const FAILURES: usize = 20;
/// The time over which refused tokens are counted.
const WINDOW: Duration = Duration::from_secs(60);
/// For how long a token may halt while nobody can say whether it is still valid.
const LATELY: Duration = Duration::from_secs(600);
/// For how long a halt waits for the store to say that; a busy one does within this.
const SOON: Duration = Duration::from_millis(500);
/// Of how many addresses they are counted; when there are more, the oldest are forgotten.
const ADDRESSES: usize = 10_000;

/// Where a request came from; put beside it by the server.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// Its address.
    pub at: SocketAddr,
    /// Whether it came by TLS.
    pub encrypted: bool,
}

/// When each address last showed tokens that were refused.
#[derive(Debug, Default)]
pub(crate) struct Failures(Mutex<HashMap<IpAddr, VecDeque<Instant>>>);

impl Failures {
    /// Whether an address has shown too many.
    pub(crate) fn too_many(&self, from: IpAddr, now: Instant) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(times) = seen.get_mut(&key(from)) else { return false };
        times.retain(|at| now.saturating_duration_since(*at) < WINDOW);
        times.len() >= FAILURES
    }

    #[cfg(test)]
    pub(crate) fn forget(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// One more was refused.
    pub(crate) fn one_more(&self, from: IpAddr, now: Instant) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= ADDRESSES && !seen.contains_key(&key(from)) {
            seen.retain(|_, times| {
                times.back().is_some_and(|at| now.saturating_duration_since(*at) < WINDOW)
            });
            if seen.len() >= ADDRESSES {
                let oldest =
                    seen.iter().min_by_key(|(_, times)| times.back().copied()).map(|(from, _)| *from);
                oldest.and_then(|oldest| seen.remove(&oldest));
            }
        }
        let times = seen.entry(key(from)).or_default();
        times.push_back(now);
        while times.len() > FAILURES {
            times.pop_front();
        }
    }
}

/// Tokens that were valid lately, by their hashes.
#[derive(Debug, Default)]
pub(crate) struct Known(Mutex<HashMap<String, (Token, Instant)>>);

impl Known {
    fn seen(&self, hash: String, token: &Token, now: Instant) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, (_, at)| now.saturating_duration_since(*at) < LATELY);
        known.insert(hash, (token.clone(), now));
    }

    /// The store does not know this hash any more.
    pub(crate) fn over(&self, hash: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(hash);
    }

    /// A token was revoked here, and with it its sessions.
    pub(crate) fn revoked(&self, id: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, (token, _)| token.id != id);
    }

    /// One that the store called valid a short time ago, and whose own end has not come since. Asking for it does not make that
    /// time longer.
    fn lately(&self, hash: &str, now: Instant) -> Option<Token> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (token, at) = known.get(hash)?;
        let valid = token.expires_at.is_none_or(|end| end > now_ms());
        (valid && now.saturating_duration_since(*at) < LATELY).then(|| token.clone())
    }
}

/// One network of IPv6 (/64) belongs to one subscriber: its addresses count together.
fn key(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V6(address) => {
            IpAddr::V6(std::net::Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)))
        }
        v4 => v4,
    }
}

impl Api {
    /// The server is called by its own name, and not by a web page of another: a page can point a name of its own at
    /// loopback, or post from the browser of somebody who may reach this server.
    pub(crate) fn right_name(&self, parts: &Parts) -> Result<(), Problem> {
        self.own_name(parts)?;
        self.own_origin(parts)
    }

    /// The first half of it: the name.
    pub(crate) fn own_name(&self, parts: &Parts) -> Result<(), Problem> {
        let uri = parts.uri.authority().map(|authority| authority.as_str().to_owned());
        let named = header(&parts.headers, "host").map(str::to_owned).or(uri).unwrap_or_default();
        if !self.is_ours(&named) {
            return Err(Problem::new(
                StatusCode::MISDIRECTED_REQUEST,
                "this server does not go by that name",
                "call it by the name that it was started with (`squall serve --name`), or by a loopback address",
            ));
        }
        Ok(())
    }

    /// The second half: the web page that asks, where one does.
    pub(crate) fn own_origin(&self, parts: &Parts) -> Result<(), Problem> {
        if let Some(origin) = header(&parts.headers, "origin") {
            let ours = origin.split_once("://").is_some_and(|(_, host)| self.is_ours(host));
            if !ours {
                return Err(foreign());
            }
        }
        match header(&parts.headers, "sec-fetch-site") {
            Some("cross-site" | "same-site") => Err(foreign()),
            _ => Ok(()),
        }
    }

    /// Whether `host` or `host:port` is one of this server's names.
    fn is_ours(&self, authority: &str) -> bool {
        let Ok(authority) = authority.parse::<axum::http::uri::Authority>() else { return false };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let loopback = host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        loopback || host == "localhost" || self.names.contains(&host)
    }

    /// The token that a request shows, when it is valid and may do this. Who shows bad ones too often waits; a valid one that
    /// halts does not. While the store does not answer, one that was valid shortly before may still halt.
    pub(crate) async fn let_in(&self, parts: &Parts, least: Role, halts: bool) -> Result<Token, Problem> {
        let may_try = self.may_try(parts);
        if !halts {
            may_try.as_ref().map_err(Problem::clone)?;
        }
        let shown = header(&parts.headers, header::AUTHORIZATION.as_str());
        let shown = shown.and_then(|shown| shown.split_once(' '));
        let shown = shown.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let Some((_, token)) = shown else {
            return Err(Problem::new(
                StatusCode::UNAUTHORIZED,
                "a token is needed",
                "send `Authorization: Bearer TOKEN`; the command line takes it from SQUALL_TOKEN or --token-file",
            ));
        };
        let hash = self.secrets.hash(token.trim());
        let Some(token) = self.found(&hash, halts, self.store.token(&hash)).await? else {
            return Err(self.wrong_token(may_try?));
        };
        if !halts {
            self.in_pace(&token)?;
        }
        suffices(&token, least)?;
        Ok(token)
    }

    /// Counts a request for the address that it comes from; a halt is not counted, and does not wait.
    pub(crate) fn address_in_pace(&self, parts: &Parts) -> Result<(), Problem> {
        self.addresses.one_more(key(address(parts)), Instant::now()).map_err(too_often)
    }

    /// The same for a token, whether it is shown itself or by a session.
    pub(crate) fn in_pace(&self, token: &Token) -> Result<(), Problem> {
        self.tokens.one_more(token.id.clone(), Instant::now()).map_err(too_often)
    }

    /// Where a request comes from, unless too many refused tokens came from there lately.
    pub(crate) fn may_try(&self, parts: &Parts) -> Result<IpAddr, Problem> {
        let from = address(parts);
        match self.failures.too_many(from, Instant::now()) {
            false => Ok(from),
            true => Err(Problem::new(
                StatusCode::TOO_MANY_REQUESTS,
                "too many refused tokens came from this address",
                "wait a minute",
            )),
        }
    }

    /// Counts a token that is refused.
    pub(crate) fn wrong_token(&self, from: IpAddr) -> Problem {
        self.failures.one_more(from, Instant::now());
        Problem::bare(StatusCode::UNAUTHORIZED, "the token is not valid")
    }

    /// Whose the hash of a token or of a session is, by what the store is asked. A halt does not wait for a store that hangs, if
    /// that was found lately.
    pub(crate) async fn found(
        &self,
        hash: &str,
        halts: bool,
        asked: impl Future<Output = Result<Option<Token>, StoreError>>,
    ) -> Result<Option<Token>, StoreError> {
        let mut asked = pin!(asked);
        let found = match halts {
            true => match timeout(SOON, &mut asked).await {
                Ok(found) => found,
                Err(_) => match self.known.lately(hash, Instant::now()) {
                    Some(token) => return Ok(Some(token)),
                    None => asked.await,
                },
            },
            false => asked.await,
        };
        self.remembered(hash.to_owned(), found, halts, Instant::now())
    }

    /// What the store found for the hash of a token or of a session; where it fails, what it found lately is good for a halt.
    pub(crate) fn remembered(
        &self,
        hash: String,
        found: Result<Option<Token>, StoreError>,
        halts: bool,
        now: Instant,
    ) -> Result<Option<Token>, StoreError> {
        match found {
            Err(error) if halts => Ok(Some(self.known.lately(&hash, now).ok_or(error)?)),
            Err(error) => Err(error),
            Ok(Some(token)) => {
                self.known.seen(hash, &token, now);
                Ok(Some(token))
            }
            Ok(None) => {
                self.known.over(&hash);
                Ok(None)
            }
        }
    }
}

fn address(parts: &Parts) -> IpAddr {
    parts.extensions.get::<Peer>().map_or(IpAddr::from([0, 0, 0, 0]), |peer| peer.at.ip())
}

/// Refuses a token of a lesser role.
pub(crate) fn suffices(token: &Token, least: Role) -> Result<(), Problem> {
    match token.role < least {
        false => Ok(()),
        true => Err(Problem::new(
            StatusCode::FORBIDDEN,
            format!("a token of role `{}` may not do this", token.role.name()),
            format!("use one of role `{}`", least.name()),
        )),
    }
}

/// The wait is said in whole seconds, and never too short.
fn too_often(wait: Duration) -> Problem {
    let seconds = wait.as_secs() + 1;
    Problem {
        retry_s: Some(seconds),
        ..Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too many requests came from this address, or with this token",
            format!("wait {seconds} s, and ask less often: a live stream tells what is new"),
        )
    }
}

fn foreign() -> Problem {
    Problem::bare(StatusCode::FORBIDDEN, "a web page of another origin may not call this server")
}

/// A header's value, when it is there once and is text.
pub(crate) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

/// Reads a body of JSON to its end, within its size and its time.
pub(crate) async fn body(headers: &HeaderMap, body: Body) -> Result<Bytes, Problem> {
    let body = bytes(body).await?;
    // A web page can post a form without asking; for JSON its browser has to ask first.
    if !body.is_empty() && !is_of_kind(headers, "application/json") {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "the body is not JSON",
            "send `Content-Type: application/json`",
        ));
    }
    Ok(body)
}

/// Whether the body says that it is of a media type, whatever its parameters.
pub(crate) fn is_of_kind(headers: &HeaderMap, wanted: &str) -> bool {
    let kind = header(headers, "content-type").unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(wanted)
}

/// Reads a body to its end, within its size and its time.
pub(crate) async fn bytes(body: Body) -> Result<Bytes, Problem> {
    let read = Limited::new(body, LARGEST_BODY).collect();
    let read = timeout(BODY_PATIENCE, read).await;
    let late = |_| Problem::bare(StatusCode::REQUEST_TIMEOUT, "the body took too long");
    match read.map_err(late)? {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "the body is larger than 1 MiB",
            "an experiment is far smaller; send one at a time",
        )),
        Err(_) => Err(Problem::bare(StatusCode::BAD_REQUEST, "the body broke off")),
    }
}
