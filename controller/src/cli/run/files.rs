//! Which files a command line names.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use squall_experiments::document::Problems;

/// How deep directories are looked into.
const DEEPEST: usize = 16;

/// The files that are named, in the order in which they are; of a directory all `.yaml`, `.yml` and `.json` files below it,
/// by name. Hidden files and linked directories are passed over; a directory without an experiment is an error.
pub fn named(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Vec<Problems>> {
    let mut files: Vec<PathBuf> = Vec::new();
    let mut wrong = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let mut found = Vec::new();
        let name = path.display().to_string();
        if let Err(error) = below(path, DEEPEST, &mut found) {
            let what = format!("`{name}` cannot be read: {error}");
            wrong.push(Problems::unreadable(&name, what, "name a directory that this user can read"));
        } else if found.is_empty() {
            let what = format!("`{name}` holds no experiment");
            wrong.push(Problems::unreadable(&name, what, "experiments end in `.yaml`, `.yml` or `.json`"));
        }
        files.append(&mut found);
    }
    let mut seen: Vec<&PathBuf> = Vec::new();
    for file in &files {
        if seen.contains(&file) {
            let name = file.display().to_string();
            let help = "name each file once; `--repeat` runs it several times";
            wrong.push(Problems::unreadable(&name, format!("`{name}` is named twice"), help));
        }
        seen.push(file);
    }
    if wrong.is_empty() { Ok(files) } else { Err(wrong) }
}

fn below(directory: &Path, deeper: usize, found: &mut Vec<PathBuf>) -> io::Result<()> {
    let entries: io::Result<Vec<fs::DirEntry>> = fs::read_dir(directory)?.collect();
    let mut entries = entries?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        if entry.file_type()?.is_dir() {
            if deeper > 0 {
                below(&path, deeper - 1, found)?;
            }
        } else if path.extension().is_some_and(|end| end == "yaml" || end == "yml" || end == "json") {
            found.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_stands_for_its_experiments_by_name() {
        let root = std::env::temp_dir().join(format!("squall-files-{}", std::process::id()));
        for directory in ["b", "empty", ".git"] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        for file in ["c.yaml", "a.yml", "b/x.json", "notes.md", ".hidden.yaml", ".git/x.yaml"] {
            fs::write(root.join(file), "").unwrap();
        }
        let names = |paths: &[PathBuf]| named(paths).map_err(|wrong| wrong.len());
        let expected: Vec<PathBuf> = ["a.yml", "b/x.json", "c.yaml"].map(|name| root.join(name)).into();
        assert_eq!(names(std::slice::from_ref(&root)), Ok(expected));
        assert_eq!(names(&["-".into(), "gone.yaml".into()]), Ok(vec!["-".into(), "gone.yaml".into()]));
        assert_eq!(names(&[root.join("empty"), root.join("c.yaml"), root.clone()]), Err(2));
        fs::remove_dir_all(&root).unwrap();
    }
}
