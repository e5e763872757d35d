//! A run as a page, and beside an earlier one.

use std::fs;
use std::path::Path;

use squall_tests::needs;
use squall_tests::squall::Finished;
use squall_tests::world::World;

use crate::trial::{Trial, document};

/// A load of the nginx on the other host that allows everything: whatever is worse is said by the comparison.
const LOAD: &str = "  - name: the page is served\n    \
                    load: { url: \"http://10.77.1.2/\", rate: 100/s, timeout: 1s }\n    \
                    expect: { errors: \"<= 99%\" }\n    mode: fast\n";
/// A small delay, which everybody meets.
const SLOW: &str = "{ fault: { latency: { delay: 20ms, to: [\"10.77.1.2:80\"] } }, for: 3s }";

#[test]
fn a_run_is_a_page_and_is_compared_with_an_earlier_one() {
    needs!(Root, Nftables, Nginx);
    let world = World::new(2);
    let host = &world.hosts[0];
    world.nginx(1, 80);
    let text = document(LOAD, &[SLOW]);
    let page = |name: &str| world.directory.join(format!("{name}.html"));
    let begin = |name: &str, text: &str, more: &[&str]| {
        let html = page(name).display().to_string();
        Trial::with(&world, host, text, &[&["--html", &html][..], more].concat())
    };
    let first = begin("first", &text, &[]);
    let events = first.events.clone();
    let report = first.finish().expect_exit(0).json();
    let seed = report["seed"].to_string();
    let content = report["origin"]["content"].as_str().expect("what it did, as a hash").to_owned();
    let read = |name: &str| fs::read_to_string(page(name)).expect("the page was asked for");
    let written = read("first");
    for text in ["✓ held", "the page is served", "Host before and after", "at most 99 % allowed"] {
        assert!(written.to_lowercase().contains(&text.to_lowercase()), "`{text}` is missing:\n{written}");
    }
    assert!(written.contains(&format!("--seed {seed}</code>")) && written.contains(&content), "{written}");
    loads_nothing(&written);

    // With itself: nothing is worse. The page made again from the events is the same but for where they are.
    let shown = events.display().to_string();
    let verdict = |more: &[&str]| -> Finished {
        host.squall(&[&["verdict", &shown, "--format", "json"][..], more].concat()).run()
    };
    let html = page("again").display().to_string();
    verdict(&["--html", &html]).expect_exit(0);
    assert_eq!(read("again"), written);
    let same = verdict(&["--baseline", &shown]);
    let compared = &same.expect_exit(0).json()["regression"]["comparisons"];
    let trends: Vec<&str> =
        compared.as_array().into_iter().flatten().filter_map(|one| one["trend"].as_str()).collect();
    assert!(trends.len() >= 2 && !trends.contains(&"worse"), "{}", same.story());

    worse(&world, &text, &events);
    refused(&world, &text, &events);
}

/// The same experiment on a system that is clearly worse now: what it asks for is not there any more.
fn worse(world: &World, text: &str, earlier: &Path) {
    let html = world.directory.join("worse.html");
    let (shown, html_shown) = (earlier.display().to_string(), html.display().to_string());
    // The same content by another way: half of the requests of this run meet a fault of another run.
    let host = &world.hosts[0];
    let cut = "{ fault: { loss: { percent: 60%, to: [\"10.77.1.2:80\"] } }, for: 60s }";
    let mut other = Trial::begin(world, host, &crate::trial::calm(&[cut]));
    other.injected();
    let finished = Trial::with(world, host, text, &["--baseline", &shown, "--html", &html_shown]).finish();
    other.run.signal(rustix::process::Signal::INT);
    other.finish().expect_exit(6);
    let report = finished.expect_exit(5).json();
    assert!(
        report["sentence"].as_str().is_some_and(|said| said.contains("worse than in the run of")),
        "{report:#}"
    );
    let page = fs::read_to_string(html).expect("the page was asked for");
    assert!(page.contains("✗ worse") && page.contains("Compared with an earlier run"), "{page}");
    loads_nothing(&page);
}

/// Nothing is done where the earlier run is one of another experiment.
fn refused(world: &World, text: &str, earlier: &Path) {
    let shown = earlier.display().to_string();
    let changed = text.replace("delay: 20ms", "delay: 21ms");
    let trial = Trial::with(world, &world.hosts[0], &changed, &["--baseline", &shown]);
    let events = trial.events.clone();
    let finished = trial.finish();
    finished.expect_exit(4).expect_told("it is a run of another experiment: `A test` was changed since");
    assert!(!events.exists(), "nothing was begun: {}", finished.story());
}

fn loads_nothing(page: &str) {
    for way in ["<script", "<link", "<img", " src=", " href=", "url(", "@import", "http://www", "https://"] {
        assert!(!page.contains(way), "`{way}` in the page:\n{page}");
    }
}
