//! Extends leases on connections of its own, while handlers are stuck and the connections of the calls are busy.

use actornot_core::{Error, Heartbeat, Lease};
use async_trait::async_trait;

use crate::codec::millis;
use crate::connection::Nodes;
use crate::row::yes;
use crate::slice::{Call, Space};
use crate::statements::EXTEND_LOCK;

/// One connection to each node, opened when the first lease there is extended.
pub(crate) struct RedisHeartbeat {
    pub(crate) nodes: Nodes,
    pub(crate) space: Space,
}

#[async_trait]
impl Heartbeat for RedisHeartbeat {
    async fn extend_lock(&mut self, leases: &[Lease]) -> Vec<Result<bool, Error>> {
        let extend = |lease: &Lease| {
            let call = Call::narrow(&self.space, &EXTEND_LOCK, &lease.entity);
            call.arg(lease.nonce.to_string()).number(millis(lease.length))
        };
        let calls: Vec<Call> = leases.iter().map(extend).collect();
        let answers = self.nodes.run(&self.space, &calls).await;
        let answers = answers.into_iter().zip(leases);
        answers
            .map(|(answer, lease)| answer.and_then(yes).map_err(|error| error.with_entity(&lease.entity)))
            .collect()
    }
}
