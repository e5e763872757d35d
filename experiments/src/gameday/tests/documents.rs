//! The game day file: what is read, and what is said about what is wrong.

use super::*;

fn problems(text: &str) -> String {
    match read("day.yaml", text.as_bytes()) {
        Ok(day) => panic!("{day:?}"),
        Err(problems) => problems.render(false),
    }
}

#[test]
fn a_day_is_read_and_written_the_same_with_the_texts_of_its_experiments_in_it() {
    let day = day();
    assert_eq!(day.steps[0].experiment(), Some(Experiment::File("slow.yaml")));
    assert_eq!(day.lead(&day.steps[0]), Some(("lead", "Anna")));
    assert_eq!((day.steps[0].go, day.steps[1].go), (Go::Ask, Go::Auto));
    let read_file =
        |step: &Name, file: &str| Ok::<_, ()>(format!("{{ squall: 1, title: {step} of {file} }}"));
    let whole = day.with_texts(read_file).expect("all are there");
    assert_eq!(
        whole.steps[1].experiment(),
        Some(Experiment::Text("{ squall: 1, title: silent of silent.yaml }\n"))
    );
    assert_eq!(whole.steps[2].experiment(), None);
    let again = serde_json::to_string(&whole).expect("JSON");
    assert_eq!(read("day.json", again.as_bytes()).expect("the same"), whole);
    assert_eq!(
        whole.clone().with_texts(|_, file| Err(file.to_owned())),
        Ok(whole),
        "nothing is left to read"
    );
}

#[test]
fn everything_that_is_wrong_is_told_at_once_with_its_place() {
    let said = problems(
        "gameday: 1
name: payments
title: \" \"
roles: { lead: Anna }
steps:
  - { name: slow, experiment: slow.yaml, lead: laed }
  - { name: slow, notes: again, vars: { a: b }, expect: { detected-within: 1m } }
  - { name: nothing }
  - { name: late, experiment: l.yaml, pause: 9h, expect: { detected-within: 5m, mitigated-within: 2m } }
  - { name: never, experiment: l.yaml, expect: { acknowledged-within: 0s } }
",
    );
    for because in [
        "`title` is empty",
        "day.yaml:6:48",
        "nobody has the role `laed`",
        "or name one of `lead`",
        "there is another step `slow`",
        "there is no experiment that has variables",
        "nothing is injected that could be detected",
        "nothing is done in the step `nothing`",
        "`pause: 9h` is too long",
        "`mitigated-within: 2m` is less than `detected-within: 5m`",
        "nobody is that quick",
    ] {
        assert!(said.contains(because), "{because}: {said}");
    }
}

#[test]
fn the_form_is_told_first() {
    let said = problems(
        "gameday: 2\nname: Pay day\ntitle: x\nstpes: []\nsteps: [{ name: a, go: perhaps, pause: 5 }]\n",
    );
    for because in [
        "`Pay day` cannot be a name here",
        "unknown key `stpes` in the game day",
        "did you mean `steps`?",
        "perhaps",
        "`5` has no unit",
    ] {
        assert!(said.contains(because), "{because}: {said}");
    }
    let said = problems("gameday: 1\nname: a\ntitle: x\nsteps: []\n");
    assert!(said.contains("`steps` is empty") && said.contains("day.yaml:4:"), "{said}");
    let said = problems("gameday: 1\nname: a\ntitle: x\n");
    assert!(said.contains("has no `steps`"), "{said}");
}
