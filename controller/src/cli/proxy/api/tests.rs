//! Whatever is asked, there is an answer, and it is well formed.

use std::sync::LazyLock;

use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

/// One for all cases: what they make stays, as it would for a caller.
static API: LazyLock<Arc<Api>> = LazyLock::new(|| {
    let control = Control::start(7).expect("threads");
    Arc::new(Api { control, metrics: Metrics { proxies: true, runtime: true } })
});

fn asked(method: &str, target: &str, headers: HeaderMap, body: Vec<u8>) -> Option<(u16, HeaderMap, Bytes)> {
    let request = Request::builder().method(method).uri(target).body(Full::new(Bytes::from(body)));
    // What is no request at all never comes here.
    let mut request = request.ok()?;
    *request.headers_mut() = headers;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    Some(runtime.block_on(async {
        let place = Callers::new().place().await;
        let (head, body) = respond(API.clone(), request, &place).await.into_parts();
        let body = body.collect().await.expect("it is there").to_bytes();
        (head.status.as_u16(), head.headers, body)
    }))
}

/// A part of a path: one that means something, a name with escapes, or anything.
fn part() -> impl Strategy<Value = String> {
    let known =
        ["proxies", "toxics", "populate", "reset", "version", "metrics", "squall", "observations", "a"];
    let escaped = prop::collection::vec(any::<u8>(), 0..6);
    prop_oneof![
        5 => select(known.to_vec()).prop_map(str::to_owned),
        2 => escaped.prop_map(|bytes| bytes.iter().map(|byte| format!("%{byte:02x}")).collect()),
        1 => "[ -~]{0,8}",
        1 => "%[0-9a-gG%/]{0,3}",
    ]
}

/// A value: of the right kind, of a wrong one, or none. Whatever listens does so on loopback.
fn value() -> impl Strategy<Value = Value> {
    let plain = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        select(
            &[
                "a",
                "b",
                "127.0.0.1:0",
                "127.0.0.1:1",
                "bogus",
                "http",
                "upstream",
                "latency",
                "http_status",
                ""
            ][..]
        )
        .prop_map(Value::from),
    ];
    plain.prop_recursive(3, 24, 6, |inner| {
        let keys = [
            "name",
            "Listen",
            "upstream",
            "enabled",
            "protocol",
            "tls",
            "upstream_tls",
            "toxics",
            "type",
            "stream",
            "toxicity",
            "attributes",
            "latency",
            "status",
            "match",
            "path",
            "expires_in",
            "cert",
            "authority",
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((select(keys.to_vec()), inner), 0..6).prop_map(|fields| {
                Value::Object(fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
            }),
        ]
    })
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    let json = value().prop_map(|value| value.to_string().into_bytes());
    let cut = (value(), any::<prop::sample::Index>()).prop_map(|(value, at)| {
        let mut bytes = value.to_string().into_bytes();
        bytes.truncate(at.index(bytes.len().max(1)));
        bytes
    });
    prop_oneof![4 => json, 1 => cut, 1 => prop::collection::vec(any::<u8>(), 0..200)]
}

proptest! {
    #[test]
    fn any_request_has_a_well_formed_answer(
        method in prop_oneof![4 => select(&["GET", "POST", "PATCH", "DELETE"][..]).prop_map(str::to_owned), 1 => "[A-Z]{1,9}"],
        parts in prop::collection::vec(part(), 0..6),
        query in prop_oneof![3 => Just(String::new()), 1 => "\\?(from=)?[ -~]{0,24}"],
        body in body(),
    ) {
        let target = format!("/{}{query}", parts.join("/"));
        let Some((status, headers, said)) = asked(&method, &target, HeaderMap::new(), body) else { return Ok(()) };
        prop_assert!([200, 201, 204, 400, 404, 405, 409, 500].contains(&status), "{method} {target}: {status}");
        let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let text = std::str::from_utf8(&said);
        prop_assert!(text.is_ok(), "{method} {target}: {said:?}");
        let text = text.unwrap_or_default();
        let read: Result<Vec<Value>, _> = match kind {
            "application/json" | "application/x-ndjson" | "application/json;charset=utf-8" => {
                serde_json::Deserializer::from_str(text).into_iter().collect()
            }
            // A refusal is JSON, too, and says its own status.
            _ if text.starts_with('{') => serde_json::Deserializer::from_str(text).into_iter().collect(),
            _ => Ok(Vec::new()),
        };
        prop_assert!(read.is_ok(), "{method} {target}: {text}");
        let read = read.unwrap_or_default();
        if [400, 409, 500].contains(&status) {
            prop_assert_eq!(&read[0]["status"], &json!(status), "{} {}: {}", method, target, text);
            prop_assert!(read[0]["error"].as_str().is_some_and(|error| !error.is_empty()), "{}", text);
        }
    }
}

#[test]
fn pages_of_other_origins_are_refused_and_clients_are_not() {
    let ask = |name: &'static str, value: &'static str| {
        let mut headers = HeaderMap::new();
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        asked("POST", "/reset", headers, Vec::new()).expect("a request").0
    };
    for (name, value) in [
        ("user-agent", "Mozilla/5.0 (X11)"),
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
    ] {
        assert_eq!(ask(name, value), 403, "{name}: {value}");
    }
    for (name, value) in [
        ("user-agent", "toxiproxy-cli/2.12.0"),
        ("sec-fetch-site", "none"),
        ("sec-fetch-site", "same-origin"),
        ("accept", "*/*"),
    ] {
        assert_eq!(ask(name, value), 204, "{name}: {value}");
    }
}
