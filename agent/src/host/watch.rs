//! Watches: descriptors that wake the worker when something happens to a target, such as the end of a process or a new
//! directory.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

/// A bundle of descriptors of which the worker's loop hears through one. A clone is the same bundle.
#[derive(Clone, Debug)]
pub struct Watch(Arc<Epoll>);

impl Watch {
    /// Nothing is watched yet.
    pub fn open() -> nix::Result<Self> {
        Ok(Watch(Arc::new(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?)))
    }

    /// Wakes the worker whenever something new can be read from a descriptor, until it is closed (with all its duplicates).
    pub fn add(&self, fd: impl AsFd) -> nix::Result<()> {
        self.0.add(fd, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 0))
    }

    /// Takes what has happened, and says whether anything has.
    pub fn take(&self) -> bool {
        let mut events = [EpollEvent::empty(); 16];
        let mut any = false;
        while self.0.wait(&mut events, 0u8).is_ok_and(|count| count > 0) {
            any = true;
        }
        any
    }

    /// What becomes readable when something has happened.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.0.as_fd()
    }
}
