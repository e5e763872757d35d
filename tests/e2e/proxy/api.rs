//! Every answer of the interface, to the letter where clients compare.

use serde_json::{Value, json};

use super::{Server, echo};

const NONE: Value = Value::Null;

#[test]
fn a_proxy_is_made_shown_altered_and_ended() {
    let server = Server::start(&[]);
    assert_eq!(server.ask("GET", "/proxies", &NONE), (200, json!({})));
    let wanted = json!({ "NAME": "db", "listen": "localhost:0", "upstream": "example:1", "surplus": 1 });
    let (status, made) = server.ask("POST", "/proxies", &wanted);
    assert_eq!(status, 201);
    let listen = made["listen"].as_str().expect("an address").to_owned();
    assert!(listen.starts_with("127.0.0.1:") && !listen.ends_with(":0"), "{listen}");
    let shown =
        json!({ "name": "db", "listen": listen, "upstream": "example:1", "enabled": true, "toxics": [] });
    assert_eq!(made, shown);
    assert_eq!(server.ask("GET", "/proxies/db", &NONE), (200, shown.clone()));
    assert_eq!(server.ask("GET", "/proxies", &NONE), (200, json!({ "db": shown })));

    // The same address by its name is no change: the answer keeps the port.
    let port = listen.rsplit(':').next().expect("a port");
    let same = json!({ "listen": format!("localhost:{port}"), "name": "ignored" });
    assert_eq!(server.ask("PATCH", "/proxies/db", &same), (200, shown.clone()));
    let (_, off) = server.ask("POST", "/proxies/db", &json!({ "enabled": false }));
    assert_eq!((&off["enabled"], &off["listen"]), (&json!(false), &json!(listen)));
    assert!(std::net::TcpStream::connect(&listen).is_err(), "a proxy that is off refuses");
    assert_eq!(server.ask("POST", "/proxies/db", &json!({ "enabled": true })), (200, shown));

    let (status, head, body) = server.raw("DELETE", "/proxies/db", "", b"");
    assert_eq!((status, body.as_str()), (204, ""));
    assert!(head.contains("x-toxiproxy-request-id: "), "{head}");
    let missing = json!({ "error": "proxy not found", "status": 404 });
    assert_eq!(server.ask("GET", "/proxies/db", &NONE), (404, missing.clone()));
    assert_eq!(server.ask("DELETE", "/proxies/db", &NONE), (404, missing));
}

#[test]
fn toxics_are_made_shown_altered_and_removed() {
    let server = Server::start(&[]);
    server.proxy("db", echo());
    let list = "/proxies/db/toxics";
    assert_eq!(server.ask("GET", list, &NONE), (200, json!([])));
    let made = json!({ "attributes": { "latency": 100, "jitter": 0 }, "name": "latency_downstream",
        "type": "latency", "stream": "downstream", "toxicity": 1 });
    let wanted = json!({ "type": "latency", "attributes": { "latency": 100, "unknown": "x" } });
    assert_eq!(server.ask("POST", list, &wanted), (200, made.clone()));
    let upstream = json!({ "type": "bandwidth", "stream": "UPSTREAM", "toxicity": 0.5 });
    let (status, second) = server.ask("POST", list, &upstream);
    assert_eq!(status, 200);
    // The direction comes back as it was typed, also in the name.
    assert_eq!(second["name"], "bandwidth_UPSTREAM");
    assert_eq!((&second["stream"], &second["toxicity"]), (&json!("UPSTREAM"), &json!(0.5)));
    assert_eq!(server.ask("GET", list, &NONE), (200, json!([second, made])));

    let one = "/proxies/db/toxics/latency_downstream";
    let change =
        json!({ "name": "n", "stream": "upstream", "attributes": { "JITTER": 3 }, "toxicity": 0.25 });
    let (status, changed) = server.ask("PATCH", one, &change);
    assert_eq!(status, 200);
    assert_eq!(changed["attributes"], json!({ "latency": 100, "jitter": 3 }));
    assert_eq!((&changed["name"], &changed["toxicity"]), (&json!("latency_downstream"), &json!(0.25)));
    // One bad attribute and nothing is altered.
    let (status, _) = server.ask("POST", one, &json!({ "attributes": { "latency": 7, "jitter": "x" } }));
    assert_eq!((status, server.ask("GET", one, &NONE)), (400, (200, changed)));
    assert_eq!(server.raw("DELETE", one, "", b"").0, 204);
    let missing = json!({ "error": "toxic not found", "status": 404 });
    assert_eq!(server.ask("GET", one, &NONE), (404, missing));
}

#[test]
fn what_is_wrong_is_said_in_the_words_that_clients_compare() {
    let server = Server::start(&[]);
    let listen = server.proxy("db", echo());
    server.toxic("db", "noop", "upstream", json!({}));
    let taken = format!("listen tcp {listen}: bind: address already in use");
    let long = "bad request body: json: cannot unmarshal";
    let toxics = "/proxies/db/toxics";
    for (path, body, status, error) in [
        ("/proxies", json!({}), 400, "missing required field: name"),
        ("/proxies", json!({ "name": "a" }), 400, "missing required field: upstream"),
        ("/proxies", json!({ "name": "db", "upstream": "a:1" }), 409, "proxy already exists"),
        ("/proxies", json!({ "name": "a", "upstream": "a:1", "listen": listen.to_string() }), 500, &taken),
        (
            "/proxies",
            json!({ "name": "a", "upstream": "a:1", "listen": "bogus" }),
            500,
            "listen tcp: address bogus: missing port in address",
        ),
        ("/proxies/none", json!({}), 404, "proxy not found"),
        ("/proxies/none/toxics", json!({}), 404, "proxy not found"),
        (
            toxics,
            json!({ "type": "noop", "stream": "up" }),
            400,
            "stream was invalid, can be either upstream or downstream",
        ),
        (toxics, json!({ "type": "none" }), 400, "invalid toxic type"),
        (toxics, json!({ "type": "noop", "stream": "upstream" }), 409, "toxic already exists"),
        (toxics, json!({ "type": "noop", "name": "noop_upstream" }), 409, "toxic already exists"),
        (
            toxics,
            json!({ "type": "latency", "attributes": { "latency": 1.5 } }),
            400,
            &format!("{long} number 1.5 into Go struct field .attributes.latency of type int64"),
        ),
        (
            "/populate",
            json!([{ "name": "a", "upstream": "b:1" }, { "name": "c" }]),
            400,
            "missing required field: upstream at proxy 2",
        ),
    ] {
        let (got, answer) = server.ask("POST", path, &body);
        assert_eq!((got, answer["error"].as_str()), (status, Some(error)), "{path} {body}");
        assert_eq!(answer["status"], status);
    }
    for (body, error) in [(&b""[..], "EOF"), (b"{\"name\"", "unexpected EOF")] {
        let (status, head, answer) = server.raw("POST", "/proxies", "", body);
        assert_eq!(
            (status, answer),
            (400, format!("{{\"error\":\"bad request body: {error}\",\"status\":400}}\n"))
        );
        assert!(head.contains("content-type: text/plain; charset=utf-8"), "{head}");
        assert!(head.contains("x-content-type-options: nosniff"), "{head}");
    }
}

#[test]
fn unknown_paths_and_methods_and_browsers_are_turned_away() {
    let server = Server::start(&[]);
    let (status, _, body) = server.raw("GET", "/nowhere", "", b"");
    assert_eq!((status, body.as_str()), (404, "404 page not found\n"));
    for path in ["/proxies/", "/metrics", "/", "/proxies/%zz"] {
        assert_eq!(server.raw("GET", path, "", b"").0, 404, "{path}");
    }
    for (method, path) in
        [("PUT", "/proxies"), ("HEAD", "/proxies"), ("OPTIONS", "/version"), ("GET", "/reset")]
    {
        let (status, head, body) = server.raw(method, path, "", b"");
        assert_eq!((status, body.as_str()), (405, ""), "{method} {path}");
        assert!(!head.contains("x-toxiproxy-request-id"), "{head}");
    }
    let browser = "User-Agent: Mozilla/5.0 (X11)\r\n";
    let (status, _, body) = server.raw("GET", "/proxies", browser, b"");
    assert_eq!((status, body.trim()), (403, "User agent not allowed"));
    for page in ["Origin: https://evil.example\r\n", "Sec-Fetch-Site: cross-site\r\n"] {
        let (status, _, body) = server.raw("POST", "/reset", page, b"");
        assert_eq!((status, body.trim()), (403, "Requests of web pages are not allowed"), "{page}");
    }
    let (status, head, body) = server.raw("GET", "/version", "", b"");
    assert_eq!((status, body.as_str()), (200, "{\"version\": \"2.12.0\"}\n"));
    assert!(head.contains("content-type: application/json;charset=utf-8"), "{head}");
    // Clients send what they like, and more than the value.
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let (status, ..) = server.raw("POST", "/proxies", form, br#"{"name":"a","upstream":"b:1"} and more"#);
    assert_eq!(status, 201);
}

#[test]
fn populate_makes_what_is_missing_and_reset_brings_everything_back() {
    let server = Server::start(&[]);
    assert_eq!(server.ask("POST", "/populate", &json!([])), (201, json!({ "proxies": null })));
    let listen = server.proxy("kept", echo());
    server.toxic("kept", "latency", "downstream", json!({ "latency": 1 }));
    server.proxy("moved", echo());
    server.toxic("moved", "noop", "downstream", json!({}));
    let kept = server.ask("GET", "/proxies/kept", &NONE).1;
    let list = json!([
        { "name": "kept", "listen": listen.to_string(), "upstream": kept["upstream"], "enabled": false },
        { "name": "moved", "listen": "127.0.0.1:0", "upstream": "other:1" },
        { "name": "fresh", "upstream": "other:2", "toxics": [{ "type": "timeout", "toxicity": 0.5 }] },
    ]);
    let (status, answer) = server.ask("POST", "/populate", &list);
    assert_eq!(status, 201, "{answer}");
    let proxies = answer["proxies"].as_array().expect("a list");
    assert_eq!(proxies[0], kept, "untouched");
    assert_eq!((&proxies[1]["upstream"], &proxies[1]["toxics"]), (&json!("other:1"), &json!([])));
    assert_eq!(proxies[2]["toxics"][0]["name"], "timeout_downstream");

    // At the first that fails it stops, and says what was done.
    let taken = json!([{ "name": "a", "upstream": "b:1" }, { "name": "b", "listen": listen.to_string(), "upstream": "b:1" }]);
    let (status, head, body) = server.raw("POST", "/populate", "", taken.to_string().as_bytes());
    let answer: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!((status, &answer["status"]), (500, &json!(500)));
    assert_eq!(answer["proxies"][0]["name"], "a");
    assert!(head.contains("content-type: application/json"), "{head}");

    server.done("POST", "/proxies/moved", &json!({ "enabled": false }));
    assert_eq!(server.raw("POST", "/reset", "", b"ignored").0, 204);
    let all = server.done("GET", "/proxies", &NONE);
    for (name, proxy) in all.as_object().expect("an object") {
        assert_eq!((&proxy["enabled"], &proxy["toxics"]), (&json!(true), &json!([])), "{name}");
    }
}

#[test]
fn a_proxy_that_cannot_be_moved_is_off_at_its_new_address() {
    let server = Server::start(&[]);
    let taken = server.proxy("first", echo());
    server.proxy("second", echo());
    let change = json!({ "listen": taken.to_string() });
    assert_eq!(server.ask("POST", "/proxies/second", &change).0, 500);
    let second = server.done("GET", "/proxies/second", &NONE);
    assert_eq!((&second["listen"], &second["enabled"]), (&json!(taken.to_string()), &json!(false)));
    server.done("DELETE", "/proxies/first", &NONE);
    assert_eq!(server.done("POST", "/proxies/second", &json!({ "enabled": true }))["enabled"], true);
}

#[test]
fn a_toxic_with_a_time_ends_by_itself_and_leaves_its_successor_alone() {
    let server = Server::start(&[]);
    server.proxy("db", echo());
    let list = "/proxies/db/toxics";
    server.done("POST", list, &json!({ "type": "noop", "name": "short", "expires_in": 100 }));
    server.done("POST", list, &json!({ "type": "noop", "name": "replaced", "expires_in": 150 }));
    server.done("DELETE", "/proxies/db/toxics/replaced", &NONE);
    server.done("POST", list, &json!({ "type": "noop", "name": "replaced" }));
    server.done("POST", list, &json!({ "type": "noop", "name": "last", "expires_in": 400 }));
    squall_tests::wait::holds("the last toxic to end", squall_tests::wait::PATIENCE, || {
        server.ask("GET", "/proxies/db/toxics/last", &NONE).0 == 404
    });
    let left = server.done("GET", list, &NONE);
    let names: Vec<&str> =
        left.as_array().into_iter().flatten().filter_map(|toxic| toxic["name"].as_str()).collect();
    assert_eq!(names, ["replaced"]);
    assert_eq!(server.ask("POST", list, &json!({ "type": "noop", "expires_in": "soon" })).0, 400);
}
