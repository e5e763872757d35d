//! A span, and how OTLP writes it: the JSON form of protocol buffers, with ids in hexadecimal digits, 64-bit numbers as text, and
//! names in lowerCamelCase (opentelemetry.io/docs/specs/otlp, "JSON Protobuf Encoding").

use serde_json::{Value, json};

/// What a span was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Something of this program.
    Internal = 1,
    /// A request that it answered.
    Server = 2,
}

/// Something that took a while.
#[derive(Clone, Debug)]
pub(super) struct Span {
    pub(super) trace: u128,
    pub(super) id: u64,
    pub(super) parent: Option<u64>,
    pub(super) name: String,
    pub(super) kind: Kind,
    /// From when to when, in nanoseconds since 1970.
    pub(super) from_ns: u64,
    pub(super) to_ns: u64,
    pub(super) attributes: Vec<(&'static str, Value)>,
    pub(super) events: Vec<Happened>,
    /// Why it failed, where it did.
    pub(super) failed: Option<String>,
}

/// Something that happened in the middle of a span.
#[derive(Clone, Debug)]
pub(super) struct Happened {
    pub(super) at_ns: u64,
    pub(super) name: &'static str,
    pub(super) attributes: Vec<(&'static str, Value)>,
}

/// A new name of a span: any number but 0.
pub(super) fn new_id() -> u64 {
    rand::random::<u64>().max(1)
}

impl Span {
    /// A part of another one that begins now and has not ended.
    pub(super) fn within(&self, name: impl Into<String>, from_ns: u64) -> Span {
        Span {
            trace: self.trace,
            id: new_id(),
            parent: Some(self.id),
            name: name.into(),
            kind: Kind::Internal,
            from_ns,
            to_ns: from_ns,
            attributes: Vec::new(),
            events: Vec::new(),
            failed: None,
        }
    }

    pub(super) fn with(mut self, name: &'static str, value: impl Into<Value>) -> Span {
        self.attributes.push((name, value.into()));
        self
    }

    pub(super) fn happened(
        &mut self,
        at_ns: u64,
        name: &'static str,
        attributes: Vec<(&'static str, Value)>,
    ) {
        self.events.push(Happened { at_ns, name, attributes });
    }

    fn written(&self) -> Value {
        let mut written = json!({
            "traceId": format!("{:032x}", self.trace),
            "spanId": format!("{:016x}", self.id),
            "name": self.name,
            "kind": self.kind as u8,
            "startTimeUnixNano": self.from_ns.to_string(),
            // A clock that was set back must not make it end before it began.
            "endTimeUnixNano": self.to_ns.max(self.from_ns).to_string(),
            "attributes": attributes(&self.attributes),
            "events": self.events.iter().map(|event| json!({
                "timeUnixNano": event.at_ns.to_string(), "name": event.name, "attributes": attributes(&event.attributes),
            })).collect::<Vec<_>>(),
            "flags": 1,
        });
        if let Some(parent) = self.parent {
            written["parentSpanId"] = json!(format!("{parent:016x}"));
        }
        if let Some(why) = &self.failed {
            written["status"] = json!({ "code": 2, "message": why });
        }
        written
    }
}

/// The body of a request to a collector: spans of what the resource says.
pub(super) fn request(resource: &[(String, String)], spans: &[Span]) -> Value {
    let resource: Vec<Value> = resource
        .iter()
        .map(|(name, value)| json!({ "key": name, "value": { "stringValue": value } }))
        .collect();
    json!({ "resourceSpans": [{
        "resource": { "attributes": resource },
        "scopeSpans": [{
            "scope": { "name": "squall", "version": env!("CARGO_PKG_VERSION") },
            "spans": spans.iter().map(Span::written).collect::<Vec<_>>(),
        }],
    }] })
}

fn attributes(all: &[(&'static str, Value)]) -> Vec<Value> {
    let value = |value: &Value| match value {
        Value::Number(number) if number.is_f64() => json!({ "doubleValue": number }),
        Value::Number(number) => json!({ "intValue": number.to_string() }),
        Value::Bool(yes) => json!({ "boolValue": yes }),
        Value::String(text) => json!({ "stringValue": text }),
        other => json!({ "stringValue": other.to_string() }),
    };
    all.iter().map(|(name, it)| json!({ "key": name, "value": value(it) })).collect()
}
