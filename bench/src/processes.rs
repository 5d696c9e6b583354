//! Several processes that post to, and run, the same keys.

use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::Result;
use crate::args::Plan;
use crate::backend::{Backend, Kind, Place};
use crate::load::Station;
use crate::series::Series;
use crate::worker::{COUNTS, GO, Told};

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Processes {
    pub(crate) keys: u64,
    /// Messages a second of one process, and of four, with 64 posters together.
    pub(crate) one: Series,
    pub(crate) four: Series,
    pub(crate) ratio: Series,
    /// Of four with 64 posters each: four times the load, against the same one process.
    pub(crate) each: Series,
    pub(crate) each_ratio: Series,
}

/// Posters of one process.
const POSTERS: usize = 64;

pub(crate) async fn measure(kind: Kind, backend: &dyn Backend, plan: &Plan) -> Result<Vec<Processes>> {
    let mut all = Vec::new();
    for keys in [1, 1_000] {
        let (mut ones, mut fours, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        let (mut eaches, mut each_ratios) = (Vec::new(), Vec::new());
        for _ in 0..plan.repetitions {
            let one = rate(kind, backend, keys, [1, POSTERS], plan).await?;
            let four = rate(kind, backend, keys, [4, POSTERS / 4], plan).await?;
            let each = rate(kind, backend, keys, [4, POSTERS], plan).await?;
            ratios.push(four / one);
            each_ratios.push(each / one);
            ones.push(one);
            fours.push(four);
            eaches.push(each);
        }
        let of = |values| Series::of(values);
        let processes = Processes {
            keys,
            one: of(ones),
            four: of(fours),
            ratio: of(ratios),
            each: of(eaches),
            each_ratio: of(each_ratios),
        };
        eprintln!(
            "{}: {keys} keys: one process {:.0}/s, four {:.0}/s: {:.2}; four with as many posters each {:.0}/s: {:.2}",
            kind.name(),
            processes.one.median,
            processes.four.median,
            processes.ratio.median,
            processes.each.median,
            processes.each_ratio.median
        );
        all.push(processes);
    }
    Ok(all)
}

/// Messages a second of so many processes with so many posters each, from the first post to the last commit.
async fn rate(
    kind: Kind,
    backend: &dyn Backend,
    keys: u64,
    [processes, posters]: [usize; 2],
    plan: &Plan,
) -> Result<f64> {
    let place = backend.place();
    let observer = observer(kind, &place, keys).await?;
    let mut workers = Vec::new();
    for _ in 0..processes {
        workers.push(Worker::start(kind, &place, keys, posters, plan.time, u64::MAX).await?);
    }
    let began = Instant::now();
    for worker in &mut workers {
        worker.go().await?;
    }
    let mut accepted = vec![0; keys as usize];
    for worker in &mut workers {
        worker.told().await?;
        accepted.iter_mut().zip(worker.counts().await?).for_each(|(sum, more)| *sum += more);
    }
    observer.drained(keys).await?;
    let elapsed = began.elapsed();
    for worker in workers {
        worker.end().await?;
    }
    observer.judge(&accepted).await?;
    Ok(accepted.iter().sum::<u64>() as f64 / elapsed.as_secs_f64())
}

/// One who only looks.
pub(crate) async fn observer(kind: Kind, place: &Place, keys: u64) -> Result<Arc<Station>> {
    Station::open_with(kind, place, keys, |config| config.sweep_every = None).await
}

/// A process of this program.
pub(crate) struct Worker {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Worker {
    pub(crate) async fn start(
        kind: Kind,
        place: &Place,
        keys: u64,
        posters: usize,
        time: Duration,
        messages: u64,
    ) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--work").args([kind.name(), &place.url, &place.namespace]);
        command
            .args([keys, posters as u64, time.as_millis() as u64, messages].map(|number| number.to_string()));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let input = child.stdin.take().ok_or("no standard input")?;
        let output = BufReader::new(child.stdout.take().ok_or("no standard output")?).lines();
        let mut worker = Self { child, input, output };
        match worker.output.next_line().await? {
            Some(line) if line == "ready" => Ok(worker),
            other => Err(format!("a worker said {other:?} instead of ready").into()),
        }
    }

    pub(crate) async fn go(&mut self) -> Result<()> {
        self.ask(GO).await
    }

    /// What it tells of its step.
    pub(crate) async fn told(&mut self) -> Result<Told> {
        self.answer().await
    }

    /// How often it was accepted at each key.
    pub(crate) async fn counts(&mut self) -> Result<Vec<u64>> {
        self.ask(COUNTS).await?;
        self.answer().await
    }

    async fn ask(&mut self, what: &str) -> Result<()> {
        self.input.write_all(format!("{what}\n").as_bytes()).await?;
        Ok(self.input.flush().await?)
    }

    async fn answer<T: DeserializeOwned>(&mut self) -> Result<T> {
        let line = self.output.next_line().await?.ok_or("a worker ended early")?;
        Ok(serde_json::from_str(&line)?)
    }

    /// Its input ends, and so does it.
    pub(crate) async fn end(mut self) -> Result<()> {
        drop(self.input);
        let status = self.child.wait().await?;
        if status.success() { Ok(()) } else { Err(format!("a worker ended with {status}").into()) }
    }
}
