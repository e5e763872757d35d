//! How long a redirect holds when nobody renews it: a number that its program compares with the clock.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::host::sys;
use crate::host::table::LEASE_MS;

/// `BPF_MAP_TYPE_ARRAY`.
const ARRAY: u32 = 2;
/// The only key.
const KEY: [u8; 4] = [0; 4];

/// The lease of one redirect. It is not held yet when it is made.
#[derive(Clone, Debug)]
pub struct Lease(Arc<OwnedFd>);

impl Lease {
    /// Makes the map.
    pub fn new() -> io::Result<Self> {
        sys::bpf_map(ARRAY, 4, 8, 1).map(|map| Lease(Arc::new(map)))
    }

    /// The map.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Holds for another [`LEASE_MS`].
    fn prolong(map: &OwnedFd) -> io::Result<()> {
        let until = sys::boot_nanos() + LEASE_MS * 1_000_000;
        sys::bpf_put(map.as_fd(), &KEY, &until.to_ne_bytes())
    }

    fn over(map: &OwnedFd) -> bool {
        let mut until = [0; 8];
        let found = sys::bpf_get(map.as_fd(), &KEY, &mut until);
        !matches!(found, Ok(true)) || u64::from_ne_bytes(until) < sys::boot_nanos()
    }
}

/// All leases of a worker, wherever their redirects act. A clone is the same.
#[derive(Clone, Debug, Default)]
pub struct Leases(Arc<Mutex<Vec<Weak<OwnedFd>>>>);

impl Leases {
    /// A lease holds from now on, as long as it is renewed and its redirect lives.
    pub fn hold(&self, lease: &Lease) -> io::Result<()> {
        Lease::prolong(&lease.0)?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&lease.0));
        Ok(())
    }

    /// Renews all of them; `false`: one had run out, and its redirect led nowhere for a while.
    pub fn renew(&self) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|lease| lease.strong_count() > 0);
        let mut in_time = true;
        for lease in all.iter().filter_map(Weak::upgrade) {
            in_time &= !Lease::over(&lease) && Lease::prolong(&lease).is_ok();
        }
        in_time
    }
}
