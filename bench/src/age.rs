//! Whether the millionth message costs what the first one did.

use serde::Serialize;

use crate::Result;
use crate::args::Plan;
use crate::backend::{Backend, Kind, Size};
use crate::processes::{Worker, observer};

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Age {
    pub(crate) entities: u64,
    /// Before the first message: a server may hold what others left in it.
    pub(crate) before: Vec<Size>,
    /// After each portion of the messages.
    pub(crate) portions: Vec<Portion>,
    /// Memory of the process behind the last portion against that behind the first.
    pub(crate) resident: f64,
    /// Messages a second of the last portion against the first.
    pub(crate) rate: f64,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Portion {
    /// Until then.
    pub(crate) messages: u64,
    /// Messages a second.
    pub(crate) rate: f64,
    pub(crate) resident_mib: f64,
    pub(crate) sizes: Vec<Size>,
}

const PORTIONS: u64 = 5;

impl Age {
    /// Bytes that the server came to hold for each message until then: where it stood, its id, its entity's row and state,
    /// and what is not yet cleaned up.
    pub(crate) fn stored(&self, portion: &Portion) -> f64 {
        const MIB: f64 = 1_048_576.0;
        let mib = |sizes: &[Size]| -> f64 {
            sizes.iter().filter(|size| size.name.contains("MiB")).map(|size| size.value).sum()
        };
        (mib(&portion.sizes) - mib(&self.before)) * MIB / portion.messages as f64
    }
}

pub(crate) async fn measure(kind: Kind, backend: &dyn Backend, plan: &Plan) -> Result<Age> {
    let place = backend.place();
    let entities = (plan.age / 10).max(1);
    let observer = observer(kind, &place, entities).await?;
    let before = backend.sizes(&place).await?;
    let mut worker = Worker::start(kind, &place, entities, 64, plan.portion, plan.age / PORTIONS).await?;
    let mut portions = Vec::new();
    let mut messages = 0;
    for _ in 0..PORTIONS {
        worker.go().await?;
        let told = worker.told().await?;
        messages += told.posted;
        let rate = told.posted as f64 / told.seconds;
        let sizes = backend.sizes(&place).await?;
        eprintln!(
            "{}: {messages} messages over {entities} entities: {rate:.0}/s, memory {:.0} MiB",
            kind.name(),
            told.resident_mib
        );
        portions.push(Portion { messages, rate, resident_mib: told.resident_mib, sizes });
    }
    let accepted = worker.counts().await?;
    worker.end().await?;
    observer.judge(&accepted).await?;
    let (first, last) = (&portions[0], &portions[portions.len() - 1]);
    let (resident, rate) = (last.resident_mib / first.resident_mib, last.rate / first.rate);
    Ok(Age { entities, before, resident, rate, portions })
}
