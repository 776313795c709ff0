//! The only place with `unsafe` and with system calls: thin, typed, safe to call from the rest of the engine.
//!
//! Nothing here knows of frames, ports or snapshots; `port`, `worker` and `daemon` build on it and nothing else
//! does. What a worker calls in a pass (clock, epoll, tap, udp) allocates nothing.
#![allow(unsafe_code)]

pub mod affinity;
pub mod bpf;
pub mod clock;
pub mod epoll;
pub mod ethtool;
pub mod netlink;
pub mod netns;
pub mod nft;
pub mod notify;
pub mod packet;
pub mod tap;
pub mod udp;
pub mod xsk;
