//! The toxics for requests and answers of HTTP: on a proxy whose `protocol` is `http`. Toxicity is a share of requests.
//! What they do stands in `proxy::http::faults`.

use std::borrow::Cow;

use super::values::Attribute;
use super::{Kind, Message, Work};

const NO_TEXT: Attribute = Attribute::Text(Cow::Borrowed(""));

/// The request is answered with a status and a body; the dependency does not hear of it. Calls of gRPC are answered with
/// the status `grpc` instead, where that is not negative, and with the body as its message.
pub const HTTP_STATUS: Kind = Kind {
    name: "http_status",
    attributes: &[("status", Attribute::Whole(503)), ("body", NO_TEXT), ("grpc", Attribute::Whole(-1))],
    work: Work::Message(Message::Status),
};

/// `delay` milliseconds ± `jitter` before the request goes on (upstream), or before the head of the answer does
/// (downstream). To within about a millisecond.
pub const HTTP_DELAY: Kind = Kind {
    name: "http_delay",
    attributes: &[("delay", Attribute::Whole(0)), ("jitter", Attribute::Whole(0))],
    work: Work::Message(Message::Delay),
};

/// The header `name` of the request (upstream) or the answer (downstream) is set to `value`; an empty value removes it.
pub const HTTP_HEADER: Kind = Kind {
    name: "http_header",
    attributes: &[("name", NO_TEXT), ("value", NO_TEXT)],
    work: Work::Message(Message::Header),
};

/// The body of the request (upstream) or the answer (downstream) is `replace`, where that is not empty; it breaks off
/// after `truncate` bytes, where that is not negative, and the connection with it (in HTTP/2 the stream).
pub const HTTP_BODY: Kind = Kind {
    name: "http_body",
    attributes: &[("truncate", Attribute::Whole(-1)), ("replace", NO_TEXT)],
    work: Work::Message(Message::Body),
};

/// A call of gRPC is answered with a status (14, unavailable) and a message; other requests pass.
pub const GRPC_STATUS: Kind = Kind {
    name: "grpc_status",
    attributes: &[("status", Attribute::Whole(14)), ("message", NO_TEXT)],
    work: Work::Message(Message::GrpcStatus),
};
