//! Other people's words on a terminal: a terminal obeys what it is sent, and topics, payloads and reasons come from anybody.

use std::borrow::Cow;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

/// The text with its control characters written out, but for tabs and ends of lines; bytes that are no text are written as `\xNN`.
pub fn printable(bytes: &[u8]) -> Cow<'_, [u8]> {
    let tame = |c: char| !c.is_control() || matches!(c, '\t' | '\n');
    if std::str::from_utf8(bytes).is_ok_and(|text| text.chars().all(tame)) {
        return Cow::Borrowed(bytes);
    }
    let mut shown = String::with_capacity(bytes.len() * 2);
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if tame(c) { shown.push(c) } else { shown.extend(c.escape_default()) }
        }
        for byte in chunk.invalid() {
            shown.extend(std::ascii::escape_default(*byte).map(char::from));
        }
    }
    Cow::Owned(shown.into_bytes())
}

/// Says on standard error what went wrong.
pub fn complain(error: &dyn Display) {
    let text = format!("shangmq: {error}\n");
    let mut err = io::stderr().lock();
    let text = if err.is_terminal() { printable(text.as_bytes()) } else { text.as_bytes().into() };
    // With standard error closed there is nobody left to tell; the exit code still says it.
    let _ = err.write_all(&text);
}

#[cfg(test)]
mod tests {
    use super::*;

    // A payload could rename the window, clear the screen, or answer as if it had been typed.
    #[test]
    fn what_a_terminal_would_obey_is_written_out() {
        for (sent, shown) in [
            (&b"plain \xe5\x9b\xbd\tand\n"[..], &b"plain \xe5\x9b\xbd\tand\n"[..]),
            (b"\x1b]0;x\x07", b"\\u{1b}]0;x\\u{7}"),
            (b"over\rwritten", b"over\\rwritten"),
            (b"\xc2\x9b2J", b"\\u{9b}2J"),
            (b"a\xff\x9bb", b"a\\xff\\x9bb"),
        ] {
            assert_eq!(printable(sent).escape_ascii().to_string(), shown.escape_ascii().to_string());
        }
    }
}
