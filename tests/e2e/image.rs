//! The container image of the controller, built by the recipe as docs/operating.md says, and asked from inside.

use std::fs;
use std::path::Path;
use std::process::Command;

use squall_tests::podman::Podman;
use squall_tests::squall::binary;
use squall_tests::wait::{PATIENCE, holds};
use squall_tests::world::World;
use squall_tests::{needs, skip, skip::found};

fn done(program: &Path, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().expect("it can be run");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} {arguments:?}: {said}", program.display());
}

#[test]
fn the_image_holds_the_program_alone_and_serves_as_nobody() {
    needs!(Root, Podman);
    if !found("strip") || !found("ldd") {
        skip!("needs strip and ldd (packages `binutils`, `libc-bin`)");
    }
    let world = World::new(1);
    let podman = Podman::of(&world, &world.hosts[0]);
    // Without what debuggers need, as a release is: the layers of an image are copied several times.
    let (program, image) = (world.directory.join("squall"), world.place("image"));
    let (from, to) = (binary("squall").display().to_string(), program.display().to_string());
    done(Path::new("strip"), &["--strip-debug", "-o", &to, &from]);
    let tree =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace").join("controller/package/tree");
    done(&tree, &[&to, &image.display().to_string()]);
    fs::remove_file(&program).expect("it was copied");
    let recipe = image.join("Containerfile").display().to_string();
    podman.does(&[
        "build",
        "--layers=false",
        "--tag",
        "squall",
        "--file",
        &recipe,
        &image.display().to_string(),
    ]);

    podman.does(&[
        "run",
        "--detach",
        "--name",
        "fleet",
        "--network",
        "none",
        "--log-driver",
        "none",
        "squall",
    ]);
    let asks = [
        "exec",
        "fleet",
        "squall",
        "hosts",
        "--controller",
        "https://127.0.0.1:8416",
        "--ca",
        "/data/controller/ca.pem",
        "--token-file",
        "/data/controller/admin-token",
        "--format",
        "json",
    ];
    holds("the controller in it to answer", PATIENCE, || podman.tries(&asks).is_ok());
    let hosts: serde_json::Value = serde_json::from_str(&podman.does(&asks)).expect("JSON");
    assert_eq!(hosts["hosts"], serde_json::json!([]));
    let user = podman.does(&["inspect", "--format", "{{.Config.User}}", "fleet"]);
    assert_eq!(user.trim(), "65532:65532");
    // Nothing to start beside the program.
    assert!(podman.tries(&["exec", "fleet", "sh", "-c", "true"]).is_err(), "there is a shell in it");
    podman.does(&["stop", "--time", "10", "fleet"]);
    let code = podman.does(&["inspect", "--format", "{{.State.ExitCode}}", "fleet"]);
    assert_eq!(code.trim(), "0", "told to end, it ends");
}
