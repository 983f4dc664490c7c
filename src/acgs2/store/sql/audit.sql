-- Queries of the audit log: the sequencer's, and those of who reads it.

-- name: turn
SELECT pg_catalog.pg_try_advisory_xact_lock(1633904499, 13)
-- name: waiting
SELECT EXISTS (
    SELECT FROM acgs.audit_leaf AS l WHERE (l.xid, l.id) > (%(xid)s::xid8, %(id)s)
        AND l.xid < pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot()))
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
