//! The encodings of GM/T 0009 in DER: of signatures and of ciphertexts. A value has one encoding; anything else is refused.

use super::Error;
use super::ciphertext::Ciphertext;
use super::key::Point;
use super::signature::Signature;

const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const SEQUENCE: u8 = 0x30;

pub fn encode_signature(signature: &Signature) -> Vec<u8> {
    let mut body = Vec::with_capacity(72);
    push_integer(&mut body, &signature.r);
    push_integer(&mut body, &signature.s);
    wrap(SEQUENCE, &body)
}

pub fn decode_signature(bytes: &[u8]) -> Result<Signature, Error> {
    let mut body = only(SEQUENCE, bytes)?;
    let (r, s) = (take_integer(&mut body)?, take_integer(&mut body)?);
    if body.is_empty() { Ok(Signature { r, s }) } else { Err(Error::Encoding) }
}

/// `SEQUENCE { x INTEGER, y INTEGER, hash OCTET STRING, cipher OCTET STRING }` (GM/T 0009, 7.2).
pub fn encode_ciphertext(ciphertext: &Ciphertext) -> Vec<u8> {
    let (x, y) = ciphertext.point.coordinates();
    let mut body = Vec::with_capacity(ciphertext.cipher.len() + 112);
    push_integer(&mut body, &x);
    push_integer(&mut body, &y);
    push(&mut body, OCTET_STRING, &ciphertext.hash);
    push(&mut body, OCTET_STRING, &ciphertext.cipher);
    wrap(SEQUENCE, &body)
}

/// Refuses a point that is not on the curve with the same error as a wrong encoding.
pub fn decode_ciphertext(bytes: &[u8]) -> Result<Ciphertext, Error> {
    let mut body = only(SEQUENCE, bytes)?;
    let (x, y) = (take_integer(&mut body)?, take_integer(&mut body)?);
    let hash = take(OCTET_STRING, &mut body)?.try_into().map_err(|_| Error::Encoding)?;
    let cipher = take(OCTET_STRING, &mut body)?.to_vec();
    if !body.is_empty() || cipher.is_empty() {
        return Err(Error::Encoding);
    }
    let point = Point::from_coordinates(&x, &y).map_err(|_| Error::Encoding)?;
    Ok(Ciphertext { point, hash, cipher })
}

/// A number from its 32 bytes: without leading zeros, but with one where it would look negative.
fn push_integer(out: &mut Vec<u8>, bytes: &[u8; 32]) {
    let zeros = bytes.iter().take_while(|&&byte| byte == 0).count().min(31);
    let digits = bytes.split_at(zeros).1;
    match digits.first() {
        Some(0x80..=0xff) => push(out, INTEGER, &[&[0], digits].concat()),
        _ => push(out, INTEGER, digits),
    }
}

fn push(out: &mut Vec<u8>, tag: u8, content: &[u8]) {
    out.push(tag);
    let length = content.len().to_be_bytes();
    let zeros = length.iter().take_while(|&&byte| byte == 0).count();
    let digits = length.split_at(zeros).1;
    match digits {
        [] => out.push(0),
        [short @ 0..=0x7f] => out.push(*short),
        long => {
            out.push(0x80 | long.len() as u8);
            out.extend_from_slice(long);
        }
    }
    out.extend_from_slice(content);
}

fn wrap(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() + 6);
    push(&mut out, tag, content);
    out
}

/// The content of the element that is all of `bytes`.
fn only(tag: u8, bytes: &[u8]) -> Result<&[u8], Error> {
    let mut rest = bytes;
    let content = take(tag, &mut rest)?;
    if rest.is_empty() { Ok(content) } else { Err(Error::Encoding) }
}

/// Takes the content of the next element.
fn take<'a>(tag: u8, rest: &mut &'a [u8]) -> Result<&'a [u8], Error> {
    let (found, after) = rest.split_first().ok_or(Error::Encoding)?;
    let (&first, after) = after.split_first().ok_or(Error::Encoding)?;
    if *found != tag {
        return Err(Error::Encoding);
    }
    let (length, after) = match first {
        0..=0x7f => (usize::from(first), after),
        0x81..=0x84 => {
            let (digits, after) = after.split_at_checked(usize::from(first & 0x0f)).ok_or(Error::Encoding)?;
            let length = digits.iter().fold(0usize, |length, &digit| length << 8 | usize::from(digit));
            // The short form where it suffices, and no leading zero.
            if length < 0x80 || digits.first() == Some(&0) {
                return Err(Error::Encoding);
            }
            (length, after)
        }
        _ => return Err(Error::Encoding),
    };
    let (content, after) = after.split_at_checked(length).ok_or(Error::Encoding)?;
    *rest = after;
    Ok(content)
}

/// Takes a number that is not negative and fits in 32 bytes.
fn take_integer(rest: &mut &[u8]) -> Result<[u8; 32], Error> {
    let digits = match take(INTEGER, rest)? {
        [0, tail @ ..] if tail.first().is_none_or(|&first| first >= 0x80) => tail,
        content @ [0x01..=0x7f, ..] => content,
        _ => return Err(Error::Encoding),
    };
    let mut bytes = [0; 32];
    let (_, room) = 32usize.checked_sub(digits.len()).map(|zeros| bytes.split_at_mut(zeros)).ok_or(Error::Encoding)?;
    room.copy_from_slice(digits);
    Ok(bytes)
}
