//! Seeds on the command line: `42..51`, `7`, `1,2,3`.

use std::str::FromStr;

/// The most seeds of one run; each costs a simulation.
const MOST: usize = 1000;

/// Seeds, in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seeds(pub Vec<u64>);

impl FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            |what: &str| format!("seeds `{text}`: {what}; write FIRST..LAST (both included) or a list, for instance 42..51");
        let number = |part: &str| part.trim().parse::<u64>().map_err(|_| wrong("not a number"));
        let seeds = match text.split_once("..") {
            Some((first, last)) => {
                let (first, last) = (number(first)?, number(last)?);
                let count = last.checked_sub(first).ok_or_else(|| wrong("the last is before the first"))?;
                if count >= MOST as u64 {
                    return Err(wrong("more than 1000"));
                }
                (first..=last).collect()
            }
            None => text.split(',').map(number).collect::<Result<Vec<u64>, String>>()?,
        };
        if seeds.len() > MOST {
            return Err(wrong("more than 1000"));
        }
        Ok(Self(seeds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_seeds_includes_both_ends() {
        assert_eq!("42..44".parse(), Ok(Seeds(vec![42, 43, 44])));
        assert_eq!("7".parse(), Ok(Seeds(vec![7])));
        assert_eq!("3, 1".parse(), Ok(Seeds(vec![3, 1])));
    }

    #[test]
    fn wrong_seeds_say_what_to_write() {
        for text in ["", "a", "5..4", "1..", "0..1000", "1..99999999999999999999"] {
            let error = text.parse::<Seeds>().unwrap_err();
            assert!(error.contains("42..51"), "{error}");
        }
    }
}
