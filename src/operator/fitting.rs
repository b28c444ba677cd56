//! Lists that are asked for: an answer has a limit.

use serde::Serialize;

/// Most of a list that is answered once, as bytes of JSON.
pub(super) const MAX_LIST: usize = 6 << 20;
/// Most of a part of a list, as bytes of JSON: whoever wants more asks for what comes after.
pub(super) const MAX_PART: usize = 1 << 20;

/// As many of these as there is room for as JSON, and whether there are more.
pub(super) fn fitting<T: Serialize>(all: impl IntoIterator<Item = T>, most: usize) -> (Vec<T>, bool) {
    let mut room = most;
    let mut taken = Vec::new();
    for one in all {
        let size = serde_json::to_vec(&one).map_or(most, |text| text.len() + 1);
        let Some(left) = room.checked_sub(size) else { return (taken, true) };
        room = left;
        taken.push(one);
    }
    (taken, false)
}
