//! The operator's flags.

use std::net::SocketAddr;
use std::time::Duration;

use tidegate_runtime::exit::Error;
use tidegate_runtime::ledger::{Keep, Place};

use crate::facts::Adoptions;
use crate::index::Serving;
use crate::{lease, ledger};

/// Schedules pods on GPUs: quotas, gangs, lending and return, by the same engine as `tidegate up`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Where metrics, health and the answers to people are served.
    #[arg(long, env = "TIDEGATE_OPERATOR_LISTEN", default_value = "0.0.0.0:8080", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// `act` carries plans out. `observe` only publishes them: nothing in the cluster is changed.
    #[arg(long, env = "TIDEGATE_OPERATOR_MODE", default_value = "act", value_name = "MODE")]
    pub mode: Mode,
    /// Namespace of the lease by which one of several operators leads.
    #[arg(long, env = "TIDEGATE_OPERATOR_LEASE_NAMESPACE", default_value = "default", value_name = "NAMESPACE")]
    pub lease_namespace: String,
    /// Name of the lease.
    #[arg(long, env = "TIDEGATE_OPERATOR_LEASE_NAME", default_value = "tidegate-operator", value_name = "NAME")]
    pub lease_name: String,
    /// How long another operator waits after the leader's last sign of life, in seconds.
    #[arg(long, env = "TIDEGATE_OPERATOR_LEASE_SECONDS", default_value_t = 15, value_name = "SECONDS")]
    pub lease_seconds: u64,
    /// Under what URL workers reach this operator, to report their progress: its service, say. Absent: they are told of none.
    #[arg(long, env = "TIDEGATE_OPERATOR_PROGRESS_URL", value_name = "URL")]
    pub progress_url: Option<String>,
    /// Where routers and replicas connect (`tidegate.control.v1`, gRPC), once this process leads.
    #[arg(long, env = "TIDEGATE_OPERATOR_CONTROL_LISTEN", default_value = "0.0.0.0:8090", value_name = "ADDRESS")]
    pub control_listen: SocketAddr,
    /// Under what URL replicas reach that: a service, say. Absent: no model is served.
    #[arg(long, env = "TIDEGATE_OPERATOR_CONTROL_URL", value_name = "URL")]
    pub control_url: Option<String>,
    /// Who connects there needs a service account's token (`--control-token-file`) and the right to `post` `/control`, as the role
    /// `tidegate-data-plane` gives it. Replicas are given such a token.
    #[arg(long, env = "TIDEGATE_OPERATOR_CONTROL_AUTH")]
    pub control_auth: bool,
    /// The image of replicas whose Model names none: that of this operator, say.
    #[arg(long, env = "TIDEGATE_OPERATOR_REPLICA_IMAGE", value_name = "IMAGE")]
    pub replica_image: Option<String>,
    /// One more kind of which suspended objects are started when their turn comes, beside Jobs and others that are known: where its
    /// pod templates are, and their counts (docs/operator.md has the form). May be given several times.
    #[arg(long, value_name = "GROUP/VERSION/KIND=POINTER")]
    pub adopt: Vec<String>,
    /// Kueue's labels count too: what waits in its queues is started here. Only where Kueue itself does not run any more.
    #[arg(long, env = "TIDEGATE_OPERATOR_KUEUE")]
    pub kueue: bool,
    /// How often what is believed is compared with a fresh list of all pods, in seconds.
    #[arg(long, env = "TIDEGATE_OPERATOR_CHECK_SECONDS", default_value_t = 600, value_name = "SECONDS")]
    pub check_seconds: u64,
    /// Where history is kept: `sqlite:FOLDER` for one replica with a volume, `postgres://USER@HOST/DATABASE` (the password from
    /// `PGPASSWORD`) for several. Absent: nowhere, and it begins anew with each start.
    #[arg(long, env = "TIDEGATE_OPERATOR_LEDGER", hide_env_values = true, value_name = "PLACE")]
    pub ledger: Option<String>,
    /// Decisions that the ledger keeps.
    #[arg(long, env = "TIDEGATE_OPERATOR_LEDGER_ROWS", default_value_t = 1_000_000, value_name = "ROWS")]
    pub ledger_rows: u64,
    /// For how many days it keeps them.
    #[arg(long, env = "TIDEGATE_OPERATOR_LEDGER_DAYS", default_value_t = 30, value_name = "DAYS")]
    pub ledger_days: u64,
    /// For tests: the process aborts when so many requests that place or end pods were answered, in the middle of what it does.
    #[arg(long, hide = true, value_name = "REQUESTS")]
    pub abort_after: Option<u64>,
    /// By what name this process holds the lease, for people: its pod's name, say. A number is added.
    #[arg(long, env = "TIDEGATE_OPERATOR_IDENTITY", default_value = "operator", value_name = "NAME")]
    pub identity: String,
}

/// What plans are for.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// They are carried out.
    Act,
    /// They are published.
    Observe,
}

/// Room for a request at the end of the lease, and for some renewals before.
const LEASE_SECONDS: std::ops::RangeInclusive<u64> = 8..=600;
/// From what one busy hour makes to some 30 GB.
const LEDGER_ROWS: std::ops::RangeInclusive<u64> = 1_000..=100_000_000;
const LEDGER_DAYS: std::ops::RangeInclusive<u64> = 1..=3_650;
const DAY_MS: u64 = 86_400_000;

/// Flags that make sense.
#[derive(Clone, Debug)]
pub struct Settings {
    pub listen: SocketAddr,
    pub mode: Mode,
    pub lease: lease::Settings,
    pub progress_url: Option<String>,
    pub control_listen: SocketAddr,
    pub serving: Serving,
    pub adoptions: &'static Adoptions,
    pub check_every: Duration,
    pub ledger: Option<ledger::Settings>,
    pub abort_after: Option<u64>,
}

/// A number that a flag may have.
fn within(flag: &str, value: u64, range: &std::ops::RangeInclusive<u64>) -> Result<(), Error> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(Error::Usage(format!("{flag} {value}: give a number from {} to {}", range.start(), range.end())))
}

/// What the flags say of the ledger.
fn ledger(place: Option<&str>, rows: u64, days: u64, mode: Mode) -> Result<Option<ledger::Settings>, Error> {
    within("--ledger-rows", rows, &LEDGER_ROWS)?;
    within("--ledger-days", days, &LEDGER_DAYS)?;
    let Some(text) = place else { return Ok(None) };
    // What it holds of a place that cannot be read may be a password.
    let place: Place = text.parse().map_err(|problem| Error::Usage(format!("--ledger: {problem}")))?;
    if mode == Mode::Observe {
        let remedy = "leave it out: who only observes writes nothing down, and would take the ledger from the one that acts";
        return Err(Error::Usage(format!("--ledger with --mode observe: {remedy}")));
    }
    Ok(Some(ledger::Settings { place, keep: Keep { decisions: rows, age_ms: Some(days * DAY_MS) } }))
}

impl Args {
    /// Checks what clap cannot. `unique` is what no other process has.
    pub fn validate(self, unique: &str) -> Result<Settings, Error> {
        let Self {
            listen,
            mode,
            lease_namespace,
            lease_name,
            lease_seconds,
            progress_url,
            control_listen,
            control_url,
            control_auth,
            replica_image,
            adopt,
            kueue,
            check_seconds,
            ledger: place,
            ledger_rows,
            ledger_days,
            abort_after,
            identity,
        } = self;
        within("--lease-seconds", lease_seconds, &LEASE_SECONDS)?;
        let ledger = ledger(place.as_deref(), ledger_rows, ledger_days, mode)?;
        for (flag, value) in [("--lease-namespace", &lease_namespace), ("--lease-name", &lease_name), ("--identity", &identity)] {
            if value.is_empty() {
                return Err(Error::Usage(format!("{flag}: is empty; give a name")));
            }
        }
        if let Some(url) = progress_url.as_ref().filter(|url| !url.starts_with("http://") && !url.starts_with("https://")) {
            return Err(Error::Usage(format!("--progress-url {url}: give a URL that begins with http:// or https://")));
        }
        if let Some(url) = control_url.as_ref().filter(|url| !url.starts_with("http://")) {
            return Err(Error::Usage(format!("--control-url {url}: give a URL that begins with http://")));
        }
        if replica_image.as_ref().is_some_and(String::is_empty) {
            return Err(Error::Usage("--replica-image: is empty; give the name of an image".to_owned()));
        }
        let adoptions = Adoptions::of(&adopt, kueue).map_err(|problem| Error::Usage(format!("--adopt {problem}")))?;
        // Said once, and true for as long as the process lives.
        let adoptions = Box::leak(Box::new(adoptions));
        let lease = lease::Settings {
            namespace: lease_namespace,
            name: lease_name,
            identity: format!("{identity}_{unique}"),
            ttl: Duration::from_secs(lease_seconds),
        };
        let check_every = Duration::from_secs(check_seconds.max(1));
        let serving = Serving { image: replica_image, control_url, control_auth };
        Ok(Settings { listen, mode, lease, progress_url, control_listen, serving, adoptions, check_every, ledger, abort_after })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn told(flags: &[&str]) -> Result<Settings, String> {
        let line = Line::try_parse_from(["operator"].iter().chain(flags)).map_err(|e| e.to_string())?;
        line.args.validate("7").map_err(|e| e.to_string())
    }

    #[test]
    fn without_flags_it_acts_under_a_name_of_its_own() {
        let settings = told(&[]).unwrap();
        assert_eq!((settings.mode, settings.lease.identity.as_str()), (Mode::Act, "operator_7"));
    }

    #[test]
    fn bad_flags_are_named_with_the_remedy() {
        assert!(told(&["--lease-seconds", "2"]).unwrap_err().contains("from 8 to 600"));
        assert!(told(&["--lease-name", ""]).unwrap_err().contains("--lease-name"));
        assert!(told(&["--progress-url", "operator:8080"]).unwrap_err().contains("http://"));
        assert!(told(&["--control-url", "operator:8090"]).unwrap_err().contains("--control-url"));
        assert!(told(&["--replica-image", ""]).unwrap_err().contains("--replica-image"));
        assert!(told(&["--mode", "dream"]).unwrap_err().contains("observe"));
        assert!(told(&["--ledger", "/data"]).unwrap_err().contains("--ledger: is no ledger; give sqlite:FOLDER"));
        assert!(told(&["--ledger-days", "0"]).unwrap_err().contains("from 1 to 3650"));
        assert!(told(&["--ledger", "sqlite:/data", "--mode", "observe"]).unwrap_err().contains("leave it out"));
    }

    #[test]
    fn a_ledger_s_password_is_not_shown() {
        let settings = told(&["--ledger", "postgres://t:secret@db/history", "--ledger-days", "7"]).unwrap();
        let ledger = settings.ledger.as_ref().unwrap();
        assert_eq!((ledger.keep.decisions, ledger.keep.age_ms), (1_000_000, Some(7 * DAY_MS)));
        assert!(!format!("{settings:?}").contains("secret"));
    }

    #[test]
    fn kinds_are_added_to_those_that_are_known() {
        assert!(told(&["--adopt", "batch/Job=/spec"]).unwrap_err().contains("--adopt batch/Job=/spec: `batch/Job` is no GROUP"));
        let fleet = "example.com/v1/Fleet=/spec/pod:/spec/size";
        let settings = told(&["--adopt", fleet, "--kueue"]).unwrap();
        assert!(settings.adoptions.kueue && settings.adoptions.kinds.iter().any(|kind| kind.name == "Fleet.example.com"));
    }
}
