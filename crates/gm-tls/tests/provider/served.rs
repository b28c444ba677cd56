//! Which operations of handshakes and records the accelerated provider served, by its own counts.

use gm_tls::provider::{self, NAME};

use crate::start;

#[test]
fn the_library_fetches_the_accelerated_provider_without_being_told() {
    start();
    let served: Vec<_> = provider::services()
        .into_iter()
        .filter(|service| service.provider.as_deref() == Some(NAME))
        .map(|service| (service.operation, service.algorithm))
        .collect();
    assert_eq!(served, [("digest", "SM3")]);
}
