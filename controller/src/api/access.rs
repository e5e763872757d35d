//! Tokens and join tokens.

use std::sync::Arc;

use axum::http::StatusCode;
use rand::Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::problem::Problem;
use super::routes::{Answer, Call};
use super::{Api, runs};
use crate::store::{JoinToken, NewJoinToken, NewToken, Role, Token, now_ms};

const HOUR_MS: u64 = 3600 * 1000;
/// The longest that a join token is valid: a week.
const LONGEST_JOIN_HOURS: u64 = 7 * 24;

/// A token that is wanted.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    /// Whose it will be: this name stands in the audit log.
    name: String,
    /// What it may do.
    role: Role,
    /// After how many hours it ends; 2160 (90 days) unless said, 0: never.
    #[serde(default = "quarter")]
    hours: u64,
}

/// A join token that is wanted.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WantedJoin {
    /// After how many hours it ends: 1 unless said, at most 168.
    #[serde(default = "one")]
    hours: u64,
    /// How many hosts it lets in: 1 unless said.
    #[serde(default = "one")]
    uses: u64,
}

fn one() -> u64 {
    1
}

fn quarter() -> u64 {
    90 * 24
}

/// A token that was made.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Made {
    /// What it is called in lists.
    id: String,
    /// The token itself: shown once.
    token: String,
    /// When it ends: milliseconds since 1970.
    expires_at: Option<u64>,
}

/// A page of tokens.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Tokens {
    tokens: Vec<Token>,
    /// `after` of the next page; none: this was the last.
    next: Option<String>,
}

/// A page of join tokens.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct JoinTokens {
    join_tokens: Vec<JoinToken>,
    /// `after` of the next page; none: this was the last.
    next: Option<String>,
}

/// An id: not secret, only unique.
pub(crate) fn new_id() -> String {
    format!("{:016x}", rand::rng().next_u64())
}

pub(crate) async fn me(_: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    Answer::ok(&call.who)
}

pub(crate) async fn tokens(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let after = call.query.get("after").map(String::as_str);
    let page = api.store.tokens_after(after, runs::limit(&call)?).await?;
    Answer::ok(&Tokens { tokens: page.items, next: page.next })
}

pub(crate) async fn new_token(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let wanted: Wanted = call.value()?;
    let name = wanted.name.trim();
    if name.is_empty() || name.chars().count() > 100 || name.chars().any(char::is_control) {
        return Err(Problem::bare(
            StatusCode::BAD_REQUEST,
            "`name` has 1 to 100 characters, none of them a control",
        ));
    }
    let minted = api.secrets.mint("token");
    let expires_at =
        (wanted.hours > 0).then(|| now_ms().saturating_add(wanted.hours.saturating_mul(HOUR_MS)));
    let new = NewToken {
        id: new_id(),
        hash: minted.hash,
        name: name.to_owned(),
        role: wanted.role,
        made_by: call.name(),
        expires_at,
    };
    let made = Made { id: new.id.clone(), token: minted.token, expires_at };
    api.store.new_token(new).await?;
    Answer::json(StatusCode::CREATED, &made)
}

pub(crate) async fn revoke_token(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let id = call.part("id");
    api.store.revoke_token(&id).await?;
    api.known.revoked(&id);
    Answer::none()
}

pub(crate) async fn join_tokens(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let after = call.query.get("after").map(String::as_str);
    let page = api.store.join_tokens_after(after, runs::limit(&call)?).await?;
    Answer::ok(&JoinTokens { join_tokens: page.items, next: page.next })
}

pub(crate) async fn new_join_token(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    let wanted: WantedJoin = call.value()?;
    if wanted.uses == 0 || !(1..=LONGEST_JOIN_HOURS).contains(&wanted.hours) {
        let detail = format!("`uses` is at least 1, `hours` from 1 to {LONGEST_JOIN_HOURS}");
        return Err(Problem::bare(StatusCode::BAD_REQUEST, detail));
    }
    let minted = api.engine.join_token();
    let expires_at = now_ms() + wanted.hours * HOUR_MS;
    let new =
        NewJoinToken { id: new_id(), hash: minted.hash, made_by: call.name(), expires_at, uses: wanted.uses };
    let made = Made { id: new.id.clone(), token: minted.token, expires_at: Some(expires_at) };
    api.store.new_join_token(new).await?;
    Answer::json(StatusCode::CREATED, &made)
}

pub(crate) async fn revoke_join_token(api: Arc<Api>, call: Call) -> Result<Answer, Problem> {
    api.store.revoke_join_token(&call.part("id")).await?;
    Answer::none()
}
