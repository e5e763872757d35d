//! A game day on a terminal, as somebody types; and its events for a program that follows them.

use std::io::{BufRead, BufReader, PipeWriter, Write};

use rustix::process::Signal;
use serde_json::Value;
use squall_tests::client::connect;
use squall_tests::needs;
use squall_tests::squall::Background;
use squall_tests::wait::{PATIENCE, holds, until};

use crate::serve::{Fleet, Manner};

const TALK: &str = "gameday: 1
name: talk
title: What would we do?
steps:
  - { name: first, notes: Who is called? }
  - { name: second, notes: Who decides? }
  - { name: third, notes: Who tells the others? }
";

/// An experiment over all hosts, with a fault that nobody feels.
fn slow(lasts: &str) -> String {
    format!(
        "squall: 1\ntitle: A slow page\non: {{ labels: {{ role: web }} }}\nhypothesis:\n  - name: the page is there\n    \
         http: {{ url: \"http://127.0.0.1:8080/\", timeout: 2s }}\n    every: 100ms\nmethod:\n  \
         - fault: {{ latency: {{ delay: 20ms, to: [\"127.0.0.1:8080\"] }} }}\n    for: {lasts}\nrecovery: 20s\n"
    )
}

/// `squall gameday run` on a terminal.
struct Terminal {
    run: Background,
    typed: PipeWriter,
}

impl Terminal {
    fn start(fleet: &Fleet, file: &str) -> Self {
        let (run, typed) = fleet.asks(&["gameday", "run", file]).start_on_a_terminal();
        Terminal { run, typed }
    }

    fn types(&mut self, text: &str) {
        self.typed.write_all(text.as_bytes()).expect("the terminal takes it");
    }

    /// Waits until it says this.
    fn says(&mut self, words: &str) {
        until(words, PATIENCE, || {
            let ended = self.run.ended();
            let said = self.run.stdout().contains(words).then_some(());
            assert!(said.is_some() || !ended, "it ended without `{words}`: {}", self.run.story());
            said
        });
    }

    /// The day that it has begun.
    fn day(&mut self) -> String {
        self.says("stops it");
        let said = self.run.stdout();
        let day = said.split("game day ").nth(1).and_then(|rest| rest.split(';').next());
        day.unwrap_or_else(|| panic!("no day: {said}")).to_owned()
    }

    /// Ctrl-C: the command ends, the day does not, and it is said how it would be stopped.
    fn leaves(mut self, day: &str) {
        self.types("\x03");
        let left = self.run.finish();
        left.expect_exit(6)
            .expect_told(&format!("the game day goes on; `squall gameday stop {day}` stops it"));
    }
}

fn state(fleet: &Fleet, day: &str) -> Value {
    fleet.asks(&["gameday", "show", day, "--format", "json"]).run().expect_exit(0).json()["state"].clone()
}

/// Whether a process has said what is to be done when somebody presses Ctrl-C.
fn hears_interruptions(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    caught.is_some_and(|mask| mask & (1 << (Signal::INT.as_raw() - 1)) != 0)
}

#[test]
fn a_game_day_is_led_by_typing_and_goes_on_whenever_its_terminal_is_left() {
    needs!(Root, Nftables, Queue, Nginx);
    let mut fleet = Fleet::new(1);
    let talk = fleet.world.file("talk.yaml", TALK);
    let mut terminal = Terminal::start(&fleet, &talk);
    let day = terminal.day();
    terminal.says("type `go`");
    terminal.says("go for `first`?");
    terminal.types("the room is full\n");
    terminal.says("): note: the room is full");
    terminal.types("mitigated\n");
    terminal.says("nothing has been injected yet");
    terminal.types("go\n");
    terminal.says("): go for `first`");
    terminal.says("go for `second`?");
    terminal.types("no-go nobody is here who decides\n");
    terminal.says("): no-go for `second`: nobody is here who decides");
    terminal.says("go for `third`?");
    terminal.leaves(&day);
    assert_eq!(state(&fleet, &day), "open");
    fleet.asks(&["gameday", "go", &day]).run().expect_exit(0);
    holds("the day to end", PATIENCE, || state(&fleet, &day) == "ended");
    let told = fleet.asks(&["gameday", "show", &day]).run();
    told.expect_exit(0).expect_told("the room is full");

    // While a fault is there: it stays.
    fleet.world.file("slow.yaml", slow("80s"));
    let text = "gameday: 1\nname: live\ntitle: Live\nsteps: [{ name: slow, experiment: slow.yaml }]\n";
    let live = fleet.world.file("live.yaml", text);
    let mut terminal = Terminal::start(&fleet, &live);
    let day = terminal.day();
    terminal.says("go for `slow`?");
    terminal.types("go\n");
    terminal.says("the fault of `slow` began");
    terminal.leaves(&day);
    assert!(!fleet.world.hosts[1].tables().is_empty(), "its fault goes on");
    assert_eq!(state(&fleet, &day), "open");
    fleet.asks(&["gameday", "stop", &day, "--reason", "seen"]).run().expect_exit(0);
    fleet.are_clean();
    holds("the day to be over", PATIENCE, || state(&fleet, &day) == "stopped");

    // While the controller says nothing: before it has answered at all, and later.
    let hangs = |fleet: &mut Fleet, hit: Signal| {
        fleet.controller.as_mut().expect("it was started").signal(hit);
    };
    let known = fleet.controller.as_ref().expect("it was started").pid();
    hangs(&mut fleet, Signal::STOP);
    let mut terminal = Terminal::start(&fleet, &talk);
    holds("it to ask", PATIENCE, || {
        let squalls = fleet.controller().squalls();
        squalls.iter().any(|one| one.pid != known && hears_interruptions(one.pid))
    });
    terminal.types("\x03");
    terminal.run.finish().expect_exit(6).expect_told("nobody has said yet whether the game day began");
    hangs(&mut fleet, Signal::CONT);
    let mut terminal = Terminal::start(&fleet, &talk);
    let day = terminal.day();
    terminal.says("go for `first`?");
    hangs(&mut fleet, Signal::STOP);
    terminal.leaves(&day);
    hangs(&mut fleet, Signal::CONT);
    assert_eq!(state(&fleet, &day), "open");
    fleet.end();
}

/// What a program hears that follows a day from an event on: the numbers and the events, until so many have come or it is over.
fn follows(fleet: &Fleet, token: &str, last: Option<u64>, most: usize) -> (Vec<(u64, Value)>, bool) {
    let at = "127.0.0.1:8416".parse().expect("an address");
    let mut stream = connect(&fleet.controller().netns, at, PATIENCE).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("it can be set");
    let last = last.map_or_else(String::new, |last| format!("Last-Event-ID: {last}\r\n"));
    let token = std::fs::read_to_string(token).expect("a token");
    let request = format!(
        "GET /v1/game-days/talk/stream HTTP/1.1\r\nHost: 127.0.0.1:8416\r\nAuthorization: Bearer {}\r\n{last}\r\n",
        token.trim()
    );
    stream.write_all(request.as_bytes()).expect("it takes it");
    let mut lines = BufReader::new(stream).lines().map(|line| line.expect("it goes on"));
    let first = lines.next().expect("an answer");
    assert!(first.contains(" 200 "), "{first}");
    let (mut heard, mut id) = (Vec::new(), None);
    for line in lines {
        match line.split_once(": ") {
            Some(("id", number)) => id = number.parse().ok(),
            Some(("event", "end")) => return (heard, true),
            Some(("data", event)) => {
                let event: Value = serde_json::from_str(event).expect("an event");
                heard.push((id.take().expect("each has a number"), event));
            }
            _ => {}
        }
        if heard.len() == most {
            break;
        }
    }
    (heard, false)
}

#[test]
fn a_viewer_follows_a_game_day_and_goes_on_where_he_was() {
    needs!(Root);
    let fleet = Fleet::new(0);
    let file = |name: &str| fleet.world.directory.join(name).display().to_string();
    fleet.asks(&["tokens", "new", "vera", "--role", "viewer", "--out", &file("vera")]).run().expect_exit(0);
    let talk = fleet.world.file("talk.yaml", TALK);
    let followed = fleet.asks(&["gameday", "run", &talk]).start();
    holds("the day to begin", PATIENCE, || {
        let days = fleet.asks(&["gameday", "list", "--format", "json"]).run().expect_exit(0).json();
        days["game_days"].as_array().is_some_and(|days| !days.is_empty())
    });
    let kinds = |heard: &[(u64, Value)]| -> Vec<(u64, String)> {
        let kind = |event: &Value| event["event"].as_str().unwrap_or_default().to_owned();
        heard.iter().map(|(seq, event)| (*seq, kind(event))).collect()
    };
    let (first, over) = follows(&fleet, &file("vera"), None, 2);
    let named = |seq: u64, kind: &str| (seq, kind.to_owned());
    assert_eq!((kinds(&first), over), (vec![named(0, "begun"), named(1, "asked")], false));

    // The connection is gone; meanwhile things happen. What it had does not come again, and nothing is left out.
    for step in ["first", "second"] {
        holds("its turn", PATIENCE, || {
            fleet.asks(&["gameday", "go", "talk", step]).run().status.code() == Some(0)
        });
    }
    let (next, over) = follows(&fleet, &file("vera"), Some(1), 4);
    let expected = vec![named(2, "go"), named(3, "asked"), named(4, "go"), named(5, "asked")];
    assert_eq!((kinds(&next), over), (expected, false));

    // Live, while somebody types, to the end.
    let rest = std::thread::scope(|scope| {
        let rest = scope.spawn(|| follows(&fleet, &file("vera"), Some(5), usize::MAX));
        fleet.asks(&["gameday", "note", "talk", "well done"]).run().expect_exit(0);
        fleet.asks(&["gameday", "no-go", "talk", "third", "--reason", "too late"]).run().expect_exit(0);
        rest.join().expect("it hears")
    });
    assert_eq!(
        (kinds(&rest.0), rest.1),
        (vec![named(6, "noted"), named(7, "no-go"), named(8, "ended")], true)
    );
    followed.finish().expect_exit(0);
    fleet.end();
}

const TWICE: &str = "gameday: 1
name: twice
title: A slow page, twice
steps:
  - { name: one, experiment: slow.yaml }
  - { name: two, experiment: slow.yaml, go: auto }
  - { name: debrief, notes: What surprised us? }
";

#[test]
fn where_runs_need_an_approval_each_step_waits_for_a_second_person_and_says_so() {
    needs!(Root, Nftables, Queue, Nginx);
    let controller = vec!["--approvals".to_owned(), "required".to_owned()];
    let fleet = Fleet::like(1, Manner { controller, ..Manner::default() });
    let token = |name: &str, number: u32| {
        let file = fleet.world.directory.join(format!("{name}-{number}")).display().to_string();
        fleet.asks(&["tokens", "new", name, "--role", "operator", "--out", &file]).run().expect_exit(0);
        file
    };
    let (ada, again, ben) = (token("ada", 1), token("ada", 2), token("ben", 1));
    let says = |who: &str, arguments: &[&str]| {
        fleet.asks(&[&["gameday"], arguments].concat()).env("SQUALL_TOKEN_FILE", who).run()
    };
    fleet.world.file("slow.yaml", slow("1s"));
    let file = fleet.world.file("twice.yaml", TWICE);
    let followed = fleet.asks(&["gameday", "run", &file]).env("SQUALL_TOKEN_FILE", &ada).start();
    let need = "another person than `ada`, who began the day, has to say go";
    for step in ["one", "two"] {
        // It is asked, also where it would go by itself, and all are told who has to answer.
        until("the question", PATIENCE * 2, || {
            let days = says(&ben, &["list", "--format", "json"]).json();
            days["game_days"].as_array().filter(|days| !days.is_empty())?;
            let shown = says(&ben, &["show", "twice", "--format", "json"]).expect_exit(0).json();
            let steps = shown["course"]["steps"].as_array()?;
            let one = steps.iter().find(|one| one["name"] == step && one["state"] == "asked")?;
            assert!(one["why"].as_str().is_some_and(|why| why.contains(need)), "{shown}");
            Some(())
        });
        for who in [&ada, &again] {
            says(who, &["go", "twice", step]).expect_exit(4).expect_told(need);
        }
        assert!(fleet.world.hosts[1].tables().is_empty(), "nothing begins without it");
        says(&ben, &["go", "twice", step]).expect_exit(0);
    }
    // What people do alone needs nobody's approval.
    holds("the last step", PATIENCE * 2, || says(&ada, &["go", "twice", "debrief"]).status.code() == Some(0));
    let ended = followed.finish();
    ended.expect_exit(0).expect_told(need);
    let runs = fleet.asks(&["runs", "--format", "json"]).run().expect_exit(0).json();
    let runs = runs["runs"].as_array().expect("runs").clone();
    assert_eq!(runs.len(), 2, "{runs:#?}");
    for run in runs {
        let id = run["id"].as_str().expect("an id");
        fleet.asks(&["show", id]).run().expect_exit(0).expect_told("ben said go to what ada began");
    }
    fleet.end();
}
