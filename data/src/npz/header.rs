//! The header of an `.npy` array.
//!
//! `\x93NUMPY`, version (2 bytes), header length (2 bytes little-endian in version 1, else 4), then
//! a Python dictionary `{'descr': '<f8', 'fortran_order': False, 'shape': (3, 10, 10), }` in any
//! order of keys. npyz parses it; its parser recurses, and its products of sizes may overflow. So
//! the length, the brackets and the product of all whole numbers are bounded before it sees them.

use crate::error::{MemberProblem, Shape};
use npyz::{DType, NpyHeader, TypeChar};
use std::io::{self, Read};

/// Longest header that is read: NumPy's own limit.
const MOST_HEADER_BYTES: u64 = 10_000;

/// Most opening brackets: a plain array has two, a structured one a few more (and is then refused by
/// its type).
const MOST_BRACKETS: usize = 16;

/// What the numbers of an array are stored as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    F4,
    F8,
    I1,
    I2,
    I4,
    I8,
    U1,
    U2,
    U4,
    U8,
}

impl Number {
    /// Bytes of one number.
    pub(super) fn bytes(self) -> u64 {
        match self {
            Number::I1 | Number::U1 => 1,
            Number::I2 | Number::U2 => 2,
            Number::F4 | Number::I4 | Number::U4 => 4,
            Number::F8 | Number::I8 | Number::U8 => 8,
        }
    }

    /// Unit roundoff of what was stored, read as float64: integers are exact or rounded to float64.
    pub(super) fn roundoff(self) -> f64 {
        if self == Number::F4 { f64::from(f32::EPSILON) / 2.0 } else { f64::EPSILON / 2.0 }
    }
}

/// A header that passed all checks.
pub(super) struct Header {
    pub(super) parsed: NpyHeader,
    pub(super) number: Number,
    /// Bytes that magic, version, length and text took.
    pub(super) length: u64,
}

impl Header {
    /// Reads a header; afterwards `reader` stands at the first number.
    pub(super) fn read(reader: &mut impl Read) -> Result<Self, MemberProblem> {
        let damaged = |e: io::Error| match e.kind() {
            io::ErrorKind::UnexpectedEof => header("it ends before its header does"),
            _ => MemberProblem::Damaged { reason: e.to_string() },
        };
        let mut start = [0; 8];
        reader.read_exact(&mut start).map_err(damaged)?;
        if start[..6] != *b"\x93NUMPY" {
            return Err(header("it does not begin with \\x93NUMPY"));
        }
        let (found, before) = match start[6..] {
            [1, 0] => (u64::from(u16::from_le_bytes(array(reader).map_err(damaged)?)), 10),
            [2 | 3, 0] => (u64::from(u32::from_le_bytes(array(reader).map_err(damaged)?)), 12),
            [major, minor] => {
                let reason = format!("its version is {major}.{minor}, 1.0 to 3.0 are read");
                return Err(MemberProblem::Header { reason });
            }
            _ => return Err(header("it has no version")),
        };
        if found > MOST_HEADER_BYTES {
            return Err(MemberProblem::HeaderLength { found, most: MOST_HEADER_BYTES });
        }
        let mut text = vec![0; found as usize];
        reader.read_exact(&mut text).map_err(damaged)?;
        let parsed = parse(&text)?;
        let number = number(&parsed.dtype())?;
        check_keys(&text)?;
        Ok(Self { parsed, number, length: before + found })
    }

    pub(super) fn shape(&self) -> Shape {
        Shape(self.parsed.shape().to_vec())
    }
}

fn header(reason: &str) -> MemberProblem {
    MemberProblem::Header { reason: reason.to_owned() }
}

fn array<const N: usize>(reader: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    reader.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// The header's text, guarded, through npyz's parser.
fn parse(text: &[u8]) -> Result<NpyHeader, MemberProblem> {
    let found = text.iter().filter(|b| matches!(b, b'(' | b'[' | b'{')).count();
    if found > MOST_BRACKETS {
        return Err(MemberProblem::HeaderNesting { found, most: MOST_BRACKETS });
    }
    let text = plain(text);
    check_numbers(&text)?;
    // Version 3 takes any length and UTF-8; the text is the same in all versions otherwise.
    let mut whole = b"\x93NUMPY\x03\x00".to_vec();
    whole.extend_from_slice(&(text.len() as u32).to_le_bytes());
    whole.extend_from_slice(&text);
    NpyHeader::from_reader(whole.as_slice()).map_err(|e| {
        let said = e.to_string();
        // The parser draws a picture of a syntax error over several lines.
        if said.contains("Python expression") || said.contains("utf-8") {
            header("its header is no Python dictionary")
        } else {
            MemberProblem::Header { reason: said.replace(". ", "; ") }
        }
    })
}

/// Line breaks as spaces, and without the `L` that Python 2 wrote behind long integers.
fn plain(text: &[u8]) -> Vec<u8> {
    let mut plain: Vec<u8> =
        text.iter().map(|b| if matches!(b, b'\n' | b'\r') { b' ' } else { *b }).collect();
    for i in 1..plain.len() {
        let ends = plain.get(i + 1).is_none_or(|b| matches!(b, b',' | b')' | b' '));
        if plain[i] == b'L' && plain[i - 1].is_ascii_digit() && ends {
            plain[i] = b' ';
        }
    }
    plain
}

/// Every word that begins with a digit is a whole number, and their product (zeros left out) fits
/// into 64 bits: so does every product that the parser forms.
fn check_numbers(text: &[u8]) -> Result<(), MemberProblem> {
    let mut product = 1_u64;
    let words = text.split(|b| !(b.is_ascii_alphanumeric() || *b == b'_' || *b == b'.'));
    for word in words.filter(|w| w.first().is_some_and(u8::is_ascii_digit)) {
        let value = std::str::from_utf8(word).ok().and_then(|word| word.parse::<u64>().ok());
        let Some(value) = value else {
            return Err(header("its header has a number that is no size"));
        };
        product = product
            .checked_mul(value.max(1))
            .ok_or_else(|| header("its shape has more numbers than 64 bits can count"))?;
    }
    Ok(())
}

/// Each of the three keys once and nothing else; called for a plain type, whose name has no colon.
fn check_keys(text: &[u8]) -> Result<(), MemberProblem> {
    if text.iter().filter(|b| **b == b':').count() == 3 {
        Ok(())
    } else {
        Err(header("its header has keys beside descr, fortran_order and shape, or one twice"))
    }
}

fn number(dtype: &DType) -> Result<Number, MemberProblem> {
    let what = match dtype {
        DType::Plain(plain) => match (plain.type_char(), plain.size_field()) {
            (TypeChar::Float, 4) => return Ok(Number::F4),
            (TypeChar::Float, 8) => return Ok(Number::F8),
            (TypeChar::Int, 1) => return Ok(Number::I1),
            (TypeChar::Int, 2) => return Ok(Number::I2),
            (TypeChar::Int, 4) => return Ok(Number::I4),
            (TypeChar::Int, 8) => return Ok(Number::I8),
            (TypeChar::Uint, 1) => return Ok(Number::U1),
            (TypeChar::Uint, 2) => return Ok(Number::U2),
            (TypeChar::Uint, 4) => return Ok(Number::U4),
            (TypeChar::Uint, 8) => return Ok(Number::U8),
            (TypeChar::Float, 2) => "half precision",
            (TypeChar::Float, _) => "extended precision",
            (TypeChar::Bool, _) => "booleans",
            (TypeChar::Complex, _) => "complex numbers",
            (TypeChar::Object, _) => "Python objects",
            (TypeChar::ByteStr | TypeChar::UnicodeStr, _) => "text",
            (TypeChar::TimeDelta | TypeChar::DateTime, _) => "times",
            _ => "raw bytes",
        },
        _ => "a structured type",
    };
    let dtype: String = dtype.descr().chars().take(60).collect();
    Err(MemberProblem::Dtype { dtype: dtype.trim_matches('\'').to_owned(), what })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(version: u8, text: &str) -> Result<Header, MemberProblem> {
        let mut bytes = b"\x93NUMPY".to_vec();
        bytes.extend([version, 0]);
        match version {
            1 => bytes.extend((text.len() as u16).to_le_bytes()),
            _ => bytes.extend((text.len() as u32).to_le_bytes()),
        }
        bytes.extend(text.as_bytes());
        Header::read(&mut bytes.as_slice())
    }

    #[test]
    fn keys_come_in_any_order_and_versions_agree() {
        for version in 1..=3 {
            for text in [
                "{'descr': '<f8', 'fortran_order': False, 'shape': (2, 3), }   \n",
                "{'shape': (2, 3), 'descr': '>i2', 'fortran_order': True}",
                "{\"fortran_order\":True,\"shape\":(2,3),\"descr\":'|u1',}\n",
                "{'descr': '<f4',\n 'fortran_order': False,\n 'shape': (2L, 3L)}\n",
            ] {
                let header = read(version, text).unwrap_or_else(|e| panic!("{text}: {e}"));
                assert_eq!(header.shape(), Shape(vec![2, 3]));
                let before = if version == 1 { 10 } else { 12 };
                assert_eq!(header.length, before + text.len() as u64);
            }
        }
    }

    #[test]
    fn what_is_no_plain_array_of_numbers_is_refused_by_name() {
        for (dtype, word) in [
            ("'|b1'", "booleans"),
            ("'<c16'", "complex"),
            ("'|O'", "objects"),
            ("'<f2'", "half"),
            ("'<f16'", "extended"),
            ("'<U5'", "text"),
            ("'<M8[ns]'", "times"),
            ("'|V7'", "raw"),
            ("[('a', '<f8'), ('b', '<i4', (2, 2))]", "structured"),
        ] {
            let text = format!("{{'descr': {dtype}, 'fortran_order': False, 'shape': (2,), }}");
            match read(1, &text) {
                Err(MemberProblem::Dtype { what, .. }) => assert!(what.contains(word), "{what}"),
                other => panic!("{dtype}: {:?}", other.err()),
            }
        }
    }

    #[test]
    fn hostile_headers_are_refused_before_the_parser_sees_them() {
        let deep = format!("{}{}", "(".repeat(4000), ")".repeat(4000));
        assert!(matches!(read(2, &deep), Err(MemberProblem::HeaderNesting { found: 4000, .. })));
        let long = " ".repeat(20_000);
        assert!(matches!(read(2, &long), Err(MemberProblem::HeaderLength { .. })));
        for shape in [
            "(18446744073709551615, 2)",
            "(4294967296, 4294967296)",
            "(99999999999999999999,)",
            "(0xff, 1)",
            "(1e3,)",
            "(-1,)",
            "2",
            "(2, 3",
        ] {
            let text = format!("{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}");
            assert!(matches!(read(1, &text), Err(MemberProblem::Header { .. })), "{shape}");
        }
        for text in [
            "",
            "{}",
            "{'descr': '<f8', 'shape': (2,)}",
            "{'descr': '<f8', 'shape': (2,), 'fortran_order': 0}",
            "{'descr': '<f8', 'shape': (2,), 'shape': (3,), 'fortran_order': True}",
            "{'descr': '<f8', 'shape': (2,), 'more': 1, 'fortran_order': True}",
            "{'descr': '<f9', 'shape': (2,), 'fortran_order': True}",
            "[1]",
        ] {
            assert!(matches!(read(1, text), Err(MemberProblem::Header { .. })), "{text}");
        }
        // A length that the file does not have allocates no more than the limit and is refused.
        let lying = b"\x93NUMPY\x02\x00\x10\x27\x00\x00{}";
        assert!(matches!(Header::read(&mut lying.as_slice()), Err(MemberProblem::Header { .. })));
        let version = b"\x93NUMPY\x09\x00\x02\x00{}";
        assert!(matches!(Header::read(&mut version.as_slice()), Err(MemberProblem::Header { .. })));
    }
}
