//! Pages of the web that a browser of this host shows: they are not to speak with the interface. Clients of Toxiproxy send none of
//! what is looked at here.

use hyper::header::{HeaderMap, ORIGIN, USER_AGENT};

/// Why a request is refused, if a page makes it. A browser says so on every request that a page of another origin makes,
/// or in the case of `Origin` on every one that may alter something (W3C Fetch Metadata section 2.3, Fetch section 3.1).
pub(super) fn refused(headers: &HeaderMap) -> Option<&'static str> {
    let is = |name: &str, meant: &[&str]| {
        headers.get_all(name).iter().any(|value| {
            let value = value.as_bytes();
            meant.iter().any(|meant| meant.as_bytes().eq_ignore_ascii_case(value))
        })
    };
    if headers.get(USER_AGENT).is_some_and(|agent| agent.as_bytes().starts_with(b"Mozilla/")) {
        return Some("User agent not allowed\n");
    }
    let crosses = headers.contains_key(ORIGIN) || is("sec-fetch-site", &["cross-site", "same-site"]);
    crosses.then_some("Requests of web pages are not allowed\n")
}
