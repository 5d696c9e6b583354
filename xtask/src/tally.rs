//! Counts tests from what their runners print.

/// Tests that passed and failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
}

impl Tally {
    /// Adds the closing line of `cargo test` or of `cargo nextest`; any other line adds nothing.
    pub(crate) fn add(&mut self, line: &str) {
        let line = line.trim();
        let number = |text: &str| -> usize {
            text.rsplit(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0)
        };
        let before = |word: &str| line.find(word).map(|at| number(&line[..at]));
        if line.starts_with("test result:") {
            self.passed += before(" passed;").unwrap_or(0);
            self.failed += before(" failed;").unwrap_or(0);
        } else if line.starts_with("Summary [") {
            let passed = before(" passed").unwrap_or(0);
            // Failed, timed out, or not to be started: what was run and did not pass.
            let run = before(" tests run:").or(before(" test run:")).unwrap_or(0);
            self.passed += passed;
            self.failed += run.saturating_sub(passed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(line: &str) -> (usize, usize) {
        let mut tally = Tally::default();
        tally.add(line);
        (tally.passed, tally.failed)
    }

    #[test]
    fn closing_lines_of_both_runners_are_understood() {
        assert_eq!(
            tally(
                "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.10s"
            ),
            (12, 0)
        );
        assert_eq!(tally("test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured"), (3, 2));
        assert_eq!(tally("     Summary [   1.2s] 123 tests run: 123 passed (1 slow), 2 skipped"), (123, 0));
        assert_eq!(
            tally("     Summary [   1.2s] 5 tests run: 3 passed, 1 failed, 1 timed out, 0 skipped"),
            (3, 2)
        );
        assert_eq!(tally("     Summary [   0.1s] 1 test run: 1 passed, 0 skipped"), (1, 0));
    }

    #[test]
    fn other_lines_count_nothing() {
        assert_eq!(tally("test lock::a_held_lock_is_not_granted_again ... ok"), (0, 0));
        assert_eq!(tally("PASS [ 0.1s] 3 passed; of whatever"), (0, 0));
    }
}
