//! For how long an injection may live: the word of its conductor, and an end in any case.
//!
//! Times are nanoseconds on a clock that never goes back and does not stop while the machine sleeps (the boot clock). Nothing
//! here asks a clock: whoever does tells it.

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Lease {
    length: u64,
    renewed: u64,
    deadline: u64,
}

impl Lease {
    /// One that begins now, is over after `length` without a renewal, and at `deadline` in any case.
    pub fn new(now: u64, length: u64, deadline: u64) -> Self {
        Lease { length, renewed: now, deadline }
    }

    /// The conductor has asked for more.
    pub fn renew(&mut self, now: u64) {
        self.renewed = now;
    }

    /// For so long nobody listened to whether it was renewed: that does not count. The deadline stays.
    pub fn excuse(&mut self, now: u64, away: u64) {
        self.renewed = now.min(self.renewed.saturating_add(away));
    }

    /// When it is over, unless it is renewed.
    pub fn due(&self) -> u64 {
        self.deadline.min(self.renewed.saturating_add(self.length))
    }

    /// When it is over in any case.
    pub fn deadline(&self) -> u64 {
        self.deadline
    }

    /// Why it is over, once it is.
    pub fn over(&self, now: u64) -> Option<&'static str> {
        match () {
            () if self.deadline <= now => Some("its deadline was reached"),
            () if self.due() <= now => Some("its lease was not renewed"),
            () => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_lives_by_renewals_and_not_beyond_its_deadline() {
        let mut lease = Lease::new(100, 10, 130);
        assert_eq!(
            (lease.over(109), lease.over(110), lease.due()),
            (None, Some("its lease was not renewed"), 110)
        );
        lease.renew(109);
        assert_eq!((lease.over(118), lease.due()), (None, 119));
        lease.renew(125);
        assert_eq!((lease.over(129), lease.due()), (None, 130));
        assert_eq!(lease.over(130), Some("its deadline was reached"));
        let endless = Lease::new(u64::MAX - 1, 10, u64::MAX);
        assert_eq!(endless.over(u64::MAX - 1), None);
    }

    #[test]
    fn time_in_which_nobody_listened_is_given_back_and_never_more_than_there_was() {
        let mut lease = Lease::new(100, 10, 1000);
        lease.excuse(150, 45);
        assert_eq!(lease.due(), 155);
        lease.excuse(150, 500);
        assert_eq!(lease.due(), 160);
        lease.excuse(2000, 5000);
        assert_eq!(lease.over(2000), Some("its deadline was reached"));
    }
}
