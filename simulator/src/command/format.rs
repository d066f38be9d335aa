//! `--format` of `simulate jobs`: the trace's, and a second time that of `--inference`. Their names differ, so either order will do.

use clap::ValueEnum;
use clap::builder::PossibleValue;

use super::line::word;
use crate::capacity::traffic;
use crate::{Error, trace};

/// A format that was named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Named {
    Jobs(trace::Format),
    Requests(traffic::Format),
}

impl ValueEnum for Named {
    fn value_variants<'a>() -> &'a [Self] {
        &[
            Self::Jobs(trace::Format::Philly),
            Self::Jobs(trace::Format::Pollux),
            Self::Jobs(trace::Format::Tiresias),
            Self::Jobs(trace::Format::Gavel),
            Self::Jobs(trace::Format::Openb),
            Self::Jobs(trace::Format::KueueGenerator),
            Self::Requests(traffic::Format::Servegen),
            Self::Requests(traffic::Format::Azure),
            Self::Requests(traffic::Format::Mooncake),
        ]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        match self {
            Self::Jobs(format) => format.to_possible_value(),
            Self::Requests(format) => format.to_possible_value(),
        }
    }
}

/// Which is which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Formats {
    pub(super) jobs: trace::Format,
    /// There if and only if `--inference` is.
    pub(super) requests: Option<traffic::Format>,
}

impl Formats {
    /// Of what `--format` names.
    pub(super) fn of(named: &[Named], inference: bool) -> Result<Self, Error> {
        let wrong = |what: String| Err(Error::Usage(format!("--format {what}")));
        let jobs: Vec<trace::Format> =
            named.iter().filter_map(|named| if let Named::Jobs(format) = named { Some(*format) } else { None }).collect();
        let requests: Vec<traffic::Format> =
            named.iter().filter_map(|named| if let Named::Requests(format) = named { Some(*format) } else { None }).collect();
        match (jobs.as_slice(), requests.as_slice(), inference) {
            ([jobs], [], false) => Ok(Self { jobs: *jobs, requests: None }),
            ([jobs], [requests], true) => Ok(Self { jobs: *jobs, requests: Some(*requests) }),
            ([], ..) => wrong(format!("names none for --trace: write one of {}", words::<trace::Format>())),
            (_, [], true) => wrong(format!("names none for --inference: add one of {}", words::<traffic::Format>())),
            (_, [first, ..], false) => {
                wrong(format!("{} is of --inference, which is missing: name its file, or leave the format out", word(first)))
            }
            _ => wrong("names more than one format for --trace or for --inference: write one for each".to_owned()),
        }
    }
}

fn words<F: ValueEnum>() -> String {
    F::value_variants().iter().map(word).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_can_be_named_and_one_of_each_kind_is_taken_in_either_order() {
        let all = trace::Format::value_variants().len() + traffic::Format::value_variants().len();
        assert_eq!(Named::value_variants().len(), all);
        let (philly, azure) = (Named::Jobs(trace::Format::Philly), Named::Requests(traffic::Format::Azure));
        let both = Formats { jobs: trace::Format::Philly, requests: Some(traffic::Format::Azure) };
        assert_eq!(Formats::of(&[philly, azure], true).unwrap(), both);
        assert_eq!(Formats::of(&[azure, philly], true).unwrap(), both);
        let refused = |named: &[Named], inference| Formats::of(named, inference).unwrap_err().to_string();
        assert!(refused(&[azure], true).contains("none for --trace"));
        assert!(refused(&[philly], true).contains("add one of servegen, azure, mooncake"));
        assert!(refused(&[philly, azure], false).contains("azure is of --inference"));
        assert!(refused(&[philly, philly], false).contains("more than one"));
    }
}
