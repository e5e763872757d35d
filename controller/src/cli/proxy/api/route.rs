//! Paths, and what they stand for.

use hyper::Method;

/// What a path stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Proxies,
    Populate,
    Reset,
    Version,
    Metrics,
    /// What was seen, from this number on.
    Observations(u64),
    Proxy(String),
    Toxics(String),
    Toxic(String, String),
}

impl Route {
    /// What is meant; `None` is nothing that there is.
    pub(super) fn of(path: &str, query: &str, metrics: bool) -> Option<Route> {
        let parts: Option<Vec<String>> = path.strip_prefix('/')?.split('/').map(decoded).collect();
        let parts = parts?;
        if parts.iter().any(String::is_empty) {
            return None;
        }
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        match parts[..] {
            ["proxies"] => Some(Route::Proxies),
            ["populate"] => Some(Route::Populate),
            ["reset"] => Some(Route::Reset),
            ["version"] => Some(Route::Version),
            ["squall", "observations"] => Some(Route::Observations(from(query)?)),
            ["metrics"] if metrics => Some(Route::Metrics),
            ["proxies", proxy] => Some(Route::Proxy(proxy.to_owned())),
            ["proxies", proxy, "toxics"] => Some(Route::Toxics(proxy.to_owned())),
            ["proxies", proxy, "toxics", toxic] => Some(Route::Toxic(proxy.to_owned(), toxic.to_owned())),
            _ => None,
        }
    }

    /// Whether it can be done.
    pub(super) fn allows(&self, method: &Method) -> bool {
        let methods: &[Method] = match self {
            Route::Metrics => return true,
            Route::Version | Route::Observations(_) => &[Method::GET],
            Route::Populate | Route::Reset => &[Method::POST],
            Route::Proxies | Route::Toxics(_) => &[Method::GET, Method::POST],
            Route::Proxy(_) | Route::Toxic(..) => &[Method::GET, Method::POST, Method::PATCH, Method::DELETE],
        };
        methods.contains(method)
    }
}

/// `from=N`, by default 0; anything else is not understood.
fn from(query: &str) -> Option<u64> {
    match query {
        "" => Some(0),
        query => query.strip_prefix("from=")?.parse().ok(),
    }
}

/// A part of a path, its escapes undone: a name may hold any character, `/` too.
fn decoded(part: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
            let (high, low) = (digit(rest.next())?, digit(rest.next())?);
            bytes.push((high * 16 + low) as u8);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}
