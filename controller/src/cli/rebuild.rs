//! `squall serve --rebuild`: the rows of runs, made again from their events.

use std::fmt::Write;

use serde_json::json;
use squall_agent::talk;
use squall_controller::store::{Rebuilt, Store, Where};
use squall_experiments::exit::Exit;
use squall_experiments::protocol::Refusal;

use super::host::refused;
use super::print;

/// Makes them again, and says which said something else. Exit code 4 where a log is not whole.
pub fn rebuild(place: &Where) -> anyhow::Result<Exit> {
    if let (Where::Sqlite(directory), false) = (place, place.is_there()) {
        let what = format!("there is no controller's database in `{}`", directory.display());
        return Ok(refused(&Refusal::new(what, "name the directory that its `--data` names")));
    }
    let store = match Store::open(place) {
        Ok(store) => store,
        Err(error) => return Ok(refused(&Refusal::bare(error.to_string()))),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let rebuilt = runtime.block_on(async {
        let rebuilt = store.rebuild_runs().await?;
        if !rebuilt.mended.is_empty() {
            let runs: Vec<&String> = rebuilt.mended.iter().map(|(run, _)| run).collect();
            let what = json!({ "did": "made the rows of runs again from their events", "runs": runs });
            store.audit("squall serve --rebuild", what).await?;
        }
        anyhow::Ok(rebuilt)
    })?;
    print::result(&words(&rebuilt)?)?;
    for (run, why) in &rebuilt.broken {
        talk::error(format_args!("`{run}` is left as it is: {why}"), Some("restore a backup that has them"));
    }
    Ok(if rebuilt.broken.is_empty() { Exit::Held } else { Exit::Refused })
}

fn words(rebuilt: &Rebuilt) -> Result<String, std::fmt::Error> {
    let mut words = format!("{} runs, {} of them mended\n", rebuilt.runs, rebuilt.mended.len());
    for (run, what) in &rebuilt.mended {
        writeln!(words, "  {run}: {}", what.join("; "))?;
    }
    for run in &rebuilt.held {
        writeln!(words, "  {run}: somebody carries it on, it is left as it is")?;
    }
    Ok(words)
}
