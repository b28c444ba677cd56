//! What a single value may be: numbers, durations, sizes, addresses, words of a fixed choice, secrets.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use zeroize::Zeroizing;

use super::section::closest;
use super::tree::Value;

/// Why a value was refused.
pub(super) struct Problem {
    pub(super) reason: String,
    pub(super) suggestion: Option<String>,
}

impl Problem {
    pub(super) fn new(reason: impl Into<String>) -> Problem {
        Problem { reason: reason.into(), suggestion: None }
    }

    pub(super) fn suggest(mut self, suggestion: impl Into<String>) -> Problem {
        self.suggestion = Some(suggestion.into());
        self
    }

    fn expected(what: &str, found: &Value) -> Problem {
        Problem::new(format!("expected {what}, found {}", found.type_name()))
    }
}

/// A type that a key can have.
pub(super) trait FromValue: Sized {
    fn from_value(value: &Value) -> Result<Self, Problem>;
}

/// The text of a string, or of a variable from the environment.
fn text<'v>(value: &'v Value, what: &str) -> Result<&'v str, Problem> {
    match value {
        Value::String(text) | Value::Untyped(text) => Ok(text),
        other => Err(Problem::expected(what, other)),
    }
}

impl FromValue for bool {
    fn from_value(value: &Value) -> Result<bool, Problem> {
        match value {
            Value::Boolean(value) => Ok(*value),
            Value::Untyped(text) => match text.as_str() {
                "true" => Ok(true),
                "false" => Ok(false),
                _ => Err(Problem::expected("true or false", value)),
            },
            Value::String(text) if matches!(text.as_str(), "true" | "false") => {
                Err(Problem::expected("true or false", value).suggest("remove the quotes"))
            }
            other => Err(Problem::expected("true or false", other)),
        }
    }
}

macro_rules! integers {
    ($($integer:ty),*) => {$(
        impl FromValue for $integer {
            fn from_value(value: &Value) -> Result<$integer, Problem> {
                let number = match value {
                    Value::Integer(number) => *number,
                    Value::Untyped(text) => {
                        text.trim().parse().map_err(|_| Problem::expected("a whole number", value))?
                    }
                    Value::String(text) if text.as_str() == "infinity" => {
                        return Err(Problem::new("every limit is finite here").suggest("write a number"));
                    }
                    other => return Err(Problem::expected("a whole number", other)),
                };
                <$integer>::try_from(number).map_err(|_| {
                    Problem::new(format!("{number} is out of range, it must be between {} and {}", <$integer>::MIN, <$integer>::MAX))
                })
            }
        }
    )*};
}
integers!(u8, u16, u32, u64, usize);

impl FromValue for f64 {
    fn from_value(value: &Value) -> Result<f64, Problem> {
        let number = match value {
            Value::Float(number) => *number,
            Value::Integer(number) => i32::try_from(*number).map(f64::from).unwrap_or(f64::NAN),
            Value::Untyped(text) => text.trim().parse().map_err(|_| Problem::expected("a number", value))?,
            other => return Err(Problem::expected("a number", other)),
        };
        if number.is_finite() { Ok(number) } else { Err(Problem::new("expected a finite number of usual size")) }
    }
}

impl FromValue for String {
    fn from_value(value: &Value) -> Result<String, Problem> {
        text(value, "a string").map(str::to_owned)
    }
}

impl FromValue for PathBuf {
    fn from_value(value: &Value) -> Result<PathBuf, Problem> {
        let path = text(value, "a path")?;
        if path.contains('\0') {
            return Err(Problem::new("a path cannot contain a zero byte"));
        }
        Ok(PathBuf::from(path))
    }
}

impl<T: FromValue> FromValue for Vec<T> {
    fn from_value(value: &Value) -> Result<Vec<T>, Problem> {
        match value {
            Value::Array(items) => items.iter().map(|item| T::from_value(&item.value)).collect(),
            Value::Untyped(text) if text.trim().is_empty() => Ok(Vec::new()),
            Value::Untyped(text) => text
                .split(',')
                .map(|item| T::from_value(&Value::Untyped(Zeroizing::new(item.trim().to_owned()))))
                .collect(),
            other => Err(Problem::expected("a list", other)),
        }
    }
}

/// A text that must not be seen: passwords. `Debug` shows that it is there and no more; the memory is zeroed on drop.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    pub fn new(text: String) -> Secret {
        Secret(Zeroizing::new(text))
    }

    /// The text itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl FromValue for Secret {
    fn from_value(value: &Value) -> Result<Secret, Problem> {
        text(value, "a string").map(|text| Secret::new(text.to_owned()))
    }
}

/// A span of time as operators write it: `"500ms"`, `"15s"`, `"1h30m"`, `"7d"`. It shows itself in the same grammar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span(pub(super) Duration);

const SPAN_UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

impl Span {
    pub(super) fn parse(text: &str) -> Option<Span> {
        let mut rest = text.trim();
        if rest.is_empty() {
            return None;
        }
        let mut total_ms: u64 = 0;
        while !rest.is_empty() {
            let (number, after) = leading_number(rest)?;
            let end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
            let (unit, next) = after.split_at_checked(end)?;
            let (_, scale) = SPAN_UNITS.iter().find(|(name, _)| *name == unit)?;
            total_ms = total_ms.checked_add(number.checked_mul(*scale)?)?;
            rest = next;
        }
        Some(Span(Duration::from_millis(total_ms)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total_ms = self.0.as_millis();
        let exact = SPAN_UNITS.iter().rev().find(|(_, scale)| total_ms.is_multiple_of(u128::from(*scale)));
        match exact {
            Some((unit, scale)) if total_ms > 0 => write!(f, "{}{unit}", total_ms / u128::from(*scale)),
            _ => f.write_str("0s"),
        }
    }
}

impl FromValue for Span {
    fn from_value(value: &Value) -> Result<Span, Problem> {
        const EXAMPLE: &str = "write a number and a unit: \"500ms\", \"15s\", \"10m\", \"2h\" or \"7d\"";
        let text = text(value, "a duration").map_err(|problem| problem.suggest(EXAMPLE))?;
        Span::parse(text).ok_or_else(|| Problem::new(format!("`{text}` is not a duration")).suggest(EXAMPLE))
    }
}

/// A number of bytes as operators write it: `"64KB"`, `"1MB"`, `"2GB"`, or a plain number. K is 1024, as in EMQX.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ByteSize(pub(super) u64);

const SIZE_UNITS: [(&str, u64); 4] = [("b", 1), ("kb", 1 << 10), ("mb", 1 << 20), ("gb", 1 << 30)];

impl ByteSize {
    pub(super) fn parse(text: &str) -> Option<ByteSize> {
        let (number, unit) = leading_number(text.trim())?;
        let unit = unit.trim_start();
        if unit.is_empty() {
            return Some(ByteSize(number));
        }
        let (_, scale) = SIZE_UNITS.iter().find(|(name, _)| unit.eq_ignore_ascii_case(name))?;
        number.checked_mul(*scale).map(ByteSize)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match SIZE_UNITS.iter().rev().find(|(_, scale)| self.0.is_multiple_of(*scale)) {
            Some((unit, scale)) if self.0 > 0 => write!(f, "{}{}", self.0 / scale, unit.to_uppercase()),
            _ => write!(f, "{}B", self.0),
        }
    }
}

impl FromValue for ByteSize {
    fn from_value(value: &Value) -> Result<ByteSize, Problem> {
        const EXAMPLE: &str = "write a number and a unit: \"64KB\", \"1MB\" or \"2GB\"";
        if let Value::Integer(_) = value {
            return u64::from_value(value).map(ByteSize);
        }
        let text = text(value, "a size").map_err(|problem| problem.suggest(EXAMPLE))?;
        ByteSize::parse(text).ok_or_else(|| Problem::new(format!("`{text}` is not a size")).suggest(EXAMPLE))
    }
}

fn leading_number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at_checked(end)?;
    Some((digits.parse().ok()?, rest))
}

/// An address to listen on: `"0.0.0.0:1883"`, `"[::1]:1883"`, or a bare port, which means every IPv4 address.
pub(super) struct Bind(pub(super) SocketAddr);

impl FromValue for Bind {
    fn from_value(value: &Value) -> Result<Bind, Problem> {
        const EXAMPLE: &str = "write an address and a port: \"0.0.0.0:8883\", \"[::]:8883\", or a port alone: 8883";
        let any = |port| Bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port));
        if let Value::Integer(_) = value {
            return u16::from_value(value).map(any).map_err(|problem| problem.suggest(EXAMPLE));
        }
        let text = text(value, "an address").map_err(|problem| problem.suggest(EXAMPLE))?.trim();
        if let Ok(address) = text.parse() {
            return Ok(Bind(address));
        }
        match text.trim_start_matches(':').parse() {
            Ok(port) => Ok(any(port)),
            Err(_) => Err(Problem::new(format!("`{text}` is not an IP address and port")).suggest(EXAMPLE)),
        }
    }
}

/// A key whose value is one of a few words.
pub(crate) trait Choice: Copy + 'static {
    /// Every word and its meaning; of several with one meaning the first is the usual one.
    const WORDS: &'static [(&'static str, Self)];

    fn from_word(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(one, _)| *one == word).map(|(_, choice)| *choice)
    }

    fn word(self) -> &'static str
    where
        Self: PartialEq,
    {
        Self::WORDS.iter().find(|(_, choice)| *choice == self).map_or("", |(word, _)| word)
    }

    /// What to say about a word of EMQX that has no meaning here.
    fn unsupported(_word: &str) -> Option<&'static str> {
        None
    }
}

/// Reads a [`Choice`].
pub(super) struct Word<C>(pub(super) C);

impl<C: Choice> FromValue for Word<C> {
    fn from_value(value: &Value) -> Result<Word<C>, Problem> {
        let words: Vec<&str> = C::WORDS.iter().map(|(word, _)| *word).collect();
        let list = || format!("it must be one of {}", words.join(", "));
        let text = text(value, "a string").map_err(|problem| problem.suggest(list()))?;
        if let Some(choice) = C::from_word(text) {
            return Ok(Word(choice));
        }
        if let Some(why) = C::unsupported(text) {
            return Err(Problem::new(format!("`{text}` is not supported: {why}")).suggest(list()));
        }
        let problem = Problem::new(format!("`{text}` is not a known value"));
        Err(match closest(text, &words) {
            Some(near) => problem.suggest(format!("did you mean `{near}`?")),
            None => problem.suggest(list()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units_and_combine() {
        let cases = [("500ms", 500), ("15s", 15_000), ("2h", 7_200_000), ("1h30m", 5_400_000), ("7d", 604_800_000)];
        for (text, expected_ms) in cases {
            assert_eq!(Span::parse(text), Some(Span(Duration::from_millis(expected_ms))), "{text}");
        }
        for text in ["", "15", "s", "15 s", "-1s", "1.5s", "15sec", "99999999999999999999s", "18446744073709551615d"] {
            assert_eq!(Span::parse(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_are_powers_of_two() {
        let cases = [("0", 0), ("17", 17), ("64KB", 65_536), ("1mb", 1_048_576), ("2 GB", 2_147_483_648)];
        for (text, expected) in cases {
            assert_eq!(ByteSize::parse(text), Some(ByteSize(expected)), "{text}");
        }
        for text in ["", "MB", "1TB", "-1KB", "1.5MB", "99999999999GB"] {
            assert_eq!(ByteSize::parse(text), None, "{text}");
        }
    }

    #[test]
    fn spans_and_sizes_show_themselves_as_written() {
        for text in ["500ms", "15s", "10m", "2h", "7d", "90s", "0s"] {
            assert_eq!(Span::parse(text).unwrap().to_string(), text);
        }
        for text in ["1MB", "64KB", "17B", "3GB", "0B"] {
            assert_eq!(ByteSize::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn debug_of_a_secret_does_not_show_it() {
        assert!(!format!("{:?}", Secret::new("hunter2".into())).contains("hunter2"));
    }
}
