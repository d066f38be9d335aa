//! Kubernetes' quantities (`500m`, `1.5Gi`, `2e3`) as whole numbers of a small unit.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Digits of a number that are looked at: more than any real quantity has.
const MOST_DIGITS: usize = 24;
/// Billionths in one: the finest unit of the API.
pub const NANO: i128 = 1_000_000_000;
const MIB: i128 = 1 << 20;

/// Thousandths, rounded up; 0 for what is no quantity or below 0 (the API server lets neither in).
pub fn milli(quantity: &Quantity) -> u64 {
    rounded_up(quantity, NANO / 1000)
}

/// Whole units, rounded up.
pub fn whole(quantity: &Quantity) -> u64 {
    rounded_up(quantity, NANO)
}

/// MiB of a quantity of bytes that is asked for: rounded up.
pub fn mib(quantity: &Quantity) -> u64 {
    rounded_up(quantity, NANO * MIB)
}

/// MiB of a quantity of bytes that is there: rounded down.
pub fn mib_there(quantity: &Quantity) -> u64 {
    whole(quantity) >> 20
}

fn rounded_up(quantity: &Quantity, unit: i128) -> u64 {
    let up = |nano: i128| nano.checked_add(unit - 1).and_then(|nano| u64::try_from(nano / unit).ok());
    nano(quantity).filter(|nano| *nano >= 0).and_then(up).unwrap_or(0)
}

/// Billionths, with what is finer rounded up as the API server does; none for what is no quantity or too large to be one.
pub fn nano(quantity: &Quantity) -> Option<i128> {
    let text = quantity.0.trim();
    let (number, suffix) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len()));
    let (up, down) = factor(suffix)?;
    let (below_zero, number) = match number.strip_prefix('-') {
        Some(number) => (true, number),
        None => (false, number.strip_prefix('+').unwrap_or(number)),
    };
    let (integer, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = [integer, fraction].concat();
    if digits.is_empty() || digits.len() > MOST_DIGITS || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let mantissa: i128 = digits.parse().ok()?;
    let tens = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let above = mantissa.checked_mul(up)?.checked_mul(NANO)?;
    let below = tens.checked_mul(down)?;
    let size = above.checked_add(below - 1)? / below;
    Some(if below_zero { -size } else { size })
}

/// What a suffix multiplies by, as a fraction.
fn factor(suffix: &str) -> Option<(i128, i128)> {
    let binary = |power: u32| Some((1024_i128.pow(power), 1));
    let decimal = |power: u32| Some((1000_i128.pow(power), 1));
    match suffix {
        "" => Some((1, 1)),
        "n" => Some((1, 1_000_000_000)),
        "u" => Some((1, 1_000_000)),
        "m" => Some((1, 1000)),
        "k" => decimal(1),
        "M" => decimal(2),
        "G" => decimal(3),
        "T" => decimal(4),
        "P" => decimal(5),
        "E" => decimal(6),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        _ => exponent(suffix),
    }
}

fn exponent(suffix: &str) -> Option<(i128, i128)> {
    let power: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    let tens = 10_i128.checked_pow(power.unsigned_abs())?;
    Some(if power < 0 { (1, tens) } else { (tens, 1) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Quantity {
        Quantity(text.to_owned())
    }

    #[test]
    fn every_form_of_the_api_is_read() {
        let cores =
            [("2", 2000), ("500m", 500), ("1.5", 1500), ("0.1", 100), ("100u", 1), ("2e1", 20_000), ("1E-1", 100), ("+3", 3000)];
        for (text, expected) in cores {
            assert_eq!(milli(&of(text)), expected, "{text}");
        }
        let bytes = [("128Mi", 128), ("1Gi", 1024), ("1.5Gi", 1536), ("1G", 954), ("1", 1), ("134217728", 128), ("1e9", 954)];
        for (text, expected) in bytes {
            assert_eq!(mib(&of(text)), expected, "{text}");
        }
    }

    #[test]
    fn what_is_there_is_rounded_down_and_what_is_asked_for_up() {
        assert_eq!((mib(&of("1000Ki")), mib_there(&of("1000Ki"))), (1, 0));
        assert_eq!((whole(&of("1500m")), whole(&of("8"))), (2, 8));
    }

    #[test]
    fn what_is_below_zero_is_told_apart_from_nonsense() {
        assert_eq!(nano(&of("-1.5")), Some(-1_500_000_000));
        assert_eq!((nano(&of("1n")), nano(&of("0.1n"))), (Some(1), Some(1)));
        assert_eq!(nano(&of("12Ei")), Some(12 * (1 << 60) * NANO));
        for text in ["", "-", "--1", "+-1", "1-", "Gi", "1Gib", "1 Gi", "0x10", "1_000", "\u{661}", "1e400", "NaN", "inf"] {
            assert_eq!(nano(&of(text)), None, "{text}");
        }
    }

    #[test]
    fn nonsense_is_nothing_and_huge_is_no_panic() {
        for text in ["", "Gi", "-1", "1.2.3", "12x", "99999999999999999999999999", "1e99", "9E"] {
            assert!(milli(&of(text)) == 0 || text == "9E", "{text}");
        }
    }
}
