//! Kubernetes' quantities (`500m`, `1.5Gi`, `2e3`) as whole numbers of a small unit.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Digits of a number that are looked at: more than any real quantity has.
const MOST_DIGITS: usize = 24;
const MIB: i128 = 1 << 20;

/// Thousandths, rounded up; 0 for what is no quantity or below 0 (the API server lets neither in).
pub fn milli(quantity: &Quantity) -> u64 {
    scaled(&quantity.0, 1000, 1).unwrap_or(0)
}

/// Whole units, rounded up.
pub fn whole(quantity: &Quantity) -> u64 {
    scaled(&quantity.0, 1, 1).unwrap_or(0)
}

/// MiB of a quantity of bytes that is asked for: rounded up.
pub fn mib(quantity: &Quantity) -> u64 {
    scaled(&quantity.0, 1, MIB).unwrap_or(0)
}

/// MiB of a quantity of bytes that is there: rounded down.
pub fn mib_there(quantity: &Quantity) -> u64 {
    let bytes = scaled(&quantity.0, 1, 1).unwrap_or(0);
    bytes >> 20
}

/// The quantity times `times` over `over`, rounded up.
fn scaled(text: &str, times: i128, over: i128) -> Option<u64> {
    let (number, suffix) = text.trim().split_at(text.trim().find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.trim().len()));
    let (up, down) = factor(suffix)?;
    let (integer, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits: String = [integer.strip_prefix('+').unwrap_or(integer), fraction].concat();
    if digits.is_empty() || digits.len() > MOST_DIGITS {
        return None;
    }
    let mantissa: i128 = digits.parse().ok()?;
    let tens = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let above = mantissa.checked_mul(up)?.checked_mul(times)?;
    let below = tens.checked_mul(down)?.checked_mul(over)?;
    u64::try_from(above.checked_add(below - 1)? / below).ok()
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
    fn nonsense_is_nothing_and_huge_is_no_panic() {
        for text in ["", "Gi", "-1", "1.2.3", "12x", "99999999999999999999999999", "1e99", "9E"] {
            assert!(milli(&of(text)) == 0 || text == "9E", "{text}");
        }
    }
}
