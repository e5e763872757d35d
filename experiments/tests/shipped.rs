//! Every file in `shipped/`, game days too, passes `check` as it is, so that a learner starts from something that works.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use squall_experiments::document::{Document, Sources, read};
use squall_experiments::gameday::{self, Experiment};

fn shipped() -> Vec<(String, Document)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("shipped");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let load = |path: std::path::PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let document = read(&name, &std::fs::read(&path).unwrap(), &Sources::default());
        let document = document.unwrap_or_else(|problems| panic!("{problems:?}"));
        (name, document)
    };
    files.filter(|path| path.is_file()).map(load).collect()
}

#[test]
fn every_shipped_file_is_valid_and_injects_something_unless_it_is_a_canary() {
    let shipped = shipped();
    assert!(shipped.len() >= 11, "{} files", shipped.len());
    for (name, Document { experiment, .. }) in shipped {
        let faults = experiment.method.iter().filter(|step| step.fault.is_some()).count();
        // A canary looks at a new version as it is.
        let canary = name.contains("canary") && !experiment.hypothesis.is_empty();
        assert!(canary != (faults > 0), "{name} has {faults} faults");
        assert!(!experiment.tags.is_empty(), "{name} cannot be found by a tag");
    }
}

#[test]
fn a_mistake_and_its_remedy_differ_only_in_their_words() {
    let shipped = shipped();
    let find = |wanted: &str| {
        let (_, document) = shipped.iter().find(|(name, _)| name == wanted).unwrap();
        let mut experiment = document.experiment.clone();
        experiment.title = String::new();
        experiment.description = None;
        experiment
    };
    for (mistake, remedy) in [
        ("payments-silent.yaml", "payments-silent-with-fallback.yaml"),
        ("payments-slow.yaml", "payments-slow-with-fallback.yaml"),
        ("catalogue-lossy.yaml", "catalogue-lossy-with-retries.yaml"),
    ] {
        assert_eq!(find(mistake), find(remedy), "{mistake}");
    }
}

#[test]
fn every_shipped_game_day_and_its_experiments_are_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("shipped/gamedays");
    let mut runs = 0;
    for path in std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
        let name = path.file_name().unwrap().to_str().unwrap();
        let day = gameday::read(name, &std::fs::read(&path).unwrap());
        let day = day.unwrap_or_else(|problems| panic!("{}", problems.render(false)));
        let day = day.with_texts(|_, file| std::fs::read_to_string(folder.join(file))).unwrap();
        for step in &day.steps {
            let Some(Experiment::Text(text)) = step.experiment() else { continue };
            let sources = Sources { vars: step.vars.clone(), ..Sources::default() };
            let document = read(step.name.as_str(), text.as_bytes(), &sources);
            let document = document.unwrap_or_else(|problems| panic!("{}", problems.render(false)));
            assert!(
                document.experiment.on.is_some(),
                "a controller has to know on which hosts `{}` is",
                step.name
            );
            runs += 1;
        }
    }
    assert!(runs >= 2, "{runs} runs");
}
