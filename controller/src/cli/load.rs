//! From a path to a checked document: files, variables and secrets for every verb that reads experiments.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use squall_agent::policy::Policy;
use squall_experiments::document::{self, Document, LONGEST, LONGEST_FAULT, Problems, Sources};
use squall_experiments::exit::Exit;
use squall_experiments::quantity::Period;

use super::{Common, Format, print};

/// The longest secret file that is read, in bytes.
const LONGEST_SECRET: u64 = 64 << 10;

/// Variables of the command line.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Vars {
    /// Set a variable of the document; may be repeated.
    #[arg(long = "var", value_name = "NAME=VALUE", value_parser = assignment)]
    pub vars: Vec<(String, String)>,
}

fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write it as `name=value`".to_owned()),
    }
}

/// The document of a file (`-` is standard input); on problems they are printed, and the exit code is returned.
pub fn document(path: &Path, vars: &Vars, common: &Common) -> Result<Document, Exit> {
    read(path, vars).map_err(|problems| refuse(&problems, common))
}

/// Prints problems where they belong, for verbs whose result is something else.
pub fn refuse(problems: &Problems, common: &Common) -> Exit {
    match common.format {
        Format::Human => eprint!("{}", problems.render(print::colour(&io::stderr()))),
        Format::Json => {
            if let Err(error) = print::json(&serde_json::json!({ "problems": problems })) {
                eprintln!("error: {error:#}");
            }
        }
    }
    Exit::Invalid
}

/// The document of a file (`-` is standard input), or everything that is wrong with it.
pub fn read(path: &Path, vars: &Vars) -> Result<Document, Problems> {
    let (name, bytes) = bytes(path, BEGIN)?;
    text(&name, &bytes, vars)
}

/// The document in a text, with the secrets of this process.
pub fn text(name: &str, bytes: &[u8], vars: &Vars) -> Result<Document, Problems> {
    let sources =
        Sources { vars: vars.vars.iter().cloned().collect(), secret: &secret, longest: longest_fault() };
    document::read(name, bytes, &sources)
}

/// What no file may exceed: a policy may allow more than the default. One that allows less makes the file no worse;
/// the agent refuses the run (exit 4). A policy that cannot be read stops the run, not the check.
fn longest_fault() -> Period {
    Policy::of_this_host().map_or(LONGEST_FAULT, |policy| policy.max_duration.max(LONGEST_FAULT))
}

/// What to do where there is no file of an experiment.
pub const BEGIN: &str = "`squall init` writes a first experiment";

/// A file's name for messages, and its contents: hardly more than a document may have. `begin` is what to do where there is none.
pub fn bytes(path: &Path, begin: &str) -> Result<(String, Vec<u8>), Problems> {
    if path.as_os_str() == "-" {
        let name = "<stdin>".to_owned();
        return contents(io::stdin().lock(), &name).map(|bytes| (name, bytes));
    }
    let name = path.display().to_string();
    let unreadable = |error: &io::Error| {
        let help = match error.kind() {
            io::ErrorKind::NotFound => begin,
            _ => "name a file that this user can read",
        };
        Problems::unreadable(&name, format!("`{name}` cannot be read: {}", reason(error)), help)
    };
    let file = File::open(path).map_err(|error| unreadable(&error))?;
    let metadata = file.metadata().map_err(|error| unreadable(&error))?;
    if metadata.is_dir() {
        let help = format!("name its files: `{}/*.yaml`", name.trim_end_matches('/'));
        return Err(Problems::unreadable(&name, format!("`{name}` is a directory"), help));
    }
    if metadata.len() > LONGEST as u64 {
        return Err(document::too_long(&name, metadata.len()));
    }
    contents(file, &name).map(|bytes| (name, bytes))
}

fn contents(from: impl Read, name: &str) -> Result<Vec<u8>, Problems> {
    let mut bytes = Vec::new();
    from.take(LONGEST as u64 + 1).read_to_end(&mut bytes).map_err(|error| {
        let what = format!("`{name}` cannot be read: {}", reason(&error));
        Problems::unreadable(name, what, "name a file that this user can read")
    })?;
    Ok(bytes)
}

/// The system's words without its number.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

/// A secret from `SQUALL_SECRET_<name>`, or from the file that `SQUALL_SECRET_<name>_FILE` names. One line break at
/// the end of a file is not part of it.
fn secret(name: &str) -> Result<Option<String>, String> {
    let variable = format!("SQUALL_SECRET_{name}");
    match std::env::var(&variable) {
        Ok(value) => return Ok(Some(value)),
        Err(std::env::VarError::NotUnicode(_)) => return Err(format!("`{variable}` is not UTF-8")),
        Err(std::env::VarError::NotPresent) => {}
    }
    let Some(path) = std::env::var_os(format!("{variable}_FILE")) else {
        return Ok(None);
    };
    let path = Path::new(&path);
    let unreadable = |error: &io::Error| format!("`{}`: {}", path.display(), reason(error));
    let mut value = String::new();
    let file = File::open(path).map_err(|error| unreadable(&error))?;
    file.take(LONGEST_SECRET + 1).read_to_string(&mut value).map_err(|error| unreadable(&error))?;
    if value.len() as u64 > LONGEST_SECRET {
        return Err(format!("`{}` is longer than {LONGEST_SECRET} bytes", path.display()));
    }
    let end = value.strip_suffix('\n').map_or(value.len(), str::len);
    value.truncate(value[..end].strip_suffix('\r').map_or(end, str::len));
    Ok(Some(value))
}
