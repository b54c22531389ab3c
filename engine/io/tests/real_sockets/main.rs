//! The reactors on real sockets over loopback: the same tests for both. Most of these are faults that other servers of this
//! kind had in production; the name of each test says which.

#![cfg(not(loom))]

#[path = "."]
mod uring {
    pub(crate) use dkv_io::UringReactor as Tested;

    mod close;
    mod descriptors;
    pub(crate) mod echo;
    mod great;
    mod limits;
    pub(crate) mod rig;
    mod wake;
}

#[path = "."]
#[expect(clippy::duplicate_mod, reason = "the same tests for both reactors")]
mod epoll {
    pub(crate) use dkv_io::EpollReactor as Tested;

    mod close;
    mod descriptors;
    pub(crate) mod echo;
    mod great;
    mod mixed;
    pub(crate) mod rig;
    mod wake;
}
