//! Attachments to take away though nobody asks for it now: those that the plugin was told of while podwired was not there, and
//! those whose namespace is gone.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use podwire_control::model::{Attachment, AttachmentKey};
use podwire_control::spool;

use super::Controller;
use crate::daemon::store::StoredAttachment;
use crate::sys::netns::is_gone;

/// Tells one boot of the node from another (random(4)).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// What of the plugin's notes could not be carried out.
#[derive(Debug, Default)]
pub(super) struct Spool {
    waiting: Vec<AttachmentKey>,
    failure: Option<String>,
}

impl Spool {
    /// Why an attachment's note waits, if it does.
    pub(super) fn waits(&self, key: &AttachmentKey) -> Option<&str> {
        self.failure.as_deref().filter(|_| self.waiting.contains(key))
    }

    /// What an operator should know.
    pub(super) fn warning(&self) -> Option<&str> {
        self.failure.as_deref()
    }
}

impl Controller {
    /// Takes away what the plugin was told to while podwired was not there.
    pub(super) fn carry_out_spool(&mut self) {
        let dir = self.config.control.spool_dir();
        let (pending, mut failure) = match spool::pending(&dir) {
            Ok(pending) => (pending, None),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        let mut waiting = Vec::new();
        for key in pending {
            match self.carry_out_note(&dir, &key) {
                Ok(found) => tracing::info!(attachment = %key, found, "taken away as was asked for meanwhile"),
                Err(error) => {
                    failure.get_or_insert(error);
                    waiting.push(key);
                }
            }
        }
        let failure = failure.map(|why| format!("{}: {why}; see that it can be read and emptied", dir.display()));
        if let Some(failure) = failure.as_ref().filter(|failure| self.spool.failure.as_ref() != Some(failure)) {
            tracing::warn!(failure, "what is to be taken away has to wait");
        }
        self.spool = Spool { waiting, failure };
    }

    fn carry_out_note(&mut self, dir: &Path, key: &AttachmentKey) -> Result<bool, String> {
        let found = self.detach(key).map_err(|error| error.to_string())?;
        spool::remove(dir, key).map_err(|error| format!("{key}: {error}"))?;
        Ok(found)
    }

    /// Takes away those of some attachments whose namespace is gone. What can not be stored now is found again later.
    pub(super) fn reconcile_attachments(&mut self, concerned: impl Fn(&Attachment) -> bool) {
        let gone = self.attachments.iter().filter(|one| concerned(&one.attachment) && is_vanished(one));
        let gone: Vec<AttachmentKey> = gone.map(|one| one.attachment.key.clone()).collect();
        if gone.is_empty() {
            return;
        }
        match self.take_away(&gone) {
            Ok(()) => tracing::info!(attachments = gone.len(), "their namespaces are gone; their addresses are free"),
            Err(error) => tracing::warn!(%error, "attachments whose namespaces are gone can not be taken away yet"),
        }
    }
}

/// Whether the namespace that it was made in is gone: surely so, since its addresses go to others then.
pub(super) fn is_vanished(one: &StoredAttachment) -> bool {
    one.boot_id != boot_id() || is_gone(&one.attachment.netns, one.netns_id)
}

/// The node's boot; nothing where the kernel does not say.
pub(super) fn boot_id() -> &'static str {
    static BOOT: LazyLock<String> = LazyLock::new(|| fs::read_to_string(BOOT_ID).unwrap_or_default().trim().to_owned());
    &BOOT
}
