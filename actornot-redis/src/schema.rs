//! Installs a namespace, and refuses one of a newer version.

use actornot_core::{Error, ErrorKind};
use redis::Value;

use crate::connection::Nodes;
use crate::error::incompatible;
use crate::row::bytes;
use crate::slice::{Space, slot};

/// The version this crate writes. Beside it stands the oldest version whose processes may go on: a release that only
/// adds leaves that as it is, so that instances of both run side by side while one is replaced by the other.
const VERSION: u32 = 1;
const OLDEST: u32 = 1;

/// The number of partitions where nobody chose one.
const PARTITIONS: u16 = 64;

/// Writes the record of the namespace if it is missing, and reads what stands there. The first of any number of
/// processes wins, in one command.
pub(crate) async fn ensure(nodes: &Nodes) -> Result<Space, Error> {
    let target = &nodes.target;
    let key = format!("{{{}}}:meta", target.namespace);
    let owner = nodes.owner(slot(target.namespace.bytes())).await?;
    if !target.never_install {
        let record = format!("{VERSION} {OLDEST} {}", target.partitions.unwrap_or(PARTITIONS));
        let mut command = redis::cmd("SET");
        command.arg(&key).arg(record).arg("NX");
        nodes.ask(&owner, command).await?;
    }
    let mut command = redis::cmd("GET");
    command.arg(&key);
    let found = match nodes.ask(&owner, command).await? {
        Value::Nil => {
            return Err(incompatible(format!(
                "the namespace {} is not installed; call RedisQueue::install first",
                target.namespace
            )));
        }
        value => String::from_utf8_lossy(&bytes(value)?.unwrap_or_default()).into_owned(),
    };
    let damaged = || Error::new(ErrorKind::Corrupt, format!("{key} does not decode"));
    // A newer version may have appended to it.
    let mut numbers = found.split(' ').map(|number| number.parse::<u32>());
    let mut number = || numbers.next().and_then(Result::ok).ok_or_else(damaged);
    let (version, oldest, partitions) = (number()?, number()?, number()?);
    if oldest > VERSION {
        return Err(incompatible(format!(
            "the namespace {} has version {version}, this actornot-redis knows version {VERSION}; \
             run the newer release",
            target.namespace
        )));
    }
    let partitions = u16::try_from(partitions).ok().filter(|number| *number > 0).ok_or_else(damaged)?;
    if let Some(wanted) = target.partitions.filter(|wanted| *wanted != partitions) {
        return Err(incompatible(format!(
            "the namespace {} was installed with {partitions} partitions, the configuration wants {wanted}; \
             their number cannot change",
            target.namespace
        )));
    }
    Ok(Space { namespace: target.namespace.clone(), partitions })
}
