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

/// Where a package of Python is that has this module; in words why it cannot be had.
pub(crate) fn python(package: &str, version: &str, module: &str) -> Result<PathBuf, String> {
    let directory = kept(package);
    if !directory.join(module).exists() {
        let mut pip = Command::new("python3");
        pip.args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--only-binary",
            ":all:",
        ]);
        pip.arg("--target").arg(&directory).arg(format!("{package}=={version}"));
        run(&mut pip)
            .map_err(|said| format!("the package `{package}` cannot be installed: {}", last(&said)))?;
    }
    Ok(directory)
}

/// That a script runs to its end.
#[track_caller]
pub(crate) fn says_all_is_well(script: &mut Command) {
    let output = run(script).unwrap_or_else(|said| panic!("{said}"));
    assert!(String::from_utf8_lossy(&output.stdout).ends_with("all well\n"));
}

#[test]
fn the_python_client_works_unchanged() {
    let directory = match python("toxiproxy-python", "0.1.1", "toxiproxy") {
        Ok(directory) => directory,
        Err(why) => skip!("{why}"),
    };
    let server = Server::start(&[]);
    let script = directory.join("client.py");
    fs::write(&script, PYTHON).expect("the target directory can be written");
    let mut python = Command::new("python3");
    python.arg(&script).env("PYTHONPATH", &directory);
    python.args([server.api.port().to_string(), echo().to_string()]);
    says_all_is_well(&mut python);
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
    says_all_is_well(&mut node);
    server.works();
}

/// It depends on a tree of its own, so it is built only where it is asked for.
#[test]
fn the_rust_client_works_unchanged() {
    if std::env::var_os("SQUALL_CLIENTS").is_none_or(|wanted| wanted != "all") {
        skip!("the crate `toxiproxy_rust` is built with `SQUALL_CLIENTS=all` only: it has a tree of its own");
    }
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/rust/Cargo.toml");
    let mut fetch = Command::new(env!("CARGO"));
    if let Err(said) = run(fetch.args(["fetch", "--quiet", "--manifest-path"]).arg(&program)) {
        skip!("the crate `toxiproxy_rust` cannot be had: {}", last(&said));
    }
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["run", "--quiet", "--manifest-path"]).arg(&program);
    let server = Server::start(&[]);
    cargo.arg("--target-dir").arg(kept("toxiproxy_rust")).arg("--");
    cargo.args([server.api.port().to_string(), echo().to_string()]);
    says_all_is_well(&mut cargo);
    server.works();
}
