//! Client libraries as they are published, unchanged, and our own tests over them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use squall_tests::skip;

use super::{Server, echo};

const PYTHON: &str = include_str!("client.py");
const NODE: &str = include_str!("client.cjs");

/// Where the libraries are kept between runs.
fn kept(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&directory).expect("the target directory can be written");
    directory
}

/// Runs a command; in words why it failed.
fn run(command: &mut Command) -> Result<Output, String> {
    let output = command.output().map_err(|error| format!("{:?}: {error}", command.get_program()))?;
    if output.status.success() {
        return Ok(output);
    }
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    Err(said)
}

/// The last line that says something.
fn last(said: &str) -> &str {
    said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing")
}

#[test]
fn the_python_client_works_unchanged() {
    let directory = kept("toxiproxy-python");
    if !directory.join("toxiproxy").exists() {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"])
            .arg(&directory);
        if let Err(said) = run(pip.arg("toxiproxy-python==0.1.1")) {
            skip!("the package `toxiproxy-python` cannot be installed: {}", last(&said));
        }
    }
    let server = Server::start(&[]);
    let script = directory.join("client.py");
    fs::write(&script, PYTHON).expect("the target directory can be written");
    let mut python = Command::new("python3");
    python.arg(&script).env("PYTHONPATH", &directory);
    python.args([server.api.port().to_string(), echo().to_string()]);
    let output = run(&mut python).unwrap_or_else(|said| panic!("{said}"));
    assert!(String::from_utf8_lossy(&output.stdout).ends_with("all well\n"));
    server.works();
}

#[test]
fn the_node_client_works_unchanged() {
    let directory = kept("toxiproxy-node-client");
    if !directory.join("node_modules/toxiproxy-node-client").exists() {
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"]).arg(&directory);
        if let Err(said) = run(npm.arg("toxiproxy-node-client@4.1.0")) {
            skip!("the package `toxiproxy-node-client` cannot be installed: {}", last(&said));
        }
    }
    let server = Server::start(&[]);
    let script = directory.join("client.cjs");
    fs::write(&script, NODE).expect("the target directory can be written");
    let mut node = Command::new("node");
    node.arg(&script).args([server.api.port().to_string(), echo().to_string()]);
    let output = run(&mut node).unwrap_or_else(|said| panic!("{said}"));
    assert!(String::from_utf8_lossy(&output.stdout).ends_with("all well\n"));
    server.works();
}
