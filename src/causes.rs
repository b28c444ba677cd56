//! An error with everything that caused it, each level once, for logs and for the last words of a program.

use std::error::Error;
use std::fmt;

/// Displays an error and its chain of sources. A level whose words the text has already is not repeated, since some libraries
/// put the words of a source into their own.
#[derive(Debug)]
pub struct Causes<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.0.to_string();
        let mut next = self.0.source();
        while let Some(cause) = next {
            let words = cause.to_string();
            if !text.contains(&words) {
                text.push_str(": ");
                text.push_str(&words);
            }
            next = cause.source();
        }
        f.write_str(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Level {
        #[error("no door")]
        Bottom,
        #[error("no house")]
        Plain(#[source] Box<Level>),
        #[error("no street: {0}")]
        Repeats(#[source] Box<Level>),
    }

    #[test]
    fn every_level_of_an_error_is_shown_once() {
        let plain = Level::Plain(Box::new(Level::Bottom));
        assert_eq!(Causes(&plain).to_string(), "no house: no door");
        let repeats = Level::Repeats(Box::new(Level::Plain(Box::new(Level::Bottom))));
        assert_eq!(Causes(&repeats).to_string(), "no street: no house: no door");
    }
}
