//! What requests ask for, read as leniently as the reference reads it: any content type, keys of any case, unknown
//! fields, and anything behind the first value. Only what has the wrong type is refused.

use std::time::Duration;

use serde_json::{Map, Value};
use squall_agent::proxy::control::{Difference, Wanted, WantedTls, WantedToxic};
use squall_agent::proxy::tls::WantedOrigin;
use squall_agent::proxy::toxics::values::describe;

use super::answer::Refused;

/// A year: no toxic is meant to live longer by a timer.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// The first JSON value of a body.
pub(in super::super) fn first(body: &[u8]) -> Result<Value, Refused> {
    match serde_json::Deserializer::from_slice(body).into_iter::<Value>().next() {
        None => Err(Refused::body("EOF")),
        Some(Ok(value)) => Ok(value),
        Some(Err(error)) if error.is_eof() => Err(Refused::body("unexpected EOF")),
        Some(Err(error)) => Err(Refused::body(&format!("invalid JSON: {error}"))),
    }
}

/// The fields of an object; `null` has none.
struct Fields<'a> {
    of: &'static str,
    fields: Option<&'a Map<String, Value>>,
}

impl<'a> Fields<'a> {
    fn new(of: &'static str, value: &'a Value) -> Result<Self, Refused> {
        match value {
            Value::Null => Ok(Fields { of, fields: None }),
            Value::Object(fields) => Ok(Fields { of, fields: Some(fields) }),
            other => {
                let found = describe(other);
                let found = found.split(' ').next().unwrap_or_default();
                Err(Refused::body(&format!(
                    "json: cannot unmarshal {found} into Go value of type toxiproxy.{of}"
                )))
            }
        }
    }

    fn get(&self, name: &str) -> Option<&'a Value> {
        let found = self.fields?.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value).rfind(|value| !value.is_null())
    }

    fn wrong(&self, name: &str, value: &Value, kind: &str) -> Refused {
        let (of, found) = (self.of, describe(value));
        let found = if value.is_number() && kind == "string" { "number" } else { &found };
        Refused::body(&format!(
            "json: cannot unmarshal {found} into Go struct field {of}.{name} of type {kind}"
        ))
    }

    fn text(&self, name: &str) -> Result<Option<String>, Refused> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(other) => Err(self.wrong(name, other, "string")),
        }
    }

    fn flag(&self, name: &str) -> Result<Option<bool>, Refused> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(self.wrong(name, other, "bool")),
        }
    }

    fn share(&self, name: &str) -> Result<Option<f32>, Refused> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let share = value.as_f64().map(|share| share as f32).filter(|share| share.is_finite());
        share.map(Some).ok_or_else(|| self.wrong(name, value, "float32"))
    }

    fn object(&self, name: &str) -> Result<Map<String, Value>, Refused> {
        match self.get(name) {
            None => Ok(Map::new()),
            Some(Value::Object(object)) => Ok(object.clone()),
            Some(other) => Err(self.wrong(name, other, "object")),
        }
    }
}

/// A proxy to be made.
pub(super) fn proxy(value: &Value) -> Result<Wanted, Refused> {
    let fields = Fields::new("Proxy", value)?;
    let toxics = match fields.get("toxics") {
        Some(Value::Array(toxics)) => toxics.iter().map(toxic).collect::<Result<_, _>>()?,
        _ => Vec::new(),
    };
    Ok(Wanted {
        name: fields.text("name")?.unwrap_or_default(),
        listen: fields.text("listen")?.unwrap_or_default(),
        upstream: fields.text("upstream")?.unwrap_or_default(),
        enabled: fields.flag("enabled")?.unwrap_or(true),
        protocol: fields.text("protocol")?.unwrap_or_default(),
        tls: fields.get("tls").map(certificate).transpose()?,
        upstream_tls: fields.get("upstream_tls").map(origin).transpose()?,
        handshakes: false,
        toxics,
    })
}

/// A certificate and its key.
fn certificate(value: &Value) -> Result<WantedTls, Refused> {
    let fields = Fields::new("TLS", value)?;
    let text = |name| fields.text(name).map(Option::unwrap_or_default);
    let authority = fields.flag("authority")?.unwrap_or_default();
    Ok(WantedTls { cert: text("cert")?, key: text("key")?, authority })
}

/// How TLS is to be spoken with the dependency.
fn origin(value: &Value) -> Result<WantedOrigin, Refused> {
    let fields = Fields::new("UpstreamTLS", value)?;
    let text = |name| fields.text(name).map(Option::unwrap_or_default);
    let insecure = fields.flag("insecure")?.unwrap_or_default();
    Ok(WantedOrigin { name: text("name")?, ca: text("ca")?, insecure })
}

/// Proxies to be made, as in a configuration file.
pub(in super::super) fn proxies(value: &Value) -> Result<Vec<Wanted>, Refused> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(values) => values.iter().map(proxy).collect(),
        other => {
            let found = describe(other);
            let found = found.split(' ').next().unwrap_or_default();
            Err(Refused::body(&format!(
                "json: cannot unmarshal {found} into Go value of type []toxiproxy.Proxy"
            )))
        }
    }
}

/// What is to be different about a proxy.
pub(super) fn difference(value: &Value) -> Result<Difference, Refused> {
    let fields = Fields::new("Proxy", value)?;
    Ok(Difference {
        listen: fields.text("listen")?.filter(|listen| !listen.is_empty()),
        upstream: fields.text("upstream")?.filter(|upstream| !upstream.is_empty()),
        enabled: fields.flag("enabled")?,
    })
}

/// A toxic to be made.
pub(super) fn toxic(value: &Value) -> Result<WantedToxic, Refused> {
    let fields = Fields::new("Toxic", value)?;
    Ok(WantedToxic {
        name: fields.text("name")?.unwrap_or_default(),
        kind: fields.text("type")?.unwrap_or_default(),
        stream: fields.text("stream")?.unwrap_or_default(),
        toxicity: fields.share("toxicity")?,
        attributes: fields.object("attributes")?,
        foreign: false,
        concerns: fields.get("match").cloned().unwrap_or_default(),
        expires: lifetime(&fields)?,
    })
}

/// How long a toxic is to live, from `expires_in` in milliseconds; an extension. What is negative ends at once.
fn lifetime(fields: &Fields<'_>) -> Result<Option<Duration>, Refused> {
    let Some(value) = fields.get("expires_in") else { return Ok(None) };
    let whole = value.as_i64().ok_or_else(|| fields.wrong("expires_in", value, "int64"))?;
    Ok(Some(Duration::from_millis(u64::try_from(whole).unwrap_or(0)).min(LONGEST)))
}

/// What is to be different about a toxic.
pub(super) fn toxic_difference(value: &Value) -> Result<(Map<String, Value>, Option<f32>), Refused> {
    let fields = Fields::new("Toxic", value)?;
    Ok((fields.object("attributes")?, fields.share("toxicity")?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{first, proxies, proxy, toxic};

    #[test]
    fn bodies_are_read_leniently() {
        let value = first(br#" {"NAME":"a","Upstream":"b:1","surplus":[1]} trailing"#).unwrap();
        let wanted = proxy(&value).unwrap();
        assert_eq!((wanted.name.as_str(), wanted.upstream.as_str(), wanted.enabled), ("a", "b:1", true));
        assert_eq!(first(b"").unwrap_err().text, "bad request body: EOF");
        assert_eq!(first(b"{\"a\"").unwrap_err().text, "bad request body: unexpected EOF");
        assert!(first(b"{a}").unwrap_err().text.starts_with("bad request body: "));
        assert!(proxies(&json!(null)).unwrap().is_empty());
    }

    #[test]
    fn a_wrong_type_is_named() {
        let wrong = |value| proxy(&value).unwrap_err().text;
        let begin = "bad request body: json: cannot unmarshal ";
        assert_eq!(
            wrong(json!({ "name": 7 })),
            format!("{begin}number into Go struct field Proxy.name of type string")
        );
        assert_eq!(wrong(json!([1])), format!("{begin}array into Go value of type toxiproxy.Proxy"));
        let text = toxic(&json!({ "toxicity": "much" })).unwrap_err().text;
        assert_eq!(text, format!("{begin}string into Go struct field Toxic.toxicity of type float32"));
    }
}
