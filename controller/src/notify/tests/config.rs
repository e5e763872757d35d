//! What is wrong with receivers is told with its place, before anything begins.

use std::path::Path;

use crate::config::Config;

fn read(text: &str) -> Result<Config, String> {
    let text = format!("controller: 1\nnotify:\n  - {text}\n");
    Config::read("c.yaml", text.as_bytes(), Path::new("/nowhere")).map_err(|problems| problems.render(false))
}

#[test]
fn what_is_wrong_with_a_receiver_is_told_with_its_place() {
    let hook = |more: &str| {
        format!("{{ name: a, webhook: {{ url: \"https://h/\", secret: {{ env: K }} }}, {more} }}")
    };
    let mail = |more: &str| {
        format!(
            "{{ name: a, email: {{ relay: mail.example, from: a@b.example, to: [c@d.example], {more} }} }}"
        )
    };
    for (text, because) in [
        (hook("template: \"{titel}\""), "there is no place `{titel}`"),
        (hook("template: \"{titel}\""), "did you mean `{title}`? known are {title}, {text}"),
        (hook("template: \"{\""), "a brace stands alone"),
        (hook("when: [run-failed]"), "run-failed"),
        (hook("when: []"), "`a` would never be told anything"),
        (hook("slack: { url: { env: U } }"), "`a` must be told in one way"),
        ("{ name: a }".to_owned(), "`a` must be told in one way"),
        ("{ name: \"a b\", slack: { url: { env: U } } }".to_owned(), "`a b` is no name of a receiver"),
        ("{ name: a, slack: { url: { env: U, file: f } } }".to_owned(), "a secret is in one place"),
        (
            "{ name: a, slack: { url: \"https://hooks.example/x\" } }".to_owned(),
            "`url` must be a group of keys",
        ),
        (
            "{ name: a, webhook: { url: \"http://h/\", secret: { env: K } } }".to_owned(),
            "`http://h/` is not encrypted and not on this machine",
        ),
        (
            "{ name: a, grafana: { url: \"http://10.1.2.3:3000\", token: { env: T } } }".to_owned(),
            "a token goes with it",
        ),
        (mail("tls: none"), "the way to `mail.example` is not encrypted"),
        (mail("tls: none, insecure: true, user: u, password: { env: P }"), "a password goes with it"),
        (mail("user: u"), "a user has a password"),
        (
            "{ name: a, email: { relay: \"a:b:c\", from: a@b.example, to: [c@d.example] } }".to_owned(),
            "`a:b:c` is no relay",
        ),
        (
            "{ name: a, email: { relay: mail.example, from: nobody, to: [c@d.example] } }".to_owned(),
            "`nobody` is no e-mail address",
        ),
    ] {
        let problems = read(&text).expect_err(&text);
        assert!(problems.contains(because) && problems.contains("c.yaml:"), "{text}: {problems}");
    }
    for text in [
        hook("when: [run-modified, halted], template: \"{title}\""),
        "{ name: a, webhook: { url: \"http://h/\", secret: { env: K }, insecure: true } }".to_owned(),
        "{ name: a, webhook: { url: \"http://localhost/\", secret: { env: K } } }".to_owned(),
        "{ name: a, grafana: { url: \"http://[::1]:3000\", token: { env: T } } }".to_owned(),
        mail("tls: none, insecure: true"),
        mail("user: u, password: { file: p }"),
    ] {
        read(&text).unwrap_or_else(|problems| panic!("{text}: {problems}"));
    }
    let two = "{ name: a, slack: { url: { env: U } } }\n  - { name: a, slack: { url: { env: U } } }";
    assert!(read(two).expect_err("two of one name").contains("there are two receivers `a`"));
}

#[test]
fn a_secret_that_is_not_there_or_no_key_is_told_before_anything_begins() {
    let file = std::env::temp_dir().join(format!("squall-secret-{}", std::process::id()));
    let unusable = |text: &str| read(text).expect("it is read").notify[0].unusable().expect_err(text);
    let missing = unusable("{ name: a, webhook: { url: \"https://h/\", secret: { file: no-such-file } } }");
    assert!(missing.contains("the secret in `/nowhere/no-such-file` cannot be read"), "{missing}");
    let unset = unusable("{ name: a, slack: { url: { env: SQUALL_NO_SUCH_VARIABLE } } }");
    assert!(unset.contains("the variable `SQUALL_NO_SUCH_VARIABLE` is not set"), "{unset}");
    for (kind, held, because) in [
        ("webhook: { url: \"https://h/\", secret: { file: FILE } }", "hunter2hunter2", "is no key"),
        ("slack: { url: { file: FILE } }", "hunter2hunter2", "is none"),
        ("slack: { url: { file: FILE } }", "http://chat.example/hunter2", "is not encrypted"),
        ("grafana: { url: \"https://h\", token: { file: FILE } }", " \n", "the secret is empty"),
    ] {
        std::fs::write(&file, held).expect("a file");
        let text = format!("{{ name: a, {} }}", kind.replace("FILE", &file.display().to_string()));
        let why = unusable(&text);
        assert!(why.contains(because) && !why.contains("hunter2"), "{why}");
    }
    let _ = std::fs::remove_file(file);
}
