//! Civil dates of the proleptic Gregorian calendar, without a time zone, as milliseconds since 1970.
//!
//! Source of the day arithmetic: H. Hinnant, "chrono-Compatible Low-Level Date Algorithms" (days from civil).

const DAY_S: u64 = 86_400;

/// Milliseconds since 1970-01-01 of `YYYY-MM-DD HH:MM:SS[.fraction]` (or with `T`), years 1970 to 9999; absent if it is none.
pub fn parse(text: &str) -> Option<u64> {
    let (date, clock) = text.split_once([' ', 'T'])?;
    let [year, month, day] = parts(date, '-')?;
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let [hour, minute, second] = parts(clock, ':')?;
    let in_range = (1970..=9999).contains(&year) && (1..=12).contains(&month) && day >= 1 && day <= days_in(year, month);
    if !in_range || hour > 23 || minute > 59 || second > 60 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let thousandths: u64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    Some((days(year, month, day) * DAY_S + hour * 3600 + minute * 60 + second) * 1000 + thousandths)
}

/// The reverse of [`parse`], whole seconds.
pub fn format(ms: u64) -> String {
    let seconds = ms / 1000;
    let (year, month, day) = civil(seconds / DAY_S);
    let clock = seconds % DAY_S;
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", clock / 3600, clock / 60 % 60, clock % 60)
}

fn parts(text: &str, separator: char) -> Option<[u64; 3]> {
    let mut all =
        text.split(separator).map(|part| if part.bytes().all(|b| b.is_ascii_digit()) { part.parse().ok() } else { None });
    let three = [all.next()??, all.next()??, all.next()??];
    all.next().is_none().then_some(three)
}

fn days_in(year: u64, month: u64) -> u64 {
    let leap = (year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400);
    match month {
        2 => 28 + u64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01. Years begin in March here, so that the leap day is the last of its year.
fn days(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let of_era = year % 400;
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year / 400 * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let of_era = shifted % 146_097;
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (shifted / 146_097 * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_come_out_as_other_calendars_say() {
        assert_eq!(parse("1970-01-01 00:00:00"), Some(0));
        assert_eq!(parse("2017-09-04 00:00:00"), Some(1_504_483_200_000));
        assert_eq!(parse("2024-02-29T23:59:59.5"), Some(1_709_251_199_500));
        assert_eq!(parse("2000-03-01 00:00:00"), Some(951_868_800_000));
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for text in [
            "",
            "2017-09-04",
            "2017-13-04 00:00:00",
            "2017-02-29 00:00:00",
            "2017-09-04 24:00:00",
            "1969-01-01 00:00:00",
            "2017-09-04 00:00",
            "2017-09-04 00:00:00.x",
            "2017-+9-04 00:00:00",
            "99999-01-01 00:00:00",
            "2017-09-00 00:00:00",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn formatting_is_the_reverse_of_parsing(seconds in 0_u64..253_402_300_800) {
            proptest::prop_assert_eq!(parse(&format(seconds * 1000)), Some(seconds * 1000));
        }
    }
}
