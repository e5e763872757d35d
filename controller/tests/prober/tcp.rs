use serde_json::json;

use crate::prober::{expect_nothing, once, refused};
use crate::server::{nobody, silent};

#[test]
fn a_connection_is_opened_or_the_reason_is_told() {
    let look = |address: String, expect| once(json!({ "tcp": { "address": address } }), expect);
    let sample = look(silent().to_string(), expect_nothing());
    assert!(sample.good && sample.seen.starts_with("connected in "), "{}", sample.seen);
    let named = look(format!("localhost:{}", silent().port()), json!({ "within": "1s" }));
    assert!(named.good, "{}", named.seen);
    let refused = look(nobody().to_string(), expect_nothing());
    assert!(!refused.good);
    assert_eq!(refused.seen, "connection refused");
    let late = look(silent().to_string(), json!({ "within": "1ns" }));
    assert!(!late.good && late.seen.ends_with("(expected within 1ns)"), "{}", late.seen);
}

#[test]
fn an_address_needs_a_host_and_a_port() {
    for address in ["db", "db:", ":5432", "db:0", "db:65536", "::1:5432"] {
        let why = refused(json!({ "tcp": { "address": address } }), expect_nothing());
        assert_eq!(why, format!("`{address}` is not a host and a port: write `db.internal:5432`"));
    }
}
