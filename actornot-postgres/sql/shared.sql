-- What the verbs share. Run inside a verb, whose search_path is theirs.
-- Verb functions take the name of the verb that the caller means as their first argument: behind a transaction
-- pooler, a prepared statement of the same name may be another client's. `patience`: milliseconds to wait for a lock.
CREATE FUNCTION {schema}.guard_v1(called text, verb text) RETURNS void LANGUAGE plpgsql STABLE AS $$
BEGIN
  IF called IS DISTINCT FROM verb THEN
    RAISE EXCEPTION 'the statement of % was executed for a call of %', verb, called USING ERRCODE = 'AN001';
  END IF;
END $$;

CREATE FUNCTION {schema}.begin_v1(called text, verb text, patience bigint) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  PERFORM guard_v1(called, verb);
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'actornot needs READ COMMITTED, not %', upper(current_setting('transaction_isolation')) USING ERRCODE = '25001';
  END IF;
  PERFORM set_config('lock_timeout', patience::text, true);
END $$;

-- Step 1 of every verb: the rows of the slice, created if wanted, locked in key order. Returns the clock, read behind the locks.
CREATE FUNCTION {schema}.lock_v1(names json, make boolean) RETURNS timestamptz LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
BEGIN
  IF make THEN
    INSERT INTO entity (kind, key, fence)
    SELECT n.kind, n.key, floor(extract(epoch FROM clock_timestamp()) * 1000)
    FROM (SELECT DISTINCT (v->>0) COLLATE "C" AS kind, (v->>1) COLLATE "C" AS key FROM json_array_elements(names) v) n
    WHERE NOT EXISTS (SELECT FROM entity e WHERE e.kind = n.kind AND e.key = n.key)
    ORDER BY n.kind, n.key
    ON CONFLICT (kind, key) DO NOTHING;
  END IF;
  PERFORM FROM (SELECT DISTINCT (v->>0) COLLATE "C" AS kind, (v->>1) COLLATE "C" AS key FROM json_array_elements(names) v) n
  JOIN entity e ON e.kind = n.kind AND e.key = n.key
  ORDER BY e.kind, e.key FOR UPDATE OF e;
  RETURN clock_timestamp();
END $$;

-- Step 2: delayed messages that are due join the tail, in order of their due time, with fresh sequence; at most 1000 of
-- an entity in one call, for its neighbours in the slice wait meanwhile.
CREATE FUNCTION {schema}.promote_v1(names json, now_ timestamptz) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE due bigint[];
BEGIN
  SELECT array_agg(DISTINCT e.id) INTO due FROM json_array_elements(names) v
  JOIN entity e ON e.kind = v->>0 AND e.key = v->>1 WHERE e.delayed_at <= now_;
  IF due IS NULL THEN RETURN; END IF;
  WITH first AS (
    SELECT f.entity, f.due_at, f.n FROM unnest(due) u CROSS JOIN LATERAL (SELECT d.entity, d.due_at, d.n FROM delayed d
      WHERE d.entity = u AND d.due_at <= now_ ORDER BY d.due_at, d.n LIMIT 1000) f),
  gone AS (
    DELETE FROM delayed d USING first f WHERE d.entity = f.entity AND d.due_at = f.due_at AND d.n = f.n
    RETURNING d.entity, d.due_at, d.n, d.id, d.payload, d.headers),
  placed AS (SELECT g.*, e.tail + row_number() OVER (PARTITION BY g.entity ORDER BY g.due_at, g.n) AS seq
    FROM gone g JOIN entity e ON e.id = g.entity),
  ins AS (INSERT INTO message (entity, seq, id, payload, headers)
    SELECT entity, seq, id, payload, headers FROM placed),
  moved AS (SELECT DISTINCT ON (entity) entity, count(*) OVER (PARTITION BY entity) AS count, seq AS tail, due_at, n
    FROM placed ORDER BY entity, seq DESC)
  UPDATE entity e SET tail = m.tail, queued = e.queued + m.count,
    since = CASE WHEN e.queued = 0 THEN now_ ELSE e.since END,
    delayed_at = (SELECT d.due_at FROM delayed d WHERE d.entity = e.id AND (d.due_at, d.n) > (m.due_at, m.n)
      ORDER BY d.due_at, d.n LIMIT 1)
  FROM moved m WHERE e.id = m.entity;
END $$;

-- Messages [{kind,key,limit,id,headers,delay,retention,skip?}] join their queues; payloads zipped with them by position. Answers in order.
CREATE FUNCTION {schema}.append_v1(msgs json, payloads text[], now_ timestamptz)
RETURNS TABLE (n bigint, admission text) LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE deep boolean := random() * 256 < cardinality(payloads);
BEGIN
  RETURN QUERY
  WITH msg AS MATERIALIZED (
    SELECT o.n, e.id AS entity, e.pending, e.tail, e.delayed_at, m.id, o.payload, m.headers, m."limit", coalesce(m.delay, 0) AS delay,
      m.retention, now_ + m.retention * interval '1 ms' AS expires,
      EXISTS (SELECT FROM seen s WHERE s.entity = e.id AND s.id = m.id AND s.expires > now_) AS seen,
      min(o.n) FILTER (WHERE m.retention > 0) OVER (PARTITION BY e.id, m.id) AS first
    FROM ROWS FROM (json_array_elements(msgs), unnest(payloads)) WITH ORDINALITY o(v, payload, n)
    CROSS JOIN LATERAL json_to_record(o.v) AS m(kind text, key text, "limit" numeric, id text, headers text,
      delay bigint, retention bigint, skip boolean)
    JOIN entity e ON e.kind = m.kind AND e.key = m.key WHERE m.skip IS NOT TRUE),
  counted AS (
    SELECT *, NOT seen AND (first IS NULL OR msg.n <= first) AS fresh,
      pending + count(*) FILTER (WHERE NOT seen AND (first IS NULL OR msg.n <= first)) OVER (PARTITION BY entity ORDER BY msg.n)
        > coalesce("limit", 'Infinity') AS over FROM msg),
  judged AS (
    SELECT c.*, CASE WHEN seen THEN 'duplicate' WHEN fresh AND over THEN 'full' WHEN fresh THEN 'accepted'
      WHEN first_value(over) OVER (PARTITION BY entity, id ORDER BY (c.n = first) DESC) THEN 'full' ELSE 'duplicate' END AS answer
    FROM counted c),
  taken AS MATERIALIZED (
    SELECT *, tail + row_number() OVER (PARTITION BY entity ORDER BY j.n) AS seq,
      -- While messages that are due still wait to be promoted, a new one joins behind them.
      CASE WHEN delay > 0 OR delayed_at <= now_ THEN now_ + delay * interval '1 ms' END AS due_at
    FROM judged j WHERE answer = 'accepted'),
  ins AS (INSERT INTO message (entity, seq, id, payload, headers)
    SELECT t.entity, t.seq, t.id, t.payload, t.headers FROM taken t WHERE t.due_at IS NULL),
  later AS (INSERT INTO delayed (entity, due_at, n, id, payload, headers)
    SELECT t.entity, t.due_at, t.seq, t.id, t.payload, t.headers FROM taken t WHERE t.due_at IS NOT NULL),
  remember AS (INSERT INTO seen (entity, id, expires)
    SELECT t.entity, t.id, t.expires FROM taken t WHERE t.retention > 0
    ON CONFLICT (entity, id) DO UPDATE SET expires = excluded.expires),
  sum AS (SELECT entity, count(*) AS pending, count(*) FILTER (WHERE due_at IS NULL) AS queued, max(seq) AS tail,
    min(due_at) AS due_at FROM taken GROUP BY entity),
  row AS (UPDATE entity e SET pending = e.pending + s.pending, queued = e.queued + s.queued, tail = s.tail,
      since = CASE WHEN e.queued = 0 AND s.queued > 0 THEN now_ ELSE e.since END,
      delayed_at = least(e.delayed_at, s.due_at), known = true
    FROM sum s WHERE e.id = s.entity)
  SELECT j.n, j.answer FROM judged j ORDER BY j.n;
  -- Each post forgets more than it remembers, and waits for nobody who does the same. What a long transaction keeps
  -- VACUUM from removing is in front of the index, so a post looks at the last minute only, and one in 256 at all.
  DELETE FROM seen s USING (SELECT o.entity, o.id FROM seen o
      WHERE o.expires <= now_ AND o.expires > CASE WHEN deep THEN '-infinity'::timestamptz ELSE now_ - interval '1 minute' END
      ORDER BY o.expires LIMIT CASE WHEN deep THEN 1024 ELSE 0 END + 2 * cardinality(payloads) FOR UPDATE SKIP LOCKED) o
    WHERE s.entity = o.entity AND s.id = o.id AND s.expires <= now_;
END $$;

-- Locked, promoted rows; items [{item,kind,key,nonce,ms,max}]. One row 'grant' (payload = state) and one 'message' each.
CREATE FUNCTION {schema}.grant_v1(items json, now_ timestamptz)
RETURNS TABLE (item int, part text, n int, answer json, id text, payload text, headers text) LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
BEGIN
  WITH want AS MATERIALIZED (
    SELECT e.id, e.head, w.nonce, now_ + w.ms * interval '1 ms' AS deadline, w.max, e.handed,
      CASE WHEN e.deadline IS NOT NULL AND e.handed <> '{}' THEN 1 ELSE e.batch_limit END AS batch_limit,
      e.deadline IS NOT NULL AND e.nonce = w.nonce AS again
    FROM json_to_recordset(items) AS w(kind text, key text, nonce uuid, ms bigint, max bigint)
    JOIN entity e ON e.kind = w.kind AND e.key = w.key
    WHERE (e.deadline IS NOT NULL AND e.nonce = w.nonce AND e.handed <> '{}')
      OR (e.nonce IS DISTINCT FROM w.nonce AND e.queued > 0 AND e.paused IS NULL
        AND (e.wait_until IS NULL OR e.wait_until <= now_)
        AND (e.deadline IS NULL OR e.deadline <= now_ OR e.deadline > now_ + interval '1 hour'))),
  next AS (
    SELECT w.*, CASE WHEN w.again THEN w.handed ELSE (SELECT array_agg(h.seq ORDER BY h.seq) FROM (SELECT m.seq FROM message m
        WHERE m.entity = w.id AND m.seq >= w.head ORDER BY m.seq LIMIT greatest(least(w.max, w.batch_limit), 1)) h) END AS seqs
    FROM want w)
  UPDATE entity e SET deadline = h.deadline, nonce = h.nonce,
    fence = e.fence + CASE WHEN h.again THEN 0 ELSE 1 END,
    handed = h.seqs, head = CASE WHEN h.again THEN e.head ELSE h.seqs[1] END, batch_limit = CASE WHEN h.again THEN e.batch_limit ELSE h.batch_limit END,
    deliveries = e.deliveries + CASE WHEN h.again THEN 0 ELSE 1 END,
    charged = e.charged + CASE WHEN h.again OR cardinality(h.seqs) <> 1 THEN 0 ELSE 1 END
  FROM next h WHERE e.id = h.id AND h.seqs IS NOT NULL;
  RETURN QUERY
  WITH got AS MATERIALIZED (
    SELECT w.item, e.* FROM json_to_recordset(items) AS w(item int, kind text, key text, nonce uuid)
    JOIN entity e ON e.kind = w.kind AND e.key = w.key WHERE e.deadline IS NOT NULL AND e.nonce = w.nonce AND e.handed <> '{}')
  SELECT g.item, 'grant', 0, json_build_object('fence', g.fence, 'deliveries', g.deliveries, 'charged', g.charged,
      'batch_limit', g.batch_limit, 'version', s.version, 'state_version', s.state_version), NULL, s.json, NULL
    FROM got g LEFT JOIN state s ON s.entity = g.id
  UNION ALL
  SELECT g.item, 'message', h.n::int, NULL, m.id, m.payload, m.headers
    FROM got g CROSS JOIN LATERAL unnest(g.handed) WITH ORDINALITY h(seq, n)
    JOIN message m ON m.entity = g.id AND m.seq = h.seq
  ORDER BY 1, 3;
END $$;

-- The row says that something is queued, and nothing is: somebody deleted messages by hand. Without this, `due` would
-- report it for ever.
CREATE FUNCTION {schema}.mend_v1(names json) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
BEGIN
  UPDATE entity e SET pending = greatest(e.pending - e.queued, 0), queued = 0 FROM json_array_elements(names) v
    WHERE e.kind = v->>0 AND e.key = v->>1 AND e.queued > 0 AND NOT EXISTS (SELECT FROM message m WHERE m.entity = e.id AND m.seq >= e.head);
END $$;
