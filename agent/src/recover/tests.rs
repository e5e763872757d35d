use std::fs;
use std::thread::JoinHandle;

use super::*;
use crate::journal::Journal;

/// A state directory with a place in it, removed with it.
struct State(PathBuf);

impl State {
    fn new(name: &str) -> (Self, Place) {
        let root = std::env::temp_dir().join(format!("squall-recover-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        let place = Place::here(&root).unwrap();
        place.create().unwrap();
        (State(root), place)
    }

    fn recover(&self) -> Outcome {
        at_start(Some(&self.0)).unwrap()
    }
}

impl Drop for State {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Holds a lock for a while, as who is dying or undoing does.
fn for_a_while(lock: io::Result<Option<Lock>>) -> JoinHandle<()> {
    let lock = lock.unwrap().expect("nobody else holds it");
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        drop(lock);
    })
}

#[test]
fn who_dies_before_its_journal_has_a_name_is_waited_for() {
    for left in ["journal.new", "agent.sock", "journal"] {
        let (state, place) = State::new(&format!("dying-{left}"));
        match left {
            "journal" => drop(Journal::create(&place.journal()).unwrap()),
            _ => fs::write(place.directory().join(left), "").unwrap(),
        }
        let dying = for_a_while(place.lock());
        assert_eq!(state.recover(), Outcome::default(), "{left}");
        assert!(!place.directory().exists(), "{left} is still there");
        dying.join().unwrap();
    }
}

#[test]
fn who_recovers_already_is_waited_for() {
    let (state, place) = State::new("beside");
    drop(Journal::create(&place.journal()).unwrap());
    let other = for_a_while(place.starting());
    assert_eq!(state.recover(), Outcome::default());
    assert!(!place.directory().exists());
    other.join().unwrap();
}

#[test]
fn what_is_kept_from_a_recovery_is_told() {
    for (name, left) in [("starting", "journal"), ("lock", "journal"), ("lock", "journal.new")] {
        let (state, place) = State::new(&format!("kept-{name}-{left}"));
        let path = place.directory().join(left);
        fs::write(&path, "").unwrap();
        let _held = if name == "lock" { place.lock() } else { place.starting() }.unwrap().unwrap();
        let held = vec![path.display().to_string()];
        assert_eq!(state.recover(), Outcome { held, ..Outcome::default() });
        assert!(path.exists());
    }
}

#[test]
fn an_agent_that_listens_is_not_waited_for_and_has_left_nothing() {
    let (state, place) = State::new("listens");
    let _listens = std::os::unix::net::UnixListener::bind(place.socket()).unwrap();
    let _lock = place.lock().unwrap().unwrap();
    let begun = Instant::now();
    assert_eq!(state.recover(), Outcome::default());
    assert!(begun.elapsed() < DYING, "it was waited for");
    assert!(place.socket().exists());
}
