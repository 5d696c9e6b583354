//! Steps, one after the other, each with what it takes to mend it.

use std::process::ExitCode;
use std::time::Instant;

/// Goes on after a failed step, so that one run tells everything that is wrong.
pub(crate) struct Steps {
    task: &'static str,
    began: Instant,
    passed: usize,
    failed: Vec<(String, String)>,
    not_run: Vec<String>,
}

impl Steps {
    pub(crate) fn new(task: &'static str) -> Self {
        Self { task, began: Instant::now(), passed: 0, failed: Vec::new(), not_run: Vec::new() }
    }

    /// Does a step and says how long it took. `Ok` may carry a remark, `Err` what is wrong; `fix` mends it.
    pub(crate) fn step(
        &mut self,
        name: &str,
        fix: &str,
        work: impl FnOnce() -> Result<String, String>,
    ) -> bool {
        println!("\n== {name}");
        let began = Instant::now();
        let result = work();
        let took = began.elapsed().as_secs_f64();
        match result {
            Ok(remark) => {
                let remark = if remark.is_empty() { remark } else { format!(": {remark}") };
                println!("ok ({took:.1} s){remark}");
                self.passed += 1;
                true
            }
            Err(wrong) => {
                println!("{wrong}\nFAILED ({took:.1} s); to mend it: {fix}");
                self.failed.push((name.to_owned(), fix.to_owned()));
                false
            }
        }
    }

    /// What was left out, and why: it counts as neither passed nor failed.
    pub(crate) fn not_run(&mut self, name: &str, why: &str) {
        println!("\n== {name}\nNOT RUN: {why}");
        self.not_run.push(name.to_owned());
    }

    pub(crate) fn failures(&self) -> usize {
        self.failed.len()
    }

    /// Prints what has come of the steps.
    pub(crate) fn print(&self) {
        println!("\n== {} took {:.0} s", self.task, self.began.elapsed().as_secs_f64());
        for name in &self.not_run {
            println!("not run: {name}");
        }
        for (name, fix) in &self.failed {
            println!("FAILED: {name}; to mend it: {fix}");
        }
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        if self.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    pub(crate) fn finish(self) -> ExitCode {
        self.print();
        println!("{}: {} steps passed, {} failed", self.task, self.passed, self.failed.len());
        self.exit_code()
    }
}
