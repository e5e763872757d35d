//! Whom a load asks, and for what.

use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};

use hyper::header::{HeaderName, HeaderValue};
use hyper::{Response, Uri, body::Incoming};
use rand::Rng;
use squall_experiments::probe::{Filling, Group, HttpProbe, LoadProbe, Template};

use super::super::expect::Answer;
use super::super::request::{HttpRequest, Keep, Message, reason, untouched, whole};
use super::super::tcp::{self, Stage};
use super::pool::{Held, Pool};
use super::streams::{Stream, Streams};

/// A group of servers with all that is asked of it.
pub(super) struct Target {
    asked: Vec<Asked>,
    open: Open,
}

/// One of the things that a load asks for.
pub(super) struct Asked {
    /// As it stands in the file, where there are others beside it.
    name: Option<String>,
    request: HttpRequest,
    /// What differs from request to request; `None` where nothing does.
    filled: Option<Filled>,
}

struct Filled {
    url: Template,
    headers: Vec<(HeaderName, Template)>,
    body: Template,
    http2: bool,
}

enum Open {
    Kept(Pool),
    Many(Streams),
}

/// A connection that an answer came over: it goes back when the answer is read.
pub(super) enum Used {
    Kept(Held),
    Many(Stream),
}

impl Target {
    /// Understands the requests to a group; `None` where a load has no such group. An error says what cannot be sent.
    pub(super) fn new(load: &LoadProbe, group: Group) -> Result<Option<Self>, String> {
        let requests = load.requests(group);
        if requests.is_empty() {
            return Ok(None);
        }
        let several = requests.len() > 1;
        let places = load.endpoints.iter().map(|endpoint| endpoint.path.clone());
        let names = places.map(Some).chain(std::iter::repeat(None));
        let asked = requests
            .iter()
            .zip(names)
            .map(|((_, request), name)| Asked::new(request, name.filter(|_| several), load.http2));
        let most = load.connections as usize;
        let open = if load.http2 { Open::Many(Streams::new(most)) } else { Open::Kept(Pool::new(most)) };
        Ok(Some(Target { asked: asked.collect::<Result<_, _>>()?, open }))
    }

    /// What stands at a place of the list.
    pub(super) fn asked(&self, place: usize) -> &Asked {
        &self.asked[place]
    }

    /// Sends a request and reads the answer.
    pub(super) async fn exchange(
        &self,
        asked: &Asked,
        number: u64,
        stage: &Stage,
        wants_body: bool,
    ) -> Result<(Answer, Used), String> {
        let message = asked.message(number)?;
        let (response, used) = match &self.open {
            Open::Kept(pool) => {
                let (response, held) = kept(pool, &asked.request, message, stage).await?;
                (response, Used::Kept(held))
            }
            Open::Many(streams) => {
                let (response, stream) = many(streams, &asked.request, message, stage).await?;
                (response, Used::Many(stream))
            }
        };
        stage.set(tcp::READING);
        Ok((whole(response, wants_body).await?, used))
    }

    /// Takes a connection back whose answer was read to its end.
    pub(super) async fn give_back(&self, used: Used) {
        match (&self.open, used) {
            (Open::Kept(pool), Used::Kept(held)) => pool.give_back(held).await,
            (_, Used::Many(stream)) => stream.served(),
            (Open::Many(_), Used::Kept(_)) => {}
        }
    }
}

async fn kept(
    pool: &Pool,
    request: &HttpRequest,
    mut message: Message,
    stage: &Stage,
) -> Result<(Response<Incoming>, Held), String> {
    loop {
        let mut held = pool.take(request, stage).await?;
        stage.set(tcp::WAITING);
        match held.sender().try_send_request(message).await {
            Ok(response) => return Ok((response, held)),
            Err(mut error) => match error.take_message() {
                // The server closed an idle connection before anything was written to it.
                Some(unsent) if held.was_used() => message = unsent,
                _ => return Err(reason(error.into_error())),
            },
        }
    }
}

async fn many(
    streams: &Streams,
    request: &HttpRequest,
    mut message: Message,
    stage: &Stage,
) -> Result<(Response<Incoming>, Stream), String> {
    loop {
        let stream = streams.take(request, stage).await?;
        let sender = stream.shared().map(|shared| shared.sender.clone());
        let mut sender = sender.ok_or_else(|| "the connection is closed".to_owned())?;
        stage.set(tcp::WAITING);
        // A server may say that it did nothing with a request when nothing is left here to send it again.
        let again = message.clone();
        match sender.try_send_request(message).await {
            Ok(response) => return Ok((response, stream)),
            Err(mut error) => {
                let unsent = error.take_message();
                let error = error.into_error();
                let repeat = stream.was_used() && (unsent.is_some() || untouched(&error));
                stream.leave();
                if !repeat {
                    return Err(reason(error));
                }
                message = again;
            }
        }
    }
}

impl Asked {
    fn new(probe: &HttpProbe, name: Option<String>, http2: bool) -> Result<Self, String> {
        let read = |text: &str| {
            Template::parse(text).map_err(|error| match error.help {
                Some(help) => format!("{}: {help}", error.what),
                None => error.what,
            })
        };
        let (url, body) = (read(&probe.url)?, read(probe.body.as_deref().unwrap_or_default())?);
        let mut headers = Vec::new();
        let mut example = HttpProbe { url: url.example(), ..probe.clone() };
        example.body = probe.body.as_ref().map(|_| body.example());
        for (key, value) in &probe.headers {
            let template = read(value)?;
            example.headers.insert(key.clone(), template.example());
            if !template.is_fixed() {
                let key: HeaderName = key.parse().map_err(|_| format!("`{key}` is not a header name"))?;
                headers.push((key, template));
            }
        }
        let request = HttpRequest::new(&example, if http2 { Keep::Shared } else { Keep::Alive })?;
        let fixed = url.is_fixed() && body.is_fixed() && headers.is_empty();
        let filled = (!fixed).then_some(Filled { url, headers, body, http2 });
        Ok(Asked { name, request, filled })
    }

    /// Why a request failed, and which one where there are several.
    pub(super) fn failure(&self, why: &str) -> String {
        self.name.as_ref().map_or_else(|| why.to_owned(), |name| format!("`{name}`: {why}"))
    }

    fn message(&self, number: u64) -> Result<Message, String> {
        let Some(filled) = &self.filled else { return Ok(self.request.message()) };
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let mut random = || u128::from(rand::rng().next_u64()) << 64 | u128::from(rand::rng().next_u64());
        let mut filling = Filling { number, time_ms, random: &mut random };
        let mut message = self.request.message_with(filled.body.fill(&mut filling).into());
        if !filled.url.is_fixed() {
            let url = filled.url.fill(&mut filling);
            let url: Uri = url.parse().map_err(|why| format!("`{url}` is not an address: {why}"))?;
            *message.uri_mut() = match filled.http2 {
                true => url,
                false => url.path_and_query().map_or(Uri::from_static("/"), |path| Uri::from(path.clone())),
            };
        }
        for (key, template) in &filled.headers {
            let value = template.fill(&mut filling);
            let value = HeaderValue::try_from(value).map_err(|_| format!("header `{key}` cannot be sent"))?;
            message.headers_mut().insert(key, value);
        }
        Ok(message)
    }
}

/// Whose turn it is: each place of a list as often as its weight says, as evenly as that can be, and each time in the
/// same order (the smooth weighted round-robin of nginx).
pub(super) struct Turns {
    weights: Vec<i64>,
    credit: RefCell<Vec<i64>>,
    /// How often each place was taken.
    taken: RefCell<Vec<u64>>,
}

impl Turns {
    pub(super) fn new(load: &LoadProbe) -> Self {
        let requests = load.requests(Group::Tested);
        let weights: Vec<i64> = requests.iter().map(|(weight, _)| i64::from(*weight)).collect();
        let (credit, taken) = (vec![0; weights.len()], vec![0; weights.len()]);
        Turns { weights, credit: RefCell::new(credit), taken: RefCell::new(taken) }
    }

    /// The place of the next request, and which one of that place it is, from 1. By the number of all of them, a cycle of
    /// values would fall in step with that of the turns.
    pub(super) fn next(&self) -> (usize, u64) {
        let (mut credit, mut taken) = (self.credit.borrow_mut(), self.taken.borrow_mut());
        credit.iter_mut().zip(&self.weights).for_each(|(credit, weight)| *credit += weight);
        // The first of the highest.
        let place = (0..credit.len()).rev().max_by_key(|place| credit[*place]).unwrap_or_default();
        credit[place] -= self.weights.iter().sum::<i64>();
        taken[place] += 1;
        (place, taken[place])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_taken_by_weight_and_evenly() {
        let load = r#"{ "url": "http://a", "rate": "1/s", "endpoints": [
            { "path": "/a", "weight": 5 }, { "path": "/b" }, { "path": "/c" } ] }"#;
        let turns = Turns::new(&serde_json::from_str(load).unwrap());
        let taken: Vec<(usize, u64)> = (0..14).map(|_| turns.next()).collect();
        let places: Vec<usize> = taken.iter().map(|(place, _)| *place).collect();
        assert_eq!(places, [0, 0, 1, 0, 2, 0, 0, 0, 0, 1, 0, 2, 0, 0]);
        assert_eq!([taken[0].1, taken[1].1, taken[2].1, taken[13].1], [1, 2, 1, 10]);
        let one = Turns::new(&serde_json::from_str(r#"{ "url": "http://a", "rate": "1/s" }"#).unwrap());
        assert_eq!([one.next(), one.next()], [(0, 1), (0, 2)]);
    }

    #[test]
    fn what_is_filled_in_differs_from_request_to_request() {
        let load = r#"{ "url": "http://a/x/{{n}}", "rate": "1/s", "headers": { "x-id": "{{uuid}}", "x-one": "1" }, "body": "{{n % 2}}" }"#;
        let load: LoadProbe = serde_json::from_str(load).unwrap();
        let target = Target::new(&load, Group::Tested).unwrap().unwrap();
        let [one, two] = [1, 2].map(|number| target.asked(0).message(number).unwrap());
        assert_eq!((one.uri().to_string(), two.uri().to_string()), ("/x/1".to_owned(), "/x/2".to_owned()));
        assert_ne!(one.headers()["x-id"], two.headers()["x-id"]);
        assert_eq!(
            (&one.headers()["x-one"], one.headers()["x-id"].len()),
            (&HeaderValue::from_static("1"), 36)
        );
        assert!(Target::new(&load, Group::Control).unwrap().is_none());
    }
}
