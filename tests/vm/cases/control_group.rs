//! Scope by control group where there are no others than those of version 2.

use std::fs;
use std::path::Path;

use squall_tests::needs;
use squall_tests::trial::{Trial, impaired};
use squall_tests::wait::{PATIENCE, holds};
use squall_tests::world::World;

use super::quiet;

super::cases![a_group_is_refused_and_what_is_outside_is_not];

/// New connections, each a line of a file: `ok` or `bad`.
const KNOCK: &str = "while :; do if { echo hello >/dev/tcp/$0/7; } 2>/dev/null; then echo ok; else echo bad; fi; \
                     sleep 0.3; done >>$1";

/// Starts a client, perhaps in a group, and gives the file that it writes.
fn client(world: &World, name: &str, group: Option<&Path>) -> String {
    let file = world.file(name, "");
    let enter = group.map(|group| format!("echo $$ >{}/cgroup.procs; ", group.display())).unwrap_or_default();
    let far = world.hosts[1].v4.to_string();
    world.program(0, None, &["bash", "-c", &format!("{enter}{KNOCK}"), &far, &file]);
    more(&file, 2, "ok");
    file
}

fn count(file: &str, word: &str) -> usize {
    fs::read_to_string(file).unwrap_or_default().lines().filter(|line| *line == word).count()
}

/// Waits for so many more of a word.
fn more(file: &str, many: usize, word: &str) {
    let before = count(file, word);
    holds(&format!("{many} more `{word}` in `{file}`"), PATIENCE, || count(file, word) >= before + many);
}

fn a_group_is_refused_and_what_is_outside_is_not() {
    needs!(Root, Nftables, Cgroup2);
    let world = World::new(2);
    world.echo(1, 7);
    let (name, path) = world.cgroup("clients");
    let hit = client(&world, "hit", Some(&path));
    let spared = client(&world, "spared", None);
    let step =
        format!("{{ fault: {{ refuse: {{ to: [\"10.77.1.2:7\"] }} }}, in: {{ cgroup: {name} }}, for: 70s }}");
    let mut trial = Trial::begin(&world, &world.hosts[0], &quiet(&world, 0, &step));
    trial.injected();
    more(&hit, 3, "bad");
    more(&spared, 3, "ok");
    assert!(impaired(&trial.halted()) >= 3);
    more(&hit, 3, "ok");
    assert_eq!(count(&spared, "bad"), 0, "somebody outside of the group was refused");
}
