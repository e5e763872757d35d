//! Bytes from anywhere: an answer in bounded time and memory, and never a panic.

use std::fmt::Write;
use std::time::Instant;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::DESIGN;
use crate::document::{LONGEST, Sources, read};

#[test]
fn what_is_no_document_is_refused_with_a_reason() {
    let refused = |bytes: &[u8]| read("x", bytes, &Sources::default()).unwrap_err().list()[0].what.clone();
    assert_eq!(refused(b""), "the document is empty");
    assert_eq!(refused(b"# only a comment\n"), "the document is empty");
    assert_eq!(refused(b"\x7fELF\0\0"), "this is a binary file: byte 4 is NUL");
    assert_eq!(refused(b"title: \xff"), "this is not UTF-8 text: byte 7 is wrong");
    assert_eq!(refused(b"\xff\xfes\0q\0"), "this is UTF-16 text");
    assert_eq!(refused(&vec![b'a'; LONGEST + 1]), "this is longer than an experiment may be (1048576 bytes)");
    assert_eq!(refused(b"squall: 2\nnew-key: 1\n"), "format version 2 is not known to this squall");
    assert_eq!(refused(b"a: 1\n---\nb: 2\n"), "a second document begins here");
    assert_eq!(refused(b"- a\n"), "the experiment must be a group of keys, not a list");
    assert_eq!(
        super::short(&DESIGN.replace("recovery: 30s", "recovery: *r")),
        ["nothing is called `&r` | put `&r` before the value that is meant, above this line"]
    );
    assert_eq!(refused(b"a: &b [*b]\n"), "an alias stands inside of what it names");
    assert_eq!(
        super::short(&DESIGN.replace("recovery: 30s", "recovery: !ruby/object 30s")),
        ["this tag has no meaning here | leave the word that begins with `!` out"]
    );
    assert!(read("x", format!("\u{feff}{DESIGN}").as_bytes(), &Sources::default()).is_ok());
}

fn first_problem(text: &str) -> String {
    read("x", text.as_bytes(), &Sources::default()).unwrap_err().list()[0].what.clone()
}

#[test]
fn an_alias_bomb_is_stopped_at_once() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..30 {
        let before = level - 1;
        let aliases = vec![format!("*a{before}"); 10].join(", ");
        let _ = writeln!(text, "a{level}: &a{level} [{aliases}]");
    }
    let begun = Instant::now();
    assert_eq!(
        first_problem(&text),
        "the aliases of this document expand to more than an experiment can hold"
    );
    // Expanded, it would take longer than the world exists: any bound tells, and a busy machine keeps this one.
    assert!(begun.elapsed().as_secs() < 60, "took {:?}", begun.elapsed());

    let mut text = "a0: &a0 [x]\n".to_owned();
    for level in 1..100 {
        let _ = writeln!(text, "a{level}: &a{level} [*a{}]", level - 1);
    }
    assert_eq!(
        first_problem(&text),
        "the aliases of this document expand to more than an experiment can hold"
    );
}

#[test]
fn a_bomb_of_variables_is_stopped_too() {
    let mut wide =
        "squall: 1\ntitle: t\nhypothesis: []\nmethod: [{ wait: 1s }]\nvars:\n  v0: xxxxxxxxxx\n".to_owned();
    let mut deep = wide.clone();
    for level in 1..100 {
        let _ = writeln!(wide, "  v{level}: \"{}\"", format!("${{v{}}}", level - 1).repeat(10));
        let _ = writeln!(deep, "  v{level}: [\"${{v{}}}\"]", level - 1);
    }
    assert_eq!(first_problem(&wide), "the references of this document add too much to it");
    assert_eq!(first_problem(&deep), "the variable `v64` is nested more than 64 deep");
}

#[test]
fn deep_and_long_documents_have_an_end() {
    let begun = Instant::now();
    assert_eq!(first_problem(&"[".repeat(100_000)), "nested more than 64 deep");
    assert_eq!(first_problem(&"- ".repeat(1000)), "nested more than 64 deep");

    let mut text = DESIGN.replace("method:\n", "method:\n  - wait: 1s\n");
    let mut steps = String::new();
    for step in 0..10_000 {
        let _ = writeln!(steps, "  - wait: {step}ms # one of very many");
    }
    text = text.replace("  - wait: 5s\n", &steps.replace("wait: 0ms", "wait: 1ms"));
    let document = read("x", text.as_bytes(), &Sources::default())
        .unwrap_or_else(|problems| panic!("{}", problems.render(false)));
    assert_eq!(document.experiment.method.len(), 10_003);

    // Ten thousand steps, all of them wrong: all of them are said.
    let wrong = text.replace("ms # one", "parsecs # one");
    let problems = read("x", wrong.as_bytes(), &Sources::default()).unwrap_err();
    assert_eq!(problems.list().len(), 10_000);
    assert!(problems.render(false).ends_with("... and 9000 more problems\n\n"));

    let mut flat = String::new();
    for key in 0..70_000 {
        let _ = writeln!(flat, "k{key}: \"${{x}}\"");
    }
    let problems = read("x", flat.as_bytes(), &Sources::default()).unwrap_err();
    assert_eq!(problems.list().len(), 2 * 70_000 + 4);
    // Seconds when nothing else runs: the bound is for what does not end.
    assert!(begun.elapsed().as_secs() < 300, "took {:?}", begun.elapsed());
}

/// Documents that differ from a right one by a few bytes reach further than noise does; both are tried.
#[test]
fn noise_and_mutations_never_panic() {
    let mut random = ChaCha8Rng::seed_from_u64(20_261_121);
    let pieces = [
        "${", "}", "&a ", "*a", "\n", "  ", "- ", "{", "[", "\"", "\u{feff}", "\u{85}", "é", ": ", "|",
        "null", "-1", "1e9", "<<: ",
    ];
    let (mut read_well, mut refused) = (0, 0);
    for round in 0..4000 {
        let mut bytes = if round % 4 == 0 { Vec::new() } else { DESIGN.as_bytes().to_vec() };
        if bytes.is_empty() {
            bytes = (0..random.random_range(0..200)).map(|_| random.random()).collect();
        }
        for _ in 0..random.random_range(1..6) {
            let at = random.random_range(0..=bytes.len());
            match random.random_range(0..4) {
                0 => bytes.truncate(at),
                1 if at < bytes.len() => bytes[at] = random.random(),
                2 if at < bytes.len() => drop(bytes.remove(at)),
                _ => {
                    let piece = pieces[random.random_range(0..pieces.len())];
                    bytes.splice(at..at, piece.bytes());
                }
            }
        }
        match read("x", &bytes, &Sources::default()) {
            Ok(_) => read_well += 1,
            Err(problems) => {
                refused += 1;
                assert!(!problems.list().is_empty());
                assert!(!problems.render(round % 2 == 0).is_empty());
            }
        }
    }
    assert!(
        read_well > 50 && refused > 1000,
        "{read_well} read, {refused} refused: the mutations are too tame or too wild"
    );
}
