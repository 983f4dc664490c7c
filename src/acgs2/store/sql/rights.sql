-- Queries of the acts by which rights begin and end.

-- name: register
INSERT INTO acgs.transfer (key, zone, from_zone, to_region, instrument, entities, begins, expires, importer_certified, note)
VALUES (%(key)s, '*', %(zone)s, %(to)s, %(instrument)s, %(entities)s, %(begins)s, %(expires)s, %(certified)s, %(note)s)
RETURNING key AS id, from_zone, to_region, instrument, entities, begins, expires, importer_certified, note
-- name: zone_of_transfer
SELECT from_zone FROM acgs.transfer WHERE key = %(key)s AND NOT erased
-- name: revoke
UPDATE acgs.transfer SET revoked = coalesce(revoked, clock_timestamp()) WHERE key = %(key)s AND NOT erased
RETURNING key AS id, from_zone, to_region, instrument, entities, revoked
-- name: known_subject
SELECT 1 FROM acgs.user_profile WHERE key = %(subject)s AND tenant_id = %(tenant)s AND zone = %(zone)s AND NOT erased
-- name: grant
WITH granted AS (
    SELECT acgs.grant_consent(%(key)s, %(zone)s, %(tenant)s, %(subject)s, %(to)s, %(evidence)s)
)
SELECT %(key)s::uuid AS id, %(subject)s::uuid AS subject_id, %(to)s AS to_region, true AS given FROM granted
-- name: withdraw
WITH withdrawn AS (
    SELECT acgs.withdraw_consent(%(key)s, %(zone)s, %(tenant)s, %(subject)s, %(to)s)
)
SELECT %(key)s::uuid AS id, %(subject)s::uuid AS subject_id, %(to)s AS to_region, false AS given FROM withdrawn
-- name: move
SELECT %(key)s::uuid AS id, %(zone)s AS zone, epoch FROM acgs.move_tenant(%(key)s, %(zone)s) AS epoch
WHERE epoch IS NOT NULL
-- name: duties
SELECT entity, key, region, zone, kind, since, done_at FROM acgs.duty
WHERE (%(key)s::uuid IS NULL OR key = %(key)s) AND (NOT %(open)s OR done_at IS NULL)
ORDER BY since DESC, entity, key, region LIMIT 1000
-- name: disposals
SELECT region, entity, zone, register_version, records, began_at, done_at,
    round(extract(epoch FROM done_at - began_at)::numeric, 3)::float8 AS seconds
FROM acgs.disposal ORDER BY done_at DESC, region, entity LIMIT 1000
