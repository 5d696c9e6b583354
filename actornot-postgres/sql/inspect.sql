-- For people who look, and mend: reads without locks, edits under the same row lock as the verbs.

-- read: names [[kind,key]]; a row for each that is known.
CREATE FUNCTION {schema}.read_v1(verb text, names json)
RETURNS TABLE (item bigint, pending bigint, json text, version bigint, state_version bigint) LANGUAGE plpgsql STABLE
{read} AS $$
#variable_conflict use_column
BEGIN
  PERFORM guard_v1(verb, 'read');
  RETURN QUERY SELECT o.n - 1, e.pending, s.json, s.version, s.state_version
    FROM json_array_elements(names) WITH ORDINALITY o(v, n)
    JOIN entity e ON e.kind = o.v->>0 AND e.key = o.v->>1 LEFT JOIN state s ON s.entity = e.id WHERE e.known;
END $$;

CREATE FUNCTION {schema}.list_v1(verb text, kind_ text, after_ text, count_ bigint)
RETURNS TABLE (key text, pending bigint, json text, version bigint, state_version bigint) LANGUAGE plpgsql STABLE
{read} AS $$
#variable_conflict use_column
BEGIN
  PERFORM guard_v1(verb, 'list');
  RETURN QUERY SELECT e.key, e.pending, s.json, s.version, s.state_version FROM entity e LEFT JOIN state s ON s.entity = e.id
    WHERE e.kind = kind_ AND e.key > after_ AND e.known ORDER BY e.key LIMIT count_;
END $$;

-- peek: the queue in order, with the delayed messages behind it that the next verb will promote.
CREATE FUNCTION {schema}.peek_v1(verb text, kind_ text, key_ text, count_ bigint)
RETURNS TABLE (id text, payload text, headers text) LANGUAGE plpgsql STABLE
{read} AS $$
#variable_conflict use_column
DECLARE id_ bigint; head_ bigint; now_ timestamptz := clock_timestamp();
BEGIN
  PERFORM guard_v1(verb, 'peek');
  SELECT e.id, e.head INTO id_, head_ FROM entity e WHERE e.kind = kind_ AND e.key = key_;
  RETURN QUERY SELECT q.id, q.payload, q.headers FROM (
    (SELECT 0 AS late, NULL::timestamptz AS at_, m.seq - m.count + u.i AS n, u.id, u.payload, coalesce(u.headers, '') AS headers
      FROM (SELECT * FROM message m WHERE m.entity = id_ AND m.seq >= head_ ORDER BY m.seq LIMIT count_) m
      CROSS JOIN LATERAL unnest(m.ids, m.payloads, m.headers) WITH ORDINALITY u(id, payload, headers, i)
      WHERE m.seq - m.count + u.i >= head_ ORDER BY m.seq, u.i LIMIT count_)
    UNION ALL
    (SELECT 1, d.due_at, d.n, d.id, d.payload, d.headers FROM delayed d
      WHERE d.entity = id_ AND d.due_at <= now_ ORDER BY d.due_at, d.n LIMIT count_)) q
    ORDER BY q.late, q.at_, q.n LIMIT count_;
END $$;

CREATE FUNCTION {schema}.locate_v1(verb text, kind_ text, key_ text, ids text[])
RETURNS TABLE (item bigint, place text) LANGUAGE plpgsql STABLE
{read} AS $$
#variable_conflict use_column
BEGIN
  PERFORM guard_v1(verb, 'locate');
  -- Joined one by one: EXISTS may be answered by reading all there is. What is remembered of an id tells where to look; of
  -- an id that is not, the queue is read through.
  RETURN QUERY SELECT o.n - 1, coalesce(m.place, d.place, x.place, l.place, 'gone')
    FROM entity e CROSS JOIN unnest(ids) WITH ORDINALITY o(v, n)
    LEFT JOIN seen s ON s.entity = e.id AND s.id = o.v
    LEFT JOIN LATERAL (SELECT 'queued' AS place FROM (SELECT m.seq, m.count, m.ids FROM message m
        WHERE m.entity = e.id AND m.seq >= s.seq AND s.seq >= e.head ORDER BY m.seq LIMIT 1) m
      WHERE m.ids[(m.count - m.seq + s.seq)::int] = o.v) m ON true
    LEFT JOIN LATERAL (SELECT 'queued' AS place FROM delayed d WHERE d.entity = e.id AND d.id = o.v LIMIT 1) d ON true
    LEFT JOIN LATERAL (SELECT 'dead' AS place FROM dead x WHERE x.entity = e.id AND x.id = o.v LIMIT 1) x ON true
    LEFT JOIN LATERAL (SELECT 'queued' AS place FROM message m WHERE m.entity = e.id AND m.seq >= e.head AND s.seq IS NULL
      AND o.v = ANY (m.ids[greatest(m.count - m.seq + e.head, 1)::int:]) LIMIT 1) l ON true
    WHERE e.kind = kind_ AND e.key = key_;
END $$;

-- why: what is left of the lease and of the wait in milliseconds.
CREATE FUNCTION {schema}.why_v1(verb text, kind_ text, key_ text)
RETURNS TABLE (pending bigint, fence bigint, locked_ms bigint, wait_why text, waiting_ms bigint, paused text, last_error text,
  deliveries bigint, charged bigint, batch_limit bigint) LANGUAGE plpgsql STABLE
{read} AS $$
#variable_conflict use_column
DECLARE now_ timestamptz := clock_timestamp();
BEGIN
  PERFORM guard_v1(verb, 'why');
  RETURN QUERY SELECT e.pending, e.fence,
      CASE WHEN e.deadline > now_ AND e.deadline <= now_ + interval '1 hour'
        THEN ceil(extract(epoch FROM e.deadline - now_) * 1000)::bigint WHEN e.deadline IS NOT NULL THEN 0 END,
      e.wait_why, CASE WHEN e.wait_until > now_ THEN ceil(extract(epoch FROM e.wait_until - now_) * 1000)::bigint END,
      e.paused, e.last_error, e.deliveries, e.charged, e.batch_limit
    FROM entity e WHERE e.kind = kind_ AND e.key = key_ AND e.known;
END $$;

CREATE FUNCTION {schema}.dead_letters_v1(verb text, kind_ text, after_ bigint, count_ bigint)
RETURNS TABLE (number bigint, key text, id text, payload text, headers text, error text, attempts bigint) LANGUAGE plpgsql STABLE
{read} AS $$
#variable_conflict use_column
BEGIN
  PERFORM guard_v1(verb, 'dead_letters');
  RETURN QUERY SELECT d.number, e.key, d.id, d.payload, d.headers, d.error, d.attempts FROM dead d JOIN entity e ON e.id = d.entity
    WHERE d.kind = kind_ AND d.number > after_ ORDER BY d.number LIMIT count_;
END $$;

-- redrive: a dead letter goes back to the head or the tail of its queue, beyond the backlog limit.
CREATE FUNCTION {schema}.redrive_v1(verb text, patience bigint, kind_ text, key_ text, number_ bigint, at_head boolean)
RETURNS TABLE (done boolean) LANGUAGE plpgsql VOLATILE
{write} AS $$
#variable_conflict use_column
DECLARE now_ timestamptz; row_ entity; letter dead; place bigint; begun boolean := begin_v1(verb, 'redrive', patience);
BEGIN
  now_ := lock_v1(ARRAY[kind_], ARRAY[key_]);
  PERFORM promote_v1(ARRAY(SELECT e.id FROM entity e WHERE e.kind = kind_ AND e.key = key_), now_);
  SELECT e.* INTO row_ FROM entity e WHERE e.kind = kind_ AND e.key = key_;
  DELETE FROM dead d WHERE d.number = number_ AND d.entity = row_.id RETURNING d.* INTO letter;
  IF letter.number IS NULL THEN RETURN QUERY SELECT false; RETURN; END IF;
  UPDATE seen s SET seq = NULL WHERE s.entity = row_.id AND s.id = letter.id;
  IF at_head THEN
    -- What is settled of the parcel behind it is cut off, for `head` will not tell any more.
    UPDATE message m SET count = m.count - c.skip, ids = m.ids[c.skip + 1:], payloads = m.payloads[c.skip + 1:], headers = m.headers[c.skip + 1:]
      FROM (SELECT f.ctid, (f.count - f.seq + row_.head - 1)::int AS skip FROM message f
        WHERE f.entity = row_.id AND f.seq >= row_.head ORDER BY f.seq LIMIT 1) c WHERE m.ctid = c.ctid AND c.skip > 0;
    SELECT m.seq - m.count INTO place FROM message m WHERE m.entity = row_.id AND m.seq >= row_.head ORDER BY m.seq LIMIT 1;
  END IF;
  INSERT INTO message (entity, seq, count, ids, payloads, headers) VALUES (row_.id, coalesce(place, row_.tail + 1), 1, ARRAY[letter.id],
    ARRAY[letter.payload], CASE WHEN letter.headers <> '' THEN ARRAY[letter.headers] END);
  -- A new head has not been handed out yet; the next one in line starts over with it. Also while a run of the old head
  -- is under way, for a run that fails would leave its attempts to whoever is the head.
  UPDATE entity e SET head = least(e.head, place), tail = e.tail + (place IS NULL)::int, pending = e.pending + 1, queued = e.queued + 1,
      since = CASE WHEN e.queued = 0 THEN now_ ELSE e.since END,
      deliveries = CASE WHEN at_head THEN 0 ELSE e.deliveries END, charged = CASE WHEN at_head THEN 0 ELSE e.charged END
    WHERE e.id = row_.id;
  PERFORM wake_v1(ARRAY[row_.id]);
  RETURN QUERY SELECT true;
END $$;

CREATE FUNCTION {schema}.pause_v1(verb text, patience bigint, kind_ text, key_ text, reason text)
RETURNS TABLE (done boolean) LANGUAGE plpgsql VOLATILE
{write} AS $$
#variable_conflict use_column
DECLARE begun boolean := begin_v1(verb, 'pause', patience);
BEGIN
  PERFORM make_v1(ARRAY[kind_], ARRAY[key_]);
  PERFORM lock_v1(ARRAY[kind_], ARRAY[key_]);
  UPDATE entity e SET known = true, paused = reason WHERE e.kind = kind_ AND e.key = key_;
  PERFORM wake_v1(ids_v1(ARRAY[kind_], ARRAY[key_]));
  RETURN QUERY SELECT true;
END $$;

CREATE FUNCTION {schema}.resume_v1(verb text, patience bigint, kind_ text, key_ text)
RETURNS TABLE (done boolean) LANGUAGE plpgsql VOLATILE
{write} AS $$
#variable_conflict use_column
DECLARE id_ bigint; begun boolean := begin_v1(verb, 'resume', patience);
BEGIN
  PERFORM lock_v1(ARRAY[kind_], ARRAY[key_]);
  UPDATE entity e SET paused = NULL, wait_why = NULL, wait_until = NULL, deliveries = 0, charged = 0
    WHERE e.kind = kind_ AND e.key = key_ AND e.known RETURNING e.id INTO id_;
  PERFORM wake_v1(ARRAY[id_]);
  RETURN QUERY SELECT id_ IS NOT NULL;
END $$;

-- purge: the row stays for its fence, which only rises, and for its sequence, which goes on: nothing from before can be
-- mistaken for what comes. The seen ids stay too.
CREATE FUNCTION {schema}.purge_v1(verb text, patience bigint, kind_ text, key_ text)
RETURNS TABLE (done boolean) LANGUAGE plpgsql VOLATILE
{write} AS $$
#variable_conflict use_column
DECLARE now_ timestamptz; id_ bigint; begun boolean := begin_v1(verb, 'purge', patience);
BEGIN
  now_ := lock_v1(ARRAY[kind_], ARRAY[key_]);
  UPDATE entity e SET fence = greatest(floor(extract(epoch FROM now_) * 1000)::bigint, e.fence + 1), nonce = NULL, deadline = NULL,
      first = 1, last = 0, edge = 0, deliveries = 0, charged = 0, batch_limit = 4294967295, pending = 0, queued = 0, head = e.tail + 1, since = NULL,
      delayed_at = NULL, wait_why = NULL, wait_until = NULL, paused = NULL, last_error = NULL, known = false
    WHERE e.kind = kind_ AND e.key = key_ AND e.known RETURNING e.id INTO id_;
  PERFORM wake_v1(ARRAY[id_]);
  DELETE FROM message m WHERE m.entity = id_;
  DELETE FROM delayed d WHERE d.entity = id_;
  DELETE FROM dead d WHERE d.entity = id_;
  DELETE FROM state s WHERE s.entity = id_;
  RETURN QUERY SELECT id_ IS NOT NULL;
END $$;
