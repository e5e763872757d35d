//! The parts of an HTTP address that Squall must know before anybody sends a request.

use std::str::FromStr;

use crate::peer::{Peer, PeerHost, Ports};
use crate::quantity::QuantityError;

/// An absolute `http` or `https` address. User information and fragments are refused, because they would not be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpUrl {
    /// Whether it is `https`.
    pub tls: bool,
    /// Whose address; never [`PeerHost::Any`].
    pub host: PeerHost,
    /// The port, written or implied.
    pub port: u16,
    /// Path and query, at least `/`.
    pub target: String,
}

const HELP: &str = "write it as `http://127.0.0.1:8080/health`";

impl HttpUrl {
    /// The same as a peer of whoever sends the request.
    pub fn peer(&self) -> Peer {
        Peer { host: self.host.clone(), ports: Some(Ports { first: self.port, last: self.port }) }
    }
}

impl FromStr for HttpUrl {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let wrong = |what: &str| QuantityError::new(format!("`{text}` {what}"), HELP);
        if let Some(bad) = text.chars().find(|c| c.is_whitespace() || c.is_control()) {
            let help = "write it as `%20` if it is meant";
            return Err(QuantityError::new(format!("{bad:?} cannot stand in a URL"), help));
        }
        let (tls, rest) = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (false, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (true, rest),
            Some(_) => return Err(wrong("is neither `http` nor `https`")),
            None => return Err(wrong("does not begin with `http://` or `https://`")),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        if authority.contains('@') {
            return Err(QuantityError::new(
                "a URL with a user name or a password is not accepted",
                "send it as a header: `headers: { Authorization: \"${secret:NAME}\" }`",
            ));
        }
        if target.contains('#') {
            return Err(wrong("has a fragment (`#…`), which is never sent"));
        }
        let peer: Peer = authority.parse().map_err(|_| wrong("has no valid host and port"))?;
        let bare_v6 = !authority.starts_with('[') && authority.matches(':').count() > 1;
        let port = match peer.ports {
            None => {
                if tls {
                    443
                } else {
                    80
                }
            }
            Some(ports) if ports.first == ports.last => ports.first,
            Some(_) => return Err(wrong("has no single port")),
        };
        let single = match &peer.host {
            PeerHost::Net(address, bits) => *bits == if address.is_ipv4() { 32 } else { 128 },
            PeerHost::Name(_) => true,
            PeerHost::Any => false,
        };
        if !single || bare_v6 {
            return Err(wrong("has no valid host and port"));
        }
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        Ok(HttpUrl { tls, host: peer.host, port, target })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports_are_found() {
        let url =
            |text: &str| text.parse::<HttpUrl>().map(|url| (url.peer().to_string(), url.target)).unwrap();
        assert_eq!(url("http://db.internal/x?y=1"), ("db.internal:80".to_owned(), "/x?y=1".to_owned()));
        assert_eq!(url("HTTPS://[::1]:8443"), ("[::1]:8443".to_owned(), "/".to_owned()));
        assert_eq!(url("https://10.0.0.7?q"), ("10.0.0.7:443".to_owned(), "/?q".to_owned()));
    }

    #[test]
    fn what_cannot_be_asked_is_refused() {
        for text in [
            "",
            "127.0.0.1:80",
            "ftp://x/",
            "http://",
            "http:///x",
            "http://a b/",
            "http://u:p@h/",
            "http://h:0/",
            "http://h:99999/",
            "http://10.0.0.0/8",
            "http://any/",
            "http://::1/",
            "http://h/#top",
            "http://h:1-2/",
        ] {
            // `10.0.0.0/8` is the host `10.0.0.0` with the path `/8`, and is fine.
            assert_eq!(text.parse::<HttpUrl>().is_ok(), text == "http://10.0.0.0/8", "{text}");
        }
    }
}
