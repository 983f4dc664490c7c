-- Queries of the windows in which one region of a pair goes on alone.

-- name: open
INSERT INTO acgs.window (zone, version, peer) VALUES (%(zone)s, %(version)s, %(peer)s) ON CONFLICT DO NOTHING
-- name: close
UPDATE acgs.window SET closed_at = clock_timestamp(), closed_lsn = %(lsn)s::pg_lsn WHERE zone = %(zone)s AND closed_at IS NULL
-- name: windows
SELECT zone, peer, version, opened_at, closed_at, opened_lsn::text, closed_lsn::text
FROM acgs.window ORDER BY opened_at DESC LIMIT 200
