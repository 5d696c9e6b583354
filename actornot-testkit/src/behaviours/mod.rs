//! What every adapter must do, one file a theme. The list of them is in `list.rs`.

pub(crate) mod commit;
pub(crate) mod due;
pub(crate) mod dying;
pub(crate) mod enqueue;
pub(crate) mod failing;
pub(crate) mod fairness;
mod fault;
pub(crate) mod inspect;
pub(crate) mod lock;
pub(crate) mod lost;
pub(crate) mod mailbox;
pub(crate) mod modes;
pub(crate) mod poison;
pub(crate) mod race;
pub(crate) mod send;
pub(crate) mod slice;
pub(crate) mod walk;

use fault::{POLLS, dropped_after};
pub(crate) use fault::{
    due as fault_due, enqueue as fault_enqueue, extend_lock as fault_extend_lock, release as fault_release,
    try_lock as fault_try_lock, update_locked as fault_update_locked,
};
