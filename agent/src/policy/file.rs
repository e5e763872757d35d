//! The file in which the policy lies, and whose it must be.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::LazyLock;

use serde_json::Value;
use squall_experiments::document::{Finding, Problems, read_other};
use squall_experiments::limits::KINDS;
use squall_experiments::peer::{Peer, PeerHost};
use squall_experiments::protocol::Refusal;

use super::{Policy, Wards, owner};
use crate::host::unit;

/// Where the policy lies.
pub const FILE: &str = "/etc/squall/policy.yaml";
/// What it was called before. It is JSON, and therefore YAML too.
const BEFORE: &str = "policy.json";
/// How many of its mistakes are told at once.
const TOLD: usize = 5;

/// The JSON Schema of a policy.
pub fn schema() -> &'static Value {
    static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
        let schema = schemars::SchemaGenerator::default().into_root_schema_for::<Policy>();
        serde_json::to_value(&schema).unwrap_or_else(|_| schema.to_value())
    });
    &SCHEMA
}

/// Reads the policy at a path, or beside it under the name that it had before; without either the defaults hold.
pub(super) fn read(path: &Path) -> Result<Policy, Refusal> {
    let before = path.with_file_name(BEFORE);
    match (is_there(path), is_there(&before)) {
        (false, false) => Ok(Policy::default()),
        (true, false) => read_one(path),
        (false, true) => read_one(&before),
        (true, true) => Err(Refusal::new(
            format!("there are two policies, `{}` and `{}`", path.display(), before.display()),
            "nothing is injected until one of them is removed: only the first name is still used",
        )),
    }
}

/// Whatever it is: a link to nowhere is no policy that allows everything.
fn is_there(path: &Path) -> bool {
    fs::symlink_metadata(path).map_or_else(|error| error.kind() != io::ErrorKind::NotFound, |_| true)
}

fn read_one(path: &Path) -> Result<Policy, Refusal> {
    let wrong = |what: String| {
        let what = format!("the policy `{}` {what}", path.display());
        Refusal::new(what, "nothing is injected until it is mended")
    };
    let unread = |error: io::Error| wrong(format!("cannot be read: {error}"));
    let mut file = File::open(path).map_err(unread)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(unread)?;
    // Of the file that was read, and of where whoever may write there could put another one.
    let of_file = file.metadata().map_err(unread)?;
    let of_folder = fs::metadata(path.parent().unwrap_or(Path::new("/"))).map_err(unread)?;
    for (what, about) in [("", of_file), ("lies in a directory that ", of_folder)] {
        if let Some(why) = owner::objection(about.uid(), about.mode()) {
            return Err(wrong(format!("{what}{why}")));
        }
    }
    let understood = understood(&path.display().to_string(), &bytes);
    let policy = understood.map_err(|problems| wrong(format!("is not understood: {}", told(&problems))))?;
    Ok(Policy { version: blake3::hash(&bytes).to_hex()[..12].to_owned(), ..policy })
}

/// What a text says, whoever wrote it.
fn understood(name: &str, bytes: &[u8]) -> Result<Policy, Problems> {
    read_other(name, bytes, schema(), "the policy", check)
}

/// What is wrong with a policy, each with its place.
fn told(problems: &Problems) -> String {
    let told = problems.list().iter().take(TOLD).map(|problem| {
        let place = problem.span.map_or_else(String::new, |span| {
            let (line, column) = problems.place(span);
            format!("line {line}, column {column}: ")
        });
        let help = problem.help.as_ref().map_or_else(String::new, |help| format!(" ({help})"));
        format!("{place}{}{help}", problem.what)
    });
    told.collect::<Vec<_>>().join("; ")
}

fn check(policy: &Policy) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut each = |key: &str, at: usize, what: String, help: &str| {
        found.push(Finding::new(&format!("{key}.{at}"), what, help));
    };
    let kinds = KINDS.map(|kind| format!("`{kind}`")).join(", ");
    for (at, word) in policy.allow.iter().enumerate().filter(|(_, word)| !KINDS.contains(&word.as_str())) {
        each("allow", at, format!("`{word}` is no kind of change"), &format!("there are {kinds}"));
    }
    for (at, peer) in policy.protect_addresses.iter().enumerate().filter(|(_, peer)| !is_of_addresses(peer)) {
        let what = format!("`{peer}` is not an address, a network, or `any` with a port");
        each("protect-addresses", at, what, "to protect everything write `enabled: false`");
    }
    for (at, name) in policy.protect_units.iter().enumerate().filter(|(_, name)| !unit::is_full_name(name)) {
        let what = format!("`{name}` is not the full name of a unit");
        each("protect-units", at, what, "write it as in `db.service`");
    }
    let probes = &policy.controllers.probes;
    for (key, peers) in [("allow", &probes.allow), ("deny", &probes.deny)] {
        let named = peers.iter().enumerate().filter(|(_, peer)| matches!(peer.host, PeerHost::Name(_)));
        for (at, peer) in named {
            let what = format!("`{peer}` is not an address or a network");
            each(&format!("controllers.probes.{key}"), at, what, "its owner may point a name anywhere");
        }
    }
    if let Err(refusal) = Wards::of(policy) {
        found.push(Finding::new("protect-users", refusal.what, "name a user of this host, or its number"));
    }
    found
}

/// Whether it can be compared with packets as it stands. Everything is not protected: then `enabled` is `false`.
fn is_of_addresses(peer: &Peer) -> bool {
    match peer.host {
        PeerHost::Net(..) => true,
        PeerHost::Any => peer.ports.is_some(),
        PeerHost::Name(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::PathBuf;

    use squall_experiments::quantity::Period;

    use super::*;

    /// A directory of root's own; dropped, it is removed.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("squall-policy-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            open(&path, 0o755);
            Folder(path)
        }

        fn file(&self) -> PathBuf {
            self.0.join("policy.yaml")
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn open(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_broken_policy_is_an_error_with_its_place_and_a_missing_one_the_default() {
        let folder = Folder::new("broken");
        let file = folder.file();
        assert_eq!(read(&file).unwrap(), Policy::default());
        for (text, why) in [
            ("", "is empty"),
            ("# enabled: false\n", "is empty"),
            ("{", "line 1"),
            ("enabled: true\nmax-duration: 60\n", "line 2, column 15"),
            ("alow: []", "`alow`"),
            ("enabled: yes\n", "line 1, column 10"),
            ("protect-addresses: [db]", "`db` is not an address, a network, or `any` with a port"),
            ("protect-addresses: [any]", "write `enabled: false`"),
            ("windows:\n  - Mon 09:00-17:00\n", "is no window"),
            (
                "controllers: { probes: { allow: [db.internal] } }",
                "`db.internal` is not an address or a network",
            ),
            ("controllers: { probes: { load: fast } }", "fast"),
            ("protect-units: [db]", "as in `db.service`"),
            ("protect-users: [nobody-of-that-name]", "nobody-of-that-name"),
            ("protect-ports: [\"0\"]", "line 1"),
            // A fault, and not what it does to a host.
            ("allow:\n  - block\n  - partition\n", "line 3, column 5: `partition` is no kind of change"),
        ] {
            fs::write(&file, text).unwrap();
            let refusal = read(&file).expect_err(text);
            assert!(refusal.what.contains(why), "{text}: {refusal}");
            assert!(refusal.help.is_some_and(|help| help.starts_with("nothing is injected")), "{text}");
        }
        fs::remove_file(&file).unwrap();
        symlink("nowhere", &file).unwrap();
        assert!(read(&file).is_err(), "a link to nowhere");
    }

    #[test]
    fn only_its_administrator_may_write_a_policy() {
        let folder = Folder::new("owner");
        let file = folder.file();
        fs::write(&file, "max-duration: 1m\nallow: [block]\nprotect-addresses: [\"any:5432\"]\n").unwrap();
        for mode in [0o666, 0o664, 0o646] {
            open(&file, mode);
            let refusal = read(&file).unwrap_err();
            assert!(refusal.what.contains("by others than its owner"), "{refusal}");
        }
        open(&file, 0o640);
        open(&folder.0, 0o775);
        let refusal = read(&file).unwrap_err();
        assert!(refusal.what.contains("lies in a directory that can be written"), "{refusal}");
        open(&folder.0, 0o755);
        if nix::unistd::geteuid().is_root() {
            // A file that belongs to somebody who is not its administrator, though no other may write it; and its directory.
            for path in [&file, &folder.0] {
                std::os::unix::fs::chown(path, Some(4711), None).unwrap();
                let refusal = read(&file).unwrap_err();
                assert!(refusal.what.contains("belongs to the user 4711"), "{refusal}");
                std::os::unix::fs::chown(path, Some(0), None).unwrap();
            }
        }
        let policy = read(&file).unwrap();
        assert_eq!((policy.version.len(), policy.max_duration), (12, Period::from_secs(60)));
    }

    #[test]
    fn a_policy_of_before_holds_until_there_are_two() {
        let folder = Folder::new("before");
        fs::write(folder.0.join(BEFORE), r#"{"max-duration": "2m"}"#).unwrap();
        assert_eq!(read(&folder.file()).unwrap().max_duration, Period::from_secs(120));
        fs::write(folder.file(), "max-duration: 1m\n").unwrap();
        let refusal = read(&folder.file()).unwrap_err();
        assert!(refusal.what.contains("there are two policies"), "{refusal}");
    }

    #[test]
    fn the_file_of_the_package_says_what_holds_without_one() {
        let packaged = understood("policy.yaml", include_bytes!("../../package/policy.yaml"));
        let packaged = packaged.unwrap_or_else(|problems| panic!("{}", problems.render(false)));
        assert_eq!(Policy { version: "none".to_owned(), ..packaged }, Policy::default());
    }
}
