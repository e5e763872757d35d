//! What each way to be out needs, and what means nothing for it.

use super::super::Wrong;
use super::{Certificate, How, Outage};
use crate::flow::Established;
use crate::peer::{PeerHost, Ports};
use crate::scope::Scope;

/// The slowest line of the proxy, in bits a second.
const SLOWEST: u64 = 8_000;
/// The port of HTTP inside TLS (RFC 9110 section 4.2.2).
const HTTPS: Ports = Ports { first: 443, last: 443 };

impl Outage {
    /// What each way needs, and what means nothing for it.
    pub(super) fn check_parameters(&self, wrong: &mut Wrong) {
        let how = self.how;
        let given = [
            (
                "after",
                self.after.is_some(),
                how.breaks_off(),
                "`reset`, `hang`, `close-early` and `truncate`",
            ),
            ("rate", self.rate.is_some(), how == How::Slow, "`slow`"),
            ("delay", self.delay.is_some(), how.is_late(), "`latency` and `brownout`"),
            ("jitter", self.jitter.is_some(), how.is_late(), "`latency` and `brownout`"),
            ("status", self.status.is_some(), how == How::Errors, "`errors`"),
            ("grpc-status", self.grpc_status.is_some(), how == How::Errors, "`errors`"),
            ("body", self.body.is_some(), how == How::Errors, "`errors`"),
            ("path", self.path.is_some(), how.is_of_requests(), "`errors` and `truncate`"),
            ("method", self.method.is_some(), how.is_of_requests(), "`errors` and `truncate`"),
            ("handshake", self.handshake.is_some(), how == How::Tls, "`tls`"),
            ("certificate", self.certificate.is_some(), how == How::Tls, "`tls`"),
            (
                "tls",
                self.tls.is_some(),
                how.is_of_requests() || self.shows().is_some(),
                "`errors`, `truncate`, and `certificate: expired` or `wrong-name`",
            ),
            (
                "plain",
                self.plain,
                how.is_of_requests() && self.tls.is_none(),
                "`errors` and `truncate` without `tls`",
            ),
            ("answer", self.answer.is_some(), how == How::Dns, "`dns`"),
            ("wrong", self.wrong.is_some(), how == How::Dns, "`dns`"),
            ("share", self.share.is_some(), !how.is_kernels(), "the ways that the proxy does"),
        ];
        for (name, _, _, of) in given.into_iter().filter(|(_, given, fits, _)| *given && !fits) {
            wrong.with(name, format!("`{name}` means nothing here"), format!("it belongs to {of}"));
        }
        if how == How::Slow && self.rate.is_none_or(|rate| rate.bits() < SLOWEST) {
            let what = "`slow` needs a rate of at least 1kB/s";
            wrong.with("rate", what, "say how fast answers come: `rate: 2kB/s`");
        }
        if how.is_late() && self.delay.is_none_or(|delay| delay.get().as_millis() == 0) {
            let what = "this needs a delay of at least 1ms";
            wrong.with("delay", what, "say how late answers come: `delay: 2s`");
        }
        if how == How::Brownout && self.share.is_none() {
            wrong.with(
                "share",
                "`brownout` needs a share",
                "say which share of requests or connections: `share: 20%`",
            );
        }
        self.check_requests(wrong);
        self.check_tls(wrong);
        if how == How::Dns && self.answer.is_some() == self.wrong.is_some() {
            wrong.with(
                "how",
                "`dns` is one of several faults",
                "say which: `answer: nxdomain`, `servfail` or `timeout`, or `wrong: 10.9.9.9`",
            );
        }
        if self.share.is_some_and(|share| share.is_zero()) {
            wrong.with("share", "a share of 0% does nothing", "write more, such as `20%`");
        }
    }

    /// What the proxy can stand in for.
    pub(super) fn check_redirect(&self, scope: Option<&Scope>, wrong: &mut Wrong) {
        if self.how == How::Dns {
            if !matches!(self.of.host, PeerHost::Name(_)) || self.of.ports.is_some() {
                let what = format!("`{}` is not the name of a dependency", self.of);
                wrong.with(
                    "of",
                    what,
                    "write the name that is looked up, without a port: `payments.internal`",
                );
            }
            if self.established.is_some() {
                let what = "lookups are no connections that could be there already";
                wrong.with("established", what, "leave it out");
            }
            return self.check_callers(scope, wrong);
        }
        let one_port = self.of.ports.is_some_and(|ports| ports.first == ports.last);
        let one_host = match &self.of.host {
            PeerHost::Any => false,
            PeerHost::Net(address, bits) => *bits == if address.is_ipv4() { 32 } else { 128 },
            PeerHost::Name(_) => true,
        };
        if !(one_port && one_host) {
            let what = format!("`{}` is not one dependency: an address or a name, with one port", self.of);
            wrong.with("of", what, "write it as `payments.internal:443` or `10.0.0.7:5432`");
        }
        if self.established == Some(Established::Include) {
            let what = "connections that are there already cannot be led to the proxy";
            wrong.with(
                "established",
                what,
                "write `keep` to leave them alone, or `reset` to have them made again",
            );
        }
        self.check_callers(scope, wrong);
    }

    /// Who calls.
    fn check_callers(&self, scope: Option<&Scope>, wrong: &mut Wrong) {
        if let Some(scope @ (Scope::Port(_) | Scope::Interface(_))) = scope {
            let what = format!("{scope} does not say who calls the dependency");
            wrong.with("in", what, "say it with `process`, `unit`, `cgroup`, `user`, `container` or `netns`");
        }
    }

    /// The certificate that has to be given, to be shown.
    fn shows(&self) -> Option<Certificate> {
        self.certificate.filter(|certificate| *certificate != Certificate::Untrusted)
    }

    /// What a handshake is.
    fn check_tls(&self, wrong: &mut Wrong) {
        if self.how == How::Tls && self.handshake.is_some() == self.certificate.is_some() {
            wrong.with(
                "how",
                "`tls` is one of several faults",
                "say which: `handshake: refused`, or `certificate: untrusted`, `expired` or `wrong-name`",
            );
        }
        if self.how == How::Tls
            && self.tls.is_none()
            && let Some(shows) = self.shows()
        {
            let (is, name) = match shows {
                Certificate::Expired => ("that has expired", "expired"),
                _ => ("of another name", "wrong-name"),
            };
            let help = format!(
                "give the one that is to be shown, {is}: `tls: {{ cert: …, key: \"${{secret:KEY}}\" }}`; without any there \
                 are `certificate: untrusted` and `handshake: refused`"
            );
            wrong.with("tls", format!("`{name}` needs a certificate whose signer callers trust"), help);
        }
        if self.how.is_of_requests() && self.tls.is_none() && !self.plain && self.of.ports == Some(HTTPS) {
            wrong.with(
                "tls",
                "requests at port 443 are inside TLS, where nobody can read them without a certificate",
                "give one that callers trust: `tls: { cert: …, key: \"${secret:KEY}\" }`; if HTTP is spoken there without TLS, \
                 say `plain: true`",
            );
        }
        if let Some(tls) = &self.tls {
            let parts = [Some(&tls.cert), Some(&tls.key), tls.ca.as_ref()];
            if parts.into_iter().flatten().any(|part| !part.contains("-----BEGIN ")) {
                let help = "write the text of the file itself, or `\"${secret:NAME}\"` for it";
                wrong.with("tls", "certificates and keys are texts in PEM", help);
            }
        }
    }

    /// What requests and their answers are.
    fn check_requests(&self, wrong: &mut Wrong) {
        if self.status.is_some_and(|status| !(200..=599).contains(&status)) {
            wrong.with(
                "status",
                "this is not the status of an answer",
                "write one from 200 to 599, such as `503`",
            );
        }
        if self.grpc_status.is_some_and(|status| !(1..=16).contains(&status)) {
            wrong.with(
                "grpc-status",
                "this is not an error of gRPC",
                "write one from 1 to 16, such as `14` (unavailable)",
            );
        }
        if self.path.as_ref().is_some_and(|path| !path.starts_with(['/', '*'])) {
            wrong.with(
                "path",
                "no request has such a path",
                "a path begins with `/`: `/pay/*`; it has no host and no query",
            );
        }
        let token = |method: &String| method.bytes().all(is_token) && !method.is_empty();
        if self.method.as_ref().is_some_and(|method| !token(method)) {
            wrong.with("method", "no request has such a method", "write one, such as `POST`");
        }
    }
}

/// A character of a token of HTTP (RFC 9110 section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
