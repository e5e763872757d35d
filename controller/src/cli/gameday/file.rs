//! A game day file with the experiments that it names.

use std::path::Path;

use squall_experiments::document::{self, Problems, Sources};
use squall_experiments::exit::Exit;
use squall_experiments::gameday::{self, Experiment, GameDay};

use crate::cli::{Common, load};

/// The game day of a file, with the texts of its experiments in it, and what the file is called.
pub fn read(file: &Path) -> Result<(String, GameDay), Problems> {
    let (name, bytes) = load::bytes(file, "docs/game-days.md shows one")?;
    let day = gameday::read(&name, &bytes)?;
    let folder = file.parent().unwrap_or(Path::new(""));
    let day = day.with_texts(|step, experiment| {
        let path = folder.join(experiment);
        std::fs::read_to_string(&path).map_err(|error| {
            let what =
                format!("the experiment `{}` of step `{step}` cannot be read: {error}", path.display());
            Problems::unreadable(&name, what, "its path is seen from the folder of the game day's file")
        })
    })?;
    Ok((name, day))
}

/// Says everything that is wrong with a game day, and with each of its experiments.
pub fn check(file: &Path, common: &Common) -> Exit {
    let day = match read(file) {
        Ok((_, day)) => day,
        Err(problems) => return load::refuse(&problems, common),
    };
    // Secrets are the controller's.
    let unknown = |_: &str| Ok(Some("not known here".to_owned()));
    let mut exit = Exit::Held;
    for step in &day.steps {
        let Some(Experiment::Text(text)) = step.experiment() else { continue };
        let sources = Sources { vars: step.vars.clone(), secret: &unknown, ..Sources::default() };
        let name = format!("the experiment of step `{}`", step.name);
        if let Err(problems) = document::read(&name, text.as_bytes(), &sources) {
            exit = load::refuse(&problems, common);
        }
    }
    if exit == Exit::Held {
        eprintln!("{} steps, and nothing is wrong with them", day.steps.len());
    }
    exit
}
