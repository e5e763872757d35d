//! What others say: an HTTP hook (is there an open incident, is something being deployed?), or a figure of Prometheus (how much
//! of the error budget is left?).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use axum::http::Method;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Number, Value, json};
use serde_json_path::JsonPath;
use squall_experiments::probe::compare::{Compared, Comparison};
use squall_experiments::quantity::Period;
use squall_experiments::url::HttpUrl;

use super::Outcome;
use crate::api::engine::Planned;
use crate::ask::{self, Asking};

/// A gate that asks somebody else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Hook {
    /// What it is called in records, such as `no open incident`.
    pub name: String,
    /// An HTTP hook.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<Http>,
    /// A figure of Prometheus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prometheus: Option<Prometheus>,
}

/// An HTTP hook. Redirects are not followed: they are another answer than the expected one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Http {
    /// Its address.
    pub url: String,
    /// `POST` sends the run's title, plan and hosts as JSON.
    #[serde(default)]
    pub method: Verb,
    /// The file with the token that it is shown (`Authorization: Bearer`); a relative path begins at this file's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// The certificates (PEM) by which it is known; without them those that this machine trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// How long everything may take.
    #[serde(default = "five_seconds")]
    pub timeout: Period,
    /// What must be answered.
    pub expect: Expect,
}

/// What a hook must answer, all of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Expect {
    /// The status.
    #[serde(default = "ok")]
    #[schemars(range(min = 100, max = 599))]
    pub status: u16,
    /// Values of the answer by JSONPath (RFC 9535), each with what it is compared with.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub json: BTreeMap<String, Comparison>,
}

/// How a hook is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verb {
    /// With nothing.
    #[default]
    Get,
    /// With the run.
    Post,
}

/// A figure of Prometheus: an instant query that gives one sample.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Prometheus {
    /// Its address, without `/api/v1`.
    pub url: String,
    /// The query.
    pub query: String,
    /// The file with its token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// The certificates (PEM) by which it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// How long everything may take.
    #[serde(default = "five_seconds")]
    pub timeout: Period,
    /// What the figure is compared with: `">= 0.4"`.
    pub value: Comparison,
}

fn five_seconds() -> Period {
    Period::from_secs(5)
}

fn ok() -> u16 {
    200
}

/// The longest that a gate is waited for: whoever wants a run waits as long.
const LONGEST: Period = Period::from_secs(300);

/// Something wrong in a part: the keys to it, what, and what to do.
type Wrong = (&'static str, String, String);

impl Hook {
    /// What is wrong with it.
    pub(crate) fn check(&self) -> Vec<Wrong> {
        let mut wrong = Vec::new();
        let mut address = |key: &'static str, url: &str, token: Option<&Path>| {
            if let Err(error) = url.parse::<HttpUrl>() {
                wrong.push((key, error.what, error.help.unwrap_or_default()));
            } else if token.is_some() && ask::is_readable_on_the_way(url) {
                let what =
                    format!("`{url}` is not encrypted and not on this machine: its token could be read");
                wrong.push((key, what, "write `https://`, or leave `token-file` out".to_owned()));
            }
        };
        let patience = |key: &'static str, timeout: Period| {
            let none = timeout == Period::ZERO;
            (none || timeout > LONGEST).then(|| {
                let why =
                    if none { "leaves no time to answer" } else { "is longer than anybody waits for a gate" };
                (key, format!("`timeout: {timeout}` {why}"), format!("write more than 0s, at most {LONGEST}"))
            })
        };
        let late = match (&self.http, &self.prometheus) {
            (Some(http), None) => patience("http.timeout", http.timeout),
            (None, Some(prometheus)) => patience("prometheus.timeout", prometheus.timeout),
            _ => None,
        };
        match (&self.http, &self.prometheus) {
            (Some(http), None) => {
                address("http.url", &http.url, http.token_file.as_deref());
                for path in http.expect.json.keys() {
                    if let Err(error) = JsonPath::parse(path) {
                        let what = format!("`{path}` is not a JSONPath: {error}");
                        wrong.push(("http.expect.json", what, "write it as `$.open`".to_owned()));
                    }
                }
            }
            (None, Some(prometheus)) => {
                address("prometheus.url", &prometheus.url, prometheus.token_file.as_deref());
            }
            _ => wrong.push((
                "name",
                format!("the gate `{}` must ask one thing", self.name),
                "give it either `http:` or `prometheus:`".to_owned(),
            )),
        }
        wrong.extend(late);
        wrong
    }

    /// What keeps it from being asked although its configuration is right: a token or certificates that cannot be read. Reads
    /// files.
    pub fn unusable(&self) -> Result<(), String> {
        let files = |token: &Option<PathBuf>, ca: &Option<PathBuf>| {
            ask::token(token.as_deref()).map_err(|error| error.to_string())?;
            match ca.as_ref().map(|path| (path, std::fs::read(path))) {
                Some((path, Err(cause))) => {
                    Err(format!("the certificates in `{}` cannot be read: {cause}", path.display()))
                }
                _ => Ok(()),
            }
        };
        let http = self.http.iter().map(|http| files(&http.token_file, &http.ca));
        let figure = self.prometheus.iter().map(|it| files(&it.token_file, &it.ca));
        http.chain(figure)
            .collect::<Result<(), String>>()
            .map_err(|why| format!("the gate `{}`: {why}", self.name))
    }

    /// Relative paths begin at a folder.
    pub(crate) fn begin_at(&mut self, folder: &Path) {
        let http = self.http.iter_mut().flat_map(|http| [&mut http.token_file, &mut http.ca]);
        let figure = self.prometheus.iter_mut().flat_map(|it| [&mut it.token_file, &mut it.ca]);
        http.chain(figure).flatten().for_each(|path| *path = folder.join(&*path));
    }

    /// Asks, and compares. Never fails: what cannot be told refuses.
    pub(super) async fn ask(&self, planned: &Planned) -> Outcome {
        let judged = match (&self.http, &self.prometheus) {
            (Some(http), None) => http.judge(planned).await,
            (None, Some(prometheus)) => prometheus.judge().await,
            _ => Err("it asks nothing".to_owned()),
        };
        match judged {
            Ok(why) => Outcome::passes(&self.name, why),
            Err(why) => Outcome::refuses(&self.name, why),
        }
    }
}

impl Http {
    async fn judge(&self, planned: &Planned) -> Result<String, String> {
        let hosts: Vec<&str> = planned.uses.iter().map(|used| used.host.as_str()).collect();
        let body = json!({ "title": planned.title, "plan": planned.hash, "hosts": hosts });
        let (method, body) = match self.method {
            Verb::Get => (Method::GET, None),
            Verb::Post => (Method::POST, Some(body.to_string())),
        };
        let (status, answer) =
            asked(method, &self.url, body, self.token_file.as_deref(), self.ca.as_deref(), self.timeout)
                .await?;
        if status != self.expect.status {
            let redirects = if (300..400).contains(&status) { "; redirects are not followed" } else { "" };
            return Err(format!("it answered {status} (expected {}){redirects}", self.expect.status));
        }
        if !self.expect.json.is_empty() {
            let answer: Value =
                serde_json::from_slice(&answer).map_err(|error| format!("its answer is no JSON: {error}"))?;
            for (path, comparison) in &self.expect.json {
                judge(&answer, path, comparison)?;
            }
        }
        Ok(format!("it answered {status}"))
    }
}

impl Prometheus {
    async fn judge(&self) -> Result<String, String> {
        let query =
            form_urlencoded::Serializer::new(String::new()).append_pair("query", &self.query).finish();
        let url = format!("{}/api/v1/query?{query}", self.url.trim_end_matches('/'));
        let (token_file, ca) = (self.token_file.as_deref(), self.ca.as_deref());
        let (status, answer) = asked(Method::GET, &url, None, token_file, ca, self.timeout).await?;
        if status != 200 {
            return Err(format!("Prometheus answered {status}"));
        }
        let answer: Value =
            serde_json::from_slice(&answer).map_err(|error| format!("its answer is no JSON: {error}"))?;
        let data = &answer["data"];
        let samples = match (data["resultType"].as_str(), &data["result"]) {
            (Some("scalar"), sample) => vec![&sample[1]],
            (Some("vector"), Value::Array(samples)) => {
                samples.iter().map(|sample| &sample["value"][1]).collect()
            }
            _ => return Err("its answer is neither a number nor a vector".to_owned()),
        };
        let [sample] = samples[..] else {
            return Err(format!("the query gave {} samples, and one is needed", samples.len()));
        };
        // Prometheus writes numbers as text; what is none, such as `NaN`, is left to the comparison.
        let number = sample.as_str().and_then(|text| text.parse::<f64>().ok()).and_then(Number::from_f64);
        let sample = number.map_or_else(|| sample.clone(), Value::Number);
        match self.value.judge_nodes(&[&sample]) {
            Compared::Holds => Ok(format!("{sample} (expected {})", self.value)),
            Compared::Fails(why) | Compared::Unclear(why) => Err(why),
        }
    }
}

/// Asks once; gives the status and the answer.
async fn asked(
    method: Method,
    url: &str,
    body: Option<String>,
    token_file: Option<&Path>,
    ca: Option<&Path>,
    timeout: Period,
) -> Result<(u16, Vec<u8>), String> {
    let asking = async {
        let token = ask::token(token_file)?;
        ask::once(Asking { method, url, body, token, headers: Vec::new(), ca, timeout }).await
    };
    let answered = asking.await.map_err(|error| error.to_string())?;
    Ok((answered.status, answered.body))
}

fn judge(answer: &Value, path: &str, comparison: &Comparison) -> Result<(), String> {
    let parsed = JsonPath::parse(path).map_err(|error| format!("`{path}` is not a JSONPath: {error}"))?;
    match comparison.judge_nodes(&parsed.query(answer).all()) {
        Compared::Holds => Ok(()),
        Compared::Fails(why) | Compared::Unclear(why) => Err(format!("`{path}` is {why}")),
    }
}
