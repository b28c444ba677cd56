//! Lists that are asked for or told of: an answer has a limit, and so has a line of the log.

use crate::telemetry::shortened;
use serde::Serialize;
use std::fmt::Display;

/// Most of a list that is answered once, as bytes of JSON.
pub(super) const MAX_LIST: usize = 6 << 20;
/// Most of a part of a list, as bytes of JSON: whoever wants more asks for what comes after.
pub(super) const MAX_PART: usize = 1 << 20;

/// How many of the things that a change concerned stand in its line of the log.
const FEW: usize = 5;

/// The first of what a change concerned, short enough for a line of the log.
pub(super) fn first_few<T: Display>(all: &[T]) -> String {
    let shown: Vec<String> = all.iter().take(FEW).map(|one| shortened(&one.to_string()).to_owned()).collect();
    let shown = shown.join("; ");
    match all.len().saturating_sub(FEW) {
        0 => shown,
        more => format!("{shown}; and {more} more"),
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_the_first_few_and_says_how_many_there_are_more() {
        assert_eq!(first_few(&["a", "b"]), "a; b");
        assert_eq!(first_few(&[1, 2, 3, 4, 5]), "1; 2; 3; 4; 5");
        assert_eq!(first_few(&[1, 2, 3, 4, 5, 6, 7]), "1; 2; 3; 4; 5; and 2 more");
        assert!(first_few(&["x".repeat(5000)]).len() < 1000);
    }
}
