//! Prometheus probes: an instant or a range query to its HTTP interface.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use form_urlencoded::Serializer;
use serde_json::Value;
use squall_experiments::probe::{Expect, PrometheusProbe, Take};

use super::expect::{Answer, Seen, short};
use super::http::Fetch;
use super::value::ExpectValue;

/// A Prometheus probe, ready to be sampled.
pub(super) struct PrometheusLook {
    fetch: Fetch,
    query: String,
    range: Option<(Duration, Duration)>,
    take: Take,
    expect: ExpectValue,
}

impl PrometheusLook {
    /// Understands the address; an error says why not.
    pub(super) fn new(probe: &PrometheusProbe, expect: &Expect) -> Result<Self, String> {
        let mut request = probe.request();
        let place = if probe.range.is_some() { "query_range" } else { "query" };
        request.url = format!("{}/api/v1/{place}", request.url.trim_end_matches('/'));
        request.method = "POST".to_owned();
        let form = "application/x-www-form-urlencoded".to_owned();
        request.headers.insert("content-type".to_owned(), form);
        Ok(PrometheusLook {
            fetch: Fetch::new(&request)?,
            query: probe.query.clone(),
            range: probe.range.map(|range| (range.get(), probe.step.get())),
            take: probe.take,
            expect: ExpectValue::new(expect)?,
        })
    }

    /// Asks once.
    pub(super) async fn look(&self, left: Option<Duration>) -> Seen {
        let begun = Instant::now();
        match self.fetch.fetch_with(self.form(), left).await {
            Err(failure) => Seen::unclear(failure),
            Ok(answer) => match values(&answer) {
                Err(why) => Seen::unclear(why),
                Ok(values) => self.expect.judge_all(&values, self.take, begun.elapsed()),
            },
        }
    }

    fn form(&self) -> String {
        let mut form = Serializer::new(String::new());
        form.append_pair("query", &self.query);
        if let Some((range, step)) = self.range {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let seconds = |time: Duration| format!("{:.3}", time.as_secs_f64());
            form.append_pair("start", &seconds(now.saturating_sub(range)));
            form.append_pair("end", &seconds(now));
            form.append_pair("step", &seconds(step));
        }
        form.finish()
    }
}

/// Every value of a result with the series that it belongs to. An error says why there is no result.
fn values(answer: &Answer) -> Result<Vec<(String, String)>, String> {
    let foreign = || format!("{}, and the answer is not that of Prometheus", answer.status);
    let document: Value = serde_json::from_slice(&answer.body).map_err(|_| foreign())?;
    match document["status"].as_str() {
        Some("success") => {}
        Some("error") => {
            return Err(short(document["error"].as_str().unwrap_or("an error without a reason")));
        }
        _ => return Err(foreign()),
    }
    let data = &document["data"];
    let of = |pair: &Value| pair.get(1).and_then(Value::as_str).map(str::to_owned).ok_or_else(foreign);
    match data["resultType"].as_str() {
        Some("scalar" | "string") => Ok(vec![("the result".to_owned(), of(&data["result"])?)]),
        Some("vector" | "matrix") => {
            let mut all = Vec::new();
            for series in data["result"].as_array().ok_or_else(foreign)? {
                let name = name(&series["metric"]);
                if series.get("histogram").or_else(|| series.get("histograms")).is_some() {
                    return Err(format!(
                        "{name} is a histogram: take a number out of it, as `histogram_quantile` does"
                    ));
                }
                let points = series.get("values").and_then(Value::as_array).map(Vec::as_slice);
                let points = points
                    .unwrap_or_else(|| series.get("value").map(std::slice::from_ref).unwrap_or_default());
                for point in points {
                    all.push((name.clone(), of(point)?));
                }
            }
            Ok(all)
        }
        _ => Err(foreign()),
    }
}

/// A series as PromQL writes it: `up{job="shop"}`.
fn name(metric: &Value) -> String {
    let labels = metric.as_object().into_iter().flatten();
    let labels =
        labels.filter(|(name, _)| *name != "__name__").map(|(name, value)| format!("{name}={value}"));
    let labels: Vec<String> = labels.collect();
    short(&format!("{}{{{}}}", metric["__name__"].as_str().unwrap_or_default(), labels.join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<Vec<(String, String)>, String> {
        values(&Answer { status: 200, headers: hyper::HeaderMap::new(), body: body.as_bytes().to_vec() })
    }

    #[test]
    fn every_kind_of_result_is_read() {
        let scalar = r#"{"status":"success","data":{"resultType":"scalar","result":[1.5,"7"]}}"#;
        assert_eq!(read(scalar).unwrap(), [("the result".to_owned(), "7".to_owned())]);
        let vector = r#"{"status":"success","data":{"resultType":"vector","result":[
            {"metric":{"__name__":"up","job":"a"},"value":[1,"1"]},{"metric":{},"value":[1,"NaN"]}]}}"#;
        let read_vector = read(vector).unwrap();
        assert_eq!(read_vector[0], ("up{job=\"a\"}".to_owned(), "1".to_owned()));
        assert_eq!(read_vector[1], ("{}".to_owned(), "NaN".to_owned()));
        let matrix = r#"{"status":"success","data":{"resultType":"matrix","result":[
            {"metric":{"a":"b"},"values":[[1,"1"],[2,"2"]]}]}}"#;
        assert_eq!(read(matrix).unwrap().len(), 2);
        let none = r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#;
        assert_eq!(read(none).unwrap(), []);
    }

    #[test]
    fn what_is_no_result_is_an_error_with_its_reason() {
        let refused = r#"{"status":"error","errorType":"bad_data","error":"parse error: x"}"#;
        assert_eq!(read(refused).unwrap_err(), "parse error: x");
        let histogram = r#"{"status":"success","data":{"resultType":"vector","result":[
            {"metric":{"__name__":"h"},"histogram":[1,{}]}]}}"#;
        assert!(read(histogram).unwrap_err().starts_with("h{} is a histogram"));
        for foreign in [
            "",
            "<html>",
            "{}",
            "[]",
            "null",
            r#"{"status":"success"}"#,
            r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,2]}]}}"#,
        ] {
            assert_eq!(
                read(foreign).unwrap_err(),
                "200, and the answer is not that of Prometheus",
                "{foreign}"
            );
        }
    }
}
