//! The scripts, which lie in `lua/`, and the names of what they are.
//!
//! A script is called by the hash of its text, so processes of two releases never call each other's.

use std::sync::LazyLock;

/// One script.
pub(crate) struct Verb {
    pub(crate) text: &'static str,
    pub(crate) hash: LazyLock<String>,
    /// Changes nothing, so it may be sent again after a lost answer.
    pub(crate) reads: bool,
}

/// Without the first line Redis judges memory at each command, in the middle of a script.
macro_rules! verb {
    ($(#[$doc:meta])* $name:ident, $flags:literal, $($file:literal),+) => {
        $(#[$doc])*
        pub(crate) static $name: Verb = {
            const TEXT: &str = concat!($flags, "\n", $(include_str!(concat!("../lua/", $file, ".lua"))),+);
            Verb {
                text: TEXT,
                hash: LazyLock::new(|| redis::Script::new(TEXT).get_hash().to_owned()),
                reads: matches!($flags.as_bytes(), b"#!lua flags=no-writes"),
            }
        };
    };
}

verb!(
    /// G1, G2, G7: appends, and tries the lock. Refused when memory is full.
    ENQUEUE, "#!lua", "prelude", "enqueue"
);
verb!(
    /// G4: a staged send reaches its target. Refused when memory is full; it stays staged.
    RELAY, "#!lua", "prelude", "relay"
);
verb!(
    /// G3, G6: grants. Works when memory is full, as everything that is needed to drain.
    TRY_LOCK, "#!lua flags=allow-oom", "prelude", "try_lock"
);
verb!(
    /// G3, G4: commits.
    UPDATE_LOCKED, "#!lua flags=allow-oom", "prelude", "update_locked"
);
verb!(
    /// G5: hands back.
    RELEASE, "#!lua flags=allow-oom", "prelude", "release"
);
verb!(
    /// G3: renews.
    EXTEND_LOCK, "#!lua flags=allow-oom", "prelude", "extend_lock"
);
verb!(
    /// G4: forgets staged sends that have arrived.
    TRIM, "#!lua flags=allow-oom", "trim"
);
verb!(
    /// G5: what one partition has that wants a run.
    DUE, "#!lua flags=no-writes", "due"
);
verb!(
    /// G6: a dead letter goes back to its queue.
    REDRIVE, "#!lua flags=allow-oom", "prelude", "redrive"
);
verb!(
    /// G7: deletes an entity but for its fence and the ids it has seen.
    PURGE, "#!lua flags=allow-oom", "prelude", "purge"
);
verb!(
    /// An operator's stop.
    PAUSE, "#!lua flags=allow-oom", "prelude", "pause"
);
verb!(
    /// An operator's go.
    RESUME, "#!lua flags=allow-oom", "prelude", "resume"
);
verb!(
    /// One committed moment of an entity.
    LOOK, "#!lua flags=no-writes", "prelude", "look"
);
verb!(
    /// The head of a queue.
    PEEK, "#!lua flags=no-writes", "prelude", "peek"
);
verb!(
    /// G7: where messages are.
    LOCATE, "#!lua flags=no-writes", "prelude", "locate"
);
