-- What the verbs share. Run inside a verb, whose search_path is theirs.
-- Verb functions take the name of the verb that the caller means as their first argument: behind a transaction
-- pooler, a prepared statement of the same name may be another client's. `patience`: milliseconds to wait for a lock.
CREATE FUNCTION {schema}.guard_v1(called text, verb text) RETURNS void LANGUAGE plpgsql STABLE AS $$
BEGIN
  IF called IS DISTINCT FROM verb THEN
    RAISE EXCEPTION 'the statement of % was executed for a call of %', verb, called USING ERRCODE = 'AN001';
  END IF;
END $$;

-- Called by an assignment, as all that is called for its effect and on the way of each message: PERFORM starts a query.
CREATE FUNCTION {schema}.begin_v1(called text, verb text, patience bigint) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
DECLARE done text;
BEGIN
  IF called IS DISTINCT FROM verb THEN
    PERFORM guard_v1(called, verb);
  END IF;
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'actornot needs READ COMMITTED, not %', upper(current_setting('transaction_isolation')) USING ERRCODE = '25001';
  END IF;
  done := set_config('lock_timeout', patience::text, true);
  RETURN true;
END $$;

-- Step 1 of a verb that may meet new names: their rows, in key order. Before any is locked, or two calls could wait for
-- each other.
CREATE FUNCTION {schema}.make_v1(kinds text[], keys text[]) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
BEGIN
  INSERT INTO entity (kind, key, fence)
  SELECT u.kind, u.key, floor(extract(epoch FROM clock_timestamp()) * 1000) FROM unnest(kinds, keys) u(kind, key)
  WHERE NOT EXISTS (SELECT FROM entity e WHERE e.kind = u.kind AND e.key = u.key)
  ORDER BY u.kind COLLATE "C", u.key COLLATE "C"
  ON CONFLICT (kind, key) DO NOTHING;
END $$;

-- The rows of the slice, locked in key order. Returns the clock, read behind the locks. The busiest verbs do it by
-- themselves, and read the rows with it: a row that was waited for is returned as it is now.
CREATE FUNCTION {schema}.lock_v1(kinds text[], keys text[]) RETURNS timestamptz LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
BEGIN
  PERFORM FROM unnest(kinds, keys) u(kind, key) JOIN entity e ON e.kind = u.kind AND e.key = u.key
  ORDER BY e.kind, e.key FOR UPDATE OF e;
  RETURN clock_timestamp();
END $$;

CREATE FUNCTION {schema}.ids_v1(kinds text[], keys text[]) RETURNS bigint[] LANGUAGE sql STABLE AS $$
  SELECT array_agg(e.id) FROM unnest(kinds, keys) u(kind, key) JOIN {schema}.entity e ON e.kind = u.kind AND e.key = u.key
$$;

-- `wake` says of these entities what their rows say. Each verb sees to that: the busiest by themselves.
CREATE FUNCTION {schema}.wake_v1(ents bigint[]) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
BEGIN
  DELETE FROM wake w USING unnest(ents) u JOIN entity e ON e.id = u WHERE w.entity = e.id AND e.wake_at IS NULL;
  INSERT INTO wake (entity, kind, at) SELECT e.id, e.kind, e.wake_at
    FROM unnest(ents) u JOIN entity e ON e.id = u WHERE e.wake_at IS NOT NULL
    ON CONFLICT (entity) DO UPDATE SET at = excluded.at;
END $$;

-- Step 2: delayed messages that are due join the tail, in order of their due time, with fresh sequence; at most 1000 of
-- an entity in one call, for its neighbours in the slice wait meanwhile.
CREATE FUNCTION {schema}.promote_v1(ents bigint[], now_ timestamptz) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
BEGIN
  WITH first AS (
    SELECT f.entity, f.due_at, f.n FROM unnest(ents) u JOIN entity e ON e.id = u AND e.delayed_at <= now_
    CROSS JOIN LATERAL (SELECT d.entity, d.due_at, d.n FROM delayed d
      WHERE d.entity = u AND d.due_at <= now_ ORDER BY d.due_at, d.n LIMIT 1000) f),
  gone AS (
    DELETE FROM delayed d USING first f WHERE d.entity = f.entity AND d.due_at = f.due_at AND d.n = f.n
    RETURNING d.entity, d.due_at, d.n, d.id, d.payload, d.headers),
  placed AS (SELECT g.*, e.tail + row_number() OVER (PARTITION BY g.entity ORDER BY g.due_at, g.n) AS seq
    FROM gone g JOIN entity e ON e.id = g.entity),
  ins AS (INSERT INTO message (entity, seq, count, ids, payloads, headers)
    SELECT entity, seq, 1, ARRAY[id], ARRAY[payload], CASE WHEN headers <> '' THEN ARRAY[headers] END FROM placed),
  told AS (UPDATE seen s SET seq = p.seq FROM placed p WHERE s.entity = p.entity AND s.id = p.id AND s.seq = -p.n),
  moved AS (SELECT DISTINCT ON (entity) entity, count(*) OVER (PARTITION BY entity) AS count, seq AS tail, due_at, n
    FROM placed ORDER BY entity, seq DESC)
  UPDATE entity e SET tail = m.tail, queued = e.queued + m.count,
    since = CASE WHEN e.queued = 0 THEN now_ ELSE e.since END,
    delayed_at = (SELECT d.due_at FROM delayed d WHERE d.entity = e.id AND (d.due_at, d.n) > (m.due_at, m.n)
      ORDER BY d.due_at, d.n LIMIT 1)
  FROM moved m WHERE e.id = m.entity;
  PERFORM wake_v1(ents);
END $$;

-- Step 3: messages join the queues of `ents`, each in a row of its own; those of message n are `ents[at_[n]]`. Answers A accepted, D duplicate or
-- F full for each, and for each of `ents` how many it got, how many of them are ready, and when the first of the others
-- is due. The rows themselves are written by whoever calls, once. `limits`: NULL = none.
CREATE FUNCTION {schema}.append_v1(ents bigint[], limits bigint[], at_ int[], message_ids text[], payloads text[],
  headers_ text[], delays bigint[], keeps bigint[], now_ timestamptz,
  OUT admissions text, OUT more bigint[], OUT ready bigint[], OUT later timestamptz[]) LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
BEGIN
  WITH msg AS MATERIALIZED (
    SELECT o.n, e.id AS entity, e.pending, e.tail, e.late, e.delayed_at, o.id, o.payload, o.headers, limits[o.at_] AS lim,
      o.delay, o.keep, now_ + o.keep * interval '1 ms' AS expires,
      s.id IS NOT NULL AS seen, -- joined: EXISTS may be answered by reading all there is
      min(o.n) FILTER (WHERE o.keep > 0) OVER (PARTITION BY e.id, o.id) AS first
    FROM unnest(at_, message_ids, payloads, headers_, delays, keeps) WITH ORDINALITY o(at_, id, payload, headers, delay, keep, n)
    JOIN entity e ON e.id = ents[o.at_]
    LEFT JOIN seen s ON s.entity = e.id AND s.id = o.id AND s.expires > now_),
  counted AS (
    SELECT *, NOT seen AND (first IS NULL OR msg.n <= first) AS fresh,
      coalesce(pending + count(*) FILTER (WHERE NOT seen AND (first IS NULL OR msg.n <= first)) OVER (PARTITION BY entity ORDER BY msg.n)
        > lim, false) AS over FROM msg),
  judged AS (
    SELECT c.*, CASE WHEN seen THEN 'D' WHEN fresh AND over THEN 'F' WHEN fresh THEN 'A'
      WHEN first_value(over) OVER (PARTITION BY entity, id ORDER BY (c.n = first) DESC) THEN 'F' ELSE 'D' END AS answer
    FROM counted c),
  due AS (
    -- While messages that are due still wait to be promoted, a new one joins behind them.
    SELECT *, CASE WHEN delay > 0 OR delayed_at <= now_ THEN now_ + delay * interval '1 ms' END AS due_at
    FROM judged j WHERE answer = 'A'),
  taken AS MATERIALIZED (
    SELECT *, CASE WHEN due_at IS NULL THEN tail ELSE late END
      + row_number() OVER (PARTITION BY entity, due_at IS NULL ORDER BY d.n) AS seq FROM due d),
  ins AS (INSERT INTO message (entity, seq, count, ids, payloads, headers)
    SELECT t.entity, t.seq, 1, ARRAY[t.id], ARRAY[t.payload], CASE WHEN t.headers <> '' THEN ARRAY[t.headers] END
    FROM taken t WHERE t.due_at IS NULL),
  put AS (INSERT INTO delayed (entity, due_at, n, id, payload, headers)
    SELECT t.entity, t.due_at, t.seq, t.id, t.payload, coalesce(t.headers, '') FROM taken t WHERE t.due_at IS NOT NULL),
  remember AS (INSERT INTO seen (entity, id, expires, seq)
    SELECT t.entity, t.id, t.expires, CASE WHEN t.due_at IS NULL THEN t.seq ELSE -t.seq END FROM taken t WHERE t.keep > 0
    -- Its retention was over: it may be stored twice from now on.
    ON CONFLICT (entity, id) DO UPDATE SET expires = excluded.expires, seq = NULL),
  sum AS MATERIALIZED (SELECT entity, count(*) AS more, count(*) FILTER (WHERE due_at IS NULL) AS ready, min(due_at) AS later
    FROM taken GROUP BY entity),
  each AS (SELECT u.n, coalesce(s.more, 0) AS more, coalesce(s.ready, 0) AS ready, s.later
    FROM unnest(ents) WITH ORDINALITY u(id, n) LEFT JOIN sum s ON s.entity = u.id)
  SELECT (SELECT string_agg(j.answer, '' ORDER BY j.n) FROM judged j), array_agg(e.more ORDER BY e.n),
    array_agg(e.ready ORDER BY e.n), array_agg(e.later ORDER BY e.n) INTO admissions, more, ready, later FROM each e;
END $$;

-- G7: posts forget together more than they remember, one call in sixteen for all, and wait for nobody who does the
-- same. What a long transaction keeps VACUUM from removing is in front of the index, so that they look at the last
-- minutes only, and one in 256 posts at all.
CREATE FUNCTION {schema}.forget_v1(posts bigint, now_ timestamptz) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE deep boolean := random() * 256 < posts;
BEGIN
  IF NOT deep AND random() * 16 > 1 THEN RETURN false; END IF;
  DELETE FROM seen s USING (SELECT o.entity, o.id FROM seen o
      WHERE o.expires <= now_ AND o.expires > CASE WHEN deep THEN '-infinity'::timestamptz ELSE now_ - interval '5 minutes' END
      ORDER BY o.expires LIMIT CASE WHEN deep THEN 1024 ELSE 0 END + 32 * posts FOR UPDATE SKIP LOCKED) o
    WHERE s.entity = o.entity AND s.id = o.id AND s.expires <= now_;
  RETURN true;
END $$;

-- Step 4 where nobody wants a lock: what joined the queues of `ents` is written into their rows. A post moves the moment
-- at which `due` reports an entity if its queue was empty, or by a delayed message.
CREATE FUNCTION {schema}.join_v1(ents bigint[], more bigint[], ready bigint[], later timestamptz[], now_ timestamptz)
RETURNS void LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
BEGIN
  WITH up AS (
    UPDATE entity e SET pending = e.pending + u.more, queued = e.queued + u.ready, tail = e.tail + u.ready,
        late = e.late + u.more - u.ready, known = true,
        since = CASE WHEN e.queued = 0 AND u.ready > 0 THEN now_ ELSE e.since END, delayed_at = least(e.delayed_at, u.later)
    FROM unnest(ents, more, ready, later) u(id, more, ready, later) WHERE e.id = u.id AND (u.more > 0 OR NOT e.known)
    RETURNING e.id, e.kind, e.wake_at, e.since = now_ OR u.later IS NOT NULL AS moved)
  INSERT INTO wake (entity, kind, at) SELECT g.id, g.kind, g.wake_at FROM up g WHERE g.moved AND g.wake_at IS NOT NULL
    ON CONFLICT (entity) DO UPDATE SET at = excluded.at;
END $$;

-- What may be handed out of a queue, up to `most` messages: the first and the last, and the row of that. Where numbers are
-- missing, it is the first row only: some were deleted by hand, or settled behind a letter that was redriven to before them
-- meanwhile. So the place of a message in a batch follows from its number. Plain SQL, to become part of the query that calls it.
CREATE FUNCTION {schema}.next_v1(entity_ bigint, head_ bigint, most bigint)
RETURNS TABLE (first bigint, last bigint, edge bigint) LANGUAGE sql STABLE AS $$
  SELECT p.first, CASE WHEN p.sum = p.edge - head_ + 1 THEN least(p.edge, head_ - 1 + most) ELSE least(p.front, p.first - 1 + most) END,
    CASE WHEN p.sum = p.edge - head_ + 1 THEN p.edge ELSE p.front END
  FROM (SELECT min(m.before) + 1 AS first, min(m.seq) AS front, max(m.seq) FILTER (WHERE m.before < head_ - 1 + most) AS edge,
      sum((m.seq - m.before)::int) FILTER (WHERE m.before < head_ - 1 + most) AS sum
    FROM (SELECT m.seq, greatest(m.seq - m.count, head_ - 1) AS before FROM {schema}.message m
      WHERE m.entity = entity_ AND m.seq >= head_ ORDER BY m.seq LIMIT most) m) p
$$;

-- What is handed out, by parcels. Plain SQL too.
CREATE FUNCTION {schema}.batch_v1(entity_ bigint, first_ bigint, last_ bigint, edge_ bigint)
RETURNS TABLE (seq bigint, ids text[], payloads text[], headers text[]) LANGUAGE sql STABLE AS $$
  SELECT m.seq, m.ids[c.from_:c.to_], m.payloads[c.from_:c.to_], m.headers[c.from_:c.to_] FROM {schema}.message m CROSS JOIN LATERAL (
    SELECT greatest(m.count - m.seq + first_, 1)::int AS from_, (m.count - greatest(m.seq - last_, 0))::int AS to_) c
  WHERE m.entity = entity_ AND m.seq BETWEEN first_ AND edge_
$$;

-- The parcels of what commits settle: whether all of one is settled, or else which of it is the last; whether that is the dead
-- letter; whether it is still `stored` as it is named; and whether the rest is to be cut off, because `head` cannot tell where
-- it begins: it is with a letter that was redriven to before it. Plain SQL too.
CREATE FUNCTION {schema}.settle_v1(ents_ bigint[], judged_ text[], begins_ int[], settles_ bigint[], verdicts_ text[], ids_ text[])
RETURNS TABLE (n bigint, place tid, whole boolean, last int, dead boolean, stored boolean, cut boolean) LANGUAGE sql STABLE AS $$
  SELECT u.n, m.ctid, m.seq <= c.upto, (m.count - greatest(m.seq - c.upto, 0))::int, m.seq >= c.upto AND u.settles > c.acks,
    m.ids[greatest(m.count - m.seq + e.first, 1)::int:least(m.count, m.count - m.seq + e.first + c.acks - 1)::int]
      = ids_[u.start + greatest(m.seq - m.count + 1 - e.first, 0)::int:u.start + least(m.seq - e.first + 1, c.acks)::int - 1],
    m.seq > c.upto AND e.head < e.first
  FROM unnest(judged_, begins_, settles_, verdicts_) WITH ORDINALITY u(judged, start, settles, verdict, n)
  JOIN {schema}.entity e ON e.id = ents_[u.n]
  CROSS JOIN LATERAL (SELECT u.settles - (u.verdict = 'dead_letter')::int AS acks, e.first + u.settles - 1 AS upto) c
  JOIN {schema}.message m ON m.entity = e.id AND m.seq BETWEEN e.first AND e.edge AND m.seq - m.count < c.upto
  WHERE u.judged = 'apply' AND u.settles > 0
$$;

-- Step 4: the rows of `ents`, locked and promoted, are written once: what joined their queues, and the lock where a nonce
-- is given and it is free. One row 'grant' (with the state) and one 'parcel' for each of which something is handed out.
--
-- A row that says that something is queued when nothing is, is set right: somebody deleted messages by hand, and `due`
-- would report it for ever.
CREATE FUNCTION {schema}.grant_v1(post boolean, ents bigint[], more bigint[], ready bigint[], later timestamptz[],
  nonces uuid[], lengths bigint[], maxes bigint[], now_ timestamptz)
RETURNS TABLE (item int, part text, n bigint, numbers bigint[], said text, ids text[], payloads text[], headers text[]) LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
  WITH want AS MATERIALIZED (
    SELECT u.n::int - 1 AS item, e.id, e.wake_at, u.more, u.ready, u.later, u.nonce, now_ + u.length * interval '1 ms' AS deadline,
      g.again, g.fresh, g.limited, h.first, h.last, h.edge
    FROM unnest(ents, more, ready, later, nonces, lengths, maxes) WITH ORDINALITY u(id, more, ready, later, nonce, length, max, n)
    JOIN entity e ON e.id = u.id
    CROSS JOIN LATERAL (SELECT
      coalesce(e.deadline IS NOT NULL AND e.nonce = u.nonce AND e.last >= e.first, false) AS again,
      u.nonce IS NOT NULL AND e.nonce IS DISTINCT FROM u.nonce AND e.queued + u.ready > 0 AND e.paused IS NULL
        AND (e.wait_until IS NULL OR e.wait_until <= now_)
        AND (e.deadline IS NULL OR e.deadline <= now_ OR e.deadline > now_ + interval '1 hour') AS fresh,
      CASE WHEN e.deadline IS NOT NULL AND e.last >= e.first THEN 1 ELSE e.batch_limit END AS limited OFFSET 0) g
    CROSS JOIN LATERAL next_v1(e.id, e.head, CASE WHEN g.fresh THEN greatest(least(u.max, g.limited), 1) ELSE 0 END) h),
  up AS (
    UPDATE entity e SET pending = CASE WHEN w.fresh AND w.first IS NULL THEN greatest(e.pending + w.more - e.queued - w.ready, 0)
        ELSE e.pending + w.more END,
      queued = CASE WHEN w.fresh AND w.first IS NULL THEN 0 ELSE e.queued + w.ready END,
      tail = e.tail + w.ready, late = e.late + w.more - w.ready, since = CASE WHEN e.queued = 0 AND w.ready > 0 THEN now_ ELSE e.since END,
      delayed_at = least(e.delayed_at, w.later), known = e.known OR post,
      deadline = CASE WHEN w.again OR w.first IS NOT NULL THEN w.deadline ELSE e.deadline END,
      nonce = CASE WHEN w.first IS NOT NULL THEN w.nonce ELSE e.nonce END,
      first = coalesce(w.first, e.first), last = coalesce(w.last, e.last), edge = coalesce(w.edge, e.edge), head = coalesce(w.first, e.head),
      batch_limit = CASE WHEN w.first IS NOT NULL THEN w.limited ELSE e.batch_limit END,
      fence = e.fence + (w.first IS NOT NULL)::int, deliveries = e.deliveries + (w.first IS NOT NULL)::int,
      charged = e.charged + coalesce(w.first = w.last, false)::int
    FROM want w WHERE e.id = w.id AND (w.more > 0 OR w.fresh OR w.again OR e.known < post)
    RETURNING w.item, w.again OR w.first IS NOT NULL AS given, e.first, e.last, e.edge, e.id, e.kind, e.fence, e.deliveries, e.charged,
      e.batch_limit, e.wake_at, w.wake_at IS DISTINCT FROM e.wake_at AS moved),
  put AS (INSERT INTO wake (entity, kind, at) SELECT g.id, g.kind, g.wake_at FROM up g WHERE g.moved AND g.wake_at IS NOT NULL
    ON CONFLICT (entity) DO UPDATE SET at = excluded.at),
  gone AS (DELETE FROM wake x USING up g WHERE x.entity = g.id AND g.moved AND g.wake_at IS NULL)
  SELECT g.item, 'grant', NULL::bigint, ARRAY[g.fence, g.deliveries, g.charged, g.batch_limit, s.version, s.state_version], s.json,
      NULL::text[], NULL::text[], NULL::text[]
    FROM up g LEFT JOIN state s ON s.entity = g.id WHERE g.given
  UNION ALL
  SELECT g.item, 'parcel', b.seq, NULL, NULL, b.ids, b.payloads, b.headers
    FROM up g CROSS JOIN LATERAL batch_v1(g.id, g.first, g.last, g.edge) b WHERE g.given
  ORDER BY 1, 3;
END $$;
