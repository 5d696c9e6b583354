-- One round trip each. A slice comes as columns: one array for each property, an element for each item. Lock the rows in
-- key order, read the clock behind the locks, promote; then the rest.

-- enqueue: items by kinds .. maxes (nonce NULL = no lock wanted), messages by at_ (of which item, from 1), nth (of its
-- item, from 1) .. keeps; headers_ is NULL where none has any. `plain`: none is delayed, each is remembered, and no id is
-- twice in an item; then `parcels` tells which of them share a row.
CREATE FUNCTION {schema}.enqueue_v1(verb text, patience bigint, kinds text[], keys text[], limits bigint[], counts bigint[],
  nonces uuid[], lengths bigint[], maxes bigint[], plain boolean, at_ int[], nth int[], parcels int[],
  message_ids text[], payloads_ text[], headers_ text[], delays bigint[], keeps bigint[])
RETURNS TABLE (item int, part text, n bigint, numbers bigint[], said text, ids text[], payloads text[], headers text[]) LANGUAGE plpgsql VOLATILE
{write} AS $$
#variable_conflict use_column
DECLARE now_ timestamptz; ents bigint[]; tails bigint[]; fits boolean; soonest timestamptz; sum record;
  begun boolean := begin_v1(verb, 'enqueue', patience); forgot boolean;
BEGIN
  IF EXISTS (SELECT FROM unnest(kinds, keys) u(kind, key) LEFT JOIN entity e ON e.kind = u.kind AND e.key = u.key WHERE e.id IS NULL) THEN
    PERFORM make_v1(kinds, keys);
  END IF;
  SELECT array_agg(x.id ORDER BY x.n), array_agg(x.tail ORDER BY x.n), bool_and(x.pending + x.count <= x.lim), min(x.delayed_at)
    INTO ents, tails, fits, soonest FROM (
      SELECT u.n, u.lim, u.count, e.id, e.tail, e.pending, e.delayed_at
      FROM unnest(kinds, keys, limits, counts) WITH ORDINALITY u(kind, key, lim, count, n)
      JOIN entity e ON e.kind = u.kind AND e.key = u.key ORDER BY e.kind, e.key FOR UPDATE OF e) x;
  now_ := clock_timestamp();
  IF soonest <= now_ THEN PERFORM promote_v1(ents, now_); plain := false; END IF;
  plain := plain AND fits;
  IF plain THEN -- nothing is known of any of the ids
    plain := NOT EXISTS (SELECT FROM unnest(at_, message_ids) m(at_, id) JOIN seen s ON s.id = m.id AND s.entity = ents[m.at_]);
  END IF;
  IF plain THEN
    -- What append_v1 comes to when every message is accepted and ready. No ON CONFLICT: it writes each row twice.
    INSERT INTO seen (entity, id, expires, seq) SELECT ents[m.at_], m.id, now_ + m.keep * interval '1 ms', tails[m.at_] + m.nth
      FROM unnest(at_, nth, message_ids, keeps) m(at_, nth, id, keep);
    -- Not as slices of the arrays: each would copy all of its array.
    INSERT INTO message (entity, seq, count, ids, payloads, headers) SELECT ents[max(m.at_)], tails[max(m.at_)] + max(m.nth),
        count(*), array_agg(m.id), array_agg(m.payload), CASE WHEN headers_ IS NOT NULL THEN array_agg(m.headers) END
      FROM (SELECT * FROM unnest(parcels, at_, nth, message_ids, payloads_, headers_) m(parcel, at_, nth, id, payload, headers)
        ORDER BY m.parcel, m.nth) m GROUP BY m.parcel;
    SELECT NULL::text AS admissions, counts AS more, counts AS ready, NULL::timestamptz[] AS later INTO sum;
  ELSE
    SELECT * INTO sum FROM append_v1(ents, limits, at_, message_ids, payloads_, headers_, delays, keeps, now_);
    -- Without this row every message was accepted.
    RETURN QUERY SELECT -1, 'admissions', NULL::bigint, NULL::bigint[], sum.admissions, NULL::text[], NULL::text[], NULL::text[];
  END IF;
  IF array_remove(nonces, NULL) = '{}' THEN
    PERFORM join_v1(ents, sum.more, sum.ready, sum.later, now_);
  ELSE
    RETURN QUERY SELECT * FROM grant_v1(true, ents, sum.more, sum.ready, sum.later, nonces, lengths, maxes, now_);
  END IF;
  forgot := forget_v1(cardinality(at_), now_);
END $$;

-- try_lock: nothing joins, and who is not known gets no row.
CREATE FUNCTION {schema}.try_lock_v1(verb text, patience bigint, kinds text[], keys text[], nonces uuid[], lengths bigint[], maxes bigint[])
RETURNS TABLE (item int, part text, n bigint, numbers bigint[], said text, ids text[], payloads text[], headers text[]) LANGUAGE plpgsql VOLATILE
{write} AS $$
#variable_conflict use_column
DECLARE now_ timestamptz; ents bigint[]; soonest timestamptz; none bigint[] := array_fill(0::bigint, ARRAY[cardinality(kinds)]);
  begun boolean := begin_v1(verb, 'try_lock', patience);
BEGIN
  SELECT array_agg(x.id ORDER BY x.n), min(x.delayed_at) INTO ents, soonest FROM (
    SELECT u.n, e.id, e.delayed_at FROM unnest(kinds, keys) WITH ORDINALITY u(kind, key, n)
    JOIN entity e ON e.kind = u.kind AND e.key = u.key ORDER BY e.kind, e.key FOR UPDATE OF e) x;
  now_ := clock_timestamp();
  IF cardinality(ents) IS DISTINCT FROM cardinality(kinds) THEN -- some of which nothing is known
    SELECT array_agg(e.id ORDER BY u.n) INTO ents
      FROM unnest(kinds, keys) WITH ORDINALITY u(kind, key, n) LEFT JOIN entity e ON e.kind = u.kind AND e.key = u.key;
  END IF;
  IF soonest <= now_ THEN PERFORM promote_v1(ents, now_); END IF;
  RETURN QUERY SELECT * FROM grant_v1(false, ents, none, none, NULL, nonces, lengths, maxes, now_);
END $$;

-- update_locked: the rows by kinds and keys, those of the commits and behind them those they send to besides; commits by
-- commits .. shapes (max NULL = release, state NULL = unchanged). `settles` counts what is acknowledged, and the dead letter
-- behind it; the ids of the former are settled_ids from begins on. Sends by sent_of, sent_to (which row) .. keeps.
CREATE FUNCTION {schema}.update_locked_v1(verb text, patience bigint, kinds text[], keys text[], commits uuid[], nonces uuid[],
  fences bigint[], lengths bigint[], settles bigint[], verdicts text[], errors text[], whys text[], afters bigint[], limits bigint[],
  maxes bigint[], states text[], shapes bigint[], begins int[], settled_ids text[], sent_of int[], sent_to int[],
  message_ids text[], payloads_ text[], headers_ text[], delays bigint[], keeps bigint[])
RETURNS TABLE (item int, part text, n bigint, numbers bigint[], said text, ids text[], payloads text[], headers text[]) LANGUAGE plpgsql VOLATILE
{write} AS $$
#variable_conflict use_column
DECLARE now_ timestamptz; places int[]; ents bigint[]; judged text[]; soonest timestamptz; wrong bigint[]; cut boolean; sum record;
  begun boolean := begin_v1(verb, 'update_locked', patience); forgot boolean;
BEGIN
  IF sent_to <> '{}' THEN PERFORM make_v1(kinds, keys); END IF;
  -- Judge every commit before anything is written.
  SELECT array_agg(x.n ORDER BY x.n), array_agg(x.id ORDER BY x.n), array_agg(x.judged ORDER BY x.n), min(x.delayed_at)
    INTO places, ents, judged, soonest FROM (
      SELECT u.n, e.id, e.delayed_at, CASE
          WHEN u.commit IS NULL THEN 'target'
          WHEN e.last_commit = u.commit THEN 'replay'
          WHEN e.deadline IS NULL OR e.nonce IS DISTINCT FROM u.nonce OR e.fence <> u.fence THEN 'lost'
          WHEN u.settles > e.last - e.first + 1 THEN 'conflict'
          ELSE 'apply' END AS judged
      FROM unnest(kinds, keys, commits, nonces, fences, settles) WITH ORDINALITY u(kind, key, commit, nonce, fence, settles, n)
      JOIN entity e ON e.kind = u.kind AND e.key = u.key ORDER BY e.kind, e.key FOR UPDATE OF e) x;
  now_ := clock_timestamp();
  IF cardinality(places) IS DISTINCT FROM cardinality(kinds) THEN -- a commit to an entity that there never was
    SELECT array_agg(v.id ORDER BY u.n), array_agg(coalesce(v.judged, 'lost') ORDER BY u.n) INTO ents, judged
      FROM generate_subscripts(kinds, 1) u(n) LEFT JOIN unnest(places, ents, judged) v(n, id, judged) ON v.n = u.n;
  END IF;
  IF soonest <= now_ THEN PERFORM promote_v1(ents, now_); END IF;
  -- Settle: the dead letter is kept, parcels of which all is settled go, the state is stored. A commit that names other
  -- messages than those changes nothing. A row that was deleted by hand since it was handed out is not missed.
  IF 'dead_letter' = ANY (verdicts) THEN
    WITH a AS MATERIALIZED (SELECT * FROM settle_v1(ents, judged, begins, settles, verdicts, settled_ids))
    INSERT INTO dead (kind, entity, id, payload, headers, error, attempts)
      SELECT e.kind, e.id, m.ids[a.last], m.payloads[a.last], coalesce(m.headers[a.last], ''), errors[a.n], e.deliveries
      FROM a JOIN entity e ON e.id = ents[a.n] JOIN message m ON m.ctid = a.place
      WHERE a.dead AND a.n <> ALL (ARRAY(SELECT w.n FROM a w WHERE NOT w.stored));
  END IF;
  WITH a AS MATERIALIZED (SELECT * FROM settle_v1(ents, judged, begins, settles, verdicts, settled_ids)),
  gone AS (DELETE FROM message m USING a WHERE m.ctid = a.place AND a.whole AND a.n <> ALL (ARRAY(SELECT w.n FROM a w WHERE NOT w.stored)))
  SELECT array_agg(a.n) FILTER (WHERE NOT a.stored), bool_or(a.cut) INTO wrong, cut FROM a;
  IF wrong IS NOT NULL THEN
    judged := ARRAY(SELECT CASE WHEN u.n = ANY (wrong) THEN 'conflict' ELSE u.judged END FROM unnest(judged) WITH ORDINALITY u(judged, n)
      ORDER BY u.n);
  END IF;
  IF cut THEN
    UPDATE message m SET count = m.count - a.last, ids = m.ids[a.last + 1:], payloads = m.payloads[a.last + 1:],
        headers = m.headers[a.last + 1:]
      FROM settle_v1(ents, judged, begins, settles, verdicts, settled_ids) a WHERE m.ctid = a.place AND a.cut;
  END IF;
  INSERT INTO state AS s (entity, version, state_version, json)
    SELECT ents[c.n], 1, c.shape, c.state FROM unnest(states, shapes) WITH ORDINALITY c(state, shape, n)
    WHERE judged[c.n] = 'apply' AND c.state IS NOT NULL
    ON CONFLICT (entity) DO UPDATE SET version = s.version + 1, state_version = excluded.state_version, json = excluded.json;

  -- Sends, beyond the backlog limit, in order of commits and effects.
  IF sent_to <> '{}' AND 'apply' = ANY (judged) THEN
    SELECT * INTO sum FROM append_v1(ents, NULL, (SELECT array_agg(CASE judged[s.of_] WHEN 'apply' THEN s.to_ END ORDER BY s.n)
      FROM unnest(sent_of, sent_to) WITH ORDINALITY s(of_, to_, n)), message_ids, payloads_, headers_, delays, keeps, now_);
    PERFORM join_v1(ents, sum.more, sum.ready, sum.later, now_);
    forgot := forget_v1(cardinality(sent_to), now_);
  END IF;

  -- The row: verdict, fence, and the next hand-out or the unlock, in one new version. Sees everything enqueued before (trap 1).
  RETURN QUERY
  WITH c AS MATERIALIZED (
    SELECT u.n::int - 1 AS item, e.id, e.wake_at, u.commit, u.settles, u.verdict, u.error, u.why, greatest(u.lim, 1) AS batch_limit,
      now_ + u.length * interval '1 ms' AS deadline, v.wait_until, v.paused, r.ready, r.head, h.first, h.last, h.edge,
      CASE WHEN u.settles > 0 THEN 0 WHEN u.why = 'not_ready' AND e.last >= e.first THEN greatest(e.deliveries - 1, 0)
        ELSE e.deliveries END AS deliveries,
      CASE WHEN u.settles > 0 THEN 0 WHEN u.why = 'not_ready' AND e.last = e.first THEN greatest(e.charged - 1, 0)
        ELSE e.charged END AS charged
    FROM unnest(ents, judged, commits, lengths, settles, verdicts, errors, whys, afters, limits, maxes) WITH ORDINALITY
      u(id, judged, commit, length, settles, verdict, error, why, after, lim, max, n)
    JOIN entity e ON e.id = u.id
    CROSS JOIN LATERAL (SELECT
      CASE u.verdict WHEN 'wait' THEN now_ + u.after * interval '1 ms' WHEN 'pause' THEN e.wait_until END AS wait_until,
      CASE WHEN u.verdict = 'pause' THEN coalesce(u.error, '') ELSE e.paused END AS paused OFFSET 0) v
    CROSS JOIN LATERAL (SELECT u.max IS NOT NULL AND v.paused IS NULL AND (v.wait_until IS NULL OR v.wait_until <= now_)
        AND e.queued > u.settles AS ready,
      CASE WHEN u.settles > 0 AND e.first = e.head THEN e.first + u.settles ELSE e.head END AS head OFFSET 0) r
    CROSS JOIN LATERAL next_v1(e.id, r.head, CASE WHEN r.ready THEN greatest(least(u.max, u.lim), 1) ELSE 0 END) h
    WHERE u.judged = 'apply'),
  up AS (
    UPDATE entity e SET fence = e.fence + 1, last_commit = c.commit, batch_limit = c.batch_limit,
      pending = CASE WHEN c.ready AND c.first IS NULL THEN greatest(e.pending - e.queued, 0) ELSE e.pending - c.settles END,
      queued = CASE WHEN c.ready AND c.first IS NULL THEN 0 ELSE e.queued - c.settles END,
      wait_until = c.wait_until, wait_why = CASE c.verdict WHEN 'wait' THEN c.why WHEN 'pause' THEN e.wait_why END, paused = c.paused,
      last_error = CASE c.verdict WHEN 'proceed' THEN NULL WHEN 'dead_letter' THEN c.error WHEN 'wait' THEN coalesce(c.error, e.last_error)
        ELSE e.last_error END,
      head = coalesce(c.first, c.head), -- a redriven letter may stand before what was handed out
      first = coalesce(c.first, 1), last = coalesce(c.last, 0), edge = coalesce(c.edge, 0),
      deadline = CASE WHEN c.first IS NOT NULL THEN c.deadline END, since = CASE WHEN c.first IS NOT NULL THEN e.since ELSE now_ END,
      deliveries = c.deliveries + (c.first IS NOT NULL)::int, charged = c.charged + coalesce(c.first = c.last, false)::int
    FROM c WHERE e.id = c.id
    RETURNING c.item, e.id, e.kind, e.fence, e.deliveries, e.charged, e.batch_limit, e.first, e.last, e.edge, e.deadline,
      e.wake_at, c.wake_at AS before),
  put AS (INSERT INTO wake (entity, kind, at) SELECT g.id, g.kind, g.wake_at FROM up g
    WHERE g.wake_at IS NOT NULL AND g.wake_at IS DISTINCT FROM g.before ON CONFLICT (entity) DO UPDATE SET at = excluded.at),
  off AS (DELETE FROM wake x USING up g WHERE x.entity = g.id AND g.wake_at IS NULL AND g.before IS NOT NULL),
  done AS (
    SELECT g.item, true AS mine, g.id, g.fence, g.deliveries, g.charged, g.batch_limit, g.first, g.last, g.edge, g.deadline, g.wake_at FROM up g
    UNION ALL -- the replies of these were lost: as it stands now
    SELECT u.n::int - 1, coalesce(e.nonce = u.nonce, false), e.id, e.fence, e.deliveries, e.charged, e.batch_limit, e.first, e.last, e.edge,
      e.deadline, e.wake_at
    FROM unnest(ents, judged, nonces) WITH ORDINALITY u(id, judged, nonce, n) JOIN entity e ON e.id = u.id WHERE u.judged = 'replay')
  SELECT d.item, CASE WHEN d.mine AND d.deadline IS NOT NULL THEN 'continue' ELSE 'released' END, NULL::bigint,
    CASE WHEN d.mine AND d.deadline IS NOT NULL THEN ARRAY[d.fence, d.deliveries, d.charged, d.batch_limit]
      WHEN d.wake_at IS NOT NULL THEN ARRAY[greatest(ceil(extract(epoch FROM greatest(d.wake_at, d.deadline) - now_) * 1000)::bigint, 0)] END,
    NULL::text, NULL::text[], NULL::text[], NULL::text[] FROM done d
  UNION ALL
  SELECT d.item, 'parcel', b.seq, NULL, NULL, b.ids, b.payloads, b.headers
    FROM done d CROSS JOIN LATERAL batch_v1(d.id, d.first, d.last, d.edge) b WHERE d.mine AND d.deadline IS NOT NULL
  UNION ALL
  SELECT u.n::int - 1, u.judged, NULL, NULL, NULL, NULL, NULL, NULL FROM unnest(judged) WITH ORDINALITY u(judged, n)
    WHERE u.judged IN ('lost', 'conflict')
  ORDER BY 1, 3;
END $$;

-- release and extend_lock: one answer for each.
CREATE FUNCTION {schema}.release_v1(verb text, patience bigint, kinds text[], keys text[], nonces uuid[])
RETURNS TABLE (item int, held boolean) LANGUAGE plpgsql VOLATILE
{write} AS $$
#variable_conflict use_column
DECLARE now_ timestamptz; begun boolean := begin_v1(verb, 'release', patience);
BEGIN
  now_ := lock_v1(kinds, keys);
  RETURN QUERY
  UPDATE entity e SET deadline = NULL, first = 1, last = 0, edge = 0, since = now_,
    deliveries = greatest(e.deliveries - 1, 0), charged = greatest(e.charged - (e.last = e.first)::int, 0)
  FROM unnest(kinds, keys, nonces) WITH ORDINALITY u(kind, key, nonce, n)
  WHERE e.kind = u.kind AND e.key = u.key AND e.deadline IS NOT NULL AND e.nonce = u.nonce RETURNING u.n::int - 1, true;
  PERFORM wake_v1(ids_v1(kinds, keys));
END $$;

CREATE FUNCTION {schema}.extend_lock_v1(verb text, patience bigint, kinds text[], keys text[], nonces uuid[], lengths bigint[])
RETURNS TABLE (item int, held boolean) LANGUAGE plpgsql VOLATILE
{write} AS $$
#variable_conflict use_column
DECLARE now_ timestamptz; begun boolean := begin_v1(verb, 'extend_lock', patience);
BEGIN
  now_ := lock_v1(kinds, keys);
  RETURN QUERY
  UPDATE entity e SET deadline = now_ + u.length * interval '1 ms'
  FROM unnest(kinds, keys, nonces, lengths) WITH ORDINALITY u(kind, key, nonce, length, n)
  WHERE e.kind = u.kind AND e.key = u.key AND e.deadline IS NOT NULL AND e.nonce = u.nonce RETURNING u.n::int - 1, true;
END $$;

-- due: read-only, no lock. One row per entity; the row with id NULL carries next_ms. `wake`: microseconds of the epoch.
CREATE FUNCTION {schema}.due_v1(verb text, kinds text[], after_wake bigint, after_id bigint, count_ bigint)
RETURNS TABLE (id bigint, kind text, key text, wake bigint, next_ms bigint) LANGUAGE plpgsql STABLE
{read} AS $$
#variable_conflict use_column
DECLARE now_ timestamptz := clock_timestamp(); after_ timestamptz := 'epoch'::timestamptz + after_wake * interval '1 us';
BEGIN
  PERFORM guard_v1(verb, 'due');
  RETURN QUERY
  WITH d AS MATERIALIZED (
    SELECT w.entity AS id, e.kind, e.key, w.at FROM wake w JOIN entity e ON e.id = w.entity
    WHERE w.at <= now_ AND w.kind = ANY (kinds) AND (w.at, w.entity) > (after_, after_id)
      -- A lease that ends later than the longest one was left by a clock that was set back.
      AND (e.deadline IS NULL OR e.deadline <= now_ OR e.deadline > now_ + interval '1 hour')
    ORDER BY w.at, w.entity LIMIT count_)
  SELECT d.id, d.kind, d.key, round(extract(epoch FROM d.at) * 1000000)::bigint, NULL::bigint FROM d
  UNION ALL
  SELECT NULL, NULL, NULL, NULL, ceil(extract(epoch FROM least(
    (SELECT w.at FROM wake w WHERE w.at > now_ AND w.kind = ANY (kinds) ORDER BY w.at LIMIT 1),
    -- While there are more pages, nobody waits for it.
    CASE WHEN (SELECT count(*) FROM d) < count_ THEN (SELECT min(e.deadline) FROM wake w JOIN entity e ON e.id = w.entity
      WHERE w.at <= now_ AND w.kind = ANY (kinds) AND e.deadline > now_ AND e.deadline <= now_ + interval '1 hour') END)
    - now_) * 1000)::bigint;
END $$;
