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
    /// One call may hold several entities.
    pub(crate) items: bool,
}

/// Without the first line Redis judges memory at each command, in the middle of a script.
macro_rules! verb {
    ($(#[$doc:meta])* $name:ident, $flags:literal, items $file:literal) => {
        verb!($(#[$doc])* $name, $flags, true,
            include_str!("../lua/prelude.lua"), "local function verb()\n",
            include_str!(concat!("../lua/", $file, ".lua")), "end\n", include_str!("../lua/items.lua"));
    };
    ($(#[$doc:meta])* $name:ident, $flags:literal, $file:literal) => {
        verb!($(#[$doc])* $name, $flags, false, include_str!(concat!("../lua/", $file, ".lua")));
    };
    ($(#[$doc:meta])* $name:ident, $flags:literal, $items:literal, $($text:expr),+) => {
        $(#[$doc])*
        pub(crate) static $name: Verb = {
            const TEXT: &str = concat!($flags, "\n", $($text),+);
            Verb {
                text: TEXT,
                hash: LazyLock::new(|| redis::Script::new(TEXT).get_hash().to_owned()),
                reads: matches!($flags.as_bytes(), b"#!lua flags=no-writes"),
                items: $items,
            }
        };
    };
}

verb!(
    /// G1, G2, G7: appends, and tries the lock. Refused when memory is full.
    ENQUEUE, "#!lua", items "enqueue"
);
verb!(
    /// G4: a staged send reaches its target. Refused when memory is full; it stays staged.
    RELAY, "#!lua", items "relay"
);
verb!(
    /// G3, G6: grants. Works when memory is full, as everything that is needed to drain.
    TRY_LOCK, "#!lua flags=allow-oom", items "try_lock"
);
verb!(
    /// G3, G4: commits.
    UPDATE_LOCKED, "#!lua flags=allow-oom", items "update_locked"
);
verb!(
    /// G5: hands back.
    RELEASE, "#!lua flags=allow-oom", items "release"
);
verb!(
    /// G3: renews.
    EXTEND_LOCK, "#!lua flags=allow-oom", items "extend_lock"
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
    REDRIVE, "#!lua flags=allow-oom", items "redrive"
);
verb!(
    /// G7: deletes an entity but for its fence and the ids it has seen.
    PURGE, "#!lua flags=allow-oom", items "purge"
);
verb!(
    /// An operator's stop.
    PAUSE, "#!lua flags=allow-oom", items "pause"
);
verb!(
    /// An operator's go.
    RESUME, "#!lua flags=allow-oom", items "resume"
);
verb!(
    /// One committed moment of an entity.
    LOOK, "#!lua flags=no-writes", items "look"
);
verb!(
    /// The head of a queue.
    PEEK, "#!lua flags=no-writes", items "peek"
);
verb!(
    /// G7: where messages are.
    LOCATE, "#!lua flags=no-writes", items "locate"
);
