//! `squall proxy …`: the verbs of Toxiproxy's command line, for programs that read their output.

use std::process::Command;

use serde_json::json;
use squall_tests::squall::binary;

use super::{Server, connect, echo, ping};

/// Runs a verb; its exit code and what it says on both streams.
fn squall(server: &Server, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(binary("squall"));
    command.arg("proxy").args(arguments).env("TOXIPROXY_URL", format!("http://{}", server.api));
    let output = command.output().expect("squall can be run");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().expect("it exits"), text(&output.stdout), text(&output.stderr))
}

#[test]
fn the_verbs_of_the_reference_do_what_they_say() {
    let server = Server::start(&[]);
    let upstream = echo().to_string();
    let says = |arguments: &[&str], expected: &str| {
        let (code, out, err) = squall(&server, arguments);
        assert_eq!((code, out.as_str()), (0, expected), "{arguments:?}: {err}");
    };
    says(&["create", "-l", "127.0.0.1:0", "-u", &upstream, "redis"], "Created new proxy redis\n");
    let shown = server.done("GET", "/proxies/redis", &json!(null));
    let listen = shown["listen"].as_str().expect("an address");
    says(&["list"], &format!("redis\t{listen}\t{upstream}\tenabled\t0\n"));
    says(
        &["toxic", "add", "-t", "latency", "-a", "latency=100", "-a", "jitter=5", "redis"],
        "Added downstream latency toxic 'latency_downstream' on proxy 'redis'\n",
    );
    says(
        &[
            "t",
            "a",
            "-t",
            "packet_loss",
            "-n",
            "lossy",
            "--tox",
            "0.5",
            "-a",
            "loss_rate=0.25",
            "-u",
            "redis",
        ],
        "Added upstream packet_loss toxic 'lossy' on proxy 'redis'\n",
    );
    // Without a toxicity the old one stays; the reference sets it back.
    says(
        &["toxic", "update", "-n", "lossy", "-a", "loss_rate=0.5", "redis"],
        "Updated toxic 'lossy' on proxy 'redis'\n",
    );
    says(
        &["inspect", "redis"],
        "lossy\ttype=packet_loss\tstream=upstream\ttoxicity=0.50\tattributes=[\tloss_rate=0.5\tcorrelation=0\t]\n\
         latency_downstream\ttype=latency\tstream=downstream\ttoxicity=1.00\tattributes=[\tlatency=100\tjitter=5\t]\n",
    );
    says(&["ls"], &format!("redis\t{listen}\t{upstream}\tenabled\t2\n"));
    says(&["toxic", "remove", "-n", "lossy", "redis"], "Removed toxic 'lossy' on proxy 'redis'\n");
    says(&["toggle", "redis"], "Proxy redis is now disabled\n");
    says(&["tog", "redis"], "Proxy redis is now enabled\n");
    let other = echo().to_string();
    says(&["update", "-u", &other, "redis"], "Updated proxy redis\n");
    assert_eq!(server.done("GET", "/proxies/redis", &json!(null))["upstream"], json!(other));
    says(&["delete", "redis"], "Deleted proxy redis\n");
    says(&["list"], "");

    let (code, out, err) = squall(&server, &["inspect", "redis"]);
    assert_eq!((code, out.as_str()), (4, ""));
    assert!(err.contains("proxy not found"), "{err}");
    let (code, _, err) = squall(&server, &["list", "-h", "http://127.0.0.1:1"]);
    assert!(code == 4 && err.contains("failed to reach the proxy"), "{code}: {err}");
    let (code, ..) = squall(&server, &["toxic", "add", "-t", "latency", "-a", "latency=much", "redis"]);
    assert_eq!(code, 2);
}

#[test]
fn a_configuration_file_makes_proxies_with_toxics_and_a_signal_ends_them_cleanly() {
    let path = std::env::temp_dir().join(format!("squall-proxy-{}.json", std::process::id()));
    let config = json!([{ "name": "db", "listen": "127.0.0.1:0", "upstream": echo().to_string(),
        "toxics": [{ "type": "latency", "attributes": { "latency": 20 } }] }]);
    std::fs::write(&path, config.to_string()).expect("the temporary directory can be written");
    let mut server = Server::start(&["--config", &path.display().to_string()]);
    std::fs::remove_file(&path).expect("it was just written");
    let proxy = server.done("GET", "/proxies/db", &json!(null));
    let listen = proxy["listen"].as_str().and_then(|listen| listen.parse().ok()).expect("an address");
    assert!(ping(&mut connect(listen)).as_millis() >= 20);
    let pid = rustix::process::Pid::from_child(&server.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it is there");
    let status = server.child.wait().expect("it ends");
    assert_eq!(status.code(), Some(0));

    // What is wrong with a file is logged, and the interface works all the same.
    let server = Server::start(&["--config", "/nowhere/at/all.json"]);
    server.works();
}
