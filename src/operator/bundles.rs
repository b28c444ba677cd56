//! What the running broker says to a change of a bundle: who of its listeners uses it, and what they would find wrong with another version.

use super::Operator;
use crate::bundle::{BundleError, BundleId, Bundles};
use crate::net::Listener;
use std::path::Path;
use std::sync::Arc;

impl Operator {
    /// The listeners that were made from a bundle, as the configuration writes them.
    pub fn users_of_bundle(&self, id: &BundleId) -> Vec<String> {
        let uses = |listener: &&Arc<Listener>| {
            listener.security().is_some_and(|security| security.config().keys_of(id).next().is_some())
        };
        self.listeners.iter().filter(uses).map(|listener| listener.key()).collect()
    }

    /// What the listeners would find wrong with what is about to be put in force, one line each. This reads files.
    ///
    /// # Errors
    /// Nothing is about to be, or it cannot be read.
    pub fn try_bundle(&self, data_dir: &Path, id: &BundleId) -> Result<Vec<String>, BundleError> {
        let candidate = Arc::new(Bundles::in_data_dir(data_dir).staged(id)?);
        let mistakes = self.listeners.iter().flat_map(|listener| listener.mistakes_with(&candidate));
        Ok(mistakes.map(|mistake| mistake.to_string()).collect())
    }
}
