//! A dependency that is called by gRPC: by the library that services use, as it is published, on both sides.

use std::fs;
use std::process::Command;

use serde_json::Value;
use squall_tests::client::connect;
use squall_tests::host::Host;
use squall_tests::needs;
use squall_tests::squall::lines;
use squall_tests::wait::{PATIENCE, holds};
use squall_tests::world::World;

use super::{LONG, step};
use crate::proxy::clients::{python, says_all_is_well};
use crate::trial::{Trial, calm, evidence, impaired};

const SCRIPT: &str = include_str!("calls.py");

#[test]
fn calls_fail_with_a_status_of_grpc_and_are_told_and_pass_where_nothing_is_wrong_with_them() {
    needs!(Root, Cgroup2, Bpf);
    let packages = match python("grpcio", "1.76.0", "grpc") {
        Ok(directory) => directory.display().to_string(),
        Err(why) => squall_tests::skip!("{why}"),
    };
    let world = World::new(2);
    let [near, far] = &world.hosts[..] else { panic!("two hosts are needed") };
    let script = world.file("calls.py", SCRIPT);
    let place = std::net::SocketAddr::new(far.v4, 50051);
    let address = place.to_string();
    let packages = format!("PYTHONPATH={packages}");
    world.program(1, None, &["env", &packages, "python3", &script, "serve", &address]);
    holds("the dependency to listen", PATIENCE, || connect(&near.netns, place, LONG).is_ok());
    let calls = |from: &Host, what: &str| {
        let mut command: Command = from.netns.command("env");
        says_all_is_well(command.args([&packages, "python3", &script, what, &address]));
    };
    let under = |how: &str, what: &str| -> (Value, Vec<Value>) {
        let seen = world.directory.join(format!("{what}.ndjson"));
        let more = ["--observations", &seen.display().to_string()];
        let mut trial = Trial::with(&world, near, &calm(&[&step(far.v4, 50051, how, "")]), &more);
        trial.injected();
        calls(near, what);
        let report = trial.halted();
        let told = lines(&seen).into_iter().filter(|line| line["kind"] == "request").collect();
        assert!(fs::metadata(&seen).is_ok_and(|file| file.len() > 0));
        (report, told)
    };
    let how = "errors, grpc-status: 8, body: out of credit, path: \"/shop.Payments/Charge\"";
    let (report, told) = under(how, "fail");
    assert_eq!((evidence(&report)["unit"].as_str(), impaired(&report)), (Some("requests"), 3), "{report:#}");
    let of = |told: &[Value], method: &str| -> Vec<String> {
        let target = format!("/shop.Payments/{method}");
        let calls = told.iter().filter(|call| call["target"] == target.as_str());
        calls.map(|call| format!("{} {}", call["version"], call["grpc_status"])).collect()
    };
    assert_eq!(of(&told, "Charge"), ["\"HTTP/2.0\" \"8\""; 3], "{told:#?}");
    assert_eq!(of(&told, "Refund"), ["\"HTTP/2.0\" \"0\""], "{told:#?}");
    // A way of bytes: calls are told, and what they say is what it was.
    let (report, told) = under("latency, delay: 20ms", "work");
    assert_eq!(evidence(&report)["unit"], "connections", "{report:#}");
    for method in ["Charge", "Refund", "History"] {
        assert_eq!(of(&told, method), ["\"HTTP/2.0\" \"0\""], "{told:#?}");
    }
    // By request, although they share a connection.
    let (report, _) = under("brownout, share: 100%, delay: 20ms", "work");
    assert_eq!((evidence(&report)["unit"].as_str(), impaired(&report)), (Some("requests"), 3), "{report:#}");
}
