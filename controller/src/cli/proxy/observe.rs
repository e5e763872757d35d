//! `squall proxy observe`: what was seen of connections and requests.

use std::time::Duration;

use squall_experiments::exit::Exit;

use super::super::print;
use super::client::{At, refuse};

/// How often is asked for more.
const PAUSE: Duration = Duration::from_millis(250);

/// Options of `squall proxy observe`.
#[derive(Debug, clap::Args)]
pub(super) struct Observe {
    #[command(flatten)]
    at: At,
    /// From which number on; each line has its number as `seq`.
    #[arg(long, default_value_t = 0, value_name = "N")]
    from: u64,
    /// Go on with what is seen from now on, until interrupted.
    #[arg(long, short)]
    follow: bool,
}

impl Observe {
    pub(super) fn run(&self) -> anyhow::Result<Exit> {
        let mut from = self.from;
        loop {
            let lines = match self.at.lines(&format!("/squall/observations?from={from}"))? {
                Ok(lines) => lines,
                Err(why) => return Ok(refuse("retrieve observations", &why)),
            };
            let mut text = String::new();
            let mut more = false;
            for line in lines {
                if line["kind"] != "log" {
                    text += &format!("{line}\n");
                    continue;
                }
                more = line["more"] == true;
                from = line["next"].as_u64().unwrap_or(from);
                if let Some(dropped @ 1..) = line["dropped"].as_u64() {
                    eprintln!("{dropped} older observations are no longer kept");
                }
            }
            print::result(&text)?;
            match (more, self.follow) {
                (true, _) => {}
                (false, true) => std::thread::sleep(PAUSE),
                (false, false) => return Ok(Exit::Held),
            }
        }
    }
}
