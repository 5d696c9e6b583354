-- One round trip each. Lock the rows in key order, read the clock behind the locks, promote; then the rest.
-- enqueue: slice [{kind,key,limit,lock:{nonce,ms,max}?,messages:[{id,headers,delay,retention}]}]; payloads: one per message, in order
CREATE FUNCTION {schema}.enqueue_v1(verb text, patience bigint, slice json, payloads text[])
RETURNS TABLE (item int, part text, n int, answer json, id text, payload text, headers text) LANGUAGE plpgsql VOLATILE
{write} AS $$
#variable_conflict use_column
DECLARE now_ timestamptz; names json; msgs json; locks json; admissions text[]; at_ int[];
BEGIN
  PERFORM begin_v1(verb, 'enqueue', patience);
  SELECT json_agg(json_build_array(v->>'kind', v->>'key')) INTO names FROM json_array_elements(slice) v;
  now_ := lock_v1(names, true);
  PERFORM promote_v1(names, now_);
  SELECT json_agg(json_build_object('kind', i.kind, 'key', i.key, 'limit', i.lim,
      'id', m.v->>'id', 'headers', m.v->>'headers', 'delay', m.v->'delay', 'retention', m.v->'retention')
      ORDER BY i.n, m.n), array_agg(i.n ORDER BY i.n, m.n)
    INTO msgs, at_
    FROM (SELECT v->>'kind' AS kind, v->>'key' AS key, (v->>'limit')::numeric AS lim, v->'messages' AS messages, n
      FROM json_array_elements(slice) WITH ORDINALITY x(v, n) OFFSET 0) i -- OFFSET 0: parsed once per item, not per message
    CROSS JOIN LATERAL json_array_elements(i.messages) WITH ORDINALITY m(v, n);
  IF msgs IS NOT NULL THEN
    SELECT array_agg(a.admission ORDER BY a.n) INTO admissions FROM append_v1(msgs, payloads, now_) a;
  END IF;
  UPDATE entity e SET known = true FROM json_array_elements(names) v
    WHERE e.kind = v->>0 AND e.key = v->>1 AND NOT e.known;
  RETURN QUERY SELECT u.i - 1, 'enqueued', 0, json_agg(u.a ORDER BY u.o), NULL::text, NULL::text, NULL::text
    FROM unnest(at_, admissions) WITH ORDINALITY u(i, a, o) GROUP BY u.i;
  SELECT json_agg(json_build_object('item', i.n - 1, 'kind', i.v->>'kind', 'key', i.v->>'key', 'nonce', i.v->'lock'->>'nonce',
      'ms', i.v->'lock'->'ms', 'max', i.v->'lock'->'max')) INTO locks
    FROM json_array_elements(slice) WITH ORDINALITY i(v, n) WHERE i.v->'lock'->>'nonce' IS NOT NULL;
  IF locks IS NOT NULL THEN RETURN QUERY SELECT * FROM grant_v1(locks, now_); END IF;
  PERFORM mend_v1(names);
END $$;

-- try_lock: slice [{item,kind,key,nonce,ms,max}]
CREATE FUNCTION {schema}.try_lock_v1(verb text, patience bigint, slice json)
RETURNS TABLE (item int, part text, n int, answer json, id text, payload text, headers text) LANGUAGE plpgsql VOLATILE
{write} AS $$
#variable_conflict use_column
DECLARE now_ timestamptz; names json;
BEGIN
  PERFORM begin_v1(verb, 'try_lock', patience);
  SELECT json_agg(json_build_array(v->>'kind', v->>'key')) INTO names FROM json_array_elements(slice) v;
  now_ := lock_v1(names, false);
  PERFORM promote_v1(names, now_);
  RETURN QUERY SELECT * FROM grant_v1(slice, now_);
  PERFORM mend_v1(names);
END $$;

-- update_locked: slice [{commit,kind,key,nonce,fence,ms,state_version,acked:[id],verdict,error,why,after,batch_limit,
--   max (absent: release),sends:[{kind,key,id,headers,delay,retention}]}]
-- states: one per commit, NULL = unchanged; payloads: one per send of the slice, in order
CREATE FUNCTION {schema}.update_locked_v1(verb text, patience bigint, slice json, states text[], payloads text[])
RETURNS TABLE (item int, part text, n int, answer json, id text, payload text, headers text) LANGUAGE plpgsql VOLATILE
{write} AS $$
#variable_conflict use_column
DECLARE now_ timestamptz; names json; judged text[]; msgs json;
BEGIN
  PERFORM begin_v1(verb, 'update_locked', patience);
  SELECT json_agg(json_build_array(v->>'kind', v->>'key')) INTO names FROM (
    SELECT v FROM json_array_elements(slice) v UNION ALL
    SELECT s FROM json_array_elements(slice) v CROSS JOIN LATERAL json_array_elements(v->'sends') s) x(v);
  now_ := lock_v1(names, EXISTS (SELECT FROM json_array_elements(slice) v WHERE json_array_length(v->'sends') > 0));
  PERFORM promote_v1(names, now_);

  -- Judge every commit before anything is written.
  SELECT array_agg(CASE
      WHEN e.id IS NULL THEN 'lost'
      WHEN e.last_commit = c.commit THEN 'replay'
      WHEN e.deadline IS NULL OR e.nonce IS DISTINCT FROM c.nonce OR e.fence <> c.fence THEN 'lost'
      WHEN json_array_length(c.acked) + (c.verdict = 'dead_letter')::int > cardinality(e.handed) THEN 'conflict'
      WHEN (SELECT count(*) FROM unnest(e.handed[1:json_array_length(c.acked) + (c.verdict = 'dead_letter')::int]) WITH ORDINALITY h(seq, n)
          JOIN message m ON m.entity = e.id AND m.seq = h.seq
          WHERE h.n > json_array_length(c.acked) OR m.id = c.acked->>(h.n - 1)::int)
        <> json_array_length(c.acked) + (c.verdict = 'dead_letter')::int THEN 'conflict'
      ELSE 'apply' END ORDER BY i.n) INTO judged
  FROM json_array_elements(slice) WITH ORDINALITY i(v, n)
  CROSS JOIN LATERAL json_to_record(i.v) AS c(commit uuid, kind text, key text, nonce uuid, fence bigint, acked json, verdict text)
  LEFT JOIN entity e ON e.kind = c.kind AND e.key = c.key;

  -- Settle: acknowledged messages go, the dead letter is kept, the state is stored. The row itself is written once, below.
  WITH c AS MATERIALIZED (
    SELECT e.id, e.handed, e.deliveries, c.*, i.state, json_array_length(c.acked) AS acks
    FROM ROWS FROM (json_array_elements(slice), unnest(states)) WITH ORDINALITY i(v, state, n)
    CROSS JOIN LATERAL json_to_record(i.v) AS c(kind text, key text, acked json, verdict text, error text, state_version bigint)
    JOIN entity e ON e.kind = c.kind AND e.key = c.key WHERE judged[i.n] = 'apply'),
  gone AS (
    DELETE FROM message m USING c CROSS JOIN LATERAL
      unnest(c.handed[1:c.acks + (c.verdict = 'dead_letter')::int]) WITH ORDINALITY h(seq, n)
    WHERE m.entity = c.id AND m.seq = h.seq
    RETURNING m.entity, m.id, m.payload, m.headers, h.n > c.acks AS dead, c.error, c.deliveries),
  bury AS (
    INSERT INTO dead (kind, entity, id, payload, headers, error, attempts)
    SELECT e.kind, g.entity, g.id, g.payload, g.headers, g.error, g.deliveries
    FROM gone g JOIN entity e ON e.id = g.entity WHERE g.dead)
  INSERT INTO state AS s (entity, version, state_version, json)
  SELECT c.id, 1, c.state_version, c.state FROM c WHERE c.state IS NOT NULL
  ON CONFLICT (entity) DO UPDATE SET version = s.version + 1, state_version = excluded.state_version, json = excluded.json;

  -- Sends, beyond the backlog limit, in order of commits and effects.
  SELECT json_agg(CASE WHEN judged[i.n] = 'apply' THEN m.v ELSE '{"skip":true,"kind":"","key":""}' END ORDER BY i.n, m.n) INTO msgs
    FROM json_array_elements(slice) WITH ORDINALITY i(v, n)
    CROSS JOIN LATERAL json_array_elements(i.v->'sends') WITH ORDINALITY m(v, n) WHERE 'apply' = ANY (judged);
  IF msgs IS NOT NULL THEN PERFORM append_v1(msgs, payloads, now_); END IF;

  -- The row: verdict, fence, and the next hand-out or the unlock, in one new version. Sees everything enqueued before (trap 1).
  WITH c AS MATERIALIZED (
    SELECT e.id, e.head, c.commit, c.verdict, c.error, c.why, c.max, greatest(c.batch_limit, 1) AS batch_limit,
      json_array_length(c.acked) + (c.verdict = 'dead_letter')::int AS settled, now_ + c.ms * interval '1 ms' AS deadline,
      CASE c.verdict WHEN 'wait' THEN now_ + c.after * interval '1 ms' WHEN 'pause' THEN e.wait_until END AS wait_until,
      CASE WHEN c.verdict = 'pause' THEN coalesce(c.error, '') ELSE e.paused END AS paused
    FROM json_array_elements(slice) WITH ORDINALITY i(v, n)
    CROSS JOIN LATERAL json_to_record(i.v) AS c(commit uuid, kind text, key text, ms bigint, acked json, verdict text, error text,
      why text, after bigint, batch_limit bigint, max bigint)
    JOIN entity e ON e.kind = c.kind AND e.key = c.key WHERE judged[i.n] = 'apply'),
  next AS (
    SELECT c.*, CASE WHEN c.max IS NOT NULL AND c.paused IS NULL AND (c.wait_until IS NULL OR c.wait_until <= now_) THEN
      (SELECT array_agg(h.seq ORDER BY h.seq) FROM (SELECT m.seq FROM message m WHERE m.entity = c.id AND m.seq >= c.head
        ORDER BY m.seq LIMIT greatest(least(c.max, c.batch_limit), 1)) h) END AS seqs FROM c),
  counts AS (
    SELECT h.*, CASE WHEN h.settled > 0 THEN 0 WHEN h.why = 'not_ready' AND e.handed <> '{}' THEN greatest(e.deliveries - 1, 0)
        ELSE e.deliveries END AS deliveries,
      CASE WHEN h.settled > 0 THEN 0 WHEN h.why = 'not_ready' AND cardinality(e.handed) = 1 THEN greatest(e.charged - 1, 0)
        ELSE e.charged END AS charged
    FROM next h JOIN entity e ON e.id = h.id)
  UPDATE entity e SET fence = e.fence + 1, last_commit = h.commit, batch_limit = h.batch_limit,
    queued = e.queued - h.settled, pending = e.pending - h.settled,
    wait_until = h.wait_until, wait_why = CASE h.verdict WHEN 'wait' THEN h.why WHEN 'pause' THEN e.wait_why END, paused = h.paused,
    last_error = CASE h.verdict WHEN 'proceed' THEN NULL WHEN 'dead_letter' THEN h.error WHEN 'wait' THEN coalesce(h.error, e.last_error)
      ELSE e.last_error END,
    head = CASE WHEN h.seqs IS NOT NULL THEN h.seqs[1] -- a redriven letter may stand before what was handed out
      WHEN h.settled > 0 AND e.handed[1] = e.head THEN e.handed[h.settled] + 1 ELSE e.head END,
    handed = coalesce(h.seqs, '{}'), deadline = CASE WHEN h.seqs IS NOT NULL THEN h.deadline END,
    since = CASE WHEN h.seqs IS NULL THEN now_ ELSE e.since END,
    deliveries = h.deliveries + (h.seqs IS NOT NULL)::int, charged = h.charged + coalesce((cardinality(h.seqs) = 1)::int, 0)
  FROM counts h WHERE e.id = h.id;
  PERFORM mend_v1(names);

  RETURN QUERY
  WITH c AS MATERIALIZED (
    SELECT i.n::int - 1 AS item, judged[i.n] AS judged, e.*, e.deadline IS NOT NULL AND e.nonce = c.nonce AS held
    FROM json_array_elements(slice) WITH ORDINALITY i(v, n)
    CROSS JOIN LATERAL json_to_record(i.v) AS c(kind text, key text, nonce uuid)
    LEFT JOIN entity e ON e.kind = c.kind AND e.key = c.key)
  SELECT c.item, CASE WHEN c.judged IN ('lost', 'conflict') THEN c.judged WHEN c.held THEN 'continue' ELSE 'released' END, 0,
    CASE WHEN c.judged IN ('lost', 'conflict') THEN NULL
      WHEN c.held THEN json_build_object('fence', c.fence, 'deliveries', c.deliveries, 'charged', c.charged, 'batch_limit', c.batch_limit)
      ELSE json_build_object('next_due_ms', CASE WHEN c.wake_at IS NOT NULL THEN
        greatest(ceil(extract(epoch FROM c.wake_at - now_) * 1000), 0) END) END,
    NULL::text, NULL::text, NULL::text FROM c
  UNION ALL
  SELECT c.item, 'message', h.n::int, NULL, m.id, m.payload, m.headers
    FROM c CROSS JOIN LATERAL unnest(c.handed) WITH ORDINALITY h(seq, n)
    JOIN message m ON m.entity = c.id AND m.seq = h.seq
    WHERE c.judged IN ('apply', 'replay') AND c.held
  ORDER BY 1, 3;
END $$;

-- release: slice [{kind,key,nonce}]; one answer for each.
CREATE FUNCTION {schema}.release_v1(verb text, patience bigint, slice json) RETURNS TABLE (item int, held boolean) LANGUAGE plpgsql VOLATILE
{write} AS $$
#variable_conflict use_column
DECLARE now_ timestamptz; names json;
BEGIN
  PERFORM begin_v1(verb, 'release', patience);
  SELECT json_agg(json_build_array(v->>'kind', v->>'key')) INTO names FROM json_array_elements(slice) v;
  now_ := lock_v1(names, false);
  RETURN QUERY
  WITH done AS (
    UPDATE entity e SET deadline = NULL, handed = '{}', since = now_,
      deliveries = greatest(e.deliveries - 1, 0), charged = greatest(e.charged - (cardinality(e.handed) = 1)::int, 0)
    FROM json_to_recordset(slice) AS w(kind text, key text, nonce uuid)
    WHERE e.kind = w.kind AND e.key = w.key AND e.deadline IS NOT NULL AND e.nonce = w.nonce RETURNING e.kind, e.key)
  SELECT i.n::int - 1, d.key IS NOT NULL FROM json_array_elements(slice) WITH ORDINALITY i(v, n)
  LEFT JOIN done d ON d.kind = i.v->>'kind' AND d.key = i.v->>'key' ORDER BY i.n;
END $$;

-- extend_lock: slice [{kind,key,nonce,ms}]; one answer for each.
CREATE FUNCTION {schema}.extend_lock_v1(verb text, patience bigint, slice json) RETURNS TABLE (item int, held boolean) LANGUAGE plpgsql VOLATILE
{write} AS $$
#variable_conflict use_column
DECLARE now_ timestamptz; names json;
BEGIN
  PERFORM begin_v1(verb, 'extend_lock', patience);
  SELECT json_agg(json_build_array(v->>'kind', v->>'key')) INTO names FROM json_array_elements(slice) v;
  now_ := lock_v1(names, false);
  RETURN QUERY
  WITH done AS (
    UPDATE entity e SET deadline = now_ + w.ms * interval '1 ms'
    FROM json_to_recordset(slice) AS w(kind text, key text, nonce uuid, ms bigint)
    WHERE e.kind = w.kind AND e.key = w.key AND e.deadline IS NOT NULL AND e.nonce = w.nonce RETURNING e.kind, e.key)
  SELECT i.n::int - 1, d.key IS NOT NULL FROM json_array_elements(slice) WITH ORDINALITY i(v, n)
  LEFT JOIN done d ON d.kind = i.v->>'kind' AND d.key = i.v->>'key' ORDER BY i.n;
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
  SELECT d.id, d.kind, d.key, round(extract(epoch FROM d.wake_at) * 1000000)::bigint, NULL::bigint FROM (
    (SELECT e.id, e.kind, e.key, e.wake_at FROM entity e
      WHERE e.wake_at <= now_ AND e.kind = ANY (kinds) AND (e.wake_at, e.id) > (after_, after_id)
      ORDER BY e.wake_at, e.id LIMIT count_)
    UNION ALL -- leases that end later than the longest one: a clock that was set back left them behind
    (SELECT e.id, e.kind, e.key, 'epoch'::timestamptz FROM entity e
      WHERE e.deadline > now_ + interval '1 hour' AND e.kind = ANY (kinds) AND e.paused IS NULL
        AND (e.queued > 0 OR e.delayed_at <= now_) AND (e.wait_until IS NULL OR e.wait_until <= now_)
        AND ('epoch'::timestamptz, e.id) > (after_, after_id)
      ORDER BY e.id LIMIT count_)
    ORDER BY 4, 1 LIMIT count_) d
  UNION ALL
  SELECT NULL, NULL, NULL, NULL, (SELECT ceil(extract(epoch FROM e.wake_at - now_) * 1000)::bigint FROM entity e
    WHERE e.wake_at > now_ AND e.kind = ANY (kinds) ORDER BY e.wake_at LIMIT 1);
END $$;
