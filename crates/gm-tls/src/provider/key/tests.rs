//! What the library never asks in a test: tables, halves that do not belong together, odd numbers.

use super::*;

fn key(byte: u8) -> Key {
    Key::of_secret(SecretKey::from_bytes(&[byte; 32]).unwrap())
}

#[test]
fn keys_that_are_met_often_get_tables_and_all_together_no_more_than_allowed() {
    let often = |byte| {
        let key = key(byte).public.unwrap();
        assert!((0..FREQUENT).all(|_| !key.verifying().is_prepared()), "a table at once");
        key.verifying();
        key
    };
    let count = |keys: &[Arc<Public>]| keys.iter().filter(|key| key.key.is_prepared()).count();
    let keys: Vec<_> = (1..=MAX_TABLES as u8 + 6).map(often).collect();
    assert_eq!(count(&keys), MAX_TABLES);
    drop(keys);
    assert_eq!(count(&[often(1)]), 1, "tables of keys that are gone count on");
}

#[test]
fn halves_of_two_keys_are_no_pair() {
    let (one, two) = (key(1), key(2));
    let mixed = Key { secret: one.secret.clone(), public: two.public.clone() };
    assert!(one.is_valid(KEY_PAIR) && two.is_valid(KEY_PAIR) && !mixed.is_valid(KEY_PAIR));
    assert!(mixed.is_valid(PRIVATE) && mixed.is_valid(PUBLIC) && !Key::default().is_valid(PUBLIC));
    assert!(one.matches(&one.clone(), KEY_PAIR) && !one.matches(&two, KEY_PAIR) && !one.matches(&two, PRIVATE));
}

#[test]
fn a_private_number_of_more_than_32_bytes_is_taken_if_it_is_small() {
    let mut number = [1; 40];
    assert!(secret(&number).is_none());
    number[32..].fill(0);
    assert_eq!(*secret(&number).unwrap().to_bytes(), [1; 32]);
    number[39] = 1;
    assert!(secret(&number).is_none());
    assert_eq!(secret(&[5]).unwrap().to_bytes()[31], 5);
    assert!(secret(&[]).is_none());
}
