//! Notices that certificate files have changed.
//!
//! By looking at them every two seconds: notifications of the kernel do not tell of what another machine writes to a network file system,
//! and follow neither the links by which Kubernetes swaps a mounted secret nor a file that a program renames over another without being
//! set up anew each time. A look costs one system call a file.

use super::{Operator, Trigger};
use crate::net::{Listener, Stamped};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Between two looks.
pub(super) const INTERVAL: Duration = Duration::from_secs(2);

/// What the files of all listeners look like.
type Look = Vec<Stamped>;

/// Decides when files that have changed are read. They are read once they have stayed the same from one look to the next, so that a file
/// that is being written, or a key whose certificate is still to come, is waited for; and what was refused is not tried again before it
/// has changed once more.
#[derive(Debug, Default)]
struct Settling {
    last: Option<Look>,
    tried: Option<Look>,
}

impl Settling {
    /// Whether to read the files now. `in_force` is how they looked when they were read.
    fn is_due(&mut self, in_force: &Look, now: Look) -> bool {
        if now == *in_force {
            *self = Settling::default();
            return false;
        }
        let settled = self.last.as_ref() == Some(&now);
        let due = settled && self.tried.as_ref() != Some(&now);
        if due {
            self.tried = Some(now.clone());
        }
        self.last = Some(now);
        due
    }
}

impl Operator {
    /// Reads certificates again whenever their files have changed, until `stop` says so.
    pub async fn watch(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        if self.in_force().is_empty() {
            return;
        }
        let mut settling = Settling::default();
        loop {
            tokio::select! {
                // Cancel-safe, both of them.
                () = tokio::time::sleep(INTERVAL) => {}
                _ = stop.changed() => return,
            }
            let in_force = self.in_force();
            let files = in_force.clone();
            let look = tokio::task::spawn_blocking(move || files.iter().map(Stamped::again).collect::<Look>());
            let Ok(now) = look.await else { continue };
            if now == in_force {
                // They are those again that are in force.
                self.note_reloads(|refused| refused.files.clear());
            }
            if settling.is_due(&in_force, now) {
                // What is wrong with them is in the log.
                let _ = self.reload_aside(Trigger::Files).await;
            }
        }
    }

    fn in_force(&self) -> Look {
        let security = |listener: &Arc<Listener>| listener.security();
        self.listeners.iter().filter_map(security).map(|security| security.files().clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    fn look(path: &Path) -> Look {
        vec![Stamped::take([path.to_owned()])]
    }

    #[test]
    fn files_are_read_once_they_have_settled_and_not_again_before_they_change() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(&path, "1").unwrap();
        let in_force = look(&path);
        let mut settling = Settling::default();
        assert!(!settling.is_due(&in_force, look(&path)), "nothing has changed");
        fs::write(&path, "12").unwrap();
        assert!(!settling.is_due(&in_force, look(&path)), "it may still be written");
        fs::write(&path, "123").unwrap();
        assert!(!settling.is_due(&in_force, look(&path)), "and it was");
        assert!(settling.is_due(&in_force, look(&path)), "now it is whole");
        assert!(!settling.is_due(&in_force, look(&path)), "it was refused, as it is still not in force");
        fs::write(&path, "1234").unwrap();
        assert!(!settling.is_due(&in_force, look(&path)));
        assert!(settling.is_due(&in_force, look(&path)), "another try for another file");
        assert!(!settling.is_due(&look(&path), look(&path)), "which is in force");
    }
}
