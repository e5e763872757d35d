//! The toxics for handshakes: on a proxy that has `tls`. Their direction means nothing.

use std::borrow::Cow;

use super::values::Attribute;
use super::{Handshake, Kind, Work};

/// The client's handshake ends with an alert.
pub const TLS_REFUSE: Kind =
    Kind { name: "tls_refuse", attributes: &[], work: Work::Handshake(Handshake::Refuse) };

/// The client is shown another certificate (`cert` and `key`, PEM): one that has expired, has another name, or is signed
/// by somebody whom it does not trust.
pub const TLS_CERTIFICATE: Kind = Kind {
    name: "tls_certificate",
    attributes: &[
        ("cert", Attribute::Text(Cow::Borrowed(""))),
        ("key", Attribute::Secret(Cow::Borrowed(""))),
    ],
    work: Work::Handshake(Handshake::Certificate),
};

/// The client is shown a certificate that an authority (`cert` and `key`, PEM) issues for the name that it asks for, or for
/// `name` where that is given; where `expired` is not 0 it was valid until yesterday.
pub const TLS_ISSUED: Kind = Kind {
    name: "tls_issued",
    attributes: &[
        ("cert", Attribute::Text(Cow::Borrowed(""))),
        ("key", Attribute::Secret(Cow::Borrowed(""))),
        ("name", Attribute::Text(Cow::Borrowed(""))),
        ("expired", Attribute::Whole(0)),
    ],
    work: Work::Handshake(Handshake::Issued),
};

/// The client is shown a certificate that nobody trusts, made for the name that it asks for, or for `name` where it names
/// none.
pub const TLS_UNTRUSTED: Kind = Kind {
    name: "tls_untrusted",
    attributes: &[("name", Attribute::Text(Cow::Borrowed("")))],
    work: Work::Handshake(Handshake::Untrusted),
};
