//! Grafana is told: a fault is a region from when it came to when it went, anything else a point.
//!
//! Nothing is remembered here: what is there is found by its tags, so a fault that is told twice is drawn once, and another
//! controller can close what this one has begun. <https://grafana.com/docs/grafana/latest/developers/http_api/annotations/>

use axum::http::Method;
use serde_json::{Value as Json, json};

use super::attempt::{Attempt, judged};
use super::happening::Happening;
use super::receiver::{Grafana, Receiver};
use super::secret::Value;
use super::story::Told;
use super::template::Template;
use crate::ask::{self, Asking};

/// How many annotations of a run are looked at.
const LOOKED_AT: &str = "1000";

struct Way<'a> {
    grafana: &'a Grafana,
    receiver: &'a Receiver,
    token: Value,
}

pub(super) async fn tell(
    grafana: &Grafana,
    receiver: &Receiver,
    happening: &Happening,
    told: &Told,
) -> Attempt {
    let token = match grafana.token.read() {
        Ok(token) => token,
        Err(error) => return Attempt::later(error),
    };
    let way = Way { grafana, receiver, token };
    match way.draw(happening, told).await {
        Ok(done) | Err(done) => done,
    }
}

impl Way<'_> {
    async fn draw(&self, happening: &Happening, told: &Told) -> Result<Attempt, Attempt> {
        match happening {
            Happening::FaultInjected { .. } => {
                let there = self.of_run(told).await?;
                match there.iter().any(|one| began(one) == Some(told.at)) {
                    true => Ok(Attempt::Taken("it is there already".to_owned())),
                    false => self.post(told, told.at, None).await,
                }
            }
            Happening::FaultReverted { since, .. } => {
                let there = self.of_run(told).await?;
                match there.iter().find(|one| began(one) == Some(*since)).and_then(|one| one["id"].as_u64()) {
                    Some(id) => self.close(id, told.at).await,
                    None => self.post(told, *since, Some(told.at)).await,
                }
            }
            Happening::RunEnded { .. } => {
                let mut done = Attempt::Taken("nothing was left open".to_owned());
                for one in self.of_run(told).await?.iter().filter(|one| is_open_region(one)) {
                    if let Some(id) = one["id"].as_u64() {
                        done = match self.close(id, told.at).await? {
                            Attempt::Taken(said) => Attempt::Taken(said),
                            other => return Err(other),
                        };
                    }
                }
                match self.receiver.asked_for(happening) {
                    true => self.post(told, told.at, None).await,
                    false => Ok(done),
                }
            }
            _ => self.post(told, told.at, None).await,
        }
    }

    /// The annotations of a run, and of one of its faults where it is about one.
    async fn of_run(&self, told: &Told) -> Result<Vec<Json>, Attempt> {
        let (attempt, body) = self.ask(Method::GET, &looking_for(told), None).await;
        let Attempt::Taken(_) = attempt else { return Err(attempt) };
        serde_json::from_slice(&body)
            .map_err(|error| Attempt::later(format!("its answer is no list: {error}")))
    }

    async fn post(&self, told: &Told, time: u64, end: Option<u64>) -> Result<Attempt, Attempt> {
        let mut tags = self.grafana.tags.clone();
        tags.extend(own_tags(told));
        let template = match &self.receiver.template {
            Some(_) => self.receiver.template(),
            None => Template::read("{title}\n{text}").unwrap_or_default(),
        };
        let mut annotation = json!({ "time": time, "tags": tags, "text": template.fill(told, escaped) });
        if let Some(end) = end {
            annotation["timeEnd"] = end.into();
        }
        Ok(self.ask(Method::POST, "/api/annotations", Some(annotation)).await.0)
    }

    async fn close(&self, id: u64, at: u64) -> Result<Attempt, Attempt> {
        let path = format!("/api/annotations/{id}");
        Ok(self.ask(Method::PATCH, &path, Some(json!({ "timeEnd": at }))).await.0)
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Json>) -> (Attempt, Vec<u8>) {
        let asking = Asking {
            method,
            url: &format!("{}{path}", self.grafana.url.trim_end_matches('/')),
            body: body.map(|body| body.to_string()),
            token: Some(self.token.expose().to_owned()),
            headers: Vec::new(),
            ca: self.grafana.ca.as_deref(),
            timeout: self.receiver.timeout,
        };
        let answered = ask::once(asking).await;
        let body = answered.as_ref().map(|answered| answered.body.clone()).unwrap_or_default();
        (judged(answered, &self.token), body)
    }
}

/// Where the annotations with a happening's tags are asked for.
fn looking_for(told: &Told) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("type", "annotation").append_pair("limit", LOOKED_AT);
    for tag in own_tags(told) {
        query.append_pair("tags", &tag);
    }
    format!("/api/annotations?{}", query.finish())
}

/// The tags by which an annotation is found again.
fn own_tags(told: &Told) -> Vec<String> {
    let mut tags = vec!["squall".to_owned()];
    match (told.place("run"), told.place("part")) {
        ("", _) => tags.push(told.kind.clone()),
        (run, "") => tags.push(format!("run:{run}")),
        (run, part) => tags.extend([format!("run:{run}"), format!("part:{part}")]),
    }
    tags
}

fn began(annotation: &Json) -> Option<u64> {
    annotation["time"].as_u64()
}

/// A fault whose end is missing. A Grafana without an end says 0, or the beginning.
fn is_open_region(annotation: &Json) -> bool {
    let is_fault = annotation["tags"]
        .as_array()
        .is_some_and(|tags| tags.iter().any(|tag| tag.as_str().is_some_and(|tag| tag.starts_with("part:"))));
    let end = annotation["timeEnd"].as_u64().unwrap_or(0);
    is_fault && (end == 0 || Some(end) == began(annotation))
}

/// What an annotation says is shown as HTML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
