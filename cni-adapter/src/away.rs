//! Taking an interface away while podwired is not there: the interface itself goes now, the rest is noted in the spool
//! for podwired to carry out when it is back.

use std::path::Path;

use podwire_control::model::AttachmentKey;
use podwire_control::spool;

use crate::failure::{Code, Failure};
use crate::link;

/// Takes away what can be, and notes the rest.
pub(crate) fn detach(key: &AttachmentKey, netns: Option<&Path>, spool_dir: &Path) -> Result<(), Failure> {
    // podwired removes an interface that stays; the runtime will remove the namespace with it.
    if let Some(netns) = netns
        && let Err(error) = link::remove(netns, &key.ifname)
    {
        eprintln!("podwire-cni: cannot remove {key} from {}: {error}", netns.display());
    }
    spool::add(spool_dir, key).map_err(|error| {
        let msg = format!("cannot detach {key}: podwired is away, and {} can not be written", spool_dir.display());
        Failure::new(
            Code::TRY_AGAIN,
            msg,
            format!("{error}; start podwired, or see that this directory can be written and has space"),
        )
    })
}
