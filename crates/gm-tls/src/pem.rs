//! Finds the armoured blocks of a PEM file (RFC 7468) without decoding them, so that files are bounded, blocks are
//! counted and labels are known before any of it reaches a decoder.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use zeroize::Zeroizing;

const BEGIN: &[u8] = b"-----BEGIN ";
const END: &[u8] = b"-----END ";
const DASHES: &[u8] = b"-----";

/// One armoured block: its label (`CERTIFICATE`) and its text with both armour lines.
#[derive(Debug)]
pub(crate) struct Block<'a> {
    pub label: &'a str,
    pub text: &'a [u8],
}

/// Why a text is not a sequence of PEM blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Malformed {
    /// A `BEGIN` line without its closing dashes or with a label that is not ASCII.
    BeginLine,
    /// No `END` line with the label of the `BEGIN` line.
    Unterminated,
    /// More blocks than the caller takes.
    TooMany,
}

/// Splits `text` into its blocks; text between blocks is ignored, as RFC 7468 section 5.2 allows.
pub(crate) fn blocks(text: &[u8], max: usize) -> Result<Vec<Block<'_>>, Malformed> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(begin) = find_line_start(rest, BEGIN) {
        let block = rest.get(begin..).unwrap_or_default();
        let label_area = block.get(BEGIN.len()..).unwrap_or_default();
        let label_len = find(label_area, DASHES).ok_or(Malformed::BeginLine)?;
        let label = label_area
            .get(..label_len)
            .and_then(|label| std::str::from_utf8(label).ok())
            .filter(|label| label.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()))
            .ok_or(Malformed::BeginLine)?;
        let end_line: Vec<u8> = [END, label.as_bytes(), DASHES].concat();
        let end = find_line_start(label_area, &end_line).ok_or(Malformed::Unterminated)?;
        let Range { start, end } = 0..BEGIN.len() + end + end_line.len();
        let text = block.get(start..end).unwrap_or_default();
        if find(text.get(BEGIN.len()..).unwrap_or_default(), BEGIN).is_some() {
            return Err(Malformed::Unterminated);
        }
        if found.len() == max {
            return Err(Malformed::TooMany);
        }
        found.push(Block { label, text });
        rest = block.get(end..).unwrap_or_default();
    }
    Ok(found)
}

/// What a bounded read of a file gave.
pub(crate) struct Contents {
    pub bytes: Zeroizing<Vec<u8>>,
    /// Permission bits of the file that was read, not of whatever has the name now.
    pub mode: u32,
    /// Its owner, where that is somebody who should not have a secret of this process.
    pub stranger: Option<u32>,
}

/// The owner of a file with a secret, if that is neither this process's user nor root: whoever owns a file can read it whatever its mode.
pub fn stranger(metadata: &Metadata) -> Option<u32> {
    let owner = metadata.uid();
    (!is_trusted(owner, rustix::process::geteuid().as_raw())).then_some(owner)
}

fn is_trusted(owner: u32, user: u32) -> bool {
    owner == user || owner == 0
}

/// Reads at most `max` bytes of a regular file; `None` when it is larger.
///
/// The buffer is wiped when dropped, since the file may hold a key.
pub(crate) fn read_file(path: &Path, max: usize) -> io::Result<Option<Contents>> {
    let mut file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "is a directory"));
    }
    // The whole capacity is reserved at once: a buffer that grew would leave copies of its contents behind.
    let mut bytes = Zeroizing::new(vec![0; max.saturating_add(1).min(capacity(metadata.len(), max))]);
    let mut filled = 0;
    while let Some(space) = bytes.get_mut(filled..).filter(|space| !space.is_empty()) {
        match file.read(space) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    if filled > max {
        return Ok(None);
    }
    bytes.truncate(filled);
    Ok(Some(Contents { bytes, mode: metadata.permissions().mode() & 0o7777, stranger: stranger(&metadata) }))
}

/// A pipe says that it has no length, and is read up to the bound.
fn capacity(len: u64, max: usize) -> usize {
    match usize::try_from(len) {
        Ok(0) | Err(_) => max.saturating_add(1),
        Ok(len) => len.saturating_add(1),
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn find_line_start(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let at = from + find(haystack.get(from..)?, needle)?;
        let previous = at.checked_sub(1).and_then(|before| haystack.get(before));
        if matches!(previous, None | Some(b'\n' | b'\r')) {
            return Some(at);
        }
        from = at + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &[u8] =
        b"comment\n-----BEGIN A B-----\nAAAA\n-----END A B-----\nmore\n-----BEGIN C-----\nBBBB\n-----END C-----";

    #[test]
    fn splits_blocks_and_ignores_text_between() {
        let blocks = blocks(TWO, 2).unwrap();
        assert_eq!(blocks.iter().map(|block| block.label).collect::<Vec<_>>(), ["A B", "C"]);
        assert_eq!(blocks[1].text, b"-----BEGIN C-----\nBBBB\n-----END C-----");
    }

    #[test]
    fn bounds_the_number_of_blocks() {
        assert_eq!(blocks(TWO, 1).unwrap_err(), Malformed::TooMany);
    }

    #[test]
    fn refuses_a_block_without_its_own_end() {
        for text in [
            &b"-----BEGIN A-----\nAAAA\n"[..],
            b"-----BEGIN A-----\nAAAA\n-----END B-----\n",
            b"-----BEGIN A-----\n-----BEGIN B-----\n-----END B-----\n-----END A-----\n",
        ] {
            assert_eq!(blocks(text, 4).unwrap_err(), Malformed::Unterminated);
        }
        assert_eq!(blocks(b"-----BEGIN A", 4).unwrap_err(), Malformed::BeginLine);
        assert_eq!(blocks(b"-----BEGIN \x01-----\n", 4).unwrap_err(), Malformed::BeginLine);
    }

    #[test]
    fn every_truncation_of_a_single_block_is_an_error_or_nothing() {
        let text = b"-----BEGIN C-----\nBBBB\n-----END C-----";
        for len in 0..text.len() {
            assert!(blocks(&text[..len], 4).map_or(true, |blocks| blocks.is_empty()), "{len}");
        }
    }

    // A key of mode 0600 that another user owned was taken by root.
    #[test]
    fn secrets_belong_to_this_user_or_to_root() {
        assert!(is_trusted(1000, 1000) && is_trusted(0, 1000) && is_trusted(0, 0));
        assert!(!is_trusted(65534, 0) && !is_trusted(1001, 1000));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "x").unwrap();
        assert_eq!(read_file(&path, 9).unwrap().unwrap().stranger, None);
        // Only root can give a file away.
        if std::os::unix::fs::chown(&path, Some(65534), None).is_ok() {
            assert_eq!(read_file(&path, 9).unwrap().unwrap().stranger, Some(65534));
        }
    }

    #[test]
    fn does_not_read_past_the_bound() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, [7; 100]).unwrap();
        assert!(read_file(&path, 99).unwrap().is_none());
        assert_eq!(read_file(&path, 100).unwrap().unwrap().bytes.len(), 100);
        assert!(read_file(dir.path(), 100).is_err());
    }
}
