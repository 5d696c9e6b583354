//! Connections to the nodes, and the way of each call to its node.
//!
//! The driver's own client for clusters, and its manager of connections, send calls again by themselves. A call that
//! may have been applied is repeated by core, with the same ids, so the way of a call is found here: one connection
//! for each node, calls pipelined on it without MULTI, an answer for each. A single server is one node that owns
//! every slot. Dropping a call leaves its answers to the driver, which keeps count of them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actornot_core::{Error, ErrorKind};
use redis::Value;

use crate::config::Target;
use crate::error::{self, Refusal};
use crate::slice::{Address, Bundle, Call, Map, Space};
use crate::turn::{Boxed, GLANCE, Node, Open, Turn, all};

/// So many bytes go out at a time: far below the server's limit for a connection, 1 GB.
const PIPELINE_BYTES: usize = 64 << 20;

/// The connections of one handle.
pub(crate) struct Nodes {
    pub(crate) target: Target,
    map: Mutex<Arc<Map>>,
    open: Mutex<BTreeMap<Address, Arc<Node>>>,
    /// How often the map was asked for.
    asked: AtomicUsize,
    /// What looks like a single server refuses keys of two slots in one command: there is a cluster behind it.
    apart: AtomicBool,
}

/// What became of one call in one round.
enum Sent {
    Done(Result<Value, Error>),
    /// Nothing was applied; it may go again.
    Again(Error),
    /// The same, and the text of the script must go with it.
    Whole,
}

impl Nodes {
    pub(crate) fn new(target: Target) -> Self {
        if target.is_encrypted() {
            // The driver panics when there is none. An error says that the program has chosen one, which stays.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let apart = AtomicBool::new(target.cluster);
        Self { target, map: Mutex::default(), open: Mutex::default(), asked: AtomicUsize::default(), apart }
    }

    /// Other connections to the same nodes.
    pub(crate) fn again(&self) -> Self {
        Self::new(self.target.clone())
    }

    /// Sends calls, each to the node of its partition, all nodes at once: one round trip. One answer for each call, in
    /// order. What was refused because of others goes again, within the patience.
    pub(crate) async fn run(&self, space: &Space, calls: &[Call]) -> Vec<Result<Value, Error>> {
        let mut turn = Turn::new(self.target.patience);
        let mut answers: Vec<Option<Result<Value, Error>>> = calls.iter().map(|_| None).collect();
        let mut whole = vec![false; calls.len()];
        let mut open: Vec<usize> = (0..calls.len()).collect();
        loop {
            let (mut failed, mut forgotten) = (None, false);
            for (index, sent) in self.round(space, calls, &open, &whole, &turn).await {
                match sent {
                    Sent::Done(answer) => answers[index] = Some(answer),
                    Sent::Whole => {
                        forgotten = true;
                        whole[index] = true;
                    }
                    Sent::Again(error) => failed = Some(error),
                }
            }
            open.retain(|index| answers[*index].is_none());
            if open.is_empty() {
                break;
            }
            if failed.is_none() && forgotten {
                continue;
            }
            let error = failed.unwrap_or_else(|| Error::new(ErrorKind::Unavailable, "no node answers"));
            if !turn.again().await {
                for index in open {
                    answers[index] = Some(Err(error.clone()));
                }
                break;
            }
        }
        let missing = || Err(error::lost("an answer is missing", false));
        answers.into_iter().map(|answer| answer.unwrap_or_else(missing)).collect()
    }

    async fn round(
        &self,
        space: &Space,
        calls: &[Call],
        open: &[usize],
        whole: &[bool],
        turn: &Turn,
    ) -> Vec<(usize, Sent)> {
        let map = match self.map(turn).await {
            Ok(map) => map,
            Err(error) => return open.iter().map(|index| (*index, give_up(error.clone()))).collect(),
        };
        let mut ways: BTreeMap<&Address, Vec<usize>> = BTreeMap::new();
        let mut sent = Vec::with_capacity(open.len());
        for index in open {
            match map.owner(space.slot(calls[*index].partition)) {
                Some(address) => ways.entry(address).or_default().push(*index),
                None => {
                    self.forget_map();
                    let error = Error::new(ErrorKind::Unavailable, "no node owns the slot");
                    sent.push((*index, Sent::Again(error)));
                }
            }
        }
        let mut trips: Vec<Boxed<'_, Vec<(usize, Sent)>>> = Vec::new();
        for (address, indexes) in ways {
            trips.push(Box::pin(self.trip(address, calls, indexes, whole, turn)));
        }
        sent.extend(all(trips).await.into_iter().flatten());
        sent
    }

    /// The calls of one node.
    async fn trip(
        &self,
        address: &Address,
        calls: &[Call],
        indexes: Vec<usize>,
        whole: &[bool],
        turn: &Turn,
    ) -> Vec<(usize, Sent)> {
        let mut sent = Vec::with_capacity(indexes.len());
        let node = self.node(address);
        let mut rest = indexes.as_slice();
        while !rest.is_empty() {
            let mut size = 0;
            let fits = rest.iter().take_while(|index| {
                size += calls[**index].size();
                size <= PIPELINE_BYTES
            });
            let (part, behind) = rest.split_at(fits.count().max(1));
            rest = behind;
            let open = match node.connection(turn).await {
                Ok(open) => open,
                Err(error) => {
                    self.forget_map();
                    // The calls to the other nodes of the slice would wait with it, once in each trip.
                    let told = |error| if node.is_silent() { Sent::Done(Err(error)) } else { give_up(error) };
                    sent.extend(part.iter().map(|index| (*index, told(error.clone()))));
                    continue;
                }
            };
            let apart = self.apart.load(Ordering::Relaxed);
            let bundles = Bundle::all(calls, part, apart);
            let mut pipeline = redis::Pipeline::with_capacity(bundles.len());
            for bundle in &bundles {
                let whole = bundle.indexes.iter().any(|index| whole[*index]);
                pipeline.add_command(bundle.command(calls, whole));
            }
            match self.send(&node, &open, &pipeline, self.target.patience).await {
                Ok(values) => {
                    let answers = bundles.iter().zip(values);
                    let answers = answers.flat_map(|(bundle, value)| bundle.answers(calls, value));
                    sent.extend(answers.map(|(index, value)| (index, self.judge(value, apart))));
                }
                Err(what) => sent.extend(part.iter().map(|index| {
                    let reads = calls[*index].reads();
                    let error = error::lost(what, reads);
                    (*index, if reads { Sent::Again(error) } else { Sent::Done(Err(error)) })
                })),
            }
        }
        sent
    }

    /// One write, and its answers. An error says that they did not come; the connection is not used again.
    async fn send(
        &self,
        node: &Node,
        open: &Open,
        pipeline: &redis::Pipeline,
        wait: Duration,
    ) -> Result<Vec<Value>, &'static str> {
        let mut connection = open.connection.clone();
        let answers = connection.send_packed_commands(pipeline, 0, pipeline.len());
        let what = match tokio::time::timeout(wait, answers).await {
            Ok(Ok(values)) if values.len() == pipeline.len() => {
                node.answered(open);
                return Ok(values);
            }
            Ok(Ok(_)) => "the server gave too few answers",
            Ok(Err(_)) => "the connection was lost before the answer came",
            Err(_) => {
                node.fell_silent();
                "no answer came in time"
            }
        };
        open.close();
        self.forget_map();
        Err(what)
    }

    /// `apart`: how it was sent.
    fn judge(&self, value: Value, apart: bool) -> Sent {
        let Value::ServerError(error) = value else { return Sent::Done(Ok(value)) };
        match error::refusal(&error) {
            Refusal::Unknown => Sent::Whole,
            Refusal::Moved if self.target.cluster => {
                self.forget_map();
                Sent::Again(Error::new(ErrorKind::Unavailable, "the slot has moved to another node"))
            }
            Refusal::Moved => Sent::Done(Err(error::incompatible(
                "the server belongs to a cluster: add ?cluster=true to the URL",
            ))),
            Refusal::Passing(error) => {
                self.forget_map();
                Sent::Again(error)
            }
            Refusal::Apart(error) if apart => Sent::Done(Err(error)),
            Refusal::Apart(error) => {
                self.apart.store(true, Ordering::Relaxed);
                Sent::Again(error)
            }
            Refusal::Final(error) => {
                if error.kind() == ErrorKind::ReadOnly {
                    self.forget_map();
                }
                Sent::Done(Err(error))
            }
        }
    }

    /// A command to one node, for installation and doctor; never a write that may not be repeated.
    pub(crate) async fn ask(&self, address: &Address, command: redis::Cmd) -> Result<Value, Error> {
        let turn = Turn::new(self.target.patience);
        self.ask_in(address, command, &turn).await
    }

    async fn ask_in(&self, address: &Address, command: redis::Cmd, turn: &Turn) -> Result<Value, Error> {
        let node = self.node(address);
        let open = node.connection(turn).await?;
        let mut pipeline = redis::Pipeline::new();
        pipeline.add_command(command);
        let mut values =
            self.send(&node, &open, &pipeline, turn.left()).await.map_err(|what| error::lost(what, true))?;
        match values.pop().unwrap_or_default() {
            Value::ServerError(error) => Err(match error::refusal(&error) {
                Refusal::Passing(error) | Refusal::Apart(error) | Refusal::Final(error) => error,
                Refusal::Moved | Refusal::Unknown => {
                    self.forget_map();
                    Error::new(ErrorKind::Unavailable, "the slot has moved to another node")
                }
            }),
            value => Ok(value),
        }
    }

    /// Every node that owns slots.
    pub(crate) async fn owners(&self) -> Result<Vec<Address>, Error> {
        let mut turn = Turn::new(self.target.patience);
        loop {
            match self.map(&turn).await {
                Ok(map) => {
                    let mut owners: Vec<_> = map.0.iter().map(|(_, _, address)| address.clone()).collect();
                    owners.sort();
                    owners.dedup();
                    return Ok(owners);
                }
                Err(error) if error.kind() != ErrorKind::Unavailable || !turn.again().await => {
                    return Err(error);
                }
                Err(_) => {}
            }
        }
    }

    /// The node of a key with a hash tag of its own.
    pub(crate) async fn owner(&self, slot: u16) -> Result<Address, Error> {
        let map = self.map(&Turn::new(self.target.patience)).await?;
        map.owner(slot).cloned().ok_or_else(|| Error::new(ErrorKind::Unavailable, "no node owns the slot"))
    }

    /// Opens a connection to each node now; an error if there is none to any.
    pub(crate) async fn connect(&self) -> Result<(), Error> {
        let turn = Turn::new(self.target.patience);
        let mut answer = Err(Error::new(ErrorKind::Unavailable, "no node answers"));
        for address in self.owners().await? {
            let opened = self.node(&address).connection(&turn).await.map(|_| ());
            if answer.is_err() {
                answer = opened;
            }
        }
        answer
    }

    async fn map(&self, turn: &Turn) -> Result<Arc<Map>, Error> {
        let known = self.map.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if !known.0.is_empty() {
            return Ok(known);
        }
        let map = Arc::new(if self.target.cluster { self.ask_map(turn).await? } else { self.one() });
        *self.map.lock().unwrap_or_else(PoisonError::into_inner) = map.clone();
        Ok(map)
    }

    /// A single server owns every slot.
    fn one(&self) -> Map {
        Map(self.target.seeds.first().map(|seed| (0, 16383, seed.clone())).into_iter().collect())
    }

    /// Any node that answers knows the map.
    async fn ask_map(&self, turn: &Turn) -> Result<Map, Error> {
        let mut asked = self.target.seeds.clone();
        asked.extend(self.open.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned());
        // Another one first each time: a node that is cut off from the others tells an old map, again and again.
        let first = self.asked.fetch_add(1, Ordering::Relaxed) % asked.len().max(1);
        asked.rotate_left(first);
        asked.sort_by_key(|address| self.node(address).is_silent());
        let mut failed = Error::new(ErrorKind::Unavailable, "no node of the cluster answers");
        for (index, address) in asked.iter().enumerate() {
            let mut command = redis::cmd("CLUSTER");
            command.arg("SLOTS");
            // One that swallows what is sent to it leaves time for the others.
            let left = u32::try_from(asked.len() - index).unwrap_or(u32::MAX);
            // At the end of its patience a call has nothing to share, and a node that cannot answer in no time is not
            // a silent one.
            let share = Turn::new((turn.left() / left).max(self.target.patience / GLANCE));
            match self.ask_in(address, command, &share).await.and_then(|value| Map::parse(value, address)) {
                Ok(map) if !map.0.is_empty() => return Ok(map),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    return Err(error::incompatible("the server has no cluster: remove ?cluster=true"));
                }
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    fn forget_map(&self) {
        *self.map.lock().unwrap_or_else(PoisonError::into_inner) = Arc::default();
    }

    fn node(&self, address: &Address) -> Arc<Node> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let node = || Arc::new(Node::new(address, self.target.at(address), self.target.patience));
        open.entry(address.clone()).or_insert_with(node).clone()
    }
}

/// Waiting does not help against a wrong password.
fn give_up(error: Error) -> Sent {
    if error.kind() == ErrorKind::Unavailable { Sent::Again(error) } else { Sent::Done(Err(error)) }
}
