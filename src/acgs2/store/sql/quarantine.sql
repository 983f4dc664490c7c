-- Queries of quarantine.

-- name: list
SELECT id, at, reason, sqlstate, source, entity, kind, zone FROM acgs.quarantine ORDER BY id LIMIT 1000
-- name: show
SELECT id, at, reason, sqlstate, source, entity, kind, zone, residency, records FROM acgs.show_one(%(number)s)
-- name: retry
SELECT acgs.retry_one(%(number)s) AS why
-- name: drop
SELECT acgs.drop_one(%(number)s, %(principal)s) AS gone
