//! The pipeline that a command runs in, as far as it says so by its environment.

use std::borrow::Cow;
use std::env;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use squall_controller::report;

/// What is known of it; nothing unless it was asked for with `--ci`.
#[derive(Debug, Default)]
pub struct Pipeline {
    github: bool,
    /// The file that GitHub shows beside the step.
    pub summary: Option<PathBuf>,
    /// Where the repository is checked out.
    root: Option<PathBuf>,
    directory: PathBuf,
    build: Option<String>,
}

impl Pipeline {
    /// The pipeline of this process.
    pub fn of(asked: bool) -> Self {
        let said = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        let directory = env::current_dir().unwrap_or_default();
        if !asked {
            return Pipeline { directory, ..Pipeline::default() };
        }
        let github = said("GITHUB_ACTIONS").is_some_and(|value| value == "true");
        let gitlab = said("GITLAB_CI").is_some_and(|value| value == "true");
        let (root, build) = match (github, gitlab) {
            (true, _) => (said("GITHUB_WORKSPACE"), said("GITHUB_SHA")),
            (_, true) => (said("CI_PROJECT_DIR"), said("CI_COMMIT_SHA")),
            _ => (None, None),
        };
        Pipeline {
            github,
            summary: said("GITHUB_STEP_SUMMARY").filter(|_| github).map(PathBuf::from),
            root: root.map(PathBuf::from),
            directory,
            build: build.map(|commit| commit.chars().take(12).collect()),
        }
    }

    /// Whether lines of the log are read as commands.
    pub fn is_github(&self) -> bool {
        self.github
    }

    /// The commit that is tested.
    pub fn build(&self) -> Option<&str> {
        self.build.as_deref()
    }

    /// A file as the pipeline names it: from the root of the repository. One outside of it keeps its name.
    pub fn in_repository(&self, file: &Path) -> String {
        let whole: PathBuf = self.directory.join(file).components().collect();
        let root = self.root.as_deref().unwrap_or(&self.directory);
        whole.strip_prefix(root).unwrap_or(file).display().to_string()
    }

    /// Tells GitHub something; nothing happens elsewhere.
    pub fn tell(&self, commands: &str) {
        if self.github {
            let _ = io::stderr().write_all(commands.as_bytes());
        }
    }

    /// A text that is no command to the pipeline, whatever it holds.
    pub fn harmless<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.github { report::harmless(text) } else { Cow::Borrowed(text) }
    }

    /// [`Pipeline::harmless`] for a JSON document.
    pub fn harmless_json<'t>(&self, text: &'t str) -> Cow<'t, str> {
        if self.github { report::harmless_json(text) } else { Cow::Borrowed(text) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_from_the_root_of_the_repository() {
        let pipeline = Pipeline {
            root: Some("/home/runner/shop".into()),
            directory: "/home/runner/shop/tests".into(),
            ..Pipeline::default()
        };
        let name = |file: &str| pipeline.in_repository(Path::new(file));
        assert_eq!(name("./chaos/a.yaml"), "tests/chaos/a.yaml");
        assert_eq!(name("/home/runner/shop/b.yaml"), "b.yaml");
        assert_eq!(name("/etc/c.yaml"), "/etc/c.yaml");
        let without = Pipeline { directory: "/work".into(), ..Pipeline::default() };
        assert_eq!(without.in_repository(Path::new("./a.yaml")), "a.yaml");
    }
}
