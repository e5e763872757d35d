use std::path::Path;

use super::*;

fn log() -> Vec<Record> {
    let text = include_str!("../tests/run.ndjson");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn page(log: &[Record]) -> String {
    html(&Summary::of(log).unwrap(), log, Some(Path::new("/tmp/run.ndjson")))
}

/// The log with other words in it.
fn with(from: &str, to: &str) -> Vec<Record> {
    let text = include_str!("../tests/run.ndjson").replace(from, to);
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Reads the page as XML, and says how often each element occurs.
fn elements(page: &str) -> std::collections::BTreeMap<String, usize> {
    let mut reader = quick_xml::Reader::from_str(page);
    reader.config_mut().check_end_names = true;
    let (mut counts, mut depth) = (std::collections::BTreeMap::new(), 0);
    loop {
        let name = |name: &str| name.to_owned();
        match reader.read_event().unwrap_or_else(|error| panic!("not well-formed: {error}\n{page}")) {
            quick_xml::events::Event::Start(tag) => {
                depth += 1;
                *counts.entry(name(tag.name().as_ref())).or_default() += 1;
            }
            quick_xml::events::Event::Empty(tag) => {
                assert!(tag.attributes().all(|attribute| attribute.is_ok()));
                *counts.entry(name(tag.name().as_ref())).or_default() += 1;
            }
            quick_xml::events::Event::End(_) => depth -= 1,
            quick_xml::events::Event::Eof => break,
            _ => {}
        }
    }
    assert_eq!(depth, 0, "an element is not closed");
    counts
}

#[test]
fn the_page_says_what_the_report_says() {
    let page = page(&log());
    let counts = elements(&page);
    let drawings = page.matches("role=\"img\"").count();
    assert_eq!((counts["h1"], counts["main"], counts["title"]), (1, 1, 1 + drawings), "{counts:?}");
    for text in [
        "<strong>✗ deviated</strong>",
        "<code dir=\"auto\">checkout answers</code> failed in 3 of 4 samples",
        "14 of 14 matching packets impaired",
        "4 rules removed, none left",
        "squall run FILE --seed 7",
        "squall verdict /tmp/run.ndjson",
        "first packet dropped",
        "a route was added",
    ] {
        assert!(page.contains(text), "`{text}` is missing:\n{page}");
    }
}

#[test]
fn nothing_is_loaded_and_nothing_is_run() {
    let page = page(&with("Checkout survives", "see http://a.example/"));
    let counts = elements(&page);
    for tag in ["script", "link", "img", "iframe", "object", "embed", "form", "a", "base"] {
        assert!(!counts.contains_key(tag), "<{tag}>");
    }
    for way in ["url(", "@import", " src=", " href=", " onload", "javascript:", "expression("] {
        assert!(!page.contains(way), "`{way}` in the page");
    }
    let policy = "default-src &apos;none&apos;; style-src &apos;unsafe-inline&apos;; img-src data:;";
    assert!(page.contains(policy), "{page}");
}

#[test]
fn what_others_said_is_text() {
    let hostile = r"</title></style><script>alert(1)</script> \u0007 \u202egnirts `x";
    for from in
        ["Checkout survives", "checkout answers", "payments is silent", "127.0.0.1:7003", "4 rules removed"]
    {
        let page = page(&with(from, hostile));
        assert!(!elements(&page).contains_key("script"), "{from}");
        assert!(page.contains("&lt;script&gt;alert(1)"), "{from}:\n{page}");
        assert!(!page.contains(['\u{7}', '\u{202e}']), "{from}");
    }
}

#[test]
fn headings_follow_each_other_and_drawings_have_words() {
    let page = page(&log());
    let mut last = 0;
    for (at, _) in page.match_indices("<h") {
        let Some(level) = page[at + 2..].chars().next().and_then(|level| level.to_digit(10)) else {
            continue;
        };
        assert!(level <= last + 1, "a heading of level {level} after one of {last}");
        last = level;
    }
    // The others hold words that stand beside a drawing, and are in its description.
    let drawings = page.matches("role=\"img\"").count();
    assert!(drawings >= 2);
    let hidden = page
        .split("<svg")
        .skip(1)
        .filter(|svg| svg.split('>').next().is_some_and(|tag| tag.contains("aria-hidden=\"true\"")));
    assert_eq!(page.matches("<svg").count(), drawings + hidden.count());
    assert_eq!(page.matches("<desc id=").count(), drawings);
    // Each name is given once and each reference leads to one.
    for reference in page.split("aria-labelledby=\"").skip(1) {
        for name in reference.split('"').next().unwrap().split(' ') {
            assert_eq!(page.matches(&format!("id=\"{name}\"")).count(), 1, "{name}");
        }
    }
}

#[test]
fn a_long_run_is_a_page_of_bounded_size() {
    let size = |samples: u64| {
        let mut log = log();
        let at = log.iter().position(|record| record.at_ms == 1310).unwrap();
        let sample = log.remove(at);
        let later = log.split_off(at);
        log.extend((0..samples).map(|number| {
            let mut sample = sample.clone();
            sample.at_ms += number * 100;
            if let squall_experiments::run::Event::Sample(seen) = &mut sample.event {
                seen.begun_ms += number * 100;
                seen.good = number % 7 > 0;
            }
            sample
        }));
        let shift = samples * 100;
        log.extend(later.into_iter().map(|record| Record { at_ms: record.at_ms + shift, ..record }));
        let page = page(&log);
        elements(&page);
        page.len()
    };
    let (short, long) = (size(200), size(20_000));
    assert!(long < short * 2 && long < 200_000, "{short} {long}");
}

#[test]
fn a_run_that_was_refused_has_a_page_too() {
    let mut log = log();
    log.truncate(3);
    let seen = "503".to_owned();
    let event = squall_experiments::run::Event::BaselineNotMet { name: "site is up".to_owned(), seen };
    log.push(Record { at_ms: 5, event });
    let page = page(&log);
    elements(&page);
    assert!(page.contains("<strong>? refused</strong>") && page.contains("Nothing was done"), "{page}");
    let bare = self::page(&log[..1]);
    elements(&bare);
}
