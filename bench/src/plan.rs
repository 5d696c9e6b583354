//! The whole workload, in order.

use std::path::Path;

use crate::args::Plan;
use crate::backend::Kind;
use crate::report::{Measured, Report};
use crate::{Result, age, backlog, calm, chart, crowd, disk, idle, mixes, processes, targets};

pub(crate) fn measure(plan: &Plan) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    // In a task, where servers post from: what is awaited outside of one costs the wake of one more thread.
    if plan.glance {
        let glanced = runtime.block_on(runtime.spawn(glance(plan.clone())));
        actornot_testkit::servers::end();
        return glanced?;
    }
    let measured = runtime.block_on(runtime.spawn(all(plan.clone())));
    // Before the runtime: servers are ended by who started them.
    actornot_testkit::servers::end();
    let report = measured??;
    println!("{}", targets::table(&report.targets));
    println!(
        "fdatasync p50 {:.2} ms before, {:.2} ms after",
        report.fdatasync[0].p50, report.fdatasync[1].p50
    );
    if let Some(out) = &plan.out {
        println!("results and pictures are in {}", out.display());
    }
    Ok(())
}

/// Prints as it goes.
async fn glance(plan: Plan) -> Result<()> {
    for &kind in &plan.kinds {
        let backend = kind.start().await?;
        mixes::measure(kind, &*backend, &plan).await?;
        idle::latency(kind, &*backend, &plan).await?;
        calm::measure(kind, &*backend, &plan).await?;
    }
    Ok(())
}

async fn all(plan: Plan) -> Result<Report> {
    let folder = tempfile::TempDir::new()?;
    let before = disk::fdatasync(folder.path())?;
    eprintln!("fdatasync p50 {:.2} ms, p99 {:.2} ms", before.p50, before.p99);
    let mut report = Report {
        actornot: env!("CARGO_PKG_VERSION"),
        cores: std::thread::available_parallelism()?.get(),
        fdatasync: [before.clone(), before],
        repetitions: plan.repetitions,
        backends: Vec::new(),
        targets: Vec::new(),
    };
    for &kind in &plan.kinds {
        let measured = one(kind, &plan).await?;
        report.targets.extend(targets::all(&measured));
        report.backends.push(measured);
        report.fdatasync[1] = disk::fdatasync(folder.path())?;
        // Each time: a run that is cut off has measured something.
        if let Some(out) = &plan.out {
            keep(&report, out)?;
        }
    }
    Ok(report)
}

async fn one(kind: Kind, plan: &Plan) -> Result<Measured> {
    let backend = kind.start().await?;
    let backend = &*backend;
    let server = backend.version().await?;
    eprintln!("{}: {server}", kind.name());
    Ok(Measured {
        name: kind.name(),
        server,
        mixes: mixes::measure(kind, backend, plan).await?,
        idle: idle::latency(kind, backend, plan).await?,
        backlog: backlog::measure(kind, backend, plan).await?,
        processes: processes::measure(kind, backend, plan).await?,
        calm: calm::measure(kind, backend, plan).await?,
        crowd: crowd::measure(kind, backend, plan).await?,
        age: age::measure(kind, backend, plan).await?,
        queries: idle::queries(kind, backend, plan).await?,
    })
}

fn keep(report: &Report, out: &Path) -> Result<()> {
    std::fs::create_dir_all(out)?;
    std::fs::write(out.join("results.json"), serde_json::to_string_pretty(report)? + "\n")?;
    std::fs::write(out.join("targets.txt"), targets::table(&report.targets))?;
    chart::draw(report, out)
}
