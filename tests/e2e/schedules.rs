//! What a controller runs by itself, and what keeps runs from beginning: the real binaries, and a hook that answers in every
//! way in which one does.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;
use squall_controller::conductor::date_of;
use squall_tests::host::Host;
use squall_tests::needs;
use squall_tests::wait::{PATIENCE, until};
use squall_tests::world::World;

use crate::serve::{Fleet, URL};

const SLOW: &str = "latency: { delay: 20ms, to: [\"127.0.0.1:8080\"] }";

/// A schedule that is right so far.
const NIGHT: &str = "name: night\nwhen: { cron: \"30 2 * * *\" }\n";

/// A hook on a host, whose answer can be changed. Without one it never answers.
#[derive(Clone)]
struct Hook {
    answer: Arc<Mutex<Option<String>>>,
    at: SocketAddr,
}

impl Hook {
    fn on(host: &Host) -> Self {
        let answer = Arc::new(Mutex::new(None::<String>));
        let (netns, given) = (host.netns.clone(), Arc::clone(&answer));
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            netns.enter().expect("the host can be entered");
            let listener = TcpListener::bind("127.0.0.1:0").expect("it listens");
            tell.send(listener.local_addr().expect("an address")).expect("somebody waits");
            let mut unanswered: Vec<TcpStream> = Vec::new();
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut asked = Vec::new();
                let mut bytes = [0; 1024];
                while !asked.windows(4).any(|end| end == b"\r\n\r\n") {
                    match stream.read(&mut bytes) {
                        Ok(0) | Err(_) => break,
                        Ok(read) => asked.extend_from_slice(&bytes[..read]),
                    }
                }
                let answer = given.lock().expect("nobody panics with it").clone();
                match answer {
                    // Whoever has given up does not hear it.
                    Some(answer) => drop(stream.write_all(answer.as_bytes())),
                    None => unanswered.push(stream),
                }
            }
        });
        Hook { answer, at: told.recv().expect("it listens") }
    }

    fn says(&self, status: &str, body: &str) {
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 {status}\r\nLocation: http://{}/\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}",
            self.at
        );
        *self.answer.lock().expect("nobody panics with it") = Some(answer);
    }

    fn hangs(&self) {
        *self.answer.lock().expect("nobody panics with it") = None;
    }
}

/// A moment of UTC so many seconds from now, as a schedule has it, and in milliseconds.
fn soon(seconds: u64) -> (String, u64) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_secs();
    let at = (now + seconds) * 1000;
    (date_of(at)[..19].replace('T', " "), at)
}

/// Adds a schedule of the experiment that [`Fleet::runs`] wrote last; whether its time was not over.
fn adds(fleet: &Fleet, name: &str, rest: &str) -> bool {
    let file =
        fleet.world.file(&format!("{name}.schedule.yaml"), format!("schedule: 1\nname: {name}\n{rest}\n"));
    let experiment = fleet.world.directory.join("fleet.yaml").display().to_string();
    let added = fleet.asks(&["schedule", "add", &file, "--experiment", &experiment]).run();
    let over = added.stderr.contains("is over");
    added.expect_exit(if over { 3 } else { 0 });
    !over
}

/// What became of the entry of a schedule that has one; none as long as it is coming.
fn became(fleet: &Fleet, since: &str, schedule: &str) -> Option<Value> {
    let asked = ["calendar", "--from", since, "--schedule", schedule, "--json"];
    let calendar = fleet.asks(&asked).run().expect_exit(0).json();
    let [line] = &calendar["entries"].as_array().expect("entries")[..] else {
        panic!("{schedule}: {calendar}")
    };
    let coming = ["planned", "paused", "barred", "claimed"].iter().any(|state| line["state"] == *state);
    (!coming && line["why"] != "it will inject nothing").then(|| line.clone())
}

fn newest(fleet: &Fleet) -> Value {
    fleet.asks(&["runs", "--format", "json"]).run().expect_exit(0).json()["runs"][0].clone()
}

#[test]
fn a_run_begins_only_where_every_gate_lets_it_and_an_administrator_overrules_them_with_a_reason() {
    needs!(Root, Nftables, Queue, Nginx);
    let world = World::new(2);
    let hook = Hook::on(&world.hosts[0]);
    let config = format!(
        "controller: 1\ngates:\n  - name: no open incident\n    \
         http: {{ url: \"http://{}/open\", timeout: 4s, expect: {{ json: {{ \"$.open\": 0 }} }} }}\n\
         budget: {{ faults-per-host-and-day: 2 }}\n",
        hook.at
    );
    let fleet = Fleet::under(world, &config);
    // Whatever it does but answer as expected, it refuses.
    for (status, body, because) in [
        ("200 OK", "{\"open\": 1}", "no open incident: `$.open` is 1 (expected 0)"),
        ("500 Internal Server Error", "{\"open\": 0}", "no open incident: it answered 500 (expected 200)"),
        ("302 Found", "", "no open incident: it answered 302 (expected 200); redirects are not followed"),
    ] {
        hook.says(status, body);
        fleet.runs(SLOW, "1s").run().expect_exit(4).expect_told(because);
    }
    hook.hangs();
    fleet.runs(SLOW, "1s").run().expect_exit(4).expect_told("no open incident: there is no answer within 4s");
    let refused = newest(&fleet);
    assert_eq!(refused["state"], "refused");
    let shown = fleet.asks(&["show", refused["id"].as_str().expect("a run")]).run();
    let told = "Gate    no open incident: refused: there is no answer within 4s";
    shown.expect_exit(0).expect_told(told).expect_told("Gate    hosts clean: passed");

    // Its reason stands in the run's record and in the log.
    hook.says("503 Service Unavailable", "");
    let file = fleet.world.directory.join("fleet.yaml").display().to_string();
    let overruled = ["run", &file, "--controller", URL, "--overrule", "the release waits"];
    fleet.asks(&overruled).run().expect_exit(0);
    let run = newest(&fleet)["id"].as_str().expect("a run").to_owned();
    let shown = fleet.asks(&["show", &run]).run();
    shown
        .expect_exit(0)
        .expect_told("no open incident: refused")
        .expect_told("Gate    overruled: passed: the release waits");
    let log = fleet.asks(&["audit", "--format", "json"]).run().expect_exit(0).json().to_string();
    assert!(log.contains("overruled gates and budget") && log.contains("the release waits"), "{log}");
    // Who is no administrator does not overrule anything.
    let token = ["tokens", "new", "olga", "--role", "operator", "--format", "json"];
    let token = fleet.asks(&token).run().expect_exit(0).json()["token"].as_str().expect("a token").to_owned();
    let token = fleet.world.file("operator-token", token);
    let denied = fleet.controller().squall(&overruled).env("SQUALL_TOKEN_FILE", token).run();
    denied.expect_exit(4).expect_told("only an administrator may overrule gates and budget");

    schedules(&fleet, &hook);
    fleet.are_clean();
    fleet.end();
}

/// Three entries of one moment: one that is paused, one that is barred, one that runs. A machine that is too slow to add them
/// before their moment gets another one, later.
fn of_one_moment(fleet: &Fleet) -> (u64, u64) {
    let mut attempt = 0;
    until("schedules that are added before their time", PATIENCE * 6, || {
        attempt += 1;
        let (moment, at) = soon(4 * attempt);
        let when = format!("when: {{ at: \"{moment}\" }}");
        let holiday = format!("except: [{{ days: {{ from: {}, why: a holiday }} }}]", &moment[..10]);
        let paused = format!("paused-{attempt}");
        let added = adds(fleet, &paused, &format!("{when}\nleashed: true"));
        fleet.asks(&["schedule", "pause", &paused, "--reason", "we move"]).run();
        let added = added && adds(fleet, &format!("holiday-{attempt}"), &format!("{when}\n{holiday}"));
        (added && adds(fleet, &format!("once-{attempt}"), &when)).then_some((attempt, at))
    })
}

/// One begins its run, and of each other the calendar says why it did not.
fn schedules(fleet: &Fleet, hook: &Hook) {
    hook.says("200 OK", "{\"open\": 0}");
    let (since, _) = soon(0);
    let since = format!("{}Z", since.replace(' ', "T"));
    let (attempt, at) = of_one_moment(fleet);
    let once = format!("once-{attempt}");
    refused(fleet);

    let fired = until("the entry to be run", PATIENCE * 3, || became(fleet, &since, &once));
    assert_eq!((&fired["state"], &fired["at"]), (&"fired".into(), &at.into()), "{fired}");
    let run = fired["run"].as_str().expect("a run").to_owned();
    until("the run to hold", PATIENCE * 2, || (fleet.shows(&run)["state"] == "held").then_some(()));
    let shown = fleet.shows(&run);
    assert_eq!(shown["by"], format!("schedule:{once}"));
    let gates = shown["gates"].as_array().expect("gates").clone();
    assert!(gates.len() == 4 && gates.iter().all(|gate| gate["passed"] == true), "{gates:?}");
    for (name, state, why) in [("paused", "skipped", "we move"), ("holiday", "skipped", "a holiday")] {
        let entry = until(name, PATIENCE, || became(fleet, &since, &format!("{name}-{attempt}")));
        let said = entry["why"].as_str().unwrap_or_default();
        assert!(entry["state"] == state && said.contains(why) && entry["run"].is_null(), "{entry}");
    }
    // The host has had its two faults of the day: nobody gets a third.
    fleet.runs(SLOW, "1s").run().expect_exit(4).expect_told("`web-1` had 2 faults within 24 hours");
    let runs = fleet.asks(&["runs", "--format", "json"]).run().expect_exit(0).json();
    let fired = runs["runs"]
        .as_array()
        .expect("runs")
        .iter()
        .filter(|run| run["by"] == format!("schedule:{once}"))
        .count();
    assert_eq!(fired, 1);
}

#[test]
fn a_scheduled_experiment_in_stages_grows_over_its_hosts_in_one_run() {
    needs!(Root, Nftables, Queue, Nginx);
    let fleet = Fleet::new(2);
    let since = format!("{}Z", soon(0).0.replace(' ', "T"));
    let document = "squall: 1\ntitle: Slow pages\non: { labels: { role: web } }\nhypothesis:\n  - name: the page is there\n    \
                    http: { url: \"http://127.0.0.1:8080/\", timeout: 5s }\n    every: 200ms\nmethod:\n  \
                    - fault: { latency: { delay: 20ms, to: [\"127.0.0.1:8080\"] } }\n    for: 2s\n\
                    stages: { sizes: [1, all], bake: 1500ms }\nrecovery: 15s\n";
    fleet.world.file("fleet.yaml", document);
    let mut later = 0;
    let name = until("a schedule that is added before its time", PATIENCE * 6, || {
        later += 4;
        let name = format!("grows-{later}");
        adds(&fleet, &name, &format!("when: {{ at: \"{}\" }}", soon(later).0)).then_some(name)
    });
    let fired = until("the entry to be run", PATIENCE * 3, || became(&fleet, &since, &name));
    assert_eq!(fired["state"], "fired", "{fired}");
    let run = fired["run"].as_str().expect("a run").to_owned();
    let ended = until("the run to end", PATIENCE * 3, || {
        let shown = fleet.shows(&run);
        (!["submitted", "running"].iter().any(|state| shown["state"] == *state)).then_some(shown)
    });
    assert_eq!(ended["state"], "held", "{ended}");
    let events = fleet.asks(&["show", &run, "--events"]).run().expect_exit(0).stdout.clone();
    let began: Value = serde_json::from_str(events.lines().next().expect("it began")).expect("JSON");
    let sizes: Vec<usize> = began["stages"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|hosts| Some(hosts.as_array()?.len()))
        .collect();
    assert_eq!(sizes, [1, 2], "{began}");
    assert_eq!(events.matches("\"event\":\"injected\"").count(), 2, "{events}");
    fleet.end();
}

/// Bad input is told by the command that adds it, with its place.
fn refused(fleet: &Fleet) {
    let calendar = |text: &str| format!("{NIGHT}except:\n  - ics: {text:?}\n");
    let event = "BEGIN:VCALENDAR\nBEGIN:VEVENT\nDTSTART;TZID=Mars/Olympus:20270301T100000\nEND:VEVENT\nEND:VCALENDAR\n";
    for (text, because) in [
        ("name: x\nwhen: { cron: \"99 2 * * *\" }\n".to_owned(), "`99` is no minute of a cron expression"),
        ("name: x\nwhen: { cron: \"0 0 29 2\" }\n".to_owned(), "`30 2 * * MON-FRI` is half past two"),
        ("name: x\nwhen: { at: 2027-02-29 10:00 }\n".to_owned(), "there is no day `2027-02-29`"),
        (
            "name: x\nzone: Europe/Berlin\nwhen: { at: 2027-03-28 02:30 }\n".to_owned(),
            "write `01:30` or `03:30`",
        ),
        ("name: x\nwhen: { at: 2020-01-01 00:00 }\n".to_owned(), "is over"),
        (format!("{NIGHT}except: [{{ calendar: freezes }}]\n"), "there is no calendar `freezes`"),
        (calendar(""), "empty"),
        (calendar(event), "Mars/Olympus"),
    ] {
        let file = fleet.world.file("wrong.yaml", format!("schedule: 1\n{text}"));
        let experiment = fleet.world.directory.join("fleet.yaml").display().to_string();
        let wrong = fleet.asks(&["schedule", "add", &file, "--experiment", &experiment]).run();
        wrong.expect_exit(3).expect_told(because);
    }
    // What is no experiment is not kept to be found out at night.
    let file = fleet.world.file("night.yaml", format!("schedule: 1\n{NIGHT}"));
    fleet.asks(&["schedule", "add", &file, "--experiment", &file]).run().expect_exit(3);
    let leap = "zone: Europe/Berlin\nwhen: { cron: \"30 2 29 2 *\" }";
    assert!(adds(fleet, "leap", leap));
    let leap = fleet.asks(&[
        "calendar",
        "--schedule",
        "leap",
        "--from",
        "2027-03-01T00:00:00Z",
        "--to",
        "2028-03-01T00:00:00Z",
    ]);
    leap.run().expect_exit(0).expect_told("2028-02-29 02:30:00 +01:00");
    fleet.asks(&["schedule", "remove", "leap"]).run().expect_exit(0);
    fleet.asks(&["schedule"]).run().expect_exit(0).expect_told("holiday");
}
