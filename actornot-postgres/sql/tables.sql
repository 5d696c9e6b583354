-- Version 1 of the tables, in the schema of the namespace. {schema} is its quoted name.
CREATE TABLE {schema}.meta (version bigint NOT NULL, oldest bigint NOT NULL);

-- Narrow, and apart from the state: it is rewritten by every verb. No index has a column that changes, so a new version
-- of a row needs no entry in any (HOT).
CREATE TABLE {schema}.entity (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  kind text COLLATE "C" NOT NULL, key text COLLATE "C" NOT NULL,
  fence bigint NOT NULL, nonce uuid, deadline timestamptz, last_commit uuid,
  handed bigint[] NOT NULL DEFAULT '{}',
  deliveries bigint NOT NULL DEFAULT 0, charged bigint NOT NULL DEFAULT 0, batch_limit bigint NOT NULL DEFAULT 4294967295,
  pending bigint NOT NULL DEFAULT 0, queued bigint NOT NULL DEFAULT 0,
  -- No message stands before `head`, none behind `tail`. A scan that began at the first row ever would walk all those
  -- that were deleted and that a long transaction keeps VACUUM from removing.
  head bigint NOT NULL DEFAULT 1, tail bigint NOT NULL DEFAULT 0,
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

CREATE TABLE {schema}.message (entity bigint NOT NULL, seq bigint NOT NULL, id text COLLATE "C" NOT NULL,
  payload text NOT NULL, headers text NOT NULL, PRIMARY KEY (entity, seq));

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

-- G7: forgotten in small portions by the posts that come later, so vacuumed early. `seq` tells where the message stands, as
-- long as it is stored, so that messages need no index by id; NULL: look for it. By id first: those of one slice stand
-- together, whatever their entities.
CREATE TABLE {schema}.seen (entity bigint NOT NULL, id text COLLATE "C" NOT NULL, expires timestamptz NOT NULL, seq bigint,
  PRIMARY KEY (id, entity)) WITH (autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX seen_expires ON {schema}.seen (expires);

INSERT INTO {schema}.meta (version, oldest) VALUES (1, 1);
