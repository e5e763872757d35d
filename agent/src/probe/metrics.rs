//! Metrics probes: an endpoint in the text format of Prometheus or OpenMetrics.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use squall_experiments::probe::compare::Number;
use squall_experiments::probe::{Expect, MetricsProbe, Take};
use tokio::time::sleep;

use super::expect::Seen;
use super::http::Fetch;
use super::looks::shorter;
use super::value::ExpectValue;

/// A metrics probe, ready to be sampled.
pub(super) struct MetricsLook {
    fetch: Fetch,
    metric: String,
    labels: BTreeMap<String, String>,
    rate: Option<Duration>,
    take: Take,
    expect: ExpectValue,
}

/// The series of a metric, each by its labels as they stand there, with its value as it stands there.
type Series = Vec<(String, String)>;

impl MetricsLook {
    /// Understands the address; an error says why not.
    pub(super) fn new(probe: &MetricsProbe, expect: &Expect) -> Result<Self, String> {
        Ok(MetricsLook {
            fetch: Fetch::new(&probe.request())?,
            metric: probe.metric.clone(),
            labels: probe.labels.clone(),
            rate: probe.rate.map(|rate| rate.get()),
            take: probe.take,
            expect: ExpectValue::new(expect)?,
        })
    }

    /// Reads the endpoint, for a rate twice.
    pub(super) async fn look(&self, left: Option<Duration>) -> Seen {
        let begun = Instant::now();
        let until = left.map(|left| begun + left);
        let left = || until.map(|until| until.saturating_duration_since(Instant::now()));
        let first = match self.scrape(left()).await {
            Ok(series) => series,
            Err(seen) => return seen,
        };
        let Some(rate) = self.rate else {
            return self.expect.judge_all(&first, self.take, begun.elapsed());
        };
        let read = Instant::now();
        sleep(shorter(rate, left())).await;
        let second = match self.scrape(left()).await {
            Ok(series) => series,
            Err(seen) => return seen,
        };
        match growth(&first, &second, read.elapsed()) {
            Ok(rates) => self.expect.judge_all(&rates, self.take, begun.elapsed()),
            Err(why) => Seen::unclear(why),
        }
    }

    async fn scrape(&self, left: Option<Duration>) -> Result<Series, Seen> {
        let answer = self.fetch.fetch(left).await.map_err(Seen::bad)?;
        if answer.status != 200 {
            return Err(Seen::bad(format!("{} (expected 200)", answer.status)));
        }
        let Ok(text) = std::str::from_utf8(&answer.body) else {
            return Err(Seen::unclear("the answer is no text, and holds no metrics"));
        };
        series(text, &self.metric, &self.labels).map_err(Seen::unclear)
    }
}

/// How much each series grew, in a second. One that is new began at nothing, as counters do.
fn growth(first: &Series, second: &Series, between: Duration) -> Result<Series, String> {
    let number = |(name, value): &(String, String)| match value.parse::<Number>() {
        Ok(number) => Ok(number.real()),
        Err(why) => Err(format!("{name}: {why}")),
    };
    let grown = |now: &(String, String)| {
        let before = first.iter().find(|before| before.0 == now.0).map_or(Ok(0.0), number)?;
        let grown = number(now)? - before;
        match grown < 0.0 {
            true => Err(format!("{} became less: it began anew, or is no counter", now.0)),
            false => Ok((now.0.clone(), (grown / between.as_secs_f64()).to_string())),
        }
    };
    second.iter().map(grown).collect()
}

/// The series of a metric that have certain labels. An error is a line of it that cannot be understood.
fn series(text: &str, metric: &str, wanted: &BTreeMap<String, String>) -> Result<Series, String> {
    let mut found = Vec::new();
    for line in text.lines() {
        let Some(rest) = line.trim_start().strip_prefix(metric) else { continue };
        if !rest.starts_with(['{', ' ', '\t']) {
            continue;
        }
        let wrong = || format!("the line `{}` cannot be understood", super::expect::short(line));
        let (labels, rest) = labels(rest.trim_start()).ok_or_else(wrong)?;
        let value = rest.split_ascii_whitespace().next().ok_or_else(wrong)?;
        if wanted.iter().all(|(name, value)| labels.get(name) == Some(value)) {
            let labels: Vec<String> =
                labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
            found.push((format!("{metric}{{{}}}", labels.join(",")), value.to_owned()));
        }
    }
    Ok(found)
}

/// The labels at the beginning of a text, and what follows them.
fn labels(text: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    let Some(mut rest) = text.strip_prefix('{') else { return Some((labels, text)) };
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        let (name, after) = rest.split_once('=')?;
        let quoted = after.trim_start().strip_prefix('"')?;
        let (value, after) = unquoted(quoted)?;
        labels.insert(name.trim().to_owned(), value);
        rest = after;
    }
}

/// A label's value up to its closing quote, and what follows it.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match letters.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            _ => value.push(letter),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP http_requests_total Requests.\n# TYPE http_requests_total counter\n\
        http_requests_total{method=\"GET\", path=\"/a b\"} 12 1700000000000\n\
        http_requests_total{method=\"POST\",path=\"say \\\"x\\\" \\\\ } \\n\",} 3.5e2 # {trace=\"1\"} 0.5\n\
        http_requests_totals 9\n  up 1\nnan_metric NaN\nbroken{a=\"b} 1\n";

    fn values(metric: &str, wanted: &[(&str, &str)]) -> Result<Vec<String>, String> {
        let wanted = wanted.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Ok(series(TEXT, metric, &wanted)?.into_iter().map(|(_, value)| value).collect())
    }

    #[test]
    fn series_are_found_by_name_and_labels() {
        assert_eq!(values("http_requests_total", &[]).unwrap(), ["12", "3.5e2"]);
        assert_eq!(values("http_requests_total", &[("method", "GET")]).unwrap(), ["12"]);
        assert_eq!(values("http_requests_total", &[("path", "say \"x\" \\ } \n")]).unwrap(), ["3.5e2"]);
        assert_eq!(values("up", &[]).unwrap(), ["1"]);
        assert!(values("up", &[("job", "x")]).unwrap().is_empty());
        assert!(values("http_requests", &[]).unwrap().is_empty(), "a part of a name is another name");
        assert!(values("broken", &[]).unwrap_err().starts_with("the line `broken{a="));
    }

    #[test]
    fn growth_is_a_rate_and_a_counter_that_began_anew_has_none() {
        let of = |value: &str| vec![("a".to_owned(), value.to_owned())];
        let half = Duration::from_millis(500);
        assert_eq!(growth(&of("10"), &of("15"), half).unwrap(), of("10"));
        assert_eq!(growth(&Vec::new(), &of("5"), half).unwrap(), of("10"));
        assert!(growth(&of("10"), &of("9"), half).unwrap_err().contains("became less"));
        assert!(growth(&of("10"), &of("NaN"), half).is_err());
    }
}
