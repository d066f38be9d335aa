//! The command line of a replica, and its validation before anything starts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tidegate_runtime::control::Token;
use tidegate_runtime::exit::Error;
use tonic::transport::Endpoint;

use crate::device::Pace;

/// Arguments.
#[derive(clap::Args, Debug, Clone)]
pub struct Args {
    /// Name that clients call the model by. Default: the file's name without its ending.
    #[arg(long, env = "TIDEGATE_REPLICA_MODEL")]
    pub model: Option<String>,
    /// ONNX file.
    #[arg(long, env = "TIDEGATE_REPLICA_ONNX")]
    pub onnx: PathBuf,
    /// Where to serve the Open Inference Protocol (gRPC). Port 0: any free port, told to the world.
    #[arg(long, default_value = "127.0.0.1:0", env = "TIDEGATE_REPLICA_LISTEN")]
    pub listen: SocketAddr,
    /// Identity in reports. Default: the model's name and the process id.
    #[arg(long, env = "TIDEGATE_REPLICA_ID")]
    pub replica_id: Option<String>,
    /// The world's `tidegate.control.v1` endpoint, for instance `http://127.0.0.1:9090`. Absent: the replica runs alone.
    #[arg(long, env = "TIDEGATE_REPLICA_CONTROL")]
    pub control: Option<String>,
    /// A file with the token by which the world knows this replica, read anew for each session. Absent: it sends none.
    #[arg(long, env = "TIDEGATE_REPLICA_CONTROL_TOKEN_FILE")]
    pub control_token_file: Option<PathBuf>,
    /// Rows (items along the batch dimension) in one request; more are refused.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=65_536), env = "TIDEGATE_REPLICA_MAX_BATCH_ROWS")]
    pub max_batch_rows: u32,
    /// Simulated device: microseconds that any batch takes.
    #[arg(long, default_value_t = 0, env = "TIDEGATE_REPLICA_PACE_PER_BATCH_US")]
    pub pace_per_batch_us: u32,
    /// Simulated device: microseconds more for each row.
    #[arg(long, default_value_t = 0, env = "TIDEGATE_REPLICA_PACE_PER_ROW_US")]
    pub pace_per_row_us: u32,
    /// Simulated device: its slowness against the declared pace, in thousandths; 2000 takes twice as long.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000), env = "TIDEGATE_REPLICA_PACE_FACTOR_PERMILLE")]
    pub pace_factor_permille: u32,
    /// File that stands for the device: replicas with the same file take turns on it.
    #[arg(long, env = "TIDEGATE_REPLICA_DEVICE_LOCK")]
    pub device_lock: Option<PathBuf>,
    /// Thousandths of its device that it was given, beside others that take turns with it; 1000: the device is its own.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..=1000), env = "TIDEGATE_REPLICA_DEVICE_MILLI")]
    pub device_milli: u16,
    /// Seconds that requests in flight may take after the wish to end.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=3600), env = "TIDEGATE_REPLICA_DRAIN_SECONDS")]
    pub drain_seconds: u64,
    /// Where to serve `/metrics`, `/healthz` and `/readyz`. Absent: nowhere.
    #[arg(long, env = "TIDEGATE_REPLICA_ADMIN_LISTEN")]
    pub admin_listen: Option<SocketAddr>,
    /// Load the model, print its tensors as one JSON object, and end.
    #[arg(long)]
    pub inspect: bool,
}

/// Validated arguments.
#[derive(Debug)]
pub(crate) struct Settings {
    pub model: String,
    pub onnx: PathBuf,
    pub listen: SocketAddr,
    pub replica_id: String,
    pub control: Option<Endpoint>,
    pub control_token: Token,
    pub max_batch_rows: usize,
    pub pace: Pace,
    pub device_lock: Option<PathBuf>,
    pub device_milli: u16,
    pub drain_limit: Duration,
    pub admin_listen: Option<SocketAddr>,
}

impl Args {
    pub(crate) fn validate(self) -> Result<Settings, Error> {
        let Self {
            model,
            onnx,
            listen,
            replica_id,
            control,
            control_token_file,
            max_batch_rows,
            pace_per_batch_us,
            pace_per_row_us,
            pace_factor_permille,
            device_lock,
            device_milli,
            drain_seconds,
            admin_listen,
            inspect: _,
        } = self;
        let stem = || onnx.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let model = model.unwrap_or_else(stem);
        if model.is_empty() {
            return Err(Error::Usage("--model: is empty; give the name that clients call".to_owned()));
        }
        let control = control.as_deref().map(control_endpoint).transpose()?;
        Ok(Settings {
            replica_id: replica_id.unwrap_or_else(|| format!("{model}-{}", std::process::id())),
            model,
            onnx,
            listen,
            control,
            control_token: Token::new(control_token_file),
            max_batch_rows: usize::try_from(max_batch_rows).unwrap_or(usize::MAX),
            pace: Pace { per_batch_us: pace_per_batch_us, per_row_us: pace_per_row_us, factor_permille: pace_factor_permille },
            device_lock,
            device_milli,
            drain_limit: Duration::from_secs(drain_seconds),
            admin_listen,
        })
    }
}

fn control_endpoint(url: &str) -> Result<Endpoint, Error> {
    let wrong = |why: String| Error::Usage(format!("--control: `{url}` {why}; give for instance http://127.0.0.1:9090"));
    let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|e| wrong(format!("is not a URL ({e})")))?;
    match (endpoint.uri().scheme_str(), endpoint.uri().authority()) {
        (Some("http"), Some(_)) => Ok(endpoint),
        _ => Err(wrong("is not an http URL".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn settings(flags: &[&str]) -> Result<Settings, Error> {
        Cli::try_parse_from(["replica"].iter().chain(flags)).unwrap().args.validate()
    }

    #[test]
    fn the_model_is_named_after_its_file_unless_told() {
        assert_eq!(settings(&["--onnx", "a/digits.onnx"]).unwrap().model, "digits");
        assert_eq!(settings(&["--onnx", "a/digits.onnx", "--model", "other"]).unwrap().model, "other");
    }

    #[test]
    fn a_control_url_without_scheme_is_refused_with_the_flag_and_its_value() {
        let error = settings(&["--onnx", "m.onnx", "--control", "127.0.0.1:9090"]).unwrap_err();
        assert_eq!(error.code(), 64);
        assert!(error.to_string().contains("--control: `127.0.0.1:9090`"), "{error}");
    }

    #[test]
    fn zero_batch_rows_are_refused() {
        assert!(Cli::try_parse_from(["replica", "--onnx", "m.onnx", "--max-batch-rows", "0"]).is_err());
    }
}
