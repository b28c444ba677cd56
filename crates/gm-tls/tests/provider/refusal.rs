//! A provider whose self-test fails serves nothing. The choice is made once for a process, so each of these is a process of its own.

use std::process::Command;

use gm_tls::provider::{self, NAME, Provider, ProviderError, Sabotage};

/// Tells the tests of this file that they are the child: the name of the test to falsify, or [`NONE`].
const CHILD: &str = "GM_TLS_TEST_CHILD";
const NONE: &str = "the library alone";

/// Runs one of the tests here in a process of its own, where it does its work.
fn child(test: &str, value: &str) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("refusal::{test}")])
        .env(CHILD, value)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{value}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn a_falsified_answer_of_any_test_keeps_the_provider_from_serving() {
    for name in provider::self_test_names() {
        child("with_a_falsified_answer", name);
    }
}

#[test]
fn with_a_falsified_answer() {
    let Some(name) = std::env::var(CHILD).ok().filter(|name| name != NONE) else { return };
    let refused = provider::choose_with(Provider::Accelerated, Sabotage::of(&name));
    assert!(matches!(&refused, Err(ProviderError::SelfTest { test }) if *test == name), "{name}: {refused:?}");
    assert!(refused.unwrap_err().to_string().contains(&name));
    // It stays refused, and whatever is fetched now is the library's.
    assert!(matches!(provider::choose(Provider::Accelerated), Err(ProviderError::SelfTest { .. })));
    for service in provider::services() {
        assert_ne!(service.provider.as_deref(), Some(NAME), "{service:?}");
    }
}

#[test]
fn the_library_alone_serves_everything_when_it_is_chosen() {
    child("with_the_library_alone", NONE);
}

#[test]
fn with_the_library_alone() {
    if std::env::var(CHILD).as_deref() != Ok(NONE) {
        return;
    }
    provider::choose(Provider::Tongsuo).unwrap();
    for service in provider::services() {
        assert_eq!(service.provider.as_deref(), Some("default"), "{service:?}");
    }
    let changed = provider::choose(Provider::Accelerated);
    assert!(matches!(changed, Err(ProviderError::ChosenBefore { .. })), "{changed:?}");
}
