//! What a whole run costs that does next to nothing.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};
use serde_json::json;
use squall_tests::squall::binary;

use crate::table::{percentile, summary};

/// A run with one process probe and one process action, beside the same in Chaos Toolkit where it is installed.
pub fn trivial_run() {
    let directory = std::env::temp_dir().join(format!("squall-figures-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let file = directory.join("trivial.yaml");
    let text = "squall: 1\ntitle: Trivial\nhypothesis:\n  - name: it is true\n    process: { argv: [\"true\"] }\n\
                method:\n  - action: { process: { argv: [\"true\"] } }\n";
    fs::write(&file, text).unwrap();
    let theirs = directory.join("trivial.json");
    let process = json!({ "type": "process", "path": "true" });
    let probe = json!({ "type": "probe", "name": "p", "tolerance": 0, "provider": process });
    let action = json!({ "type": "action", "name": "a", "provider": process });
    let hypothesis = json!({ "title": "h", "probes": [probe] });
    let experiment = json!({ "title": "t", "description": "d", "steady-state-hypothesis": hypothesis, "method": [action] });
    fs::write(&theirs, experiment.to_string()).unwrap();

    let mut squall = Command::new(binary("squall"));
    squall.arg("--state-dir").arg(&directory).arg("run").arg(&file);
    let mut chaos = Command::new("chaos");
    chaos.current_dir(&directory).args(["--no-version-check", "--no-log-file", "run"]).arg(&theirs);
    let peak = || getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().max_rss() as f64 / 1024.0;
    let time = |command: &mut Command| {
        let began = Instant::now();
        let status =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().ok()?;
        status.success().then(|| began.elapsed().as_secs_f64() * 1000.0)
    };
    let mut ours: Vec<f64> = (0..40).filter_map(|_| time(&mut squall)).collect();
    let memory = peak();
    println!("trivial run, squall: {}, largest process {memory:.1} MiB", summary(ours.clone()));
    let others: Vec<f64> = (0..8).filter_map(|_| time(&mut chaos)).collect();
    if others.is_empty() {
        println!("trivial run, chaos toolkit: not installed here");
    } else {
        println!("trivial run, chaos: {}, largest process {:.1} MiB", summary(others.clone()), peak());
        let mut others = others;
        ours.sort_by(f64::total_cmp);
        others.sort_by(f64::total_cmp);
        let ratio = percentile(&others, 50.0) / percentile(&ours, 50.0);
        println!("trivial run: squall is {ratio:.1} times as fast at the median");
    }
    fs::remove_dir_all(directory).unwrap();
}
