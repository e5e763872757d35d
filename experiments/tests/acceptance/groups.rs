//! A group with the fault against one without.

use squall_experiments::verdict::{Counts, Course, Mode};

use super::{Chance, SURE, Traffic, WATCHED, in_full, replicates, share};

/// What both groups get: usually, and in the first five seconds of every hundred.
struct Weather {
    usual: [Traffic; 2],
    storm: [Traffic; 2],
}

impl Weather {
    /// By the shares of bad ones of 50 requests a second, of the tested group and of the control group.
    fn new(usual: [f64; 2], storm: [f64; 2]) -> Self {
        let traffic = |shares: [f64; 2]| shares.map(|share| Traffic::new(50.0, share));
        Weather { usual: traffic(usual), storm: traffic(storm) }
    }

    /// When it is sure that the tested group is worse than so many times the control group.
    fn sure(&self, chance: &mut Chance, mode: Mode, times: f64) -> Option<u64> {
        let mut counts = [Counts::default(), Counts::default()];
        for second in 0..WATCHED {
            let weather = if second % 100 < 5 { &self.storm } else { &self.usual };
            for (counts, traffic) in counts.iter_mut().zip(weather) {
                let (all, bad) = traffic.draw(chance);
                counts.add(second * 1000, all, bad);
            }
        }
        let [tested, control] = counts;
        let course = Course::of_groups(&tested, &control, times, mode, Some(WATCHED * 1000), 0.05)?;
        let evidence = course
            .against
            .iter()
            .find(|(at, evidence)| *evidence >= SURE && course.enough_ms.is_some_and(|enough| enough <= *at));
        [evidence.map(|(at, _)| *at), course.outage_ms].into_iter().flatten().min()
    }
}

#[test]
fn what_hits_both_groups_alike_is_rarely_called_a_difference() {
    for (seed, times, mode) in
        [(60, 1.0, Mode::Fast), (61, 1.0, Mode::Robust), (62, 1.5, Mode::Fast), (63, 1.5, Mode::Robust)]
    {
        // A hundredth is bad, and in a storm a third: in both groups alike, times what is tolerated.
        let weather = Weather::new([times * 0.01, 0.01], [times * 0.3, 0.3]);
        let found = share(seed, |chance| weather.sure(chance, mode, times).is_some());
        println!("groups at {times}x, {mode:?}: {found:.4}");
        assert!(found <= if in_full() { 0.05 } else { 0.08 }, "{times}x {mode:?}: {found}");
    }
}

#[test]
fn a_group_that_fails_alone_is_found_in_time() {
    let weather = Weather::new([0.01, 0.002], [0.01, 0.002]);
    let mut delays: Vec<u64> = (0..replicates() as u64)
        .map(|replicate| {
            let mut chance = Chance::new(64_000_003 + replicate);
            weather.sure(&mut chance, Mode::Fast, 1.0).unwrap_or(u64::MAX)
        })
        .collect();
    delays.sort_unstable();
    let median = delays[delays.len() / 2] / 1000;
    println!("1 % instead of 0.2 % in the control group: sure after {median} s");
    assert!((16..=38).contains(&median), "{median} s, and 26 s are expected");
}
