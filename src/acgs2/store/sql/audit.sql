-- Queries of the audit log: the sequencer's, and those of who reads it.

-- name: turn
SELECT pg_catalog.pg_try_advisory_xact_lock(1633904499, 13)
-- name: log
SELECT number, origin, incarnation, xid::text, id FROM acgs.audit_log ORDER BY number DESC LIMIT 1
-- name: log_of
SELECT number FROM acgs.audit_log WHERE origin = %(origin)s
-- name: begin
INSERT INTO acgs.audit_log (number, origin, incarnation, key_name, xid, id)
VALUES (%(number)s, %(origin)s, %(incarnation)s, %(key_name)s, %(xid)s::xid8, %(id)s)
-- name: begin_leaf
INSERT INTO acgs.audit_leaf AS l (xid, id, kind, body) VALUES ('0'::xid8, -%(number)s, 'log-began', %(body)s)
RETURNING acgs.audit_hash(l)
-- name: last_cut
SELECT size, xid::text, id, root, signature, at_us FROM acgs.audit_cut WHERE log = %(log)s ORDER BY size DESC LIMIT 1
-- name: pending
WITH next AS MATERIALIZED (
    SELECT l.xid, l.id, l.at_us, acgs.audit_hash(l) AS hash FROM acgs.audit_leaf AS l
    WHERE (l.xid, l.id) > (%(xid)s::xid8, %(id)s)
        AND l.xid < pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())
    ORDER BY l.xid, l.id LIMIT %(limit)s
), last AS (
    SELECT n.xid, n.id FROM next AS n ORDER BY n.xid DESC, n.id DESC LIMIT 1
)
SELECT string_agg(n.hash, '' ORDER BY n.xid, n.id), (SELECT l.xid::text FROM last AS l), (SELECT l.id FROM last AS l), min(n.at_us)
FROM next AS n
-- name: cut
INSERT INTO acgs.audit_cut (log, size, xid, id, root, signature, at_us)
VALUES (%(log)s, %(size)s, %(xid)s::xid8, %(id)s, %(root)s, %(signature)s, acgs.now_us())
-- name: keep_tile
INSERT INTO acgs.audit_tile (log, level, number, root, hashes)
VALUES (%(log)s, %(level)s, %(number)s, %(root)s, %(hashes)s)
-- name: hashes
SELECT acgs.audit_hashes(%(log)s, %(level)s, %(number)s, %(width)s)
-- name: look
-- Whether there is more is asked in order: as a mere EXISTS it was planned as a scan of all leaves.
SELECT l.number, l.origin, c.size, (
        SELECT f.id FROM acgs.audit_leaf AS f WHERE (f.xid, f.id) > (c.xid, c.id)
            AND f.xid < pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())
        ORDER BY f.xid, f.id LIMIT 1) IS NOT NULL,
    (SELECT coalesce(max(s.number), 0) FROM acgs.audit_cosignature AS s),
    (SELECT o.size FROM acgs.audit_offer AS o WHERE o.log = l.number AND o.size <= c.size),
    coalesce((SELECT acgs.now_us() - o.at_us FROM acgs.audit_offer AS o), 0)
FROM (SELECT * FROM acgs.audit_log ORDER BY number DESC LIMIT 1) AS l
CROSS JOIN LATERAL (SELECT * FROM acgs.audit_cut AS c WHERE c.log = l.number ORDER BY c.size DESC LIMIT 1) AS c
-- name: offer
INSERT INTO acgs.audit_offer AS o (log, size, at_us) VALUES (%(log)s, %(size)s, acgs.now_us())
ON CONFLICT (one) DO UPDATE SET log = excluded.log, size = excluded.size, at_us = excluded.at_us
-- name: oldest_waiting
SELECT acgs.now_us() - l.at_us, (
    SELECT jsonb_build_object('application', a.application_name, 'user', a.usename, 'since', a.xact_start, 'state', a.state)
    FROM pg_catalog.pg_stat_activity AS a WHERE a.backend_xid IS NOT NULL ORDER BY age(a.backend_xid) DESC LIMIT 1)
FROM (SELECT * FROM acgs.audit_cut ORDER BY log DESC, size DESC LIMIT 1) AS c
CROSS JOIN LATERAL (SELECT f.at_us FROM acgs.audit_leaf AS f WHERE (f.xid, f.id) > (c.xid, c.id) ORDER BY f.xid, f.id LIMIT 1) AS l
-- name: cosignatures
SELECT s.number, s.size, c.root, s.witness, s.time_s, s.signature
FROM acgs.audit_cosignature AS s JOIN acgs.audit_cut AS c ON c.log = s.log AND c.size = s.size
WHERE s.log = %(log)s AND s.number > %(after)s ORDER BY s.number LIMIT 1000
-- name: newest
SELECT log, origin, size, root, signature FROM acgs.audit_newest()
-- name: first
SELECT acgs.audit_first(%(log)s)
-- name: tiles
SELECT level, number, hashes FROM acgs.audit_tiles(%(log)s, %(levels)s, %(numbers)s, %(widths)s)
-- name: give
SELECT acgs.audit_cosigned(%(origin)s, %(size)s, %(witness)s, %(time_s)s, %(signature)s)
-- name: known
SELECT origin, region, size, root, note, time_s FROM acgs.audit_known()
-- name: forgotten
SELECT witnessing IS DISTINCT FROM incarnation FROM acgs.self
-- name: remember
SELECT acgs.audit_remember(%(origin)s, %(region)s, %(size)s, %(root)s, %(note)s, %(time_s)s)
-- name: relearn
SELECT acgs.audit_relearn(%(known)s)
-- name: incident
SELECT acgs.audit_incident(%(kind)s, %(source)s, %(origin)s, %(detail)s, %(wrong)s)
-- name: now
SELECT acgs.now_us()
-- name: newest_size
SELECT coalesce(max(c.size), 0) FROM acgs.audit_cut AS c WHERE c.log = %(log)s
-- name: cosigned_sizes
SELECT s.size, min(s.time_s) FROM acgs.audit_cosignature AS s WHERE s.log = %(log)s AND s.size > %(after)s
GROUP BY s.size HAVING count(DISTINCT s.witness) >= %(needed)s ORDER BY s.size LIMIT %(limit)s
-- name: last_cosigned
SELECT s.size FROM acgs.audit_cosignature AS s WHERE s.log = %(log)s
GROUP BY s.size HAVING count(DISTINCT s.witness) >= %(needed)s ORDER BY s.size DESC LIMIT 1
-- name: checkpoint
SELECT l.origin, c.size, c.root, c.signature FROM acgs.audit_cut AS c JOIN acgs.audit_log AS l ON l.number = c.log
WHERE c.log = %(log)s AND c.size = %(size)s
-- name: cosignatures_of
SELECT s.witness, s.time_s, s.signature FROM acgs.audit_cosignature AS s
WHERE s.log = %(log)s AND s.size = %(size)s ORDER BY s.time_s, s.witness
-- name: entries
SELECT convert_to(acgs.audit_entry(l.leaf), 'UTF8') FROM acgs.audit_leaves(%(log)s, %(from)s, %(to)s) AS l ORDER BY l.index
-- name: places
SELECT c.log, b.size - 1 + (
        SELECT count(*) FROM acgs.audit_leaf AS e WHERE (e.xid, e.id) > (b.xid, b.id) AND (e.xid, e.id) <= (l.xid, l.id)),
    convert_to(acgs.audit_entry(l), 'UTF8')
FROM acgs.audit_leaf AS l
LEFT JOIN LATERAL (
    SELECT * FROM acgs.audit_cut AS c WHERE (c.xid, c.id) >= (l.xid, l.id) ORDER BY c.xid, c.id, c.log, c.size LIMIT 1) AS c ON true
LEFT JOIN LATERAL (
    SELECT * FROM acgs.audit_cut AS b WHERE b.log = c.log AND b.size < c.size ORDER BY b.size DESC LIMIT 1) AS b ON true
WHERE l.subject = %(subject)s AND (%(tenant)s::uuid IS NULL OR l.tenant = %(tenant)s::uuid)
ORDER BY l.xid, l.id LIMIT 100
-- name: logs
SELECT number, origin FROM acgs.audit_log ORDER BY number
-- name: cosigned_here
SELECT origin, region, note, time_s FROM acgs.audit_witnessed ORDER BY origin
