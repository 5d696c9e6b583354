-- For people with psql. Names and columns are kept within a version; nothing in the adapter reads them.
CREATE VIEW {schema}.entities AS
  SELECT e.kind, e.key, e.pending, e.queued, e.wake_at AS due_at, e.deadline > clock_timestamp() AS locked, e.deadline AS locked_until,
    e.fence, e.paused, e.wait_why AS waiting, e.wait_until AS waiting_until, e.last_error, e.deliveries, e.charged,
    s.json AS state, s.version, s.state_version
  FROM {schema}.entity e LEFT JOIN {schema}.state s ON s.entity = e.id WHERE e.known;

CREATE VIEW {schema}.pending_messages AS
  SELECT e.kind, e.key, m.seq - m.count + u.n AS seq, NULL::timestamptz AS due_at, u.id, u.payload, coalesce(u.headers, '') AS headers
    FROM {schema}.message m JOIN {schema}.entity e ON e.id = m.entity
    CROSS JOIN LATERAL unnest(m.ids, m.payloads, m.headers) WITH ORDINALITY u(id, payload, headers, n)
    WHERE m.seq - m.count + u.n >= e.head
  UNION ALL
  SELECT e.kind, e.key, d.n, d.due_at, d.id, d.payload, d.headers
    FROM {schema}.delayed d JOIN {schema}.entity e ON e.id = d.entity;

CREATE VIEW {schema}.dead_letters AS
  SELECT d.number, e.kind, e.key, d.id, d.payload, d.headers, d.error, d.attempts
  FROM {schema}.dead d JOIN {schema}.entity e ON e.id = d.entity;
