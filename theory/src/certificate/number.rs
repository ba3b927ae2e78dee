//! Numbers as text: decimals and quotients, read exactly.
//!
//! `[-+]digits[.digits][e[-+]digits]`, or two of these without exponents and points as `p/q`. At most
//! [`LONGEST`] characters and decimal exponents up to [`LARGEST_EXPONENT`] in modulus, so that reading
//! is bounded work. The f64 bounds of a number are found by exact comparison.

use super::interval::Interval;
use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{ToPrimitive, Zero};

/// Most characters of a number.
pub const LONGEST: usize = 400;
/// Largest modulus of a decimal exponent.
pub const LARGEST_EXPONENT: i32 = 400;

/// Why a text is not a number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NumberError {
    /// Too long.
    #[error("a number of {length} characters; at most {LONGEST} are read")]
    TooLong {
        /// Length found.
        length: usize,
    },
    /// Neither a decimal nor a quotient.
    #[error("{text:?} is neither a decimal (like -1.25e-3) nor a quotient of whole numbers (-5/4)")]
    Malformed {
        /// The text.
        text: String,
    },
    /// The exponent is out of range.
    #[error("{text:?} has an exponent beyond {LARGEST_EXPONENT} in modulus")]
    Exponent {
        /// The text.
        text: String,
    },
    /// A quotient by zero.
    #[error("{text:?} divides by zero")]
    DivisionByZero {
        /// The text.
        text: String,
    },
}

/// The number that `text` says, exactly.
///
/// # Errors
/// [`NumberError`].
pub fn parse(text: &str) -> Result<BigRational, NumberError> {
    if text.len() > LONGEST {
        return Err(NumberError::TooLong { length: text.len() });
    }
    let malformed = || NumberError::Malformed { text: text.to_owned() };
    if let Some((p, q)) = text.split_once('/') {
        let (p, q) = (whole(p).ok_or_else(malformed)?, whole(q).ok_or_else(malformed)?);
        if q.is_zero() {
            return Err(NumberError::DivisionByZero { text: text.to_owned() });
        }
        return Ok(BigRational::new(p, q));
    }
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        None => (text, 0),
        Some((mantissa, exponent)) => {
            let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return Err(malformed());
            }
            let parsed = exponent.parse::<i32>().ok().filter(|e| e.abs() <= LARGEST_EXPONENT);
            (mantissa, parsed.ok_or_else(|| NumberError::Exponent { text: text.to_owned() })?)
        }
    };
    let (before, after) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let unsigned = before.strip_prefix(['+', '-']).unwrap_or(before);
    if unsigned.is_empty() && after.is_empty() {
        return Err(malformed());
    }
    if !unsigned.bytes().chain(after.bytes()).all(|b| b.is_ascii_digit()) {
        return Err(malformed());
    }
    let digits: BigInt = format!("0{unsigned}{after}").parse().map_err(|_| malformed())?;
    let signed = if before.starts_with('-') { -digits } else { digits };
    let power = exponent - after.len() as i32;
    let scale = BigInt::from(10).pow(power.unsigned_abs());
    Ok(if power >= 0 {
        BigRational::from_integer(signed * scale)
    } else {
        BigRational::new(signed, scale)
    })
}

/// A whole number: an optional sign and digits.
fn whole(text: &str) -> Option<BigInt> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let valid = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    if valid { text.parse().ok() } else { None }
}

/// The narrowest interval of f64 that contains `value`.
pub fn enclose(value: &BigRational) -> Interval {
    // The conversion is a guess; the comparisons are exact.
    let guess = value.to_f64().unwrap_or(0.0);
    let guess = if guess.is_nan() { 0.0 } else { guess };
    let (mut lo, mut hi) = (guess, guess);
    // A conversion is off by a unit in the last place or so; the loop is bounded all the same.
    for _ in 0..64 {
        match (at_most(lo, value), at_least(hi, value)) {
            (true, true) => return Interval::new(lo, hi),
            (below, above) => {
                lo = if below { lo } else { lo.next_down() };
                hi = if above { hi } else { hi.next_up() };
            }
        }
    }
    Interval::ENTIRE
}

fn at_most(x: f64, value: &BigRational) -> bool {
    BigRational::from_float(x).map_or(x < 0.0, |x| x <= *value)
}

fn at_least(x: f64, value: &BigRational) -> bool {
    BigRational::from_float(x).map_or(x > 0.0, |x| x >= *value)
}

/// The shortest decimal that reads back as `x`.
pub fn shortest_decimal(x: f64) -> String {
    let plain = x == 0.0 || (1e-6..1e15).contains(&x.abs());
    if plain { format!("{}", x + 0.0) } else { format!("{x:e}") }
}

/// A short decimal of `digits` significant digits at most `x` (`x > 0`).
pub fn decimal_below(x: f64, digits: usize) -> String {
    // One unit of the last digit less is below whatever way the text was rounded.
    short_decimal(x * (1.0 - 2.0 * 10.0_f64.powi(1 - digits as i32)), digits)
}

/// A short decimal of `digits` significant digits at least `x` (`x >= 0`).
pub fn decimal_above(x: f64, digits: usize) -> String {
    short_decimal(x * (1.0 + 2.0 * 10.0_f64.powi(1 - digits as i32)), digits)
}

fn short_decimal(x: f64, digits: usize) -> String {
    format!("{x:.*e}", digits - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use peftml_linalg::Seed;

    #[test]
    fn decimals_and_quotients_are_read_exactly() {
        let is = |text: &str, p: i64, q: i64| {
            assert_eq!(parse(text).unwrap(), BigRational::new(p.into(), q.into()), "{text}");
        };
        is("0", 0, 1);
        is("-12.50", -25, 2);
        is("+.5", 1, 2);
        is("3.", 3, 1);
        is("1.25e-3", 1, 800);
        is("2E+2", 200, 1);
        is("-0.0", 0, 1);
        is("-6/4", -3, 2);
        is("1/-3", -1, 3);
    }

    #[test]
    fn what_is_no_number_is_refused_at_once() {
        for text in [
            "",
            "-",
            ".",
            "e5",
            "1e",
            "nan",
            "NaN",
            "inf",
            "-Infinity",
            "1_000",
            "0x10",
            " 1",
            "1 ",
            "1/2/3",
            "1.5/2",
            "/2",
            "1/",
            "--1",
            "1e+-3",
            "1..2",
            "\u{0661}",
            "+-1",
        ] {
            assert!(matches!(parse(text), Err(NumberError::Malformed { .. })), "{text}");
        }
        for text in ["1e999999999", "1e-401", "1e99999999999999999999"] {
            assert!(matches!(parse(text), Err(NumberError::Exponent { .. })), "{text}");
        }
        assert!(matches!(parse("1/0"), Err(NumberError::DivisionByZero { .. })));
        assert!(matches!(parse(&"1".repeat(401)), Err(NumberError::TooLong { length: 401 })));
    }

    #[test]
    fn enclosures_are_narrow_and_certain() {
        let mut stream = Seed::root(1).child("number").stream();
        for _ in 0..300 {
            let x = stream.normal() * (60.0 * stream.normal()).exp2();
            let text = shortest_decimal(x);
            let interval = enclose(&parse(&text).unwrap());
            assert!(interval.lo() <= x && x <= interval.hi(), "{text}");
            assert!(interval.hi() <= interval.lo().next_up(), "{text}");
            let low = enclose(&parse(&decimal_below(x.abs(), 8)).unwrap());
            let high = enclose(&parse(&decimal_above(x.abs(), 8)).unwrap());
            assert!(low.hi() <= x.abs() && low.lo() > x.abs() * (1.0 - 1e-6));
            assert!(high.lo() >= x.abs() && high.hi() < x.abs() * (1.0 + 1e-6));
        }
        let third = enclose(&BigRational::new(1.into(), 3.into()));
        assert_eq!(third.lo().next_up(), third.hi());
        let huge = enclose(&parse("1e400").unwrap());
        assert!(huge.lo() > 1e300 && huge.hi() == f64::INFINITY);
        let tiny = enclose(&parse("-1e-400").unwrap());
        assert!(tiny.lo() < 0.0 && tiny.lo() > -1e-300 && tiny.hi() >= -5e-324);
    }
}
