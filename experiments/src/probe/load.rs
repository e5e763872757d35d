//! Load as a probe: requests that begin at their times whatever the answers do, and what a stretch of them came to.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ErrorsBound, Expect, HttpProbe, Tls, get, two_seconds};
use crate::distribution::Distribution;
use crate::quantity::{Period, Rate};

/// HTTP requests at a steady rate. Each begins at its time, whether or not earlier ones were answered, and its latency
/// counts from that time: a server that stalls for a second delays all requests of that second, as it delays its users
/// (Tene, "How NOT to measure latency": coordinated omission). Connections are kept and used again; redirects are not
/// followed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct LoadProbe {
    /// An absolute `http://` or `https://` address. Words in double braces are filled in anew for each request: see
    /// [`Template`](super::Template). With `endpoints` it names the server alone.
    pub url: String,
    /// How many requests begin in a second or a minute.
    pub rate: Rate,
    /// The request method.
    #[serde(default = "get")]
    pub method: String,
    /// Request headers, with words in double braces as in `url`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// The request body, with words in double braces as in `url`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// What is asked for, each as often as its weight says; without it what `url` names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<Endpoint>,
    /// Speak HTTP/2 (RFC 9113): over TLS by ALPN, without TLS by prior knowledge. A connection then carries up to 100
    /// requests at the same time.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub http2: bool,
    /// Each request is sent a second time, to a group without the fault: what `errors: "<= 1.5x control"` compares with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<Control>,
    /// A request that is not answered after this time, counted from when it was to begin, is an error.
    #[serde(default = "two_seconds")]
    pub timeout: Period,
    /// The most connections at the same time; a request that would need one more is an error.
    #[serde(default = "many")]
    #[schemars(range(min = 1, max = 10000))]
    pub connections: u32,
    /// Whom to trust.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
}

fn many() -> u32 {
    512
}

/// One of the things that a load asks a server for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Endpoint {
    /// Path and query, from the first `/`, with words in double braces as in `url`.
    pub path: String,
    /// How often, compared with the others: 3 beside 1 is three of four requests.
    #[serde(default = "once")]
    #[schemars(range(min = 1, max = 1000))]
    pub weight: u32,
    /// The request method, where it is not that of the load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Request headers beside those of the load; of the same name, instead of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// The request body, where it is not that of the load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
}

fn once() -> u32 {
    1
}

/// The group without the fault. It gets the same requests at the same times, but for what stands here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Control {
    /// Another server: scheme, host and port, `http://10.0.0.8:8080`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Request headers beside those of the load; of the same name, instead of them. For servers that divide their traffic
    /// by a header.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
}

/// One of the two groups that a load with a [`Control`] compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// The one that the fault may concern.
    Tested,
    /// The one that it does not.
    Control,
}

impl LoadProbe {
    /// The requests that it sends to a group, each with its weight, and with its templates as they are written. Those to
    /// the control group are in the same order; none where there is no such group.
    pub fn requests(&self, group: Group) -> Vec<(u32, HttpProbe)> {
        let own =
            Endpoint { path: String::new(), weight: 1, method: None, headers: BTreeMap::new(), body: None };
        let control = match (group, &self.control) {
            (Group::Control, None) => return Vec::new(),
            (Group::Control, control) => control.as_ref(),
            (Group::Tested, _) => None,
        };
        let endpoints = if self.endpoints.is_empty() { std::slice::from_ref(&own) } else { &self.endpoints };
        let request = |endpoint: &Endpoint| {
            let mut headers = self.headers.clone();
            headers.extend(endpoint.headers.clone());
            headers.extend(control.map(|control| control.headers.clone()).unwrap_or_default());
            let (server, path) = divided(&self.url);
            let path = if self.endpoints.is_empty() { path } else { &endpoint.path };
            let server = control.and_then(|control| control.server.as_deref()).unwrap_or(server);
            HttpProbe {
                url: format!("{}{path}", server.trim_end_matches('/')),
                method: endpoint.method.as_ref().unwrap_or(&self.method).clone(),
                headers,
                body: endpoint.body.as_ref().or(self.body.as_ref()).cloned(),
                timeout: self.timeout,
                tls: self.tls.clone(),
            }
        };
        endpoints.iter().map(|endpoint| (endpoint.weight, request(endpoint))).collect()
    }
}

/// An address without its path and query, and those.
pub(crate) fn divided(url: &str) -> (&str, &str) {
    let begin = url.find("://").map_or(0, |at| at + 3);
    let end = url[begin..].find(['/', '?']).map_or(url.len(), |at| begin + at);
    url.split_at(end)
}

/// The quantiles that an expectation can bound: its key, and how many thousandths of the requests it speaks of.
pub const QUANTILES: [(&str, u64); 4] = [("p50", 500), ("p90", 900), ("p99", 990), ("p999", 999)];

/// What the requests came to that began within one stretch of time. Stretches add up.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Load {
    /// Requests that began. Each of them was answered, or is an error.
    pub requests: u64,
    /// Those without the expected answer, by kind, the most frequent first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Count>,
    /// Requests that were never sent because the load generator was too late for them: they say nothing of the target.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unsent: u64,
    /// The latency of the others, from the time when each was to begin to the last byte of its answer.
    pub latency: Distribution,
    /// How late requests were sent: what the load generator itself added to their latency. In buckets of 6 %: nobody
    /// asks for more, and events stay small.
    pub late: Distribution<4>,
    /// The same by the time when requests began: one entry for each tenth of a second. What is added up has none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slots: Vec<Slot>,
    /// The expectations that did not hold, as they are written: `p99 <= 300ms`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missed: Vec<String>,
    /// Whether the stretch was cut off before half of its time: it counts in sums, and is no sample.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub short: bool,
    /// What the same requests came to in the control group, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<Box<Load>>,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// What the requests came to that began within a tenth of a second. As JSON it is a list without the zeros at its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<u32>", into = "Vec<u32>")]
pub struct Slot {
    /// Requests that began.
    pub requests: u32,
    /// Those without the expected answer.
    pub failed: u32,
    /// Answers that took longer than the bound of each of [`QUANTILES`].
    pub slow: [u32; QUANTILES.len()],
}

impl Slot {
    /// How long it is, in milliseconds.
    pub const MS: u64 = 100;
}

impl From<Vec<u32>> for Slot {
    fn from(counts: Vec<u32>) -> Self {
        let count = |at: usize| counts.get(at).copied().unwrap_or(0);
        Slot { requests: count(0), failed: count(1), slow: std::array::from_fn(|at| count(2 + at)) }
    }
}

impl From<Slot> for Vec<u32> {
    fn from(slot: Slot) -> Self {
        let mut counts = vec![slot.requests, slot.failed];
        counts.extend(slot.slow);
        let end = counts.iter().rposition(|count| *count > 0).map_or(0, |last| last + 1);
        counts.truncate(end);
        counts
    }
}

/// How often something was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// What.
    pub seen: String,
    /// How often.
    pub times: u64,
}

impl Count {
    /// So many times more of something.
    pub fn add(counts: &mut Vec<Count>, seen: &str, times: u64) {
        match counts.iter_mut().find(|count| count.seen == seen) {
            Some(count) => count.times += times,
            None => counts.push(Count { seen: seen.to_owned(), times }),
        }
    }

    /// The most frequent first; equally frequent ones by name.
    pub fn sort(counts: &mut [Count]) {
        counts.sort_by(|a, b| b.times.cmp(&a.times).then_with(|| a.seen.cmp(&b.seen)));
    }

    /// `1 error`, `12 errors`.
    pub fn of(times: u64, what: &str) -> String {
        format!("{times} {what}{}", if times == 1 { "" } else { "s" })
    }

    /// `12 × connection refused, 2 × 503`.
    pub fn in_words(counts: &[Count]) -> String {
        let words: Vec<String> =
            counts.iter().map(|count| format!("{} × {}", count.times, count.seen)).collect();
        words.join(", ")
    }
}

impl Load {
    /// The slot of a request that began so long after its stretch did. Stretches of more than ten minutes have one for all
    /// that comes later.
    pub fn slot(&mut self, offset: Duration) -> &mut Slot {
        let at = usize::try_from(offset.as_millis() / u128::from(Slot::MS)).unwrap_or(usize::MAX).min(6000);
        if self.slots.len() <= at {
            self.slots.resize(at + 1, Slot::default());
        }
        &mut self.slots[at]
    }

    /// Adds what another stretch came to; whether it was as expected is not added.
    pub fn merge(&mut self, other: &Load) {
        self.requests += other.requests;
        self.unsent += other.unsent;
        other.errors.iter().for_each(|count| Count::add(&mut self.errors, &count.seen, count.times));
        Count::sort(&mut self.errors);
        self.latency.merge(&other.latency);
        self.late.merge(&other.late);
        if let Some(control) = &other.control {
            self.control.get_or_insert_default().merge(control);
        }
    }

    /// Requests without the expected answer.
    pub fn failed(&self) -> u64 {
        self.errors.iter().map(|count| count.times).sum()
    }

    /// The latency within which so many thousandths of all requests were answered as expected; `None` where fewer
    /// were.
    pub fn quantile(&self, thousandths: u64) -> Option<Duration> {
        self.latency.quantile(thousandths, self.failed())
    }

    /// Finds the expectations that do not hold. Without `errors` no error is allowed.
    ///
    /// A quantile is within its bound where few enough requests took longer; an error took longer than any bound, and
    /// a latency in the same bucket as the bound does not.
    pub fn judge(&mut self, expect: &Expect) {
        let mut missed = Vec::new();
        // What the baseline, the control group or the other bounds decide is not known here.
        let share = match expect.errors {
            Some(ErrorsBound::Share(most)) => most.0.get(),
            None if expect.throughput.is_none() => 0.0,
            // But more than half are never usual.
            Some(ErrorsBound::OfBaseline(_) | ErrorsBound::OfControl(_)) => 50.0,
            None => 100.0,
        };
        if self.failed() as f64 * 100.0 > share * self.requests as f64 {
            missed.push(format!("errors {}", expect.errors.unwrap_or_default()));
        }
        for (name, thousandths, most) in expect.quantiles() {
            let slow = u128::from(self.latency.beyond(most.0.get()) + self.failed());
            if slow * 1000 > u128::from(self.requests) * u128::from(1000 - thousandths) {
                missed.push(format!("{name} {most}"));
            }
        }
        self.missed = missed;
    }

    /// Whether the load generator was so late that it shows in the figures: a hundredth of the requests were sent more
    /// than a millisecond late, and more than a tenth of the p99 latency.
    pub fn generator_was_late(&self) -> bool {
        let Some(late) = self.late.quantile(990, 0) else { return self.unsent > 0 };
        let shows = self.quantile(990).is_none_or(|latency| late > latency / 10);
        self.unsent > 0 || (late > Duration::from_millis(1) && shows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expect(json: serde_json::Value) -> Expect {
        serde_json::from_value(json).unwrap()
    }

    /// Answers after so many milliseconds each, and errors of one kind.
    fn load(millis: &[u64], errors: u64) -> Load {
        let mut load = Load { requests: millis.len() as u64 + errors, ..Load::default() };
        millis.iter().for_each(|ms| load.latency.add(Duration::from_millis(*ms)));
        if errors > 0 {
            Count::add(&mut load.errors, "connection refused", errors);
        }
        load
    }

    fn missed(mut load: Load, expect: &Expect) -> Vec<String> {
        load.judge(expect);
        load.missed
    }

    #[test]
    fn without_a_bound_no_error_is_allowed() {
        assert_eq!(missed(load(&[1, 1], 0), &Expect::default()), Vec::<String>::new());
        assert_eq!(missed(load(&[1, 1], 1), &Expect::default()), ["errors <= 0%"]);
        let lax = expect(serde_json::json!({ "errors": "<= 1%" }));
        assert_eq!(missed(load(&[1; 99], 1), &lax), Vec::<String>::new(), "1 of 100 is 1 %");
        assert_eq!(missed(load(&[1; 98], 1), &lax), ["errors <= 1%"]);
    }

    #[test]
    fn a_quantile_is_missed_by_slow_answers_and_by_errors_alike() {
        let fast = expect(serde_json::json!({ "errors": "<= 10%", "p90": "<= 300ms", "p50": "<= 100ms" }));
        let mut millis = vec![50; 90];
        millis.extend([400; 10]);
        assert_eq!(missed(load(&millis, 0), &fast), Vec::<String>::new());
        assert_eq!(missed(load(&millis[..90], 10), &fast), Vec::<String>::new());
        millis[0] = 400;
        assert_eq!(missed(load(&millis, 0), &fast), ["p90 <= 300ms"]);
        assert_eq!(missed(load(&[200; 20], 0), &fast), ["p50 <= 100ms"]);
        // What is missed and what is shown agree.
        assert_eq!(load(&[50; 89], 11).quantile(900), None);
        assert!(load(&[50; 90], 10).quantile(900).is_some());
    }

    #[test]
    fn a_slot_is_written_without_its_zeros() {
        let mut load = Load::default();
        *load.slot(Duration::from_millis(250)) = Slot { requests: 5, failed: 1, slow: [0, 0, 2, 0] };
        assert_eq!(serde_json::to_string(&load.slots).unwrap(), "[[],[],[5,1,0,0,2]]");
        let back: Vec<Slot> = serde_json::from_str("[[],[],[5,1,0,0,2]]").unwrap();
        assert_eq!(back, load.slots);
    }

    #[test]
    fn stretches_add_up() {
        let mut whole = load(&[1, 2], 3);
        let mut other = load(&[3], 0);
        Count::add(&mut other.errors, "503 (expected 2xx)", 4);
        other.requests += 4;
        whole.merge(&other);
        assert_eq!((whole.requests, whole.failed(), whole.latency.total()), (10, 7, 3));
        assert_eq!(Count::in_words(&whole.errors), "4 × 503 (expected 2xx), 3 × connection refused");
    }

    #[test]
    fn lateness_is_said_only_where_it_shows() {
        let mut slow = load(&[100; 100], 0);
        (0..100).for_each(|_| slow.late.add(Duration::from_millis(5)));
        assert!(!slow.generator_was_late(), "5 of 100 ms");
        let mut fast = load(&[6; 100], 0);
        (0..100).for_each(|_| fast.late.add(Duration::from_millis(5)));
        assert!(fast.generator_was_late(), "5 of 6 ms");
        assert!(Load { unsent: 1, ..Load::default() }.generator_was_late());
    }
}
