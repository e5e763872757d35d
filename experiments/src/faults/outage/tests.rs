use super::super::{Partition, Refuse};
use super::*;

fn outage(how: How) -> Outage {
    Outage {
        of: "db.internal:5432".parse().unwrap(),
        how,
        after: None,
        rate: None,
        delay: None,
        jitter: None,
        status: None,
        grpc_status: None,
        body: None,
        path: None,
        method: None,
        handshake: None,
        certificate: None,
        tls: None,
        share: None,
        established: None,
    }
}

#[test]
fn the_ways_of_the_kernel_are_the_same_changes_as_the_faults_of_that_name() {
    let to = || vec!["db.internal:5432".parse().unwrap()];
    let refuse = Refuse { to: to(), ..Refuse::default() };
    assert_eq!(outage(How::Refuse).changes(None), refuse.changes(None));
    let partition = Partition { to: to(), ..Partition::default() };
    assert_eq!(outage(How::Blackhole).changes(None), partition.changes(None));
}

#[test]
fn the_ways_of_the_proxy_say_what_they_do() {
    let said = |outage: Outage| {
        let mut wrong = Wrong::default();
        outage.check(None, &mut wrong);
        assert_eq!(wrong.into_findings(), [], "{outage:?}");
        outage.changes(None)[0].to_string()
    };
    let to = "connections to db.internal:5432 tcp only of new connections";
    assert_eq!(
        said(outage(How::Reset)),
        format!("lead through the proxy, and reset at the first byte of an answer, {to}")
    );
    let hang = Outage { after: Some(Size::from_bytes(1000)), ..outage(How::Hang) };
    assert_eq!(said(hang), format!("lead through the proxy, and hang after 1kB of answers, {to}"));
    let share = Some("20%".parse().unwrap());
    let brownout = Outage { delay: Some(Period::from_secs(2)), share, ..outage(How::Brownout) };
    assert_eq!(said(brownout), format!("lead through the proxy, and delay by 2s, for 20% of them, {to}"));
    let errors = Outage { share, path: Some("/pay/*".to_owned()), ..outage(How::Errors) };
    let what = "answer requests of /pay/* with status 503 (gRPC 14)";
    assert_eq!(said(errors), format!("lead through the proxy, and {what}, for 20% of them, {to}"));
    let method = Some("POST".to_owned());
    let truncate = Outage { after: Some(Size::from_bytes(9)), method, ..outage(How::Truncate) };
    let what = "break answers to POST requests off after 9B of their body";
    assert_eq!(said(truncate), format!("lead through the proxy, and {what}, {to}"));
    let tls = Outage { certificate: Some(Certificate::Untrusted), ..outage(How::Tls) };
    assert_eq!(said(tls), format!("lead through the proxy, and show a certificate that nobody trusts, {to}"));
}

#[test]
fn what_needs_a_certificate_says_so() {
    let said = |outage: Outage| {
        let mut wrong = Wrong::default();
        outage.check(None, &mut wrong);
        wrong.into_findings().into_iter().map(|finding| finding.what).collect::<Vec<_>>()
    };
    let pem = |what: &str| format!("-----BEGIN {what}-----");
    let tls = Some(Material { cert: pem("CERTIFICATE"), key: pem("PRIVATE KEY"), ca: None });
    assert!(!format!("{tls:?}").contains("PRIVATE"), "{tls:?}");
    let expired = Outage { certificate: Some(Certificate::Expired), ..outage(How::Tls) };
    assert_eq!(said(expired.clone()), ["`expired` needs a certificate whose signer callers trust"]);
    assert_eq!(said(Outage { tls: tls.clone(), ..expired }), [""; 0]);
    assert_eq!(said(outage(How::Tls)), ["`tls` is one of several faults"]);
    let refused = Outage { handshake: Some(Refused::Refused), ..outage(How::Tls) };
    assert_eq!(said(Outage { tls: tls.clone(), ..refused }), ["`tls` means nothing here"]);
    assert_eq!(said(Outage { tls, ..outage(How::Errors) }), [""; 0]);
    let path = Some(Material { cert: "cert.pem".to_owned(), key: "key.pem".to_owned(), ca: None });
    assert_eq!(said(Outage { tls: path, ..outage(How::Errors) }), ["certificates and keys are texts in PEM"]);
}
