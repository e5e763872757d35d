//! Stopping points are for tests alone: what is installed knows nothing of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use squall_tests::squall::binary;

use crate::{read, root};

/// Their variables, and names that nothing else has.
const WORDS: [&str; 7] = [
    "SQUALL_STOP_AT",
    "SQUALL_STOP_LOG",
    "SQUALL_FLAW",
    "half-written",
    "after-perform",
    "kill-both",
    "late-record",
];

#[test]
fn no_installed_program_knows_of_stopping_points() {
    let source = read("agent/src/points/armed.rs");
    assert!(WORDS.iter().all(|word| source.contains(word)), "this test looks for the wrong words");
    let built = ["squall", "squall-agent"].map(binary);
    let beside = |path: &Path| -> Option<PathBuf> {
        let release = path.parent()?.parent()?.join("release").join(path.file_name()?);
        release.exists().then_some(release)
    };
    let release: Vec<PathBuf> = built.iter().filter_map(|path| beside(path)).collect();
    for path in built.iter().chain(&release) {
        let program = fs::read(path).expect("a program can be read");
        let program = String::from_utf8_lossy(&program);
        // Only to know that words are found at all.
        assert!(program.contains("SQUALL_STATE_DIR"), "`{}` has no readable words", path.display());
        let found: Vec<&str> = WORDS.into_iter().filter(|word| program.contains(word)).collect();
        assert!(found.is_empty(), "`{}` was built with stopping points: {found:?}", path.display());
    }
}

#[test]
fn the_feature_of_stopping_points_is_off_unless_asked_for() {
    let tree = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO"));
        command.args(["tree", "--offline", "--prefix", "none", "--format", "{p} {f}"]).args(arguments);
        let output = command.current_dir(root()).output().expect("cargo can be run");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(!tree(&[]).contains("stopping-points"), "the default build has them");
    assert!(!tree(&["--workspace"]).contains("stopping-points"), "the build of all members has them");
    let asked = tree(&["--package", "squall-agent", "--features", "stopping-points"]);
    assert!(asked.contains("stopping-points"), "this test looks for the wrong thing");
}
