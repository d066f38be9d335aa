//! CPU time of this thread, for decisions per second; decides nothing.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// CPU time that this thread has used; where Linux does not tell, time since the first call.
pub fn thread_cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let used = text.split_whitespace().next().and_then(|field| field.parse().ok()).filter(|&used| used > 0);
    used.map_or_else(|| START.elapsed(), Duration::from_nanos)
}
