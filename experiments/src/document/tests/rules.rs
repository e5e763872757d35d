use super::short;
use crate::document::{Sources, read};

#[test]
fn steps_are_one_thing_each() {
    for (method, what) in [
        ("[]", "`method` is empty: nothing would be done"),
        ("[{ name: x }]", "this step does nothing"),
        (
            "[{ wait: 1s, action: { process: { argv: [a] } } }]",
            "a step is one thing, and this one has `wait` and `action`",
        ),
        ("[{ wait: 1s, undo: { process: { argv: [a] } } }]", "`undo` has no meaning without `action`"),
        ("[{ wait: 1s, for: 3s }]", "`for` has no meaning without `fault`"),
        ("[{ wait: 0s }]", "`wait` is zero"),
        ("[{ parallel: [] }]", "`parallel` is empty"),
        ("[{ parallel: [{ parallel: [{ wait: 1s }] }] }]", "`parallel` stands inside of `parallel`"),
        (
            "[{ fault: { pause: {} }, in: { user: a }, for: 1s, on: { labels: {} } }]",
            "`on` with empty `labels` would choose every host",
        ),
        ("[{ fault: pause, in: { user: a }, for: 1s }]", "`pause` has no parameters"),
        ("[{ fault: { pause: {}, kill: {} }, in: { user: a }, for: 1s }]", "`fault` has more than one fault"),
        ("[{ fault: { kill: { every: 0s } }, in: { user: a }, for: 1s }]", "an interval below 100ms"),
        (
            "[{ fault: { kill: { every: 60s } }, in: { user: a }, for: 60s }]",
            "the fault ends after 1m, before its `every`",
        ),
        (
            "[{ fault: { kill: { then: { signal: KILL, after: 2m } } }, in: { user: a }, for: 60s }]",
            "the fault ends after 1m, before its `then.after`",
        ),
        (
            "[{ fault: { partition: { to: [\"db:1\"], protocol: icmp } }, for: 60s }]",
            "ICMP has no ports, so `db:1` would match nothing",
        ),
        (
            "[{ fault: { refuse: { protocol: icmp } }, in: { port: 80 }, for: 60s }]",
            "ICMP has no ports, so `port: 80` would match nothing",
        ),
        (
            "[{ fault: { outage: { of: \"db:1-2\", how: hang } }, for: 60s }]",
            "`db:1-2` is not one dependency: an address or a name, with one port",
        ),
        (
            "[{ fault: { outage: { of: \"10.0.0.0/8:1\", how: reset } }, for: 60s }]",
            "`10.0.0.0/8:1` is not one dependency",
        ),
        ("[{ fault: { outage: { of: any, how: refuse } }, for: 60s }]", "`any` is not one dependency"),
        ("[{ fault: { outage: { of: \"db:1\", how: explode } }, for: 60s }]", "`how` cannot be `explode`"),
        (
            "[{ fault: { outage: { of: \"db:1\", how: hang, established: include } }, for: 60s }]",
            "connections that are there already cannot be led to the proxy",
        ),
        (
            "[{ fault: { outage: { of: \"db:1\", how: refuse, share: 20% } }, for: 60s }]",
            "`share` means nothing here",
        ),
        (
            "[{ fault: { outage: { of: \"db:1\", how: slow } }, for: 60s }]",
            "`slow` needs a rate of at least 1kB/s",
        ),
        (
            "[{ fault: { outage: { of: \"db:1\", how: latency, delay: 10us } }, for: 60s }]",
            "this needs a delay of at least 1ms",
        ),
        (
            "[{ fault: { outage: { of: \"db:1\", how: brownout, delay: 1s } }, for: 60s }]",
            "`brownout` needs a share",
        ),
        (
            "[{ fault: { outage: { of: \"db:1\", how: errors, status: 99 } }, for: 60s }]",
            "this is not the status of an answer",
        ),
        (
            "[{ fault: { outage: { of: \"db:1\", how: hang, path: /pay } }, for: 60s }]",
            "`path` means nothing here",
        ),
        (
            "[{ fault: { outage: { of: \"db:1\", how: truncate, path: pay } }, for: 60s }]",
            "no request has such a path",
        ),
        (
            "[{ fault: { outage: { of: \"db:1\", how: errors, method: \"A B\" } }, for: 60s }]",
            "no request has such a method",
        ),
        (
            "[{ fault: { outage: { of: \"db:1\", how: hang } }, in: { port: 80 }, for: 60s }]",
            "local port 80 does not say who calls the dependency",
        ),
        ("[{ fault: { kill: { signal: KIL } }, in: { user: a }, for: 1s }]", "`signal` cannot be `KIL`"),
        (
            "[{ fault: { kill: {} }, in: { user: root }, for: 1s }]",
            "the processes of `root` are the host itself",
        ),
        (
            "[{ fault: { kill: {} }, in: { process: { name: a-name-of-17-bytes } }, for: 1s }]",
            "`a-name-of-17-bytes` is longer than",
        ),
        (
            "[{ fault: { kill: {} }, in: { process: { exe: nginx } }, for: 1s }]",
            "`nginx` is not an absolute path",
        ),
        (
            "[{ fault: { kill: {} }, in: { process: { args: \"(\" } }, for: 1s }]",
            "`(` is not a regular expression",
        ),
        ("[{ fault: { kill: {} }, in: { process: { pid: -4 } }, for: 1s }]", "`pid` cannot be `-4`"),
        (
            "[{ fault: { kill: {} }, in: { cgroup: ../x }, for: 1s }]",
            "`../x` is not a path below the cgroup root",
        ),
        ("[{ fault: { kill: {} }, in: { pod: x }, for: 1s }]", "unknown scope `pod`"),
        ("[{ fault: { kill: {} }, in: { netns: x }, for: 1s }]", "this chooses traffic, not processes"),
        ("[{ fault: { kill: {} }, in: { unit: \"\" }, for: 1s }]", "`unit` is empty"),
        ("[{ fault: { partition: {} }, in: { container: \" \" }, for: 1s }]", "`container` is empty"),
    ] {
        let found = short(&format!("squall: 1\ntitle: t\nhypothesis: []\nmethod: {method}\n"));
        assert!(found.len() == 1 && found[0].starts_with(what), "{method}: {found:?}");
    }
}

#[test]
fn claims_are_looked_at_with_one_probe_that_can_answer() {
    for (claim, what) in [
        ("{ name: a }", "nothing says how to look"),
        ("{ name: \"\", tcp: { address: \"a:1\" } }", "`name` is empty"),
        ("{ tcp: { address: \"a:1\" } }", "`hypothesis[0]` has no `name`"),
        ("{ name: a, tcp: { address: \"a:1\" }, http: { url: \"http://a/\" } }", "a claim has one probe"),
        ("{ name: a, tcp: { address: a } }", "`a` is nothing to connect to"),
        ("{ name: a, tcp: { address: \"any:80\" } }", "`any:80` is nothing to connect to"),
        (
            "{ name: a, tcp: { address: \"a:1\" }, expect: { status: 200 } }",
            "`status` is an answer of `http`",
        ),
        (
            "{ name: a, tcp: { address: \"a:1\" }, expect: { within: 3s } }",
            "`within: 3s` is longer than the probe's `timeout: 2s`",
        ),
        (
            "{ name: a, tcp: { address: \"a:1\" }, expect: { tolerate: 100% } }",
            "a claim that tolerates everything",
        ),
        ("{ name: a, tcp: { address: \"a:1\" }, every: 0s }", "`every` is zero"),
        ("{ name: a, http: { url: \"ftp://a/\" } }", "`ftp://a/` is neither `http` nor `https`"),
        ("{ name: a, http: {} }", "`http` has no `url`"),
        ("{ name: a, http: { url: \"http://a/\", method: get } }", "`get` is not a request method"),
        ("{ name: a, http: { url: \"http://a/\", headers: { \"a b\": c } } }", "`a b` cannot name a header"),
        (
            "{ name: a, http: { url: \"http://a/\", headers: { a: \"c\\r\\nd: e\" } } }",
            "a line break or control character",
        ),
        ("{ name: a, http: { url: \"http://a/\" }, expect: { status: 99 } }", "`99` is not an HTTP status"),
        (
            "{ name: a, http: { url: \"http://a/\" }, expect: { status: 70000 } }",
            "`70000` is not an HTTP status",
        ),
        (
            "{ name: a, http: { url: \"http://a/\" }, expect: { body: \"[\" } }",
            "`[` is not a regular expression",
        ),
        (
            "{ name: a, http: { url: \"http://a/\" }, expect: { json: { \"$[\": 1 } } }",
            "`$[` is not a JSONPath",
        ),
        ("{ name: a, process: { argv: [] } }", "`argv` is empty"),
        ("{ name: a, process: { argv: [\"ls -l\"] } }", "a program and its arguments in one text"),
        ("{ name: a, process: { argv: [bin/x] } }", "`bin/x` is a relative path"),
        ("{ name: a, process: { argv: [sleep, 4] } }", "`argv[1]` must be a text, not the number `4`"),
        (
            "{ name: a, process: { argv: [a], env: { \"A=B\": c } } }",
            "`A=B` cannot name an environment variable",
        ),
    ] {
        let found = short(&format!("squall: 1\ntitle: t\nhypothesis: [{claim}]\nmethod: [{{ wait: 1s }}]\n"));
        assert!(found.len() == 1 && found[0].starts_with(what), "{claim}: {found:?}");
    }
}

#[test]
fn a_load_is_checked_with_its_bounds() {
    let claim = |load: &str, expect: &str| {
        short(&format!(
            "squall: 1\ntitle: t\nhypothesis: [{{ name: a, load: {load}, expect: {expect} }}]\nmethod: [{{ wait: 1s }}]\n"
        ))
    };
    let url = "url: \"http://a/\"";
    let whole = format!("{{ {url}, rate: 50/s }}");
    for (load, expect, found) in [
        ("{ rate: 50/s }", "{}", "`load` has no `url` | `url`: an absolute `http://` or `https://` address"),
        (
            "{ url: \"http://a/\" }",
            "{}",
            "`load` has no `rate` | `rate`: how many requests begin in a second or a minute",
        ),
        ("{ url: \"http://a/\", rate: 0/s }", "{}", "`0/s` never happens | write it as `50/s` or `3000/m`"),
        ("{ url: \"http://a/\", rate: 50 }", "{}", "`50` has no unit | did you mean `50/s` or `50/m`?"),
        (
            "{ url: \"http://a/\", rate: NaN/s }",
            "{}",
            "`NaN/s` is not a rate | write it as `50/s` or `3000/m`",
        ),
        (
            "{ url: \"http://a/\", rate: 1e9/s }",
            "{}",
            "`1e9/s` is more than one machine sends | write at most `20000/s`",
        ),
        (
            "{ url: a, rate: 1/s }",
            "{}",
            "`a` does not begin with `http://` or `https://` | write it as `http://127.0.0.1:8080/health`",
        ),
        (
            "{ url: \"http://a/\", rate: 1/s, connections: 0 }",
            "{}",
            "`connections` cannot be `0` | it goes from 1 to 10000",
        ),
        (&whole, "{ p99: 300ms }", "`300ms` does not say how it is compared | write `\"<= 300ms\"`"),
        (&whole, "{ p99: \">= 300ms\" }", "`>= 300ms` is not an upper bound | write `\"<= 300ms\"`"),
        (&whole, "{ errors: \"<= 1\" }", "`1` has no unit | write it as `50%` or `0.1%`"),
        (
            &whole,
            "{ errors: \"1.5x baseline\" }",
            "`1.5x baseline` is not a multiple of the baseline | write `\"<= 1.5x baseline\"`",
        ),
        (
            &whole,
            "{ throughput: \">= 90%\" }",
            "`>= 90%` is not a share of the baseline | write `\">= 90% of baseline\"`",
        ),
        (
            &whole,
            "{ latency: good }",
            "`good` is not how latency is compared | write `no worse than baseline` or `no worse than control`; a limit of your own is `p99: \"<= 300ms\"`",
        ),
        (
            &whole,
            "{ tolerate: 1% }",
            "`tolerate` is for one answer, and `load` gets many | write `errors: \"<= 1%\"`",
        ),
        (
            &whole,
            "{ errors: \"<= 100%\" }",
            "a claim that allows every error claims nothing | write the share of requests that may fail: `\"<= 1%\"`",
        ),
        (&whole, "{ p50: \"<= 0s\" }", "`p50: <= 0s` cannot be kept | write for example `\"<= 300ms\"`"),
        (
            &whole,
            "{ p50: \"<= 3s\" }",
            "`p50: <= 3s` is longer than the probe's `timeout: 2s` | give `load` a longer `timeout`",
        ),
        (
            &whole,
            "{ within: 300ms }",
            "`within` is for one answer, and `load` gets many | write `p99: \"<= 300ms\"`",
        ),
        (
            &whole,
            "{ exit: 0 }",
            "`exit` is an answer of `process`, and this probe is `load` | for `load`: `status`, `headers`, `body`, `json`, `errors`, `p50`, `p90`, `p99`, `p999`, `throughput`, `latency`",
        ),
        (&whole, "{ p9: \"<= 1s\" }", "unknown key `p9` in `expect` | did you mean `p90`?"),
    ] {
        assert_eq!(claim(load, expect), [found], "{load} {expect}");
    }
    let http = format!(
        "squall: 1\ntitle: t\nhypothesis: [{{ name: a, http: {{ {url} }}, expect: {{ throughput: \">= 9% of baseline\" }} }}]\nmethod: [{{ wait: 1s }}]\n"
    );
    assert!(short(&http)[0].starts_with("`throughput` is an answer of `load`, and this probe is `http`"));
}

#[test]
fn how_sure_a_verdict_is_has_a_meaning_for_rates() {
    let claim = |key: &str, claim: &str| {
        short(&format!(
            "squall: 1\ntitle: t\nhypothesis: []\n{key}: [{{ name: a, http: {{ url: \"http://a/\" }}, {claim} }}]\nmethod: [{{ wait: 1s }}]\n"
        ))
    };
    let hypothesis = |text: &str| claim("recovery: 10s\nstop-when", text);
    for (text, found) in [
        ("mode: fast", "`mode` is of a rate, and single looks are counted"),
        ("expect: { p99: \"<= 1s\" }, confidence: 40%", "`confidence: 40%` is not at least 50%"),
        ("expect: { errors: \"<= 1%\", tolerate: 1% }", "`tolerate` counts single looks"),
        ("expect: { errors: \"<= 2x baseline\" }", "a guard has nothing that `errors` could"),
        ("recovers-within: 5s", "a guard is not watched after the revert"),
        ("expect: { errors: \"<= 1%\" }, mode: bold", "`mode` cannot be `bold`"),
    ] {
        let seen = hypothesis(text);
        assert!(seen.len() == 1 && seen[0].starts_with(found), "{text}: {seen:?}");
    }
    let late = "squall: 1\ntitle: t\nhypothesis: [{ name: a, tcp: { address: \"a:1\" }, recovers-within: 40s }]\nmethod: [{ wait: 1s }]\n";
    assert_eq!(
        short(late),
        ["`recovers-within: 40s` is longer than `recovery: 30s` | give `recovery` at least that time"]
    );
}

#[test]
fn after_a_fault_there_is_room_for_three_looks() {
    let of = |claim: &str, rest: &str, fault: bool| {
        let step = match fault {
            true => "{ parallel: [{ fault: { partition: { to: [\"db:1\"] } }, for: 5s }] }",
            false => "{ wait: 1s }",
        };
        let claim = format!("{{ name: a, tcp: {{ address: \"a:1\" }}, {claim} }}");
        let text = format!("squall: 1\ntitle: t\nhypothesis: [{claim}]\nmethod: [{step}]\n{rest}");
        match read("shop.yaml", text.as_bytes(), &Sources::default()) {
            Ok(_) => Vec::new(),
            Err(_) => short(&text),
        }
    };
    let no_room = [
        "`recovery: 30s` has no room for three looks `every: 20s` | three good ones in a row show that it holds again: give \
         `recovery` more time, or look more often",
    ];
    assert_eq!(of("every: 20s", "", true), no_room);
    assert_eq!(of("every: 20s", "recovery: 41s\n", true), [""; 0]);
    assert_eq!(of("every: 20s", "", false), [""; 0], "without a fault they are taken at once");
    assert_eq!(of("every: 20s, when: [before, during]", "", true), [""; 0]);
    assert_eq!(of("every: 20s, expect: { errors: \"<= 5%\" }", "", true), [""; 0]);
    assert_eq!(of("every: 10s, delay: 15s", "", true).len(), 1);
    assert_eq!(of("mode: fast, expect: { errors: \"<= 5%\" }", "recovery: 2s\n", true), [""; 0]);
    assert_eq!(of("delay: 0s", "recovery: 2s\n", true).len(), 1, "every second, if nothing is said");
}

#[test]
fn a_baseline_of_nothing_is_no_baseline() {
    let text = "squall: 1\ntitle: \"\"\nhypothesis: []\nbaseline: 5s\nmethod: [{ wait: 1s }]\n";
    assert_eq!(
        short(text),
        [
            "`title` is empty | say in one sentence what this experiment shows",
            "`baseline` has no meaning without a claim in `hypothesis` | leave `baseline` out, or claim something",
        ]
    );
}

#[test]
fn services_are_asked_what_they_can_answer() {
    let url = "url: \"http://a/\"";
    for (claim, what) in [
        ("dns: { name: \"a..b\" }", "`a..b` is not a name that can be asked for"),
        ("dns: { name: a.b, server: dns.internal }", "`dns.internal` is not the address of a name server"),
        ("dns: { name: a.b, type: ANY }", "`type` cannot be `ANY`"),
        ("dns: { name: a.b }, expect: { rcode: NXDOMAN }", "`NXDOMAN` is not a response code"),
        ("dns: { name: a.b }, expect: { days-left: 3 }", "`days-left` is an answer of `tls`"),
        ("tls: { address: shop }", "`shop` is nothing to connect to"),
        ("redis: { address: \"a:1\", command: [] }", "`command` is empty"),
        ("redis: { address: \"a:1\", command: [GET x] }", "`GET x` is not a command"),
        ("redis: { address: \"a:1\", command: [monitor] }", "`monitor` answers for ever, and has no value"),
        ("redis: { address: \"a:1\", user: x }", "a user without a password"),
        ("sql: { address: \"a:1\", user: x, query: \" \" }", "`query` is empty"),
        ("sql: { address: \"a:1\" }", "`sql` has no `user`"),
        ("processes: {}", "nothing says which processes"),
        ("processes: { name: a-name-of-17-bytes }", "`a-name-of-17-bytes` is longer than the 15 bytes"),
        ("processes: { unit: \" \" }", "`unit` is empty"),
        ("processes: { name: x, over: 0s }", "`over"),
        ("processes: { name: x }, expect: { memory-mib: \"<= many\" }", ""),
        ("processes: { name: x }, expect: { exit: 0 }", "`exit` is an answer of `process`"),
        ("tcp: { address: \"a:1\" }, expect: { count: 2 }", "`count` is an answer of `processes`"),
        (
            "tcp: { address: \"a:1\" }, delay: 30s",
            "`delay: 30s` leaves nothing to look at of `recovery: 30s`",
        ),
        ("log: { file: shop.log, pattern: x }", "`shop.log` is a relative path"),
        ("log: { file: /a, pattern: \"(\" }", "`(` is not a regular expression"),
        ("prometheus: { url: \"http://a/\", query: up }", "nothing is expected of what `prometheus` finds"),
        (
            "prometheus: { url: ftp://a/, query: up }, expect: { value: 1 }",
            "`ftp://a/` is neither `http` nor `https`",
        ),
        (
            "metrics: { url: \"http://a/\", metric: \"up{}\" }, expect: { value: 1 }",
            "`up{}` is not the name of a metric",
        ),
    ] {
        let found = short(&format!(
            "squall: 1\ntitle: t\nhypothesis: [{{ name: a, {claim} }}]\nmethod: [{{ wait: 1s }}]\n"
        ));
        assert!(found.len() == 1 && found[0].starts_with(what), "{claim}: {found:?}");
    }
    for expect in
        ["value: \"<= 3\"", "value: { between: [1, 2] }", "json: { $.a: { count: 2 } }", "status: \"< 500\""]
    {
        let text = format!(
            "squall: 1\ntitle: t\nhypothesis: [{{ name: a, http: {{ {url} }}, expect: {{ {expect} }} }}]\nmethod: [{{ wait: 1s }}]\n"
        );
        assert!(read("shop.yaml", text.as_bytes(), &Sources::default()).is_ok(), "{expect}");
    }
}

#[test]
fn a_comparison_that_makes_no_sense_is_shown_where_it_stands() {
    let text = "squall: 1\ntitle: t\nhypothesis:\n  - name: a\n    redis: { address: \"a:1\" }\n    expect:\n      value:\n        betwen: [1, 5]\nmethod: [{ wait: 1s }]\n";
    let problems = read("shop.yaml", text.as_bytes(), &Sources::default()).unwrap_err();
    let rendered = problems.render(false);
    assert!(rendered.contains("unknown word `betwen` in a comparison"), "{rendered}");
    assert!(rendered.contains("did you mean `between`?") && rendered.contains("8:9"), "{rendered}");
}

#[test]
fn how_often_and_when_to_look_is_checked() {
    for (more, what) in [
        ("sample: {}", "nothing says when enough was looked at"),
        ("sample: { attempts: 3, at-least: 2 of 3 }", "`at-least` says how many looks there are"),
        ("sample: { attempts: 0 }", "`attempts` cannot be `0`"),
        ("sample: { at-least: 6 of 5 }", "`6 of 5` can never be reached"),
        ("sample: { within: 0s }", "`within` is zero"),
        ("sample: { within: 5s, pause: 0s }", "without a pause it would look as often as it can"),
        ("sample: { attempts: 2, retries: 3 }", "unknown key `retries` in `sample`"),
        ("when: []", "a claim that is never looked at"),
        ("when: [before, before]", "it is said twice when to look"),
        ("when: [later]", "`when[0]` cannot be `later`"),
    ] {
        let found = short(&format!(
            "squall: 1\ntitle: t\nhypothesis: [{{ name: a, tcp: {{ address: \"a:1\" }}, {more} }}]\nmethod: [{{ wait: 1s }}]\n"
        ));
        assert!(!found.is_empty() && found[0].starts_with(what), "{more}: {found:?}");
    }
    let guard = short(
        "squall: 1\ntitle: t\nhypothesis: []\nstop-when: [{ name: a, tcp: { address: \"a:1\" }, when: [during] }]\n\
         method: [{ wait: 1s }]\n",
    );
    assert!(guard[0].starts_with("a guard has no `when`"), "{guard:?}");
    let load = short(
        "squall: 1\ntitle: t\nhypothesis: [{ name: a, load: { url: \"http://a/\", rate: 5/s }, sample: { attempts: 2 } }]\n\
         method: [{ wait: 1s }]\n",
    );
    assert!(load[0].starts_with("a sample of `load` is many requests"), "{load:?}");
    let log = short(
        "squall: 1\ntitle: t\nhypothesis: [{ name: a, log: { file: /var/log/a, pattern: b }, sample: { attempts: 2 } }]\n\
         method: [{ wait: 1s }]\n",
    );
    assert!(log[0].starts_with("a look at a `log` counts the lines since the last one"), "{log:?}");
}
