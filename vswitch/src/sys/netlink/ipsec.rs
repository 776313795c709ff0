//! Whether the node has IPsec policies (linux/xfrm.h): what sends beside the kernel's stack would pass them by.

use std::io;

use netlink_sys::protocols::NETLINK_XFRM;
use netlink_sys::{Socket, SocketAddr};

use super::NetlinkError;

const NLM_F_REQUEST: u16 = 1;
const NLMSG_HEADER_BYTES: usize = 16;
/// Asks for the numbers of policies; the answer is the message before it.
const XFRM_MSG_GETSPDINFO: u16 = 37;
const XFRM_MSG_NEWSPDINFO: u16 = 36;
/// Where `outcnt` of `struct xfrmu_spdinfo` lies in the answer, behind header, flags, attribute header and `incnt`: the
/// kernel writes that attribute (`XFRMA_SPD_INFO`, 1) first.
const OUT_COUNT: usize = NLMSG_HEADER_BYTES + 4 + 4 + 4;
const XFRMA_SPD_INFO: u16 = 1;

/// Looks at the policies of the calling thread's network namespace.
#[derive(Debug)]
pub struct IpsecPolicies(Option<Socket>);

impl IpsecPolicies {
    /// A kernel without IPsec is fine: it has no policies.
    ///
    /// # Errors
    /// [`NetlinkError::Open`].
    pub fn open() -> Result<Self, NetlinkError> {
        let mut socket = match Socket::new(NETLINK_XFRM) {
            Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => return Ok(Self(None)),
            socket => socket.map_err(NetlinkError::Open)?,
        };
        socket.bind_auto().map_err(NetlinkError::Open)?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(NetlinkError::Open)?;
        Ok(Self(Some(socket)))
    }

    /// Whether any policy applies to packets that leave the node.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn apply_to_sending(&mut self) -> Result<bool, NetlinkError> {
        let Some(socket) = &self.0 else { return Ok(false) };
        let refused = |source| NetlinkError::Refused { action: "count IPsec policies".to_owned(), source };
        let mut request = [0; NLMSG_HEADER_BYTES + 4];
        let len = u32::try_from(request.len()).unwrap_or(0);
        request[..4].copy_from_slice(&len.to_ne_bytes());
        request[4..6].copy_from_slice(&XFRM_MSG_GETSPDINFO.to_ne_bytes());
        request[6..8].copy_from_slice(&NLM_F_REQUEST.to_ne_bytes());
        socket.send(&request, 0).map_err(refused)?;
        let (answer, _from) = socket.recv_from_full().map_err(refused)?;
        let half = |at: usize| answer.get(at..at + 2).map(|bytes| u16::from_ne_bytes([bytes[0], bytes[1]]));
        if half(4) != Some(XFRM_MSG_NEWSPDINFO) || half(NLMSG_HEADER_BYTES + 6) != Some(XFRMA_SPD_INFO) {
            return Err(refused(io::ErrorKind::InvalidData.into()));
        }
        Ok(answer.get(OUT_COUNT..OUT_COUNT + 4).is_some_and(|count| count != [0; 4]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::netns::testing::TestNetns;

    #[test]
    fn a_policy_for_packets_that_leave_is_seen_while_it_is_there() {
        let netns = TestNetns::new();
        netns.enter(|| {
            let mut policies = IpsecPolicies::open().unwrap();
            assert!(!policies.apply_to_sending().unwrap());
            let policy = |verb: &str, direction: &str| {
                netns.ip(&format!("xfrm policy {verb} src 10.9.0.0/24 dst 10.9.0.0/24 dir {direction}"));
            };
            policy("add", "in");
            assert!(!policies.apply_to_sending().unwrap(), "of what comes");
            policy("add", "out");
            assert!(policies.apply_to_sending().unwrap());
            policy("delete", "out");
            assert!(!policies.apply_to_sending().unwrap());
        });
    }
}
