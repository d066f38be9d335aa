//! The unit tests of the example's training scripts: Python's standard library alone.

use std::process::Command;

use anyhow::Result;

use crate::cache;
use crate::tally::{self, Tally};

/// Runs every test of the folder and sums up in the words of Rust's test runner. A skipped test counts as failed.
const RUNNER: &str = "
import sys, unittest
result = unittest.TextTestRunner(stream=sys.stderr, verbosity=2).run(unittest.defaultTestLoader.discover('.'))
failed = len(result.failures) + len(result.errors) + len(result.unexpectedSuccesses) + len(result.skipped)
print(f'test result: unittest. {result.testsRun - failed} passed; {failed} failed', flush=True)
sys.exit(not result.wasSuccessful())
";

/// Runs them.
pub fn run() -> Result<Tally> {
    run_in(&cache::workspace().join("examples/tide/train"))
}

fn run_in(folder: &std::path::Path) -> Result<Tally> {
    tally::run(Command::new("python3").current_dir(folder).args(["-c", RUNNER]), tally::of_runner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_of_python_are_counted_and_skipped_ones_count_as_failed() {
        let folder = std::env::temp_dir().join(format!("xtask-python-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let tests = "import unittest\nclass T(unittest.TestCase):\n def test_a(self): pass\n def test_b(self): self.fail()\n @unittest.skip('why')\n def test_c(self): pass\n";
        std::fs::write(folder.join("test_it.py"), tests).unwrap();
        let tally = run_in(&folder);
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(tally.unwrap(), Tally { passed: 1, failed: 2 });
    }
}
