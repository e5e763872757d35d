//! Files that a command writes its results to: opened before anything is done, and by one command at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use squall_experiments::protocol::Refusal;

/// An empty file that only its owner reads: a report may tell more than its neighbours should know. It stays this command's
/// until it is closed: two that write into one file leave neither report.
pub fn create(path: &Path) -> Result<File, Refusal> {
    let opened = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
    let unwritable = |error: &io::Error| unwritable(path, error, "name a file that can be written");
    let file = opened.map_err(|error| unwritable(&error))?;
    // A terminal, a pipe and `/dev/null` are for many.
    if !file.metadata().is_ok_and(|about| about.is_file()) {
        return Ok(file);
    }
    if let Err(TryLockError::WouldBlock) = file.try_lock() {
        return Err(Refusal::new(
            format!("`{}` is being written already", path.display()),
            "nothing was injected; another command has it open, or this one names it twice: give each report a file of its own",
        ));
    }
    file.set_len(0).map_err(|error| unwritable(&error))?;
    Ok(file)
}

/// Why a file or directory cannot be used.
pub fn unwritable(path: &Path, error: &io::Error, help: &str) -> Refusal {
    let help = format!("nothing was injected; {help}");
    Refusal::new(format!("cannot write `{}`: {error}", path.display()), help)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_emptied_and_belongs_to_one_at_a_time() {
        let path = std::env::temp_dir().join(format!("squall-written-{}", std::process::id()));
        std::fs::write(&path, "an earlier report").unwrap();
        let mut first = create(&path).unwrap();
        first.write_all(b"whole").unwrap();
        let refused = create(&path).unwrap_err();
        assert_eq!(refused.to_string(), format!("`{}` is being written already", path.display()));
        assert!(refused.help.is_some_and(|help| help.starts_with("nothing was injected; ")));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "whole", "who comes second takes nothing away");
        drop(first);
        create(&path).expect("the first is done");
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
        std::fs::remove_file(&path).unwrap();
        drop(create(&path).expect("it is made"));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::remove_file(&path).unwrap();
        create(Path::new("/dev/null")).and_then(|_| create(Path::new("/dev/null"))).expect("it is for many");
        let refused = create(&path.join("below")).unwrap_err();
        assert!(refused.to_string().starts_with("cannot write `"), "{refused}");
    }
}
