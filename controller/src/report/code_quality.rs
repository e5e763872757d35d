//! GitLab's code quality report: a list of findings that a merge request shows
//! (<https://docs.gitlab.com/ci/testing/code_quality/#code-quality-report-format>).

use serde_json::{Value, json};
use squall_experiments::suite::Suite;

use super::points::{Point, Severity, points};

/// Everything that did not hold; an empty list where all did.
pub fn code_quality(suite: &Suite) -> String {
    // GitLab shows findings in files: a document of the command line has none.
    let points = points(suite).into_iter().filter(|point| !point.file.is_empty());
    let found: Vec<Value> = points.map(|point| finding(&point)).collect();
    let mut text = serde_json::to_string_pretty(&found).unwrap_or_default();
    text.push('\n');
    text
}

fn finding(point: &Point) -> Value {
    // What was seen is not part of it: figures differ from run to run, and the finding is the same.
    let essence = json!([point.file, point.check, point.name]).to_string();
    let fingerprint: String = blake3::hash(essence.as_bytes()).to_hex().chars().take(32).collect();
    json!({
        "description": format!("{}: {}", point.name, point.what),
        "check_name": format!("squall-{}", point.check),
        "fingerprint": fingerprint,
        "severity": match point.severity {
            Severity::Blocker => "blocker",
            Severity::Error => "critical",
            Severity::Warning => "major",
        },
        "location": { "path": point.file, "lines": { "begin": point.line } },
    })
}
