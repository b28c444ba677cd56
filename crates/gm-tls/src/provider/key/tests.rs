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

#[test]
fn keys_over_another_group_or_explicit_parameters_stay_with_the_library() {
    let point = key(1).public.unwrap().point().to_uncompressed();
    for (group, explicit, taken) in [(CURVE, 0u32, true), (c"sm2", 0, true), (c"P-256", 0, false), (CURVE, 1, false)] {
        let explicit = explicit.to_ne_bytes();
        let params = [
            Param::with_text(c"group", group),
            Param::with_octets(c"pub", &point),
            Param::with_number(c"decoded-from-explicit", &explicit),
        ];
        assert_eq!(Key::read(&params, DOMAIN | PUBLIC).is_some(), taken, "{group:?}");
        assert!(Key::read(&params, PUBLIC).is_none());
    }
    // A coordinate that is changed, a point at infinity, a hybrid form.
    let mut off = point;
    off[40] ^= 1;
    let hybrid = [&[6 | (point[64] & 1)][..], &point[1..]].concat();
    for wrong in [&off[..], &[0], &hybrid[..64], &[]] {
        let params = [Param::with_text(c"group", CURVE), Param::with_octets(c"pub", wrong)];
        assert!(Key::read(&params, DOMAIN | PUBLIC).is_none(), "{wrong:02x?}");
    }
}
