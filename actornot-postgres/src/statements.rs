//! Names and texts of what the server runs. The programs themselves lie in `sql/`.

use std::fmt::Write as _;
use std::sync::Arc;

/// What a call of the adapter is on the server: one function, one statement, one trip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Enqueue,
    TryLock,
    UpdateLocked,
    Release,
    ExtendLock,
    Due,
    Read,
    List,
    Peek,
    Locate,
    Why,
    DeadLetters,
    Redrive,
    Pause,
    Resume,
    Purge,
}

/// What functions that answer with grants and batches return; see [`row`](crate::row).
const PARTS: &str = "item, part, numbers, said, ids, payloads, headers";

impl Verb {
    const ALL: [Self; 16] = [
        Self::Enqueue,
        Self::TryLock,
        Self::UpdateLocked,
        Self::Release,
        Self::ExtendLock,
        Self::Due,
        Self::Read,
        Self::List,
        Self::Peek,
        Self::Locate,
        Self::Why,
        Self::DeadLetters,
        Self::Redrive,
        Self::Pause,
        Self::Resume,
        Self::Purge,
    ];

    /// Its name, its columns, and its parameters behind the name.
    fn signature(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Enqueue => (
                "enqueue",
                PARTS,
                "$2, $3, $4, $5, $6, $7::uuid[], $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18",
            ),
            Self::TryLock => ("try_lock", PARTS, "$2, $3, $4, $5::uuid[], $6, $7"),
            Self::UpdateLocked => (
                "update_locked",
                PARTS,
                "$2, $3, $4, $5::uuid[], $6::uuid[], $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, \
                 $21, $22, $23, $24, $25, $26",
            ),
            Self::Release => ("release", "item, held", "$2, $3, $4, $5::uuid[]"),
            Self::ExtendLock => ("extend_lock", "item, held", "$2, $3, $4, $5::uuid[], $6"),
            Self::Due => ("due", "*", "$2, $3, $4, $5"),
            Self::Read => ("read", "*", "$2::json"),
            Self::List => ("list", "*", "$2, $3, $4"),
            Self::Peek => ("peek", "*", "$2, $3, $4"),
            Self::Locate => ("locate", "*", "$2, $3, $4"),
            Self::Why => ("why", "*", "$2, $3"),
            Self::DeadLetters => ("dead_letters", "*", "$2, $3, $4"),
            Self::Redrive => ("redrive", "done", "$2, $3, $4, $5, $6"),
            Self::Pause => ("pause", "done", "$2, $3, $4, $5"),
            Self::Resume => ("resume", "done", "$2, $3, $4"),
            Self::Purge => ("purge", "done", "$2, $3, $4"),
        }
    }

    /// The name that its function expects as its first argument.
    pub(crate) fn name(self) -> &'static str {
        self.signature().0
    }

    /// Whether it may change something: how long it waits for locks is its second argument then.
    pub(crate) fn writes(self) -> bool {
        use Verb::{DeadLetters, Due, List, Locate, Peek, Read, Why};
        !matches!(self, Due | Read | List | Peek | Locate | Why | DeadLetters)
    }
}

/// The texts for one namespace, built once.
#[derive(Debug, Clone)]
pub(crate) struct Texts(Arc<Vec<Arc<str>>>);

impl Texts {
    /// `schema` is quoted.
    pub(crate) fn new(schema: &str) -> Self {
        let text = |verb: Verb| {
            let (name, columns, parameters) = verb.signature();
            format!("SELECT {columns} FROM {schema}.{name}_v{FUNCTIONS}($1, {parameters})").into()
        };
        Self(Arc::new(Verb::ALL.into_iter().map(text).collect()))
    }

    pub(crate) fn of(&self, verb: Verb) -> Arc<str> {
        self.0.get(verb as usize).cloned().unwrap_or_default()
    }
}

/// The suffix of the functions this crate calls. New ones get a higher one, and those of the version before stay.
const FUNCTIONS: u32 = 1;

/// What functions that write, and those that only read, are created with: whatever the session says, names are found
/// in their own schema, joins search by index, and nothing is planned again for each call. `lock_timeout` is set by each call, and undone at its end.
const READ: &str = "SET search_path = {schema}, pg_temp SET enable_seqscan = off SET enable_hashjoin = off \
                    SET enable_mergejoin = off SET jit = off SET plan_cache_mode = force_generic_plan";

/// Everything that is installed, in order.
pub(crate) fn installation(schema: &str) -> String {
    let mut all = String::new();
    for part in [
        include_str!("../sql/tables.sql"),
        include_str!("../sql/shared.sql"),
        include_str!("../sql/verbs.sql"),
        include_str!("../sql/inspect.sql"),
        include_str!("../sql/views.sql"),
    ] {
        let _ = writeln!(all, "{part}");
    }
    all.replace("{write}", &format!("{READ} SET lock_timeout = 0"))
        .replace("{read}", READ)
        .replace("{schema}", schema)
}

/// G3: a transaction that waits for locks and then sees what was committed meanwhile.
pub(crate) const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";

/// One installation at a time; released by COMMIT, so poolers are fine. `$2`: milliseconds to wait.
pub(crate) const INSTALL_LOCK: &str = "
    SELECT pg_advisory_xact_lock(hashtextextended('actornot:' || $1, 0)) FROM (SELECT set_config('lock_timeout', $2, true)) s
    WHERE s.set_config IS NOT NULL";

/// Whether the tables are there. Reads the catalog: `to_regclass` may remember, behind the lock, that they were not.
pub(crate) const HAS_META: &str = "
    SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE n.nspname = $1 AND c.relname = 'meta') AS found";

/// Whether the schema is there: `IF NOT EXISTS` asks for the right to create it also when it is.
pub(crate) const HAS_SCHEMA: &str = "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1) AS found";

/// G1: what is in force for this session, its role's settings included.
pub(crate) const SETTINGS: &str = "
    SELECT current_setting('server_version') AS server, current_setting('server_version_num')::bigint AS version,
      current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes,
      current_setting('synchronous_commit') AS synchronous_commit, current_setting('server_encoding') AS server_encoding,
      coalesce(current_setting('synchronous_standby_names', true), '') AS standbys, pg_is_in_recovery() AS standby,
      (SELECT count(*) FROM pg_stat_replication) AS replicas";
