//! The pipelines that release through a first cell, read from their files: every command of them is run, with a real controller,
//! real hosts, and a service that is deployed to them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;
use squall_tests::needs;
use squall_tests::squall::{Finished, Squall, binary, lines};

use crate::pipelines::{text, yaml};
use crate::serve::{Fleet, Manner};

/// What the page of a version says while its dependency refuses.
const READY: &str =
    "location / { proxy_pass http://127.0.0.1:9000/; error_page 502 = @own; } location @own { return 200; }";
const UNREADY: &str = "location / { proxy_pass http://127.0.0.1:9000/; }";

/// The user's own scripts, as far as a service of two hosts needs them. nginx is told of its new configuration, and asked until it
/// has it.
const OPS: [(&str, &str); 4] = [
    (
        "deploy",
        r#"case "$1" in first) hosts=1 ;; rest) hosts=2 ;; esac
mkdir -p releases
if [ -e "releases/$1" ]; then cp "releases/$1" "releases/$1.before"; fi
for host in $hosts; do
    service=service-$((host - 1))
    sed "s|NEVER|$2|; s|# VERSION|$(cat "versions/$2")|" "$service/plain.conf" >"$service/nginx.conf"
    nginx=$(cat "$service/pid")
    workers=$(cat "/proc/$nginx/task/$nginx/children")
    kill -HUP "$nginx"
    until (exec 3<>"/dev/tcp/10.77.$host.2/8080" && printf 'GET /version HTTP/1.0\r\n\r\n' >&3 && grep -qx "$2" <&3); do
        sleep 0.1
    done
    # Until the workers of the version before are gone, either may answer.
    for worker in $workers; do while kill -0 "$worker" 2>/dev/null; do sleep 0.1; done; done
done
echo "$2" >"releases/$1"
"#,
    ),
    ("promote", "ops/deploy rest \"$1\"\n"),
    ("rollback", "ops/deploy \"$1\" \"$(cat \"releases/$1.before\")\"\n"),
    ("page", "echo \"$1\" >>paged\n"),
];

/// A service of two hosts, the first of which is the first cell; both have a dependency beside them.
struct Shop {
    fleet: Fleet,
    token: String,
}

impl Shop {
    fn new() -> Self {
        // Called over the network, it shows a certificate of its own authority.
        let fleet = Fleet::like(2, Manner { url: Some("https://10.77.1.1:8416"), ..Manner::default() });
        let world = &fleet.world;
        for host in [1, 2] {
            world.nginx(host, 9000);
            let service = world.directory.join(format!("service-{}", host - 1));
            let plain = fs::read_to_string(service.join("nginx.conf")).expect("it was just started");
            let with = "location = /version { return 200 \"NEVER\\n\"; } # VERSION\n    location /health";
            let plain = plain.replace("location /health", with);
            assert!(plain.contains("# VERSION"), "{plain}");
            fs::write(service.join("plain.conf"), plain).expect("it can be written");
        }
        for (name, script) in OPS {
            let path = world.place("ops").join(name);
            fs::write(&path, format!("#!/bin/bash\nset -eu\n{script}")).expect("it can be written");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it is ours");
        }
        for (version, page) in [("v0", READY), ("ready", READY), ("unready", UNREADY)] {
            fs::write(world.place("versions").join(version), page).expect("it can be written");
        }
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../experiments/shipped");
        for name in ["release-dependency-refused.yaml", "release-canary.yaml"] {
            fs::copy(shipped.join(name), world.place("chaos").join(name)).expect("it is shipped");
        }
        let token = ["tokens", "new", "pipeline", "--role", "operator", "--format", "json"];
        let token =
            fleet.asks(&token).run().expect_exit(0).json()["token"].as_str().expect("a token").to_owned();
        let shop = Shop { fleet, token };
        for cell in ["first", "rest"] {
            shop.script(&["bash", "-e", "-c"], &format!("ops/deploy {cell} v0"), &BTreeMap::new())
                .expect_exit(0);
        }
        shop
    }

    /// What the variables of the examples are here: a dependency at another place, and less time.
    fn told(name: &str) -> Option<&'static str> {
        match name {
            "CHAOS" => Some("--var dependency=127.0.0.1:9000 --var lasts=4s"),
            "CANARY" => Some("--var p99=2s --var lasts=12s"),
            _ => None,
        }
    }

    /// Runs a script as a runner does: in the checkout, with `squall` on the path, and with no right to anything but that.
    fn script(&self, program: &[&str], script: &str, variables: &BTreeMap<String, String>) -> Finished {
        let world = &self.fleet.world;
        let mut command = self.fleet.controller().netns.command(program[0]);
        command.args(&program[1..]).arg(script).current_dir(&world.directory);
        let own = binary("squall").parent().expect("it stands in a directory").display().to_string();
        let path = std::env::var("PATH").unwrap_or_default();
        let mut squall = Squall::with(command, script, &world.directory).env("PATH", format!("{own}:{path}"));
        for (name, value) in variables {
            squall = squall.env(name, value);
        }
        squall.run()
    }

    /// The versions of both hosts, as they answer.
    fn versions(&self) -> [String; 2] {
        [1, 2].map(|host| {
            let ask = format!(
                "exec 3<>/dev/tcp/10.77.{host}.2/8080 && printf 'GET /version HTTP/1.0\\r\\n\\r\\n' >&3 && tail -n 1 <&3"
            );
            let said = self.script(&["bash", "-c"], &ask, &BTreeMap::new());
            said.expect_exit(0).stdout.trim().to_owned()
        })
    }

    /// Which hosts the newest runs concerned.
    fn were_on(&self, host: &str) {
        let runs = self.fleet.asks(&["runs", "--format", "json"]).run().expect_exit(0).json();
        let runs = runs["runs"].as_array().expect("runs").clone();
        assert!(!runs.is_empty());
        for run in runs {
            let run = run["id"].as_str().expect("a run").to_owned();
            let events = self.fleet.asks(&["show", &run, "--events"]).run().expect_exit(0).stdout.clone();
            let began = events.lines().next().expect("it began").to_owned();
            let began: Value = serde_json::from_str(&began).expect("JSON");
            assert_eq!(began["hosts"], serde_json::json!([host]), "{run}");
        }
    }

    fn paged(&self) -> String {
        fs::read_to_string(self.fleet.world.directory.join("paged")).unwrap_or_default()
    }

    fn result(&self, name: &str) -> String {
        let path = self.fleet.world.directory.join("squall-results").join(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    fn end(self) {
        self.fleet.are_clean();
        self.fleet.end();
    }
}

/// A job of GitHub under way: what its expressions know.
struct Job<'a> {
    shop: &'a Shop,
    github: Value,
    version: &'a str,
    /// What steps have said: `chaos.code`.
    outputs: BTreeMap<String, String>,
    /// What steps have set for those after them.
    variables: BTreeMap<String, String>,
}

impl<'a> Job<'a> {
    fn of(shop: &'a Shop, version: &'a str) -> Self {
        let github = yaml("docs/ci/release.github.yml");
        Job { shop, github, version, outputs: BTreeMap::new(), variables: BTreeMap::new() }
    }

    /// The value of `${{ … }}`, or the text itself.
    fn value(&self, value: &str) -> String {
        let Some(name) = value.strip_prefix("${{ ").and_then(|rest| rest.strip_suffix(" }}")) else {
            assert!(!value.contains("${{"), "`{value}`");
            return value.to_owned();
        };
        match name {
            "vars.SQUALL_CONTROLLER" => self.shop.fleet.url().to_owned(),
            "secrets.SQUALL_TOKEN" => self.shop.token.clone(),
            "secrets.SQUALL_CA" => {
                fs::read_to_string(self.shop.fleet.data.join("ca.pem")).expect("the controller wrote it")
            }
            "github.sha" => self.version.to_owned(),
            name => self.output(name),
        }
    }

    fn output(&self, name: &str) -> String {
        let known = name.strip_prefix("steps.").and_then(|rest| rest.split_once(".outputs."));
        let (step, output) = known.unwrap_or_else(|| panic!("`{name}` is nothing that a job knows"));
        self.outputs.get(&format!("{step}.{output}")).cloned().unwrap_or_default()
    }

    /// Whether a condition is met: one of several comparisons.
    fn is_met(&self, condition: &str) -> bool {
        condition.split(" || ").any(|one| {
            let (name, wanted) = one.split_once(" == ").unwrap_or_else(|| panic!("`{one}`"));
            self.output(name) == wanted.trim_matches('\'')
        })
    }

    /// Runs the job to its end; gives the names of the steps that were run, and the last of them. What `given` says of the outputs of
    /// a step is taken for what it has said, and the step is not run.
    fn runs(&mut self, given: &[(&str, &str)]) -> (Vec<String>, Finished) {
        for (name, value) in given {
            self.outputs.insert((*name).to_owned(), (*value).to_owned());
        }
        let directory = self.shop.fleet.world.directory.clone();
        let (mut ran, mut last) = (Vec::new(), None::<Finished>);
        for (number, step) in
            self.github["jobs"]["release"]["steps"].as_array().expect("steps").iter().enumerate()
        {
            // Another action: there is nothing of ours in it.
            let Some(script) = step["run"].as_str() else {
                assert!(step["uses"].is_string());
                continue;
            };
            let id = step["id"].as_str().unwrap_or_default();
            let known = given.iter().any(|(name, _)| name.split('.').next() == Some(id));
            let failed = last.as_ref().is_some_and(|last| !last.status.success());
            if known || failed || step["if"].as_str().is_some_and(|condition| !self.is_met(condition)) {
                continue;
            }
            let mut variables = BTreeMap::new();
            for env in [&self.github["env"], &step["env"]] {
                for (name, value) in env.as_object().into_iter().flatten() {
                    let told = Shop::told(name).map(str::to_owned);
                    variables.insert(name.clone(), told.unwrap_or_else(|| self.value(text(value))));
                }
            }
            variables.extend(self.variables.clone());
            let place = |kind: &str| directory.join(format!("{kind}-{number}"));
            for (name, path) in [
                ("GITHUB_OUTPUT", place("output")),
                ("GITHUB_ENV", place("env")),
                ("GITHUB_STEP_SUMMARY", place("summary")),
                ("GITHUB_WORKSPACE", directory.clone()),
                ("RUNNER_TEMP", directory.clone()),
            ] {
                drop(fs::remove_file(&path));
                variables.insert(name.to_owned(), path.display().to_string());
            }
            variables.insert("GITHUB_ACTIONS".to_owned(), "true".to_owned());
            let bash = ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c"];
            let done = self.shop.script(&bash, script, &variables);
            println!("{}", done.story());
            let said = |kind: &str| {
                let text = fs::read_to_string(place(kind)).unwrap_or_default();
                let pair = |line: &str| {
                    line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()))
                };
                text.lines().filter_map(pair).collect::<Vec<_>>()
            };
            self.outputs
                .extend(said("output").into_iter().map(|(name, value)| (format!("{id}.{name}"), value)));
            self.variables.extend(said("env"));
            ran.push(text(&step["name"]).to_owned());
            last = Some(done);
        }
        (ran, last.expect("there are steps"))
    }
}

const BEGINS: [&str; 3] = ["Know the controller", "Deploy to the first cell", "Chaos in the first cell"];
const ENDS: &str = "What became of it";

/// All steps of a release that runs its chaos: these between the first and the last.
fn own<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&BEGINS[..], more, &[ENDS]].concat()
}

#[test]
fn a_release_on_github_is_promoted_or_rolled_back_by_what_was_seen_in_its_first_cell() {
    needs!(Root, Nftables, Nginx);
    let shop = Shop::new();

    let mut job = Job::of(&shop, "unready");
    let (ran, last) = job.runs(&[]);
    assert_eq!(ran, own(&["Roll back"]), "{}", last.story());
    last.expect_exit(5).expect_told("::error title=Rolled back::unready deviated");
    assert_eq!(shop.versions(), ["v0", "v0"]);
    assert!(shop.result("chaos.xml").contains("<failure"));
    assert!(!lines(&shop.fleet.world.directory.join("squall-results/chaos.ndjson")).is_empty());
    let summary = fs::read_to_string(shop.fleet.world.directory.join("summary-3")).expect("the fourth step");
    assert!(summary.contains("## Squall: deviated"), "{summary}");

    // Nothing can be said while everything is halted: neither way, and a person decides.
    shop.fleet
        .asks(&["halt", "--controller", shop.fleet.url(), "--reason", "an incident"])
        .run()
        .expect_exit(0);
    let (ran, last) = Job::of(&shop, "ready").runs(&[]);
    assert_eq!(ran, own(&[]), "{}", last.story());
    last.expect_exit(4).expect_told("A person decides (exit code 4)");
    assert_eq!(shop.versions(), ["ready", "v0"]);
    assert!(shop.result("chaos.xml").contains("an incident"), "{}", shop.result("chaos.xml"));
    shop.fleet.asks(&["halt", "--controller", shop.fleet.url(), "--lift"]).run().expect_exit(0);

    let (ran, last) = Job::of(&shop, "ready").runs(&[]);
    assert_eq!(ran, own(&["Canary check without any fault", "Promote"]), "{}", last.story());
    last.expect_exit(0).expect_told("ready is promoted");
    assert_eq!(shop.versions(), ["ready", "ready"]);
    for name in ["chaos.xml", "canary.xml"] {
        assert!(shop.result(name).contains("failures=\"0\" errors=\"0\""), "{}", shop.result(name));
    }
    shop.were_on("web-1");

    // A host that cannot be brought back, and a version that deviates without any fault.
    let (ran, last) = Job::of(&shop, "unready").runs(&[("chaos.code", "7")]);
    assert_eq!(ran, [BEGINS[0], BEGINS[1], "Page a person", ENDS], "{}", last.story());
    last.expect_exit(7);
    assert!(shop.paged().contains("still modified by a chaos experiment on unready"), "{}", shop.paged());
    let (ran, last) = Job::of(&shop, "v0").runs(&[("chaos.code", "0"), ("canary.code", "5")]);
    assert_eq!(ran, [BEGINS[0], BEGINS[1], "Roll back", ENDS], "{}", last.story());
    last.expect_exit(5);
    shop.end();
}

/// A pipeline of GitLab: its jobs by their stages, each with what those before have said. Gives the exit codes of those that were
/// run. With a code the job `chaos` is taken for one that said that.
fn gitlab(shop: &Shop, version: &str, given: Option<&str>, by_hand: Option<&str>) -> Vec<(String, Finished)> {
    let file = yaml("docs/ci/release.gitlab.yml");
    let mut variables: BTreeMap<String, String> = BTreeMap::from([
        ("GITLAB_CI".to_owned(), "true".to_owned()),
        ("CI_PROJECT_DIR".to_owned(), shop.fleet.world.directory.display().to_string()),
        ("CI_COMMIT_SHA".to_owned(), version.to_owned()),
        ("SQUALL_CONTROLLER".to_owned(), shop.fleet.url().to_owned()),
        ("SQUALL_TOKEN".to_owned(), shop.token.clone()),
        ("SQUALL_CA".to_owned(), shop.fleet.data.join("ca.pem").display().to_string()),
    ]);
    for (name, value) in file["variables"].as_object().expect("a map") {
        variables.insert(name.clone(), Shop::told(name).unwrap_or(text(value)).to_owned());
    }
    let mut done = Vec::new();
    for stage in file["stages"].as_array().expect("a list") {
        for (name, job) in file.as_object().expect("a map").iter().filter(|(_, job)| job["stage"] == *stage) {
            let manual = job["when"] == "manual";
            if by_hand.map_or(manual, |wanted| wanted != name) {
                continue;
            }
            if let Some(code) = given.filter(|_| name == "chaos") {
                variables.insert("CHAOS_CODE".to_owned(), code.to_owned());
                continue;
            }
            let script: Vec<&str> = job["script"].as_array().expect("a list").iter().map(text).collect();
            let finished =
                shop.script(&["bash", "-e", "-o", "pipefail", "-c"], &script.join("\n"), &variables);
            println!("{}", finished.story());
            let reports = &job["artifacts"]["reports"];
            if let Some(path) = reports["dotenv"].as_str() {
                let said = fs::read_to_string(shop.fleet.world.directory.join(path)).expect("it was written");
                let pair = |line: &str| {
                    line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()))
                };
                variables.extend(said.lines().filter_map(pair));
            }
            let failed = !finished.status.success();
            done.push((name.clone(), finished));
            if failed {
                return done;
            }
        }
    }
    done
}

fn names(done: &[(String, Finished)]) -> Vec<&str> {
    done.iter().map(|(name, _)| name.as_str()).collect()
}

#[test]
fn a_release_on_gitlab_is_promoted_or_rolled_back_by_what_was_seen_in_its_first_cell() {
    needs!(Root, Nftables, Nginx);
    let shop = Shop::new();
    let all = ["deploy", "chaos", "canary", "decide"];
    let last =
        |done: &[(String, Finished)], code: i32| done.last().expect("jobs").1.expect_exit(code).clone();

    let done = gitlab(&shop, "unready", None, None);
    assert_eq!(names(&done), all);
    last(&done, 5);
    assert_eq!(shop.versions(), ["v0", "v0"]);
    assert!(shop.result("chaos.xml").contains("<failure"));
    assert!(!shop.fleet.world.directory.join("squall-results/canary.xml").exists(), "nobody looks any more");

    let done = gitlab(&shop, "ready", None, None);
    assert_eq!(names(&done), all);
    last(&done, 0);
    assert_eq!(shop.versions(), ["ready", "ready"]);
    assert!(
        shop.result("canary.xml").contains("failures=\"0\" errors=\"0\""),
        "{}",
        shop.result("canary.xml")
    );
    shop.were_on("web-1");

    // Inconclusive: nothing is done, until a person does it.
    let done = gitlab(&shop, "v0", Some("8"), None);
    assert_eq!(names(&done), ["deploy", "canary", "decide"]);
    last(&done, 8).expect_told("stays in the cell first alone");
    assert_eq!(shop.versions(), ["v0", "ready"]);
    last(&gitlab(&shop, "v0", None, Some("promote by hand")), 0);
    assert_eq!(shop.versions(), ["v0", "v0"]);
    last(&gitlab(&shop, "v0", None, Some("roll back by hand")), 0);
    assert_eq!(shop.versions(), ["ready", "v0"]);

    let done = gitlab(&shop, "unready", Some("7"), None);
    assert_eq!(names(&done), ["deploy", "canary", "decide"]);
    last(&done, 7);
    assert!(shop.paged().contains("still modified by a chaos experiment on unready"), "{}", shop.paged());
    shop.end();
}
