//! The device that a run occupies: replicas of one device take turns, and a simulated device keeps its pace.
//!
//! Guarantees: a run's answer is really computed; it is handed out no earlier than the declared service time after the
//! device was taken; while one process holds the device no other does; a killed process frees it (the kernel drops its
//! `flock`).
//!
//! `flock` alone is not fair: who frees a lock and wants it again at once is quicker than the waiter that the kernel wakes. So
//! there are two: a waiter holds the *gate* while it waits for the device, and who just freed the device meets a
//! closed gate.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;

/// The declared speed of a simulated device. All zero: not simulated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pace {
    pub per_batch_us: u32,
    pub per_row_us: u32,
    /// Applied to both, in thousandths.
    pub factor_permille: u32,
}

impl Pace {
    /// Time that a batch of `rows` takes.
    pub fn service_time(&self, rows: u64) -> Duration {
        let declared = u64::from(self.per_batch_us).saturating_add(u64::from(self.per_row_us).saturating_mul(rows));
        Duration::from_micros(declared.saturating_mul(u64::from(self.factor_permille)) / 1000)
    }
}

/// What a run cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Occupied {
    /// Device time: from taking the device to freeing it.
    pub busy: Duration,
    /// The real computation took longer than the pace allows.
    pub missed: bool,
}

/// A device, perhaps shared with other processes, perhaps simulated.
#[derive(Debug)]
pub(crate) struct Device {
    locks: Option<Locks>,
    pace: Pace,
}

#[derive(Debug)]
struct Locks {
    gate: File,
    device: File,
}

impl Device {
    /// Opens the lock files `lock` and `lock.gate`, and makes them when they are not there.
    pub fn open(lock: Option<&Path>, pace: Pace) -> io::Result<Self> {
        let open = |path: &Path| File::options().create(true).truncate(false).write(true).open(path);
        let locks = match lock {
            Some(path) => {
                let mut gate = path.as_os_str().to_owned();
                gate.push(".gate");
                Some(Locks { gate: open(gate.as_ref())?, device: open(path)? })
            }
            None => None,
        };
        Ok(Self { locks, pace })
    }

    /// Takes the device, computes, keeps the pace, frees the device. Blocks the thread for all of it.
    pub fn occupy<T>(&self, rows: u64, compute: impl FnOnce() -> T) -> io::Result<(T, Occupied)> {
        let _held = self.locks.as_ref().map(Locks::take).transpose()?;
        let taken = Instant::now();
        let answer = compute();
        let pace = self.pace.service_time(rows);
        let missed = !pace.is_zero() && taken.elapsed() > pace;
        sleep_until(taken + pace);
        Ok((answer, Occupied { busy: taken.elapsed(), missed }))
    }
}

impl Locks {
    fn take(&self) -> io::Result<Held<'_>> {
        lock(&self.gate, FlockOperation::LockExclusive)?;
        let taken = lock(&self.device, FlockOperation::LockExclusive);
        lock(&self.gate, FlockOperation::Unlock)?;
        taken.map(|()| Held(&self.device))
    }
}

/// Frees the device when dropped.
struct Held<'a>(&'a File);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Err(error) = lock(self.0, FlockOperation::Unlock) {
            tracing::error!(%error, "cannot free the device");
        }
    }
}

fn lock(file: &File, operation: FlockOperation) -> io::Result<()> {
    loop {
        match rustix::fs::flock(file, operation) {
            Err(rustix::io::Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

/// Parks the thread, which may wake early for no reason.
fn sleep_until(deadline: Instant) {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::park_timeout(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    const UNPACED: Pace = Pace { per_batch_us: 0, per_row_us: 0, factor_permille: 1000 };

    #[test]
    fn service_time_is_batch_plus_rows_times_the_factor() {
        let pace = Pace { per_batch_us: 1000, per_row_us: 200, factor_permille: 1500 };
        assert_eq!(pace.service_time(5), Duration::from_millis(3));
        assert_eq!(UNPACED.service_time(5), Duration::ZERO);
        let slowest = Pace { per_batch_us: u32::MAX, per_row_us: u32::MAX, factor_permille: u32::MAX };
        assert!(slowest.service_time(u64::MAX) > Duration::from_hours(1));
    }

    #[test]
    fn a_paced_answer_takes_the_declared_time_and_the_computation_overlaps_it() {
        let device = Device::open(None, Pace { per_batch_us: 20_000, per_row_us: 0, factor_permille: 1000 }).unwrap();
        let began = Instant::now();
        let (answer, occupied) = device.occupy(1, || (sleep_until(Instant::now() + Duration::from_millis(10)), 7).1).unwrap();
        assert_eq!(answer, 7);
        assert!(!occupied.missed);
        assert!(began.elapsed() >= Duration::from_millis(20));
        assert!(occupied.busy < Duration::from_millis(30), "computation did not overlap the pace: {occupied:?}");
    }

    #[test]
    fn a_computation_slower_than_the_pace_is_counted_as_missed() {
        let device = Device::open(None, Pace { per_batch_us: 1, per_row_us: 0, factor_permille: 1000 }).unwrap();
        let ((), occupied) = device.occupy(1, || sleep_until(Instant::now() + Duration::from_millis(2))).unwrap();
        assert!(occupied.missed);
    }

    #[test]
    fn two_holders_of_one_lock_file_never_overlap() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("device");
        let (tell, told) = mpsc::channel();
        std::thread::scope(|scope| {
            for who in 0..2 {
                let (tell, path) = (tell.clone(), path.clone());
                scope.spawn(move || {
                    let device = Device::open(Some(&path), UNPACED).unwrap();
                    for _ in 0..50 {
                        device
                            .occupy(1, || {
                                tell.send((who, true)).unwrap();
                                std::thread::yield_now();
                                tell.send((who, false)).unwrap();
                            })
                            .unwrap();
                    }
                });
            }
        });
        drop(tell);
        let seen: Vec<_> = told.iter().collect();
        assert_eq!(seen.len(), 200);
        for pair in seen.chunks(2) {
            assert!(matches!(pair, [(a, true), (b, false)] if a == b), "overlap: {pair:?}");
        }
    }

    #[test]
    fn a_holder_that_wants_the_device_again_at_once_lets_the_other_in() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("device");
        let order = parking_lot::Mutex::new(Vec::new());
        let start = std::sync::Barrier::new(2);
        let hold = Duration::from_millis(2);
        std::thread::scope(|scope| {
            for who in 0..2 {
                let (path, order, start) = (&path, &order, &start);
                scope.spawn(move || {
                    let device = Device::open(Some(path), UNPACED).unwrap();
                    start.wait();
                    for _ in 0..20 {
                        device.occupy(1, || (order.lock().push(who), sleep_until(Instant::now() + hold))).unwrap();
                    }
                });
            }
        });
        let order = order.into_inner();
        let switches = order.windows(2).filter(|pair| matches!(pair, [a, b] if a != b)).count();
        assert!(switches >= 30, "starved: {order:?}");
    }
}
