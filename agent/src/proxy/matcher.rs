//! Which connections and requests a toxic concerns, as its owner describes them: all that is named must hold.

use std::net::IpAddr;

use hyper::HeaderMap;
use hyper::http::request::Parts;
use serde_json::Value;
use squall_experiments::peer::{PeerHost, masked};

/// What may be named.
const NAMES: [&str; 8] = ["client", "nth", "every", "first", "method", "path", "header", "grpc"];

/// A description that is not understood. Nothing is ever widened: what is unknown is an error.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadMatcher {
    /// Not one of the things that may be named.
    #[error("unknown matcher `{0}`: there are {names}", names = NAMES.join(", "))]
    Unknown(String),
    /// Of the wrong type, or not a network, or 0.
    #[error("matcher `{0}` is to be {1}")]
    Wrong(&'static str, &'static str),
}

/// Which connections and requests are meant; by default all.
#[derive(Clone, Debug, Default)]
pub struct Matcher {
    clients: Vec<(IpAddr, u8)>,
    nth: Option<u64>,
    every: Option<u64>,
    first: Option<u64>,
    methods: Vec<String>,
    path: Option<String>,
    headers: Vec<(String, Option<String>)>,
    grpc: Option<String>,
    /// As it was given.
    given: Value,
}

impl Matcher {
    /// From JSON: an object; `null` means all.
    pub fn read(given: &Value) -> Result<Self, BadMatcher> {
        let mut matcher = Matcher { given: given.clone(), ..Matcher::default() };
        let fields = match given {
            Value::Null => return Ok(matcher),
            Value::Object(fields) => fields,
            _ => return Err(BadMatcher::Wrong("match", "an object")),
        };
        for (name, value) in fields {
            let count = |name| match value.as_u64() {
                Some(count @ 1..) => Ok(Some(count)),
                _ => Err(BadMatcher::Wrong(name, "a whole number from 1")),
            };
            let text = |name| match value.as_str() {
                Some(text) if !text.is_empty() => Ok(Some(text.to_owned())),
                _ => Err(BadMatcher::Wrong(name, "a text")),
            };
            match name.as_str() {
                "client" => {
                    let wrong = || BadMatcher::Wrong("client", "a network such as `10.0.0.0/8`, or several");
                    for network in texts(value).ok_or_else(wrong)? {
                        match network.parse() {
                            Ok(PeerHost::Net(address, bits)) => matcher.clients.push((address, bits)),
                            _ => return Err(wrong()),
                        }
                    }
                }
                "nth" => matcher.nth = count("nth")?,
                "every" => matcher.every = count("every")?,
                "first" => matcher.first = count("first")?,
                "method" => {
                    let methods = texts(value);
                    let methods = methods.ok_or(BadMatcher::Wrong("method", "a method, or several"))?;
                    matcher.methods = methods.into_iter().map(str::to_owned).collect();
                }
                "path" => matcher.path = text("path")?,
                "grpc" => matcher.grpc = text("grpc")?,
                "header" => matcher.headers = headers(value)?,
                other => return Err(BadMatcher::Unknown(other.to_owned())),
            }
        }
        Ok(matcher)
    }

    /// As it was given; `null` where nothing was.
    pub fn given(&self) -> &Value {
        &self.given
    }

    /// Whether it asks something that only a request can answer.
    pub fn names_requests(&self) -> bool {
        !self.methods.is_empty() || self.path.is_some() || !self.headers.is_empty() || self.grpc.is_some()
    }

    /// Whether it counts.
    pub fn counts(&self) -> bool {
        self.nth.is_some() || self.every.is_some() || self.first.is_some()
    }

    /// Whether the client's address is meant.
    pub fn client(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        self.clients.is_empty()
            || self.clients.iter().any(|(network, bits)| {
                network.is_ipv4() == client.is_ipv4() && masked(client, *bits) == *network
            })
    }

    /// Whether the one with this number, from 1, is meant.
    pub fn number(&self, number: u64) -> bool {
        self.nth.is_none_or(|nth| nth == number)
            && self.every.is_none_or(|every| number.is_multiple_of(every))
            && self.first.is_none_or(|first| number <= first)
    }

    /// Whether a request is meant, as far as it says itself.
    pub fn request(&self, request: &Parts) -> bool {
        let path = request.uri.path();
        (self.methods.is_empty() || self.methods.iter().any(|method| method == request.method.as_str()))
            && self.path.as_ref().is_none_or(|wanted| glob(wanted, path))
            && self.headers.iter().all(|(name, wanted)| has(&request.headers, name, wanted.as_deref()))
            && self.grpc.as_ref().is_none_or(|wanted| {
                is_grpc(&request.headers) && glob(wanted, path.strip_prefix('/').unwrap_or(path))
            })
    }
}

/// Whether a message is one of gRPC: by its content type (gRPC over HTTP2, "Requests").
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(hyper::header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

fn has(headers: &HeaderMap, name: &str, wanted: Option<&str>) -> bool {
    let mut values = headers.get_all(name).iter();
    match wanted {
        None => values.next().is_some(),
        Some(wanted) => values.any(|value| value.to_str().is_ok_and(|value| glob(wanted, value))),
    }
}

/// One text or several; never none.
fn texts(value: &Value) -> Option<Vec<&str>> {
    match value {
        Value::String(text) => Some(vec![text]),
        Value::Array(values) if !values.is_empty() => values.iter().map(Value::as_str).collect(),
        _ => None,
    }
}

/// `{"name": "pattern"}`; `null` instead of a pattern means that the header is there at all.
fn headers(value: &Value) -> Result<Vec<(String, Option<String>)>, BadMatcher> {
    let wrong = || BadMatcher::Wrong("header", "an object of header names and patterns");
    let fields = value.as_object().filter(|fields| !fields.is_empty()).ok_or_else(wrong)?;
    let mut headers = Vec::new();
    for (name, value) in fields {
        let pattern = match value {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            _ => return Err(wrong()),
        };
        headers.push((name.to_ascii_lowercase(), pattern));
    }
    Ok(headers)
}

/// Whether a text has the form of a pattern: `*` is any number of characters, `?` is one.
pub fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut at, mut seen) = (0, 0);
    // Where the last star stood, and how much of the text it stands for.
    let mut star: Option<(usize, usize)> = None;
    while seen < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, seen));
                at += 1;
            }
            Some(byte) if *byte == b'?' || *byte == text[seen] => {
                at += 1;
                seen += 1;
            }
            _ => {
                let Some((place, from)) = star else { return false };
                star = Some((place, from + 1));
                (at, seen) = (place + 1, from + 1);
            }
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use hyper::Request;
    use proptest::prelude::*;
    use serde_json::json;

    use super::{BadMatcher, Matcher, Value, glob};

    fn meets(matcher: Value, path: &str, headers: &[(&str, &str)]) -> bool {
        let mut request = Request::post(format!("http://host{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).expect("a request").into_parts().0;
        Matcher::read(&matcher).expect("a matcher").request(&request)
    }

    #[test]
    fn a_request_is_meant_when_all_that_is_named_holds() {
        assert!(meets(json!(null), "/", &[]));
        assert!(meets(json!({ "method": "POST", "path": "/pay/*" }), "/pay/7?x=1", &[]));
        assert!(!meets(json!({ "method": ["GET", "PUT"], "path": "/pay/*" }), "/pay/7", &[]));
        assert!(!meets(json!({ "path": "/pay" }), "/pay/7", &[]));
        let tenant = [("X-Tenant", "acme-7")];
        assert!(meets(json!({ "header": { "x-tenant": "acme-*" } }), "/", &tenant));
        assert!(meets(json!({ "header": { "X-TENANT": null } }), "/", &tenant));
        assert!(!meets(json!({ "header": { "x-tenant": "acme" } }), "/", &tenant));
        let grpc = [("content-type", "application/grpc+proto")];
        assert!(meets(json!({ "grpc": "shop.Payments/*" }), "/shop.Payments/Charge", &grpc));
        assert!(!meets(json!({ "grpc": "shop.Payments/*" }), "/shop.Payments/Charge", &[]));
    }

    #[test]
    fn clients_are_meant_by_network_and_connections_by_number() {
        let matcher = Matcher::read(&json!({ "client": ["10.0.0.0/8", "::1"] })).expect("a matcher");
        let client = |text: &str| matcher.client(text.parse().expect("an address"));
        assert!(client("10.255.0.1") && client("::ffff:10.0.0.1") && client("::1"));
        assert!(!client("11.0.0.1") && !client("::2"));
        let matcher = Matcher::read(&json!({ "every": 3, "first": 7 })).expect("a matcher");
        let meant: Vec<u64> = (1..=12).filter(|number| matcher.number(*number)).collect();
        assert_eq!(meant, [3, 6]);
        assert!(matcher.counts() && !matcher.names_requests());
    }

    #[test]
    fn nothing_is_widened() {
        for (given, name) in [
            (json!({ "clients": "10.0.0.0/8" }), ""),
            (json!({ "client": "10.0.0.1/8" }), "client"),
            (json!({ "client": [] }), "client"),
            (json!({ "client": "any" }), "client"),
            (json!({ "client": "db.internal" }), "client"),
            (json!({ "nth": 0 }), "nth"),
            (json!({ "every": -1 }), "every"),
            (json!({ "first": 1.5 }), "first"),
            (json!({ "method": [1] }), "method"),
            (json!({ "path": "" }), "path"),
            (json!({ "header": {} }), "header"),
            (json!({ "header": { "a": 1 } }), "header"),
            (json!([]), "match"),
        ] {
            match Matcher::read(&given) {
                Err(BadMatcher::Unknown(_)) => assert_eq!(name, "", "{given}"),
                Err(BadMatcher::Wrong(wrong, _)) => assert_eq!(wrong, name, "{given}"),
                Ok(_) => panic!("{given} is understood"),
            }
        }
    }

    proptest! {
        #[test]
        fn a_pattern_means_what_its_regular_expression_means(pattern in "[ab*?]{0,8}", text in "[ab]{0,10}") {
            let regular: String = pattern.chars().map(|c| match c {
                '*' => ".*".to_owned(),
                '?' => ".".to_owned(),
                other => other.to_string(),
            }).collect();
            let regular = regex::Regex::new(&format!("^{regular}$")).expect("an expression");
            prop_assert_eq!(glob(&pattern, &text), regular.is_match(&text));
        }
    }
}
