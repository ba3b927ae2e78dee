//! Text and numbers as HTML.

/// `text` with the characters that HTML gives a meaning, and quotes, escaped.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // What HTML does not allow in text.
            c if c.is_control() && !matches!(c, '\n' | '\t') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// JSON that can stand inside a `<script>` element.
pub(super) fn script_json(value: &serde_json::Value) -> String {
    // `</script>` and `<!--` end or change a script; the escape means the same to JSON.
    value.to_string().replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

/// A number with four significant digits, as HTML.
pub(super) fn number(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    if !value.is_finite() {
        return if value.is_nan() { "NaN".to_owned() } else { format!("{}∞", minus(value)) };
    }
    let scientific = format!("{:.3e}", value.abs());
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if value.fract() == 0.0 && value.abs() < 1e6 {
        return format!("{}{}", minus(value), value.abs());
    }
    if (-3..5).contains(&exponent) {
        let decimals = (3 - exponent).max(0) as usize;
        return format!("{}{:.decimals$}", minus(value), value.abs());
    }
    let power = exponent.to_string().replace('-', "\u{2212}");
    format!("{}{digits}×10<sup>{power}</sup>", minus(value))
}

/// As [`number`], without zeros at the end of a fraction.
pub(super) fn brief_number(value: f64) -> String {
    let text = number(value);
    let (digits, power) = text.split_once('×').map_or((text.as_str(), None), |(d, p)| (d, Some(p)));
    let digits = if digits.contains('.') {
        digits.trim_end_matches('0').trim_end_matches('.')
    } else {
        digits
    };
    power.map_or_else(|| digits.to_owned(), |power| format!("{digits}×{power}"))
}

/// [`brief_number`] with the value as the file has it beside it, for machines.
pub(super) fn data(value: f64, raw: &str) -> String {
    format!("<data value=\"{}\">{}</data>", escape(raw), brief_number(value))
}

/// `text` escaped, with numbers like `4.64e-4` in the form that people read.
pub(super) fn prose(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, number) = rest.split_at(start);
        let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let mut end = digits(number);
        if number[end..].starts_with('.') {
            end += 1 + digits(&number[end + 1..]);
        }
        let exponent = number[end..].strip_prefix('e').map(|power| {
            let sign = usize::from(power.starts_with('-'));
            (1 + sign, digits(&power[sign..]))
        });
        out.push_str(&escape(before));
        match exponent {
            Some((lead, length)) if length > 0 => {
                end += lead + length;
                let raw = &number[..end];
                out.push_str(&raw.parse().map_or_else(|_| escape(raw), |value| data(value, raw)));
            }
            _ => out.push_str(&escape(&number[..end])),
        }
        rest = &number[end..];
    }
    out + &escape(rest)
}

fn minus(value: f64) -> &'static str {
    if value < 0.0 { "\u{2212}" } else { "" }
}

/// A column's or key's name for people: `excess_risk` is `excess risk`.
pub(super) fn words(name: &str) -> String {
    escape(&name.replace('_', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_four_digits() {
        for (value, text) in [
            (0.0, "0"),
            (100.0, "100"),
            (-3.0, "−3"),
            (0.001_234_56, "0.001235"),
            (12.345_6, "12.35"),
            (12_345.6, "12346"),
            (1.5e-7, "1.500×10<sup>−7</sup>"),
            (-2.5e9, "−2.500×10<sup>9</sup>"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "−∞"),
        ] {
            assert_eq!(number(value), text);
        }
        assert_eq!(
            prose("from 4.64e-4 to 7.92e1 & 1.5, not 2e or e3 or v1.2.3"),
            "from <data value=\"4.64e-4\">4.64×10<sup>−4</sup></data> to \
             <data value=\"7.92e1\">79.2</data> &amp; 1.5, not 2e or e3 or v1.2.3"
        );
        assert_eq!(brief_number(1.5e-7), "1.5×10<sup>−7</sup>");
        assert_eq!(brief_number(12.3), "12.3");
        assert_eq!(brief_number(100.0), "100");
    }

    #[test]
    fn markup_is_text() {
        assert_eq!(escape("<b a='1'>&\"\u{1}"), "&lt;b a=&#39;1&#39;&gt;&amp;&quot;\u{fffd}");
        let json = script_json(&serde_json::json!("</script><!--"));
        assert!(!json.contains('<'));
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), "</script><!--");
    }
}
