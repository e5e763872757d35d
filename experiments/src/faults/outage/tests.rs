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
        answer: None,
        wrong: None,
        tls: None,
        plain: false,
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
    let what = "delay by 2s, request by request where HTTP is spoken";
    assert_eq!(said(brownout), format!("lead through the proxy, and {what}, for 20% of them, {to}"));
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
fn outages_of_different_names_do_not_collide_and_whatever_could_be_the_same_does() {
    let claims = |of: &str, how: How| {
        let of = of.parse().unwrap();
        Outage { of, delay: Some(Period::from_secs(1)), ..outage(how) }.changes(None)[0].claims()
    };
    let collide = |(a, how_a), (b, how_b)| {
        let (a, b) = (claims(a, how_a), claims(b, how_b));
        let both = a.iter().any(|mine| b.iter().any(|other| mine.collides(other)));
        assert_eq!(both, b.iter().any(|mine| a.iter().any(|other| mine.collides(other))), "{a:?} {b:?}");
        both
    };
    let (hang, late) = (How::Hang, How::Latency);
    assert!(!collide(("db.internal:5432", hang), ("cache.internal:5432", late)));
    assert!(!collide(("db.internal:5432", hang), ("db.internal:5433", late)));
    // Names are compared as resolvers do, and what an address is called only a host knows.
    assert!(collide(("db.internal:5432", hang), ("DB.internal.:5432", late)));
    assert!(collide(("db.internal:5432", hang), ("10.0.0.7:5432", late)));
    // What the kernel does alone to packets is told apart by addresses only.
    assert!(collide(("db.internal:5432", hang), ("cache.internal:5432", How::Refuse)));
}

#[test]
fn lookups_are_of_a_name_and_go_wrong_in_one_way() {
    let said = |of: &str, answer, address: Option<&str>| {
        let outage = Outage {
            of: of.parse().unwrap(),
            answer,
            wrong: address.map(|address| address.parse().unwrap()),
            ..outage(How::Dns)
        };
        let mut wrong = Wrong::default();
        outage.check(None, &mut wrong);
        let found: Vec<String> = wrong.into_findings().into_iter().map(|finding| finding.what).collect();
        if found.is_empty() { outage.changes(None)[0].to_string() } else { found.join(", ") }
    };
    assert_eq!(
        said("shop", Some(Lookup::Nxdomain), None),
        "lead through the proxy, and answer that there is no such name to lookups of shop, connections to any:53 of new connections"
    );
    assert!(said("shop", None, Some("10.9.9.9")).contains("answer 10.9.9.9 to lookups of shop"));
    assert_eq!(said("shop", None, None), "`dns` is one of several faults");
    assert_eq!(said("shop", Some(Lookup::Timeout), Some("::1")), "`dns` is one of several faults");
    for of in ["shop:53", "10.0.0.1", "any"] {
        assert!(said(of, Some(Lookup::Timeout), None).contains("is not"), "{of}");
    }
}

#[test]
fn what_needs_a_certificate_says_so() {
    let said = |outage: Outage| {
        let mut wrong = Wrong::default();
        outage.check(None, &mut wrong);
        wrong.into_findings().into_iter().map(|finding| finding.what).collect::<Vec<_>>()
    };
    let pem = |what: &str| format!("-----BEGIN {what}-----");
    let tls =
        Some(Material { cert: pem("CERTIFICATE"), key: pem("PRIVATE KEY"), ca: None, authority: false });
    assert!(!format!("{tls:?}").contains("PRIVATE"), "{tls:?}");
    let expired = Outage { certificate: Some(Certificate::Expired), ..outage(How::Tls) };
    assert_eq!(said(expired.clone()), ["`expired` needs a certificate whose signer callers trust"]);
    assert_eq!(said(Outage { tls: tls.clone(), ..expired }), [""; 0]);
    assert_eq!(said(outage(How::Tls)), ["`tls` is one of several faults"]);
    let refused = Outage { handshake: Some(Refused::Refused), ..outage(How::Tls) };
    assert_eq!(said(Outage { tls: tls.clone(), ..refused }), ["`tls` means nothing here"]);
    assert_eq!(said(Outage { tls, ..outage(How::Errors) }), [""; 0]);
    let path =
        Some(Material { cert: "cert.pem".to_owned(), key: "key.pem".to_owned(), ca: None, authority: false });
    assert_eq!(said(Outage { tls: path, ..outage(How::Errors) }), ["certificates and keys are texts in PEM"]);
}

#[test]
fn requests_at_port_443_need_a_certificate_or_are_said_to_be_plain() {
    let said = |outage: Outage| {
        let mut wrong = Wrong::default();
        outage.check(None, &mut wrong);
        wrong.into_findings().into_iter().map(|finding| finding.what).collect::<Vec<_>>()
    };
    let at = |port: u16, how, plain| {
        let of = format!("payments.internal:{port}").parse().unwrap();
        said(Outage { of, plain, ..outage(how) })
    };
    for how in [How::Errors, How::Truncate] {
        let refused = at(443, how, false);
        assert!(matches!(&refused[..], [what] if what.contains("inside TLS")), "{refused:?}");
        assert_eq!(at(443, how, true), [""; 0]);
        assert_eq!(at(8443, how, false), [""; 0]);
    }
    assert_eq!(at(443, How::Hang, false), [""; 0]);
    assert_eq!(at(443, How::Hang, true), ["`plain` means nothing here"]);
}
