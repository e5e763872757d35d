//! Where spans go, as an option and the environment say it (opentelemetry.io/docs/specs/otel/protocol/exporter).

use axum::http::HeaderName;
use squall_experiments::url::HttpUrl;

use super::TracesError;
use crate::ask;

/// The path of traces below the address of a collector.
const PATH: &str = "/v1/traces";

/// A collector, and what it is told of this program.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) url: String,
    /// What is sent with each request: often a key.
    pub(super) headers: Vec<(HeaderName, String)>,
    /// The certificate by which it is known; by default those that the system trusts.
    pub(super) ca: Option<std::path::PathBuf>,
    /// What all spans are of.
    pub(super) resource: Vec<(String, String)>,
}

impl Target {
    /// `None` where neither says a word of it. The option goes before the environment.
    pub(super) fn of(
        told: Option<&str>,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Target>, TracesError> {
        let variable = |name: &str| environment(name).filter(|value| !value.trim().is_empty());
        let (endpoint, traces) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
        let (from, url) = match (told, variable(traces), variable(endpoint)) {
            (Some(url), _, _) => ("--otlp", below(url)),
            // This one is the whole address.
            (None, Some(url), _) => (traces, url),
            (None, None, Some(url)) => (endpoint, below(&url)),
            (None, None, None) => return Ok(None),
        };
        if let Err(error) = url.parse::<HttpUrl>() {
            return Err(TracesError::Address { from, why: error.to_string() });
        }
        let mut headers = Vec::new();
        let from = "OTEL_EXPORTER_OTLP_HEADERS";
        for (name, value) in pairs(variable(from), from)? {
            let name = HeaderName::try_from(name).map_err(|_| TracesError::Pairs { from })?;
            headers.push((name, value));
        }
        if !headers.is_empty() && ask::is_readable_on_the_way(&url) {
            return Err(TracesError::Readable);
        }
        let from = "OTEL_RESOURCE_ATTRIBUTES";
        let mut resource = pairs(variable(from), from)?;
        let name = variable("OTEL_SERVICE_NAME");
        if name.is_some() || !resource.iter().any(|(key, _)| key == "service.name") {
            resource.retain(|(key, _)| key != "service.name");
            resource.push(("service.name".to_owned(), name.unwrap_or_else(|| "squall".to_owned())));
        }
        if !resource.iter().any(|(key, _)| key == "service.version") {
            resource.push(("service.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()));
        }
        let ca = variable("OTEL_EXPORTER_OTLP_CERTIFICATE").map(Into::into);
        Ok(Some(Target { url, headers, ca, resource }))
    }
}

/// The address of traces below that of a collector.
fn below(url: &str) -> String {
    let url = url.trim_end_matches('/');
    if url.ends_with(PATH) { url.to_owned() } else { format!("{url}{PATH}") }
}

/// `NAME=VALUE,NAME=VALUE`, the values percent-encoded.
fn pairs(text: Option<String>, from: &'static str) -> Result<Vec<(String, String)>, TracesError> {
    let text = text.unwrap_or_default();
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').ok_or(TracesError::Pairs { from })?;
        // What a form would take for something else stands for itself here.
        let value = value.trim().replace('+', "%2B").replace('&', "%26").replace('=', "%3D");
        let mut read = form_urlencoded::parse(value.as_bytes());
        let value = read.next().map_or_else(String::new, |(value, _)| value.into_owned());
        Ok((name.trim().to_owned(), value))
    };
    text.split(',').filter(|pair| !pair.trim().is_empty()).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(told: Option<&str>, environment: &[(&str, &str)]) -> Result<Option<Target>, TracesError> {
        let value = |name: &str| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
        Target::of(told, |name| value(name).map(str::to_owned))
    }

    #[test]
    fn the_option_goes_before_the_environment_and_each_is_read_as_the_standard_says() {
        let url =
            |told, environment: &[(&str, &str)]| of(told, environment).expect("it is right").map(|to| to.url);
        let both = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://other:4318/as/it/is"),
        ];
        assert_eq!(url(None, &[]), None);
        assert_eq!(url(None, &[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]), None);
        assert_eq!(url(None, &both[..1]).as_deref(), Some("http://collector:4318/v1/traces"));
        assert_eq!(url(None, &both).as_deref(), Some("http://other:4318/as/it/is"));
        assert_eq!(url(Some("http://me:1"), &both).as_deref(), Some("http://me:1/v1/traces"));
        assert_eq!(url(Some("http://me:1/v1/traces"), &[]).as_deref(), Some("http://me:1/v1/traces"));
    }

    #[test]
    fn headers_and_attributes_are_decoded_and_a_key_is_not_sent_in_the_clear() {
        let headers = ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%2Cb+c&d=, x=1");
        let named = ("OTEL_RESOURCE_ATTRIBUTES", "service.name=other,deployment.environment.name=test");
        let to = of(Some("https://collector.example"), &[headers, named])
            .expect("it is right")
            .expect("it is there");
        let sent: Vec<_> = to.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(sent, [("api-key", "a,b+c&d="), ("x", "1")]);
        assert_eq!(to.resource[0], ("service.name".to_owned(), "other".to_owned()));
        let own = [named, ("OTEL_SERVICE_NAME", "mine")];
        let to = of(Some("http://127.0.0.1:4318"), &own).expect("it is right").expect("it is there");
        assert!(to.resource.contains(&("service.name".to_owned(), "mine".to_owned())), "{to:?}");
        assert!(!to.resource.contains(&("service.name".to_owned(), "other".to_owned())), "{to:?}");
        let refused = of(Some("http://collector.example"), &[headers]).expect_err("everybody could read it");
        assert!(
            matches!(refused, TracesError::Readable) && !refused.to_string().contains("a,b"),
            "{refused}"
        );
        of(Some("http://127.0.0.1:4318"), &[headers]).expect("it does not leave this machine");
    }

    #[test]
    fn what_is_no_address_and_no_pair_is_refused_with_its_name() {
        let refused = of(Some("collector:4317"), &[]).expect_err("it has no scheme");
        assert!(refused.to_string().contains("`--otlp`"), "{refused}");
        let refused = of(None, &[("OTEL_EXPORTER_OTLP_ENDPOINT", "grpc://x")]).expect_err("it is not HTTP");
        assert!(refused.to_string().contains("OTEL_EXPORTER_OTLP_ENDPOINT"), "{refused}");
        for (name, value) in [("OTEL_EXPORTER_OTLP_HEADERS", "key"), ("OTEL_RESOURCE_ATTRIBUTES", "a=b,c")] {
            let refused = of(Some("http://127.0.0.1:1"), &[(name, value)]).expect_err(name);
            assert!(refused.to_string().contains(name), "{refused}");
        }
    }
}
