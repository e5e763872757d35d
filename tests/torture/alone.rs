//! A survivor that hangs in the midst of undoing: nobody watches it any more.
//!
//! Its rules match nothing for want of renewal, a timer of its own ends it, and the next command does the rest.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use rustix::process::Signal;
use squall_agent::host::sys::boot_nanos;
use squall_agent::pulse::ALONE;
use squall_tests::netns::{Process, signal};

use crate::faults::fault;
use crate::harness::{Ground, Job, discard, lock};
use crate::stage::{Life, Orders, Stage};
use crate::strike::{Outcome, mend};

/// How long its end may take: its timer, and a machine that is busy.
pub const ENDED: Duration = Duration::from_secs(2 * ALONE.as_secs() + 10);

/// Which fault, how it comes to be that one is alone, where that one hangs, and how.
const HANGS: [(&str, &str, &str, &str); 6] = [
    ("partition", "worker/after-perform:1:kill-self", "guardian/before-undo:1", "stop"),
    // The kernel lets a worker go on that is stopped in the moment when its parent ends: an orphaned process group.
    ("partition", "worker/after-perform:1:kill-other", "worker/before-undo:1", "hang"),
    ("partition of a process", "worker/after-perform:1:kill-self", "guardian/after-undo:1", "hang"),
    ("bandwidth by htb", "worker/after-perform:1:kill-self", "guardian/before-undo:1", "stop"),
    ("pause", "worker/after-perform:1:kill-other", "worker/before-revert:1", "hang"),
    ("pause by a signal", "worker/after-perform:1:kill-self", "guardian/before-undo:1", "hang"),
];

/// The jobs of this subject.
pub fn jobs() -> Vec<Job> {
    let job = |(number, case): (usize, &'static (&str, &str, &str, &str))| {
        let name = format!("a_survivor_that_hangs_is_ended::{}_{number}", case.0.replace(' ', "_"));
        Job::new(name, fault(case.0).needs, move |ground| hangs(ground, *case))
    };
    HANGS.iter().enumerate().map(job).collect()
}

fn hangs(
    ground: &Ground,
    (name, blow, at, way): (&'static str, &str, &str, &'static str),
) -> Result<(), String> {
    let stage = Stage::new(fault(name), &ground.agent);
    let mut life = stage.begin(&Orders { at: format!("{blow},{at}:{way}"), ..Orders::default() });
    let came = left_alone(&stage, &mut life, at);
    let ended = life.end();
    let came = came.map_err(|why| format!("{name}, {blow}, {at}, {way}: {why}; {ended:?}"));
    let outcome = came.and_then(|took| {
        let rest = mend(&stage, 0)?;
        let (victim, way) = ("who reverts".to_owned(), way.to_owned());
        Ok(Outcome { victim, way, layer: "kernel timers", rest, took, live: false, deaths: 2 })
    });
    match outcome {
        Ok(outcome) => lock(&ground.table).note(name, outcome),
        Err(why) => {
            discard(stage);
            return Err(why);
        }
    }
    Ok(())
}

/// How long the survivor lived, from where it hangs.
fn left_alone(stage: &Stage, life: &mut Life, at: &str) -> Result<Duration, String> {
    let struck = life.reached(at).ok_or("nobody came there")?;
    if stage.fault.name == "partition" {
        passes(stage, life)?;
    }
    let watched = stage.watch(struck, life, ENDED);
    match (watched.effects, watched.dead) {
        (Some(_), Some(dead)) => Ok(dead),
        _ => Err(format!("{:?} hangs on, or the fault does: {watched:?}", life.pair())),
    }
}

/// The table still stands, as its owner does, and lets everything through: that is the kernel's doing alone.
fn passes(stage: &Stage, life: &Life) -> Result<(), String> {
    let to = SocketAddr::new(stage.world.hosts[1].v4, 7);
    let answered = || {
        stage.host().netns.inside(|| {
            let socket = UdpSocket::bind(("0.0.0.0", 0))?;
            socket.set_read_timeout(Some(Duration::from_millis(100)))?;
            socket.send_to(b"?", to)?;
            socket.recv(&mut [0; 8])
        })
    };
    let begun = boot_nanos();
    loop {
        let answer = answered();
        let stopped: Vec<Process> = life.pair().into_iter().flatten().collect();
        match answer {
            Ok(_) if stopped.is_empty() => return Err("the survivor had ended before the fault".to_owned()),
            Ok(_) if stage.host().tables().is_empty() => return Err("the table had gone before".to_owned()),
            Ok(_) => return Ok(()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            // A drop on its way out is told to the sender at once.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {}
            Err(error) => return Err(error.to_string()),
        }
        if Duration::from_nanos(boot_nanos() - begun) > ENDED {
            for process in &stopped {
                signal(process, Signal::KILL);
            }
            return Err("the rules of a survivor that hangs match on and on".to_owned());
        }
    }
}
