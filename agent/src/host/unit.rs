//! A systemd unit, found by the directory that carries its name: no word is exchanged with systemd.
//!
//! Source: systemd's `docs/CONTROL_GROUP_INTERFACE.md`, and `cg_escape` for names that a controller's files could have.

use std::path::{Path, PathBuf};

use squall_experiments::document::suggest::nearest;
use squall_experiments::protocol::Refusal;

use super::cgroup::{Cgroup, Group, below, old_hierarchies};

/// The kinds of units that have a control group.
const KINDS: [&str; 6] = [".service", ".scope", ".slice", ".socket", ".mount", ".swap"];

/// How deep units are looked for: slices in slices of a user's own manager are a dozen levels down at most.
const DEEPEST: usize = 16;

/// Whether it is written as the name of a unit that can have processes.
pub fn is_full_name(name: &str) -> bool {
    KINDS.iter().any(|kind| name.len() > kind.len() && name.ends_with(kind)) && !name.contains('/')
}

/// The unit's control group: the one directory of exactly this name. The same name in several places is refused.
pub fn find(name: &str) -> Result<Group, Refusal> {
    if !is_full_name(name) {
        return Err(Refusal::new(
            format!("`{name}` is not the full name of a unit that has processes"),
            format!(
                "write it with its kind, such as `{}.service`",
                name.split(['.', '/']).next().unwrap_or(name)
            ),
        ));
    }
    let root = Cgroup::root();
    let mut seen = Vec::new();
    let new = match &root {
        Ok(root) => one(name, named(root, name, &mut seen))?,
        Err(_) => None,
    };
    let new = new.zip(root.as_ref().ok()).and_then(|(directory, root)| Cgroup::at(root, &directory));
    let mut olds = Vec::new();
    for hierarchy in old_hierarchies().iter().filter(|hierarchy| hierarchy.systemd) {
        olds.extend(one(name, named(&hierarchy.root, name, &mut seen))?);
    }
    let new = new.ok_or_else(|| {
        seen.retain(|other| is_full_name(other));
        let near =
            nearest(name, seen.iter().map(String::as_str)).map(|near| format!("did you mean `{near}`?"));
        let all = "a unit that does not run has no control group; `systemctl status` says whether it runs";
        Refusal::new(format!("no unit `{name}` runs here"), near.unwrap_or_else(|| all.to_owned()))
    });
    Group::choose(new, olds)
}

fn one(name: &str, mut found: Vec<PathBuf>) -> Result<Option<PathBuf>, Refusal> {
    if found.len() > 1 {
        let places: Vec<String> = found.iter().map(|place| format!("`{}`", place.display())).collect();
        return Err(Refusal::new(
            format!("there are {} units `{name}` here: {}", found.len(), places.join(", ")),
            "choose one by the path of its control group (`in: { cgroup: … }`)",
        ));
    }
    Ok(found.pop())
}

/// The directories of a unit below a root; what is below one of them belongs to it. All names on the way are added to
/// `seen`.
fn named(root: &Path, name: &str, seen: &mut Vec<String>) -> Vec<PathBuf> {
    let escaped = format!("_{name}");
    let mut found = Vec::new();
    let mut open = vec![(root.to_owned(), 0)];
    while let Some((directory, depth)) = open.pop() {
        for path in below(&directory) {
            let Some(here) = path.file_name().and_then(|name| name.to_str()).map(str::to_owned) else {
                continue;
            };
            if here == name || here == escaped {
                found.push(path);
            } else if depth < DEEPEST {
                open.push((path, depth + 1));
                seen.push(here);
            }
        }
    }
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_a_directory_of_exactly_its_name() {
        let root = std::env::temp_dir().join(format!("squall-unit-{}", std::process::id()));
        let below = [
            "system.slice/shop.service/inner/shop.service",
            "system.slice/my-shop.service",
            "user.slice/user-1.slice/user@1.service/app.slice/app.service",
            "system.slice/system-x.slice/x@1.service",
            "_cpu.service",
        ];
        below.iter().for_each(|path| std::fs::create_dir_all(root.join(path)).unwrap());
        let mut seen = Vec::new();
        let mut at = |name: &str| -> Vec<String> {
            let found = named(&root, name, &mut seen);
            found.iter().map(|path| path.strip_prefix(&root).unwrap().display().to_string()).collect()
        };
        assert_eq!(at("shop.service"), ["system.slice/shop.service"]);
        assert_eq!(at("x@1.service"), ["system.slice/system-x.slice/x@1.service"]);
        assert_eq!(at("user-1.slice"), ["user.slice/user-1.slice"]);
        assert_eq!(at("cpu.service"), ["_cpu.service"]);
        assert!(at("shop").is_empty());
        assert!(seen.iter().any(|name| name == "my-shop.service"));
        std::fs::create_dir_all(root.join("user.slice/app.service")).unwrap();
        let found = named(&root, "app.service", &mut seen);
        std::fs::remove_dir_all(&root).unwrap();
        assert!(one("app.service", found).unwrap_err().what.starts_with("there are 2 units"));
    }

    #[test]
    fn half_a_name_is_refused_with_the_whole() {
        let refusal = find("shop").unwrap_err();
        assert_eq!(refusal.help.as_deref(), Some("write it with its kind, such as `shop.service`"));
        assert!(find(".service").is_err());
    }
}
