//! Takes the padding and the MAC off a decrypted CBC record without telling anyone how much of it was padding.

use subtle::{Choice, ConditionallySelectable, ConstantTimeEq, ConstantTimeGreater, ConstantTimeLess};
use zeroize::Zeroizing;

use crate::provider::ffi;

/// Bytes of the longest MAC.
pub(super) const MAX_MAC: usize = 64;
/// Bytes of the longest padding with its length.
const MAX_PADDING: usize = 256;

/// The text's length, with the MAC in `mac`. After bad padding the MAC is random, the length that of a record without padding, and only
/// the comparison that follows fails. `None` for what is too short by its length alone, which is public.
///
/// The work depends on the lengths of record and MAC alone: every byte in which the MAC can lie is read, and each is put where it
/// belongs by masks.
pub(super) fn remove(record: &[u8], mac: &mut [u8]) -> Option<usize> {
    let (length, mac_length) = (record.len(), mac.len());
    if length < mac_length.checked_add(1)? || mac_length > MAX_MAC {
        return None;
    }
    let padding = u64::from(*record.last()?);
    let mut good = !((padding + mac_length as u64 + 1).ct_gt(&(length as u64)));
    for (at, byte) in (0u64..).zip(record.iter().rev().take(MAX_PADDING)) {
        let in_padding = !at.ct_gt(&padding);
        good &= !in_padding | u64::from(*byte).ct_eq(&padding);
    }
    let end = length as u64 - u64::conditional_select(&0, &(padding + 1), good);
    if mac_length == 0 {
        // Nothing is to be compared later, so there is nothing to hide.
        return bool::from(good).then_some(usize::try_from(end).ok()?);
    }
    let start = end - mac_length as u64;

    let mut random = Zeroizing::new([0; MAX_MAC]);
    let random = random.get_mut(..mac_length)?;
    ffi::random(random)?;
    // The MAC, turned by where its first byte lies from the first byte that is read.
    let mut turned = Zeroizing::new([0; MAX_MAC]);
    let turned = turned.get_mut(..mac_length)?;
    let first = length.saturating_sub(mac_length + MAX_PADDING);
    let mut offset = 0u64;
    let mut inside = Choice::from(0);
    let mut slot = 0;
    for (at, byte) in (first as u64..).zip(record.get(first..)?) {
        let begins = at.ct_eq(&start);
        inside = (inside | begins) & at.ct_lt(&end);
        offset.conditional_assign(&(slot as u64), begins);
        let place = turned.get_mut(slot)?;
        *place |= u8::conditional_select(&0, byte, inside);
        slot = if slot + 1 == mac_length { 0 } else { slot + 1 };
    }
    for (at, (out, noise)) in mac.iter_mut().zip(random.iter()).enumerate() {
        // Where byte `at` of the MAC lies; both are below the MAC's length, so that one subtraction is enough.
        let sum = offset + at as u64;
        let wanted =
            u64::conditional_select(&sum, &sum.wrapping_sub(mac_length as u64), !sum.ct_lt(&(mac_length as u64)));
        let mut found = 0;
        for (place, byte) in (0u64..).zip(turned.iter()) {
            found |= u8::conditional_select(&0, byte, place.ct_eq(&wanted));
        }
        *out = u8::conditional_select(noise, &found, good);
    }
    usize::try_from(start).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: usize = 32;

    fn record(text: usize, padding: usize) -> (Vec<u8>, Vec<u8>) {
        let mac: Vec<u8> = (100..100 + MAC as u8).collect();
        let mut record: Vec<u8> = (0..text).map(|at| at as u8).collect();
        record.extend_from_slice(&mac);
        record.extend(std::iter::repeat_n(padding as u8, padding + 1));
        (record, mac)
    }

    #[test]
    fn finds_the_mac_behind_every_length_of_padding() {
        for text in [0, 1, 15, 16, 31, 64, 255, 256, 300, 1000] {
            for padding in 0..=255 {
                let (record, expected) = record(text, padding);
                let mut mac = [0; MAC];
                assert_eq!(remove(&record, &mut mac), Some(text), "{text} and {padding}");
                assert_eq!(mac.as_slice(), expected, "{text} and {padding}");
            }
        }
    }

    #[test]
    fn one_wrong_byte_of_padding_makes_the_mac_random() {
        for padding in [1, 2, 15, 100, 255] {
            for wrong in 0..padding {
                let (mut record, expected) = record(40, padding);
                let at = record.len() - 2 - wrong;
                record[at] ^= 0x80;
                let mut mac = [0; MAC];
                assert_eq!(remove(&record, &mut mac), Some(record.len() - MAC), "{padding}, {wrong}");
                assert_ne!(mac.as_slice(), expected);
            }
        }
    }

    #[test]
    fn padding_that_leaves_no_room_for_the_mac_is_bad() {
        for length in [MAC + 1, MAC + 2, 48, 64, 100, 255, 256, 287, 288, 289, 320] {
            for padding in 0..=255 {
                let mut record: Vec<u8> = (0..length).map(|at| at as u8 | 1).collect();
                let first = length.saturating_sub(padding + 1);
                record[first..].fill(padding as u8);
                let room = length.checked_sub(padding + 1 + MAC);
                let (mut mac, mut again) = ([0; MAC], [0; MAC]);
                assert_eq!(remove(&record, &mut mac), Some(room.unwrap_or(length - MAC)), "{length}, {padding}");
                assert_eq!(remove(&record, &mut again), Some(room.unwrap_or(length - MAC)));
                assert_eq!(mac == again, room.is_some(), "{length}, {padding}: the MAC, or random bytes");
            }
        }
    }

    #[test]
    fn padding_longer_than_the_record_is_bad_and_a_record_without_room_is_refused() {
        let mut mac = [0; MAC];
        let record = [255; 64];
        assert_eq!(remove(&record, &mut mac), Some(64 - MAC));
        assert_eq!(remove(&record[..MAC], &mut mac), None);
        assert_eq!(remove(&[], &mut mac), None);
        assert_eq!(remove(&[0; MAC + 1], &mut mac), Some(0));
        assert_eq!(remove(&[3, 3, 3, 3], &mut []), Some(0));
        assert_eq!(remove(&[3, 2, 3, 3], &mut []), None);
    }
}
