//! `squall serve` and the commands that ask it, as a user has them: processes, files, exit codes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::process::Signal;
use squall_controller::store::{NewJoinToken, Store, Where};
use squall_tests::host::Host;
use squall_tests::needs;
use squall_tests::squall::{Background, Finished};
use squall_tests::wait::{PATIENCE, holds};
use squall_tests::world::World;

/// A controller that listens.
fn serve(host: &Host, data: &Path) -> Background {
    let controller = host.squall(&["serve", "--data", &data.display().to_string()]).start();
    holds("the controller to listen", PATIENCE, || controller.story().contains("serves agents at"));
    controller
}

/// Lets a future run to its end.
fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

/// Ends a controller as its unit does.
fn end(mut controller: Background) {
    controller.signal(Signal::TERM);
    controller.finish().expect_exit(0);
}

/// A command with the token in a file.
fn ask(host: &Host, token: &Path, arguments: &[&str]) -> Finished {
    let with_json = [arguments, &["--format", "json"]].concat();
    host.squall(&with_json).env("SQUALL_TOKEN_FILE", token).run()
}

#[test]
fn a_controller_is_used_by_tokens_backed_up_and_restored() {
    needs!(Root);
    let world = World::new(1);
    let host = &world.hosts[0];
    let data = world.directory.join("data");
    let controller = serve(host, &data);
    let admin = data.join("admin-token");
    assert_eq!(fs::metadata(&admin).expect("it was said").permissions().mode() & 0o777, 0o600);

    let operator = world.directory.join("operator.token");
    let shown = operator.display().to_string();
    let made = ask(host, &admin, &["tokens", "new", "nightly", "--role", "operator", "--out", &shown]);
    made.expect_exit(0);
    let secret = fs::read_to_string(&operator).expect("it was written");
    assert!(!made.story().contains(secret.trim()), "{}", made.story());
    ask(host, &operator, &["tokens"]).expect_exit(4).expect_told("may not do this");
    assert_eq!(ask(host, &operator, &["hosts"]).expect_exit(0).json()["hosts"], serde_json::json!([]));
    host.squall(&["hosts"]).run().expect_told("a token is needed");

    // A halt blocks runs, and says why.
    let url = "http://127.0.0.1:8416";
    let halt = ["halt", "--controller", url, "--reason", "the drill is over"];
    ask(host, &operator, &halt).expect_exit(0);
    let file = world.file("calm.yaml", crate::trial::calm(&["wait: 1s"]));
    let run = ["run", "--controller", url, &file];
    ask(host, &operator, &run).expect_exit(4).expect_told("the drill is over");
    ask(host, &operator, &["halt", "--controller", url, "--lift"]).expect_exit(0);
    let head = ask(host, &admin, &["audit", "head"]).expect_exit(0).json();
    let hash = head["hash"].as_str().expect("a hash").to_owned();
    end(controller);

    // The backup that docs/operating.md describes: the directory, whole, with its modes.
    let copy = world.directory.join("copy");
    fs::create_dir(&copy).expect("a directory");
    for entry in fs::read_dir(&data).expect("a directory").flatten() {
        fs::copy(entry.path(), copy.join(entry.file_name())).expect("a copy");
    }
    fs::remove_dir_all(&data).expect("it is lost");
    let controller = serve(host, &copy);
    let restored = copy.join("admin-token");
    ask(host, &operator, &["runs"]).expect_exit(0);
    ask(host, &restored, &["audit", "verify", "--head", &hash]).expect_exit(0);
    let other = "0".repeat(64);
    let none = ask(host, &restored, &["audit", "verify", "--head", &other]);
    assert_eq!(none.expect_exit(4).json()["published"]["in-chain"], false, "{}", none.story());
    end(controller);
}

#[test]
fn a_list_that_is_longer_than_a_page_is_shown_whole() {
    needs!(Root);
    let world = World::new(1);
    let host = &world.hosts[0];
    let data = world.directory.join("data");
    // More than the largest page holds.
    let many = 1003;
    let store = Store::open(&Where::Sqlite(data.clone())).expect("it opens");
    wait(async {
        let mut all = tokio::task::JoinSet::new();
        for number in 0..many {
            let (id, hash) = (format!("j{number:04}"), format!("hash {number}"));
            let new =
                NewJoinToken { id, hash, made_by: "ada".to_owned(), expires_at: u64::MAX >> 1, uses: 1 };
            let store = store.clone();
            all.spawn(async move { store.new_join_token(new).await.expect("a join token") });
        }
        all.join_all().await;
    });
    drop(store);
    let controller = serve(host, &data);
    let admin = data.join("admin-token");
    let page = ask(host, &admin, &["tokens", "joins"]).expect_exit(0).json();
    let ids = page["join_tokens"].as_array().expect("a list").iter().map(|token| token["id"].as_str());
    let ids: std::collections::BTreeSet<&str> = ids.flatten().collect();
    assert_eq!((ids.len(), ids.first(), ids.last()), (many, Some(&"j0000"), Some(&"j1002")));
    end(controller);
}
