-- Queries of anti-entropy.

-- name: shared
SELECT r.entity, r.zone FROM acgs.rule AS r
WHERE r.region = ANY (r.residency || r.by_consent) AND %(peer)s = ANY (r.residency || r.by_consent)
ORDER BY r.zone <> '*', r.entity, r.zone
-- name: holders
SELECT array_remove(r.residency, r.region) FROM acgs.rule AS r WHERE r.entity = %(entity)s AND r.zone = %(zone)s
-- name: shape
SELECT acgs.shape(%(entity)s)
-- name: boundaries
SELECT acgs.boundaries(%(entity)s, %(zone)s, %(after)s, %(upto)s, %(every)s)
-- name: digests
SELECT n, digest FROM acgs.digests(%(entity)s, %(zone)s, %(peer)s, %(after)s::uuid[], %(upto)s::uuid[])
-- name: details
SELECT key, vv, origin, digest FROM acgs.details(%(entity)s, %(zone)s, %(peer)s, %(after)s, %(upto)s)
-- name: doubt
SELECT acgs.doubt(%(entity)s, %(key)s, %(zone)s, %(peer)s)
-- name: ask
SELECT acgs.ask(gen_random_uuid(), %(region)s, %(entity)s, %(zone)s, %(after)s, %(upto)s, false)
-- name: give
INSERT INTO acgs.due (entity, kind, keys, targets) VALUES (%(entity)s, 'put', %(keys)s, ARRAY[%(peer)s])
