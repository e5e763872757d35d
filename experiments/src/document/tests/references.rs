use std::collections::BTreeMap;

use super::{messages_with, short};
use crate::document::{Document, Sources, read};

fn text(rest: &str) -> String {
    format!("squall: 1\nhypothesis: []\nmethod: [{{ wait: 1s }}]\n{rest}")
}

fn secret(name: &str) -> Result<Option<String>, String> {
    match name {
        "TOKEN" => Ok(Some("hunter2-hunter2".to_owned())),
        "SHORT" => Ok(Some("abc".to_owned())),
        "LOCKED" => Err("`/run/secrets/locked`: permission denied".to_owned()),
        _ => Ok(None),
    }
}

fn read_with(rest: &str, vars: &[(&str, &str)]) -> Result<Document, String> {
    let vars = vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let sources = Sources { vars, secret: &secret, ..Default::default() };
    read("shop.yaml", text(rest).as_bytes(), &sources).map_err(|problems| problems.render(false))
}

#[test]
fn a_reference_that_stands_alone_keeps_its_type() {
    let rest = "vars: { n: 7, list: [a, b], t: x, u: \"${t}-${n}\" }\nseed: ${n}\ntags: ${list}\ntitle: \"${u} $${t}\"\n";
    let experiment = read_with(rest, &[]).unwrap().experiment;
    assert_eq!(experiment.seed, Some(7));
    assert_eq!(experiment.tags, ["a", "b"]);
    assert_eq!(experiment.title, "x-7 ${t}");
}

#[test]
fn the_command_line_replaces_values_and_keeps_their_types() {
    let rest = "vars: { n: 7, version: \"1\", must: }\nseed: ${n}\ntitle: ${version}\ntags: [\"${must}\"]\n";
    let vars = [("n", "8"), ("version", "1.10"), ("must", "x")];
    let experiment = read_with(rest, &vars).unwrap().experiment;
    assert_eq!((experiment.seed, experiment.title.as_str()), (Some(8), "1.10"));

    let missing = read_with(rest, &vars[..2]).unwrap_err();
    assert!(
        missing.starts_with("error: the variable `must` has no value\n --> shop.yaml:4:29\n"),
        "{missing}"
    );
    let unknown = read_with(rest, &[("must", "x"), ("verison", "2")]).unwrap_err();
    assert_eq!(
        unknown,
        "error: the variable `verison` of the command line is not used by this document\n --> shop.yaml\n  = help: did you mean `version`?\n\n"
    );
}

#[test]
fn problems_with_a_value_are_shown_where_it_is_used() {
    let found = read_with("vars: { n: many }\ntitle: t\nseed: ${n}\n", &[]).unwrap_err();
    assert_eq!(
        found,
        "\
error: `seed` must be a whole number, not the text `many`
 --> shop.yaml:6:7
  |
6 | seed: ${n}
  |       ^^^^
  = help: write a whole number, without quotes

"
    );
    assert_eq!(
        short(&text("vars: { l: [a] }\ntitle: a ${l}\n")),
        ["`${l}` is not a single value and cannot stand inside of a text | let it stand alone"]
    );
    assert_eq!(short(&text("title: a ${l\n")), ["`${` without `}` | to mean it literally write `$${`"]);
    assert_eq!(
        short(&text("vars: { b: \"${c}\", c: x }\ntitle: t\n")),
        [
            "nothing is known of the variable `c` | put it into `vars:`; a secret is spelt `${secret:NAME}`, a literal `${` is `$${`"
        ]
    );
}

#[test]
fn secrets_are_used_and_never_shown() {
    let document = read_with("title: Bearer ${secret:TOKEN}\n", &[]).unwrap();
    assert_eq!(document.experiment.title, "Bearer hunter2-hunter2");
    assert_eq!(document.redactor.redact(&document.experiment.title), "Bearer ‹secret:TOKEN›");

    // A message about a value, and a source that holds the value itself.
    let found =
        read_with("title: t # hunter2-hunter2\nrecovery: ${secret:TOKEN}\nseed: x # hunter2-hunter2\n", &[])
            .unwrap_err();
    assert!(!found.contains("hunter2"), "{found}");
    assert!(found.contains("`‹secret:TOKEN›` is not a period"), "{found}");
    assert!(found.contains("seed: x # ***************"), "{found}");
}

#[test]
fn secrets_that_cannot_be_used_are_problems() {
    for (name, what) in [
        ("SHORT", "error: the secret `SHORT` is shorter than 4 bytes and cannot be kept out of reports"),
        ("LOCKED", "error: the secret `LOCKED` cannot be read: `/run/secrets/locked`: permission denied"),
        ("OTHER", "error: the secret `OTHER` is not set"),
        ("a-b", "error: `a-b` cannot name a secret"),
    ] {
        let found = read_with(&format!("title: ${{secret:{name}}}\n"), &[]).unwrap_err();
        assert!(found.starts_with(what), "{found}");
        assert_eq!(found.matches("error:").count(), 1, "{found}");
    }
    let sources = Sources { vars: BTreeMap::new(), ..Default::default() };
    assert!(messages_with(&text("title: ${secret:X}\n"), &sources).contains("`SQUALL_SECRET_X_FILE`"));
}
