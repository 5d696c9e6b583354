//! Every SQL text of this adapter, with the guarantee it upholds.
//!
//! A slice is bound as *one* JSON text and joined by `json_each`, so the number of statements of a verb does not
//! depend on the number of entities or messages. `CROSS JOIN` fixes the order of the loops: the slice outside, one
//! index search for each of its items inside, whatever the planner's statistics say. Payloads and states travel as
//! one byte string that is cut by `substr`: byte for byte, and without a second round of JSON escaping.
//!
//! `OR ROLLBACK` where many rows are inserted: what fails takes the transaction with it anyway, and so SQLite does not
//! keep a copy of each page to undo the statement alone.
//!
//! Verbs send several of them at once, so each `?` is the next value. `(SELECT ?)` where a value is compared with an
//! indexed column or limits: SQLite plans a statement anew whenever such a value changes.

/// Now, in milliseconds, on the only clock that counts: SQLite's.
macro_rules! now {
    () => {
        "CAST(round(unixepoch('subsec') * 1000) AS INTEGER)"
    };
}

/// G3, G10: the write lock is taken before anything is read, so that what is decided on cannot change underneath.
pub(crate) const BEGIN: &str = "BEGIN IMMEDIATE";
/// G1: what a call did is on the disk.
pub(crate) const COMMIT: &str = "COMMIT";

/// G3: the rows of a slice and the clock they are judged by, read behind the write lock. In one answer: each row of
/// an answer is handed over by itself.
pub(crate) const LOAD: &str = concat!(
    "SELECT ",
    now!(),
    " AS now, (SELECT coalesce(max(id), 0) FROM actornot_entity) AS last_id,
       (SELECT json_group_array(json_array(j.key, json_array(e.id, e.fence, e.nonce, e.deadline, e.last_commit, e.handed,
          e.deliveries, e.charged, e.batch_limit, e.pending, e.queued, e.tail, e.since, e.delayed_at, e.wait_why,
          e.wait_until, e.paused, e.last_error, e.known)))
        FROM json_each(?) j CROSS JOIN actornot_entity e ON e.kind = j.value->>0 AND e.key = j.value->>1) AS found"
);

/// G3, G5: the decided rows, whole; the index on `wake_at` follows. Items are parsed once (`jsonb`,
/// materialized), for `json_each` writes an item's text anew for each of the columns: worth 40 % of a slice. They are
/// lists, in the order of the columns.
pub(crate) const SAVE: &str = "
    WITH slice(value) AS MATERIALIZED (SELECT jsonb(value) FROM json_each(?))
    INSERT INTO actornot_entity (id, kind, key, fence, nonce, deadline, last_commit, handed, deliveries, charged,
      batch_limit, pending, queued, tail, since, delayed_at, wait_why, wait_until, paused, last_error, known, wake_at)
    SELECT value->>0, value->>1, value->>2, value->>3, value->>4, value->>5, value->>6, value->7, value->>8, value->>9,
      value->>10, value->>11, value->>12, value->>13, value->>14, value->>15, value->>16, value->>17, value->>18,
      value->>19, value->>20, value->>21
    FROM slice WHERE true
    ON CONFLICT (id) DO UPDATE SET
      fence = excluded.fence, nonce = excluded.nonce, deadline = excluded.deadline,
      last_commit = excluded.last_commit, handed = excluded.handed, deliveries = excluded.deliveries,
      charged = excluded.charged, batch_limit = excluded.batch_limit, pending = excluded.pending,
      queued = excluded.queued, tail = excluded.tail, since = excluded.since, delayed_at = excluded.delayed_at,
      wait_why = excluded.wait_why, wait_until = excluded.wait_until, paused = excluded.paused,
      last_error = excluded.last_error, known = excluded.known, wake_at = excluded.wake_at";

/// G2: delayed messages that are due join the tail, in order of their due time, with fresh sequence.
pub(crate) const PROMOTE: &str = "
    INSERT INTO actornot_message (entity, seq, id, payload, headers)
    SELECT d.entity, e.tail + row_number() OVER (PARTITION BY d.entity ORDER BY d.due_at, d.n),
      d.id, d.payload, d.headers
    FROM json_each(?) j
    CROSS JOIN actornot_entity e ON e.id = j.value
    CROSS JOIN actornot_delayed d ON d.entity = e.id AND d.due_at <= (SELECT ?)";

/// G7: where they stand now; the tail is still that from before.
pub(crate) const MOVED: &str = "
    INSERT INTO actornot_seen (entity, id, expires, seq)
    SELECT s.entity, s.id, s.expires, m.seq FROM json_each(?) j
    CROSS JOIN actornot_entity e ON e.id = j.value
    CROSS JOIN actornot_message m ON m.entity = e.id AND m.seq > e.tail
    CROSS JOIN actornot_seen s ON s.entity = m.entity AND s.id = m.id
    CROSS JOIN actornot_delayed d ON d.entity = m.entity AND d.id = m.id AND d.n = s.seq
    WHERE true
    ON CONFLICT (id, entity) DO UPDATE SET seq = excluded.seq";

/// G2: and are delayed no more.
pub(crate) const PROMOTED: &str = "
    DELETE FROM actornot_delayed WHERE entity IN (SELECT value FROM json_each(?)) AND due_at <= (SELECT ?)";

/// G2: how far the tail moved by that, and when the next one is due.
pub(crate) const TAILS: &str = "
    SELECT j.key AS position,
      (SELECT max(seq) FROM actornot_message WHERE entity = j.value) AS tail,
      (SELECT min(due_at) FROM actornot_delayed WHERE entity = j.value) AS delayed_at
    FROM json_each(?) j";

/// G7: which of these ids are remembered, and whether their retention is not over.
pub(crate) const SEEN: &str = concat!(
    "SELECT json_group_array(json_array(j.key, s.expires > (SELECT ",
    now!(),
    "))) AS found FROM json_each(?) j
     CROSS JOIN actornot_entity e ON e.kind = j.value->>0 AND e.key = j.value->>1
     CROSS JOIN actornot_seen s ON s.entity = e.id AND s.id = j.value->>2"
);

/// G7: remembers accepted ids, and where their messages stand.
pub(crate) const REMEMBER: &str = "
    INSERT OR ROLLBACK INTO actornot_seen (entity, id, expires, seq)
    SELECT value->>0, value->>1, value->>2, value->>3 FROM json_each(?)";

/// G7: those whose retention was over, and which may be stored twice from now on.
pub(crate) const RENEW: &str = "
    UPDATE actornot_seen AS s SET expires = j.value->>2, seq = NULL
    FROM json_each(?) j WHERE s.entity = j.value->>0 AND s.id = j.value->>1";

/// G7, G9: forgets ids whose retention is over, at most so many, so that no post pays for a day of others.
pub(crate) const FORGET: &str = "
    DELETE FROM actornot_seen WHERE (entity, id) IN
      (SELECT entity, id FROM actornot_seen WHERE expires <= (SELECT ?) ORDER BY expires LIMIT (SELECT ?))";

/// G1, G2: messages at the tail, byte for byte.
pub(crate) const APPEND: &str = "
    INSERT OR ROLLBACK INTO actornot_message (entity, seq, id, payload, headers)
    SELECT value->>0, value->>1, value->>2, CAST(substr(?, value->>3, value->>4) AS TEXT), value->>5
    FROM json_each(?)";

/// G1, G2: messages that join the tail later.
pub(crate) const DELAY: &str = "
    INSERT INTO actornot_delayed (entity, n, id, payload, headers, due_at)
    SELECT value->>0, value->>1, value->>2, CAST(substr(?, value->>3, value->>4) AS TEXT), value->>5, value->>6
    FROM json_each(?)";

/// G2: the first messages of each entity from a sequence on. The inner limit is the slice's largest batch, so the
/// cost does not depend on how many are queued.
pub(crate) const HEAD: &str = "
    SELECT j.key AS position, m.seq, m.id, m.payload, m.headers
    FROM json_each(?) j
    CROSS JOIN actornot_message m ON m.entity = j.value->>0 AND m.seq >= j.value->>1
      AND m.seq <= (SELECT max(seq) FROM (SELECT seq, row_number() OVER (ORDER BY seq) AS place FROM
        (SELECT h.seq FROM actornot_message h WHERE h.entity = j.value->>0 AND h.seq >= j.value->>1
         ORDER BY h.seq LIMIT (SELECT ?))) WHERE place <= j.value->>2)
    ORDER BY j.key, m.seq";

/// G2, G4: the same before the rows are known; without the payloads of what a commit settles, which end at the place
/// that it names in what was handed out.
pub(crate) const QUEUES: &str = "
    SELECT j.key AS position, m.seq, m.id, m.headers,
      CASE WHEN m.seq <= CASE WHEN json_valid(e.handed) THEN e.handed->>(j.value->>2) END THEN NULL ELSE m.payload END AS payload
    FROM json_each(?) j
    CROSS JOIN actornot_entity e ON e.kind = j.value->>0 AND e.key = j.value->>1
    CROSS JOIN actornot_message m ON m.entity = e.id
      AND m.seq <= (SELECT max(seq) FROM
        (SELECT h.seq FROM actornot_message h WHERE h.entity = e.id ORDER BY h.seq LIMIT (SELECT ?)))
    ORDER BY j.key, m.seq";

/// G4: the committed states that go with grants.
pub(crate) const STATES: &str = "
    SELECT j.key AS position, s.json, s.version, s.state_version
    FROM json_each(?) j
    CROSS JOIN actornot_entity e ON e.kind = j.value->>0 AND e.key = j.value->>1
    CROSS JOIN actornot_state s ON s.entity = e.id";

/// G4: new states, byte for byte.
pub(crate) const SAVE_STATES: &str = "
    INSERT INTO actornot_state (entity, json, version, state_version)
    SELECT value->>0, CAST(substr(?, value->>1, value->>2) AS TEXT), 1, value->>3 FROM json_each(?) WHERE true
    ON CONFLICT (entity) DO UPDATE SET
      json = excluded.json, version = version + 1, state_version = excluded.state_version";

/// G4: which of the messages named by a slice of commits are not stored; those commits change nothing.
pub(crate) const MISSING: &str = "
    SELECT j.value->>0 AS entity FROM json_each(?) j
    WHERE NOT EXISTS (SELECT 1 FROM actornot_message m WHERE m.entity = j.value->>0 AND m.seq = j.value->>1)";

/// G4: removes settled messages, each named by its sequence.
pub(crate) const SETTLE: &str = "
    DELETE FROM actornot_message WHERE (entity, seq) IN (SELECT value->>0, value->>1 FROM json_each(?))";

/// G6: copies messages to the dead letters, byte for byte.
pub(crate) const BURY: &str = "
    INSERT INTO actornot_dead (kind, entity, id, payload, headers, error, attempts)
    SELECT e.kind, m.entity, m.id, m.payload, m.headers, j.value->>2, j.value->>3
    FROM json_each(?) j
    CROSS JOIN actornot_entity e ON e.id = j.value->>0
    CROSS JOIN actornot_message m ON m.entity = e.id AND m.seq = j.value->>1";

/// One moment for the two that follow: who falls due between them must be in one of them.
pub(crate) const MOMENT: &str = concat!("SELECT ", now!(), " AS now");

/// G5: entities that want a run at the moment `?6` and that nobody holds. A lease that ends later than the longest one was
/// left by a clock that was set back. `+` keeps the planner from the index on kinds, by which it would read, and sort,
/// every entity of the kind.
pub(crate) const DUE: &str = "
    SELECT e.wake_at AS wake, e.id, e.kind, e.key FROM actornot_entity e
    WHERE e.wake_at <= ?6 AND (e.wake_at, e.id) > (?2, ?3) AND +e.kind IN (SELECT value FROM json_each(?1))
      AND (e.deadline IS NULL OR e.deadline <= ?6 OR e.deadline > ?6 + ?5)
    ORDER BY e.wake_at, e.id LIMIT ?4";

/// G5: how long from the moment `?4` until the next entity that is not due yet, or until the lease of one that is due ends:
/// `?2`, behind the last page. While there are more, nobody waits for it.
pub(crate) const NEXT: &str = "
    SELECT min(at) - ?4 AS next FROM (
      SELECT * FROM (SELECT e.wake_at AS at FROM actornot_entity e
        WHERE e.wake_at > ?4 AND +e.kind IN (SELECT value FROM json_each(?1)) ORDER BY e.wake_at LIMIT 1)
      UNION ALL
      SELECT min(e.deadline) FROM actornot_entity e WHERE ?2 AND e.wake_at <= ?4 AND e.deadline > ?4
        AND e.deadline <= ?4 + ?3 AND +e.kind IN (SELECT value FROM json_each(?1)))";

/// One committed moment of several entities, without a lock.
pub(crate) const READ: &str = "
    SELECT j.key AS position, e.pending, s.json, s.version, s.state_version
    FROM json_each(?1) j
    CROSS JOIN actornot_entity e ON e.kind = j.value->>0 AND e.key = j.value->>1
    LEFT JOIN actornot_state s ON s.entity = e.id WHERE e.known";

/// Entities of a kind in the order of their keys' bytes.
pub(crate) const LIST: &str = "
    SELECT e.key, e.pending, s.json, s.version, s.state_version
    FROM actornot_entity e LEFT JOIN actornot_state s ON s.entity = e.id
    WHERE e.kind = ?1 AND e.key > ?2 AND e.known ORDER BY e.key LIMIT ?3";

/// G2: the queue in order, with the delayed messages behind it that the next verb will promote.
pub(crate) const PEEK: &str = concat!(
    "WITH target(id) AS MATERIALIZED (SELECT id FROM actornot_entity WHERE kind = ?1 AND key = ?2)
     SELECT * FROM (SELECT 0 AS late, seq AS at, 0 AS n, m.id, payload, headers
       FROM target CROSS JOIN actornot_message m ON m.entity = target.id ORDER BY m.seq LIMIT ?3)
     UNION ALL
     SELECT * FROM (SELECT 1, d.due_at, d.n, d.id, d.payload, d.headers
       FROM target CROSS JOIN actornot_delayed d ON d.entity = target.id AND d.due_at <= ",
    now!(),
    " ORDER BY d.due_at, d.n LIMIT ?3)
     ORDER BY 1, 2, 3 LIMIT ?3"
);

/// G7: where messages are: 2 queued or delayed, 1 dead, 0 neither. What is remembered of an id tells where to look;
/// of an id that is not, the queue is read through.
pub(crate) const LOCATE: &str = "
    WITH target(id) AS MATERIALIZED (SELECT id FROM actornot_entity WHERE kind = ?1 AND key = ?2)
    SELECT j.key AS position, CASE
      WHEN EXISTS (SELECT 1 FROM actornot_message m WHERE m.entity = target.id AND m.seq = s.seq AND m.id = j.value)
        OR EXISTS (SELECT 1 FROM actornot_delayed d WHERE d.entity = target.id AND d.id = j.value) THEN 2
      WHEN EXISTS (SELECT 1 FROM actornot_dead x WHERE x.entity = target.id AND x.id = j.value) THEN 1
      WHEN s.seq IS NULL
        AND EXISTS (SELECT 1 FROM actornot_message m WHERE m.entity = target.id AND m.id = j.value) THEN 2
      ELSE 0 END AS place
    FROM target CROSS JOIN json_each(?3) j
    LEFT JOIN actornot_seen s ON s.entity = target.id AND s.id = j.value";

/// G6: dead letters of a kind, oldest first.
pub(crate) const DEAD: &str = "
    SELECT d.number, e.key, d.id, d.payload, d.headers, d.error, d.attempts
    FROM actornot_dead d CROSS JOIN actornot_entity e ON e.id = d.entity
    WHERE d.kind = ?1 AND d.number > ?2 ORDER BY d.number LIMIT ?3";

/// G6: moves a dead letter to a place in its entity's queue.
pub(crate) const REVIVE: &str = "
    INSERT INTO actornot_message (entity, seq, id, payload, headers)
    SELECT entity, ?3, id, payload, headers FROM actornot_dead WHERE number = ?1 AND entity = ?2";

/// G7: it has moved.
pub(crate) const LOOK_FOR: &str = "
    UPDATE actornot_seen SET seq = NULL
    WHERE (entity, id) IN (SELECT entity, id FROM actornot_dead WHERE number = ?1 AND entity = ?2)";

/// G6: and out of the dead letters.
pub(crate) const REVIVED: &str = "DELETE FROM actornot_dead WHERE number = ?1 AND entity = ?2";

/// G2: where the queue of an entity begins.
pub(crate) const FIRST: &str = "SELECT min(seq) AS first FROM actornot_message WHERE entity = ?1";

/// G7: what a purge deletes; the row with its fence and the seen ids stay.
pub(crate) const PURGE: [&str; 4] = [
    "DELETE FROM actornot_message WHERE entity = ?1",
    "DELETE FROM actornot_delayed WHERE entity = ?1",
    "DELETE FROM actornot_dead WHERE entity = ?1",
    "DELETE FROM actornot_state WHERE entity = ?1",
];

/// G1: readers survive a crash of the process and of the machine only in this mode; the answer is the mode in force.
pub(crate) const SET_WAL: &str = "PRAGMA journal_mode = WAL";
/// G1: a commit is on the disk before it is answered.
pub(crate) const SET_SYNCHRONOUS: &str = "PRAGMA synchronous = FULL";
/// What a statement would undo if it failed is kept in memory, not in a file.
pub(crate) const SET_TEMP_STORE: &str = "PRAGMA temp_store = MEMORY";
/// G1: what is in force.
pub(crate) const GET_JOURNAL_MODE: &str = "PRAGMA journal_mode";
/// G1: payloads are cut by their bytes, and compared to text, which is right in UTF-8 alone.
pub(crate) const GET_ENCODING: &str = "PRAGMA encoding";
/// G1: what is in force; 2 is FULL, 3 is EXTRA.
pub(crate) const GET_SYNCHRONOUS: &str = "PRAGMA synchronous";
/// For the report.
pub(crate) const GET_VERSION: &str = "SELECT sqlite_version()";

/// Whether the schema was created.
pub(crate) const HAS_META: &str = "SELECT count(*) FROM sqlite_schema WHERE name = 'actornot_meta'";
/// Which version of it.
pub(crate) const GET_SCHEMA: &str = "SELECT version, oldest FROM actornot_meta";

/// Changes nothing, but fails on a file that cannot be written, where BEGIN IMMEDIATE quietly begins a read.
pub(crate) const TRY_WRITE: &str = "UPDATE actornot_meta SET version = version WHERE version < 0";

/// The schema, version 1. STRICT keeps every column what the row decoder expects. The tables carry a prefix, for
/// they may stand in the user's own database.
pub(crate) const SCHEMA: &str = "
    CREATE TABLE actornot_meta (version INTEGER NOT NULL, oldest INTEGER NOT NULL) STRICT;
    INSERT INTO actornot_meta (version, oldest) VALUES (1, 1);

    -- Narrow, and apart from the state: it is rewritten by every verb.
    CREATE TABLE actornot_entity (
      id INTEGER PRIMARY KEY, kind TEXT NOT NULL, key TEXT NOT NULL,
      fence INTEGER NOT NULL, nonce TEXT, deadline INTEGER, last_commit TEXT,
      handed TEXT NOT NULL, deliveries INTEGER NOT NULL, charged INTEGER NOT NULL, batch_limit INTEGER NOT NULL,
      pending INTEGER NOT NULL, queued INTEGER NOT NULL, tail INTEGER NOT NULL, since INTEGER NOT NULL,
      delayed_at INTEGER, wait_why TEXT, wait_until INTEGER, paused TEXT, last_error TEXT,
      known INTEGER NOT NULL, wake_at INTEGER,
      UNIQUE (kind, key)) STRICT;
    -- What is locked stands at 0: the commits of a busy one leave the index alone.
    CREATE INDEX actornot_entity_wake ON actornot_entity (wake_at, id, kind) WHERE wake_at IS NOT NULL;

    CREATE TABLE actornot_state (entity INTEGER PRIMARY KEY, version INTEGER NOT NULL,
      state_version INTEGER NOT NULL, json TEXT NOT NULL) STRICT;

    CREATE TABLE actornot_message (entity INTEGER NOT NULL, seq INTEGER NOT NULL, id TEXT NOT NULL,
      payload TEXT NOT NULL, headers TEXT NOT NULL, PRIMARY KEY (entity, seq)) STRICT, WITHOUT ROWID;

    CREATE TABLE actornot_delayed (entity INTEGER NOT NULL, due_at INTEGER NOT NULL, n INTEGER NOT NULL,
      id TEXT NOT NULL, payload TEXT NOT NULL, headers TEXT NOT NULL,
      PRIMARY KEY (entity, due_at, n)) STRICT, WITHOUT ROWID;
    CREATE INDEX actornot_delayed_id ON actornot_delayed (entity, id);

    -- `seq` tells where the message stands, as long as it is stored; NULL: look for it. By id first: those of one slice
    -- stand together, whatever their entities.
    CREATE TABLE actornot_seen (entity INTEGER NOT NULL, id TEXT NOT NULL, expires INTEGER NOT NULL, seq INTEGER,
      PRIMARY KEY (id, entity)) STRICT, WITHOUT ROWID;
    CREATE INDEX actornot_seen_expires ON actornot_seen (expires);

    -- AUTOINCREMENT: the number of a letter is never used again.
    CREATE TABLE actornot_dead (number INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL,
      entity INTEGER NOT NULL, id TEXT NOT NULL, payload TEXT NOT NULL, headers TEXT NOT NULL,
      error TEXT NOT NULL, attempts INTEGER NOT NULL) STRICT;
    CREATE INDEX actornot_dead_kind ON actornot_dead (kind, number);
    CREATE INDEX actornot_dead_id ON actornot_dead (entity, id);";
