-- Version 1 of the tables, in the schema of the namespace. {schema} is its quoted name.
CREATE TABLE {schema}.meta (version bigint NOT NULL, oldest bigint NOT NULL);

-- Narrow, and apart from the state: it is rewritten by every verb. No index has a column that changes, so a new version
-- of a row needs no entry in any (HOT).
CREATE TABLE {schema}.entity (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  kind text COLLATE "C" NOT NULL, key text COLLATE "C" NOT NULL,
  fence bigint NOT NULL, nonce uuid, deadline timestamptz, last_commit uuid,
  -- Messages `first` to `last` are handed out; the last of them is in row `edge`. None: last < first.
  first bigint NOT NULL DEFAULT 1, last bigint NOT NULL DEFAULT 0, edge bigint NOT NULL DEFAULT 0,
  deliveries bigint NOT NULL DEFAULT 0, charged bigint NOT NULL DEFAULT 0, batch_limit bigint NOT NULL DEFAULT 4294967295,
  pending bigint NOT NULL DEFAULT 0, queued bigint NOT NULL DEFAULT 0,
  -- Messages are numbered as they join the queue; none stands before `head`, none behind `tail`. A scan that began at the first
  -- row ever would walk all those that were deleted and that a long transaction keeps VACUUM from removing. Delayed ones
  -- are counted by `late`.
  head bigint NOT NULL DEFAULT 1, tail bigint NOT NULL DEFAULT 0, late bigint NOT NULL DEFAULT 0,
  since timestamptz, delayed_at timestamptz, wait_why text, wait_until timestamptz, paused text, last_error text,
  known boolean NOT NULL DEFAULT false,
  -- When it wants a run, whoever holds it; stands in `wake` too, where it has its index.
  wake_at timestamptz GENERATED ALWAYS AS (CASE WHEN paused IS NULL AND (queued > 0 OR delayed_at IS NOT NULL) THEN
    greatest(CASE WHEN queued > 0 THEN since ELSE delayed_at END, wait_until) END) STORED,
  UNIQUE (kind, key)) WITH (fillfactor = 70);

-- The entities that want a run, free or locked: grants and commits of a busy one leave it alone.
CREATE TABLE {schema}.wake (entity bigint PRIMARY KEY, kind text COLLATE "C" NOT NULL, at timestamptz NOT NULL)
  WITH (autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX wake_at ON {schema}.wake (at, entity, kind);

CREATE TABLE {schema}.state (entity bigint PRIMARY KEY, version bigint NOT NULL, state_version bigint NOT NULL,
  json text NOT NULL) WITH (fillfactor = 70);

-- A row is a parcel: what came together for an entity, up to 64 messages, in order. `seq` is the number of the last one; the
-- others have those before it. What stands before `head` is settled already. Numbers of two rows never overlap. `headers`:
-- NULL where none has any. No check and no generated column: each statement would have to parse them. As long as a row
-- fits on a page, it is neither compressed nor moved out.
CREATE TABLE {schema}.message (entity bigint NOT NULL, seq bigint NOT NULL, count int NOT NULL, ids text[] COLLATE "C" NOT NULL,
  payloads text[] NOT NULL, headers text[], PRIMARY KEY (entity, seq)) WITH (toast_tuple_target = 8160);

CREATE TABLE {schema}.delayed (entity bigint NOT NULL, due_at timestamptz NOT NULL, n bigint NOT NULL,
  id text COLLATE "C" NOT NULL, payload text NOT NULL, headers text NOT NULL, PRIMARY KEY (entity, due_at, n));
-- Such an index begins with the id: one that began with the entity could be taken for the primary key.
CREATE INDEX delayed_id ON {schema}.delayed (id, entity);

CREATE TABLE {schema}.dead (number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, kind text COLLATE "C" NOT NULL,
  entity bigint NOT NULL, id text COLLATE "C" NOT NULL, payload text NOT NULL, headers text NOT NULL,
  error text NOT NULL, attempts bigint NOT NULL);
CREATE INDEX dead_kind ON {schema}.dead (kind, number);
CREATE INDEX dead_id ON {schema}.dead (id, entity);
CREATE INDEX dead_entity ON {schema}.dead (entity);

-- G7: forgotten in small portions by the posts that come later, so vacuumed early. `seq` is the number of the message, of a
-- delayed one less than zero, as long as it is stored, so that messages need no index by id; NULL: look for it. By id first: those of one slice stand
-- together, whatever their entities.
CREATE TABLE {schema}.seen (entity bigint NOT NULL, id text COLLATE "C" NOT NULL, expires timestamptz NOT NULL, seq bigint,
  PRIMARY KEY (id, entity)) WITH (autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX seen_expires ON {schema}.seen (expires);

INSERT INTO {schema}.meta (version, oldest) VALUES (1, 1);
