//! What the policy of a host lets the probes of a controller reach.

use std::net::TcpListener;

use serde_json::{Value, json};
use squall_experiments::probe::{ProberReply, ProberRequest};
use squall_experiments::quantity::Period;

use crate::prober::{Prober, command, expect_nothing};

fn bound(probes: &Value) -> Prober {
    let mut command = command();
    command.arg("--within").arg(probes.to_string());
    Prober::with(command)
}

/// What comes of one look, as far as the policy has a say in it.
fn look(probes: &Value, what: Value) -> Result<bool, String> {
    let mut prober = bound(probes);
    prober.load(1, what, expect_nothing());
    prober.say(&ProberRequest::Once { probe: 1 });
    match prober.hear() {
        Some(ProberReply::Sample(sample)) => Ok(sample.good),
        Some(ProberReply::Unusable { why, .. }) => Err(why),
        other => panic!("a sample or a refusal was expected, not {other:?}"),
    }
}

#[test]
fn it_is_the_address_behind_a_name_that_counts_and_a_refusal_is_no_bad_sample() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let tcp = |host: &str| json!({ "tcp": { "address": format!("{host}:{port}") } });
    let closed = json!({ "deny": ["127.0.0.0/8", "::1"] });
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"] {
        assert_eq!(look(&json!({}), tcp(host)), Ok(true), "{host}");
        let refused = look(&closed, tcp(host)).unwrap_err();
        assert!(refused.contains("lets no probe of a controller reach"), "{host}: {refused}");
        assert!(refused.contains(&port.to_string()) && refused.contains("policy.yaml"), "{host}: {refused}");
    }
    assert_eq!(look(&json!({ "allow": [format!("127.0.0.1:{port}")] }), tcp("127.0.0.1")), Ok(true));
    assert!(look(&json!({ "allow": ["127.0.0.1:1"] }), tcp("127.0.0.1")).is_err());
    for what in [
        json!({ "http": { "url": format!("http://localhost:{port}/") } }),
        json!({ "redis": { "address": format!("localhost:{port}"), "command": ["PING"] } }),
        json!({ "dns": { "name": "a.test", "server": format!("127.0.0.1:{port}") } }),
    ] {
        let refused = look(&closed, what.clone()).unwrap_err();
        assert!(refused.contains("lets no probe of a controller reach"), "{what}: {refused}");
    }
    listener.set_nonblocking(true).unwrap();
    let came = std::iter::from_fn(|| listener.accept().ok()).count();
    assert_eq!(came, 4, "nothing came but what was allowed");
}

#[test]
fn a_load_is_bound_like_any_probe_and_to_a_rate() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://localhost:{}/", listener.local_addr().unwrap().port());
    let load = |rate: &str| json!({ "load": { "load": { "url": url, "rate": rate }, "tick": "200ms" } });
    let mut slow = bound(&json!({ "load": "10/s" }));
    slow.load(1, load("11/s"), expect_nothing());
    assert!(slow.unusable().contains("lets no probe of a controller send 11/s"));
    let mut closed = bound(&json!({ "deny": ["127.0.0.0/8", "::1"] }));
    closed.load(1, load("5/s"), expect_nothing());
    closed.say(&ProberRequest::Every { probe: 1, period: Period::from_secs(1) });
    let refused = match closed.hear() {
        Some(ProberReply::Unusable { why, .. }) => why,
        other => panic!("a refusal was expected, not {other:?}"),
    };
    // It rests at once, and nothing of what was begun is told.
    closed.say(&ProberRequest::Stop { probe: 1 });
    assert_eq!(closed.hear(), Some(ProberReply::Rested { probe: 1 }));
    assert!(refused.contains("lets no probe of a controller reach"), "{refused}");
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "somebody came");
}
