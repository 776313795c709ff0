//! Making a TAP what its port says.

use crate::port::interface::{InterfaceError, InterfaceSpec, configure, other_device};
use crate::sys::netlink::Netlink;
use crate::sys::netns::index_of;
use crate::sys::tap::{LINK_KIND, OpenTap, TapError};

/// What can go wrong when a TAP port is set up.
#[derive(Debug, thiserror::Error)]
pub enum TapPortError {
    /// The interface it is to the stack behind it.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// The device.
    #[error(transparent)]
    Tap(#[from] TapError),
}

/// What becomes of a device that is left from before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Found {
    /// It is made what the spec says.
    Configured,
    /// It stays as it is.
    AsItIs,
}

/// Opens the device and makes it what the spec says, in the calling thread's namespace. A device that was made and
/// could not be finished is removed again.
pub(super) fn open_and_configure(
    spec: &InterfaceSpec,
    found: Found,
    open: impl FnOnce() -> Result<OpenTap, TapError>,
) -> Result<(OpenTap, u32), TapPortError> {
    if found == Found::AsItIs
        && let Some(index) = index_of(&spec.ifname)
    {
        // Opening tells what is no TAP.
        return Ok((open()?, index));
    }
    let failed = |source| InterfaceError::Netlink { ifname: spec.ifname.clone(), source };
    let mut netlink = Netlink::open().map_err(failed)?;
    let before = netlink.find_link(&spec.ifname).map_err(failed)?;
    if let Some(other) = before.as_ref().filter(|link| link.kind.as_deref() != Some(LINK_KIND)) {
        return Err(other_device(other, "TAP").into());
    }
    let tap = open()?;
    let link = netlink.link(&spec.ifname).map_err(failed)?;
    let index = link.index;
    match configure(&mut netlink, spec, &[], &link) {
        Ok(()) => Ok((tap, index)),
        Err(error) => {
            if before.is_none() {
                let _first_error_matters = netlink.delete_link(index);
            }
            Err(failed(error).into())
        }
    }
}
