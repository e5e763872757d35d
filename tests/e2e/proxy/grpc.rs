//! Calls of gRPC: by the library that services use, as it is published, on both sides of the proxy.

use std::process::Command;

use super::Server;
use super::clients::{python, says_all_is_well};

const SCRIPT: &str = include_str!("calls.py");

#[test]
fn calls_fail_by_their_method_and_are_tried_again() {
    let directory = match python("grpcio", "1.76.0", "grpc") {
        Ok(directory) => directory,
        Err(why) => squall_tests::skip!("{why}"),
    };
    let server = Server::start(&[]);
    let script = directory.join("calls.py");
    std::fs::write(&script, SCRIPT).expect("the target directory can be written");
    let mut python = Command::new("python3");
    python.arg(&script).arg(server.api.port().to_string()).env("PYTHONPATH", &directory);
    says_all_is_well(&mut python);
    server.works();
}
