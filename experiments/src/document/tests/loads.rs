use super::short;
use crate::document::{Sources, read};
use crate::probe::Group;

fn file(load: &str, more: &str) -> String {
    format!(
        "squall: 1\ntitle: t\nhypothesis: [{{ name: a, load: {{ rate: 5/s, {load} }}{more} }}]\nmethod: [{{ wait: 1s }}]\n"
    )
}

#[test]
fn what_a_load_sends_is_checked() {
    let control = ", expect: { errors: \"<= 2x control\" }";
    let p99 = ", expect: { errors: \"<= 5%\", p99: \"<= 1.2x control\" }";
    for (load, more, what) in [
        ("url: \"http://a/{{x}}\"", "", "`{{x}}` is not known"),
        ("url: \"http://a/{{n\"", "", "`{{` is not closed by `}}`"),
        ("url: \"http://a{{n}}/\"", "", "a load has one server"),
        ("url: \"http://a/\", body: \"{{m}}\"", "", "`{{m}}` is not known"),
        ("url: \"http://a/\", headers: { X-Id: \"{{id}}\" }", "", "`{{id}}` is not known"),
        ("url: \"http://a/\", method: get", "", "`get` is not a request method"),
        (
            "url: \"http://a/x\", endpoints: [{ path: /y }]",
            "",
            "with `endpoints` the address of the load has no path",
        ),
        ("url: \"http://a\", endpoints: []", "", "`endpoints` is empty"),
        ("url: \"http://a\", endpoints: [{ path: y }]", "", "`y` does not begin with `/`"),
        ("url: \"http://a\", endpoints: [{ path: /y, weight: 0 }]", "", "`weight` cannot be `0`"),
        ("url: \"http://a\", endpoints: [{ path: \"/a b\" }]", "", "' ' cannot stand in a URL"),
        ("url: \"http://a\", endpoints: [{ path: /, body: \"{{b}}\" }]", "", "`{{b}}` is not known"),
        ("url: \"http://a/\", control: {}", control, "nothing tells the control group from the tested one"),
        (
            "url: \"http://a/\", control: { server: \"http://b/x\" }",
            control,
            "`http://b/x` is more than a server",
        ),
        ("url: \"http://a/\", control: { server: b }", control, "`b` does not begin with `http://`"),
        (
            "url: \"http://a/\", control: { server: \"http://b\" }",
            "",
            "nothing is compared with the control group",
        ),
        ("url: \"http://a/\"", control, "there is no control group to compare with"),
        ("url: \"http://a/\"", p99, "there is no control group to compare with"),
    ] {
        let found = short(&file(load, more));
        assert!(found.len() == 1 && found[0].starts_with(what), "{load}: {found:?}");
    }
    let guard = file("url: \"http://a/\", control: { server: \"http://b\" }", control)
        .replace("hypothesis:", "hypothesis: []\nstop-when:");
    assert!(short(&guard)[0].starts_with("a guard has nothing that `errors` could be compared with"));
    let whole = "url: \"http://a/\", control: { server: \"http://b\" }";
    let claim = read("a.yaml", file(whole, p99).as_bytes(), &Sources::default()).expect("it needs the group");
    let bounds = claim.experiment.hypothesis[0].terms().expect("a rate").bounds;
    assert_eq!(bounds[1].to_string(), "p99 <= 1.2x control");
    let guard = file(whole, p99).replace("hypothesis:", "hypothesis: []\nstop-when:");
    assert!(short(&guard)[0].starts_with("a guard has nothing that `p99` could be compared with"));
    let looks = "squall: 1\ntitle: t\nhypothesis: [{ name: a, http: { url: \"http://a/\" }, expect: { p50: \"<= 2x baseline\" } }]\nmethod: [{ wait: 1s }]\n";
    assert!(
        short(looks)[0].starts_with("`p50: <= 2x baseline` needs hundreds of requests"),
        "{:?}",
        short(looks)
    );
    let wrong = short(&file(whole, ", expect: { p99: \"<= 0.8x control\" }"));
    assert!(
        wrong[0].starts_with("`<= 0.8x control` is not between 1 and 1000 times the control"),
        "{wrong:?}"
    );
}

#[test]
fn the_requests_of_both_groups_are_known() {
    let load = "url: \"http://a:81\", method: POST, headers: { X-A: \"1\", X-B: \"{{n}}\" }, body: all, \
                endpoints: [{ path: \"/x?{{n % 9}}\", weight: 3 }, { path: /y, method: GET, headers: { X-B: b }, body: own }], \
                control: { server: \"https://c/\", headers: { X-A: \"2\" } }";
    let text = file(load, ", expect: { errors: \"<= 2x control\" }");
    let read = read("shop.yaml", text.as_bytes(), &Sources::default()).unwrap();
    let load = read.experiment.hypothesis[0].load.clone().unwrap();
    let told = |group| -> Vec<String> {
        let requests = load.requests(group).into_iter();
        let told = |(weight, http): (u32, crate::probe::HttpProbe)| {
            format!(
                "{weight} {} {} {:?} {:?}",
                http.method,
                http.url,
                http.headers,
                http.body.unwrap_or_default()
            )
        };
        requests.map(told).collect()
    };
    assert_eq!(
        told(Group::Tested),
        [
            r#"3 POST http://a:81/x?{{n % 9}} {"X-A": "1", "X-B": "{{n}}"} "all""#,
            r#"1 GET http://a:81/y {"X-A": "1", "X-B": "b"} "own""#,
        ]
    );
    assert_eq!(
        told(Group::Control),
        [
            r#"3 POST https://c/x?{{n % 9}} {"X-A": "2", "X-B": "{{n}}"} "all""#,
            r#"1 GET https://c/y {"X-A": "2", "X-B": "b"} "own""#,
        ]
    );
}
