//! Text and numbers for HTML.

use std::fmt;

/// Text in which nothing is markup, in elements as in quoted attributes. Characters that XML forbids are left out.
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                '\n' | '\t' => f.write_char(' ')?,
                other if other.is_control() => {}
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

/// A number with four significant digits, thousands set apart by narrow spaces.
pub fn number(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let size = value.abs();
    if size != 0.0 && !(1e-4..1e15).contains(&size) {
        return format!("{value:.2e}");
    }
    let decimals = match size {
        _ if size >= 1000.0 => 0,
        _ if size >= 100.0 => 1,
        _ if size >= 10.0 => 2,
        _ if size >= 0.1 || size == 0.0 => 3,
        _ => 6,
    };
    let text = format!("{value:.decimals$}");
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let fraction = fraction.trim_end_matches('0');
    let whole = grouped(whole);
    let whole = whole.strip_prefix('-').filter(|rest| *rest == "0" && fraction.is_empty()).unwrap_or(&whole);
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{}{point}{fraction}", whole.replace('-', "−"))
}

fn grouped(digits: &str) -> String {
    let count = digits.bytes().filter(u8::is_ascii_digit).count();
    let mut left = count;
    let mut text = String::new();
    for character in digits.chars() {
        if character.is_ascii_digit() {
            if count > 4 && left < count && left.is_multiple_of(3) {
                text.push('\u{202f}');
            }
            left -= 1;
        }
        text.push(character);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_is_text() {
        let wild = "<script>alert('&\"')</script>\u{0}\n";
        assert_eq!(Escaped(wild).to_string(), "&lt;script&gt;alert(&#39;&amp;&quot;&#39;)&lt;/script&gt; ");
    }

    #[test]
    fn numbers_are_short() {
        let cases = [
            (0.0, "0"),
            (-0.0, "0"),
            (1.5, "1.5"),
            (0.123_456, "0.123"),
            (0.001_234, "0.001234"),
            (12.0, "12"),
            (1234.5, "1234"),
            (12_345.6, "12\u{202f}346"),
            (-1_234_567.0, "−1\u{202f}234\u{202f}567"),
            (1e20, "1.00e20"),
            (f64::NAN, "–"),
        ];
        for (value, text) in cases {
            assert_eq!(number(value), text, "{value}");
        }
    }
}
