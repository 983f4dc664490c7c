-- Queries that change the register of zones and transfers as an ordinary write, which every region hears of.

-- name: put_zone
INSERT INTO acgs.zone AS z (key, zone, name, regulation, regions, pair)
VALUES (%(key)s, '*', %(name)s, %(regulation)s, %(regions)s, %(pair)s)
ON CONFLICT (key) DO UPDATE SET regulation = excluded.regulation, regions = excluded.regions, pair = excluded.pair
WHERE (z.regulation, z.regions, z.pair) IS DISTINCT FROM (excluded.regulation, excluded.regions, excluded.pair)
-- name: add_transfer
INSERT INTO acgs.transfer (key, zone, from_zone, to_region, instrument, entities, begins, expires, importer_certified)
SELECT %(key)s, '*', %(zone)s, %(to)s, %(instrument)s, %(entities)s, %(begins)s::timestamptz, %(expires)s::timestamptz, %(certified)s
WHERE NOT EXISTS (SELECT FROM acgs.transfer AS t WHERE t.revoked IS NULL AND NOT t.erased
    AND (t.from_zone, t.to_region, t.instrument) = (%(zone)s, %(to)s, %(instrument)s) AND t.entities = %(entities)s
    AND (t.begins, t.expires) IS NOT DISTINCT FROM (%(begins)s::timestamptz, %(expires)s::timestamptz))
-- name: revoke_transfer
UPDATE acgs.transfer AS t SET revoked = clock_timestamp()
WHERE t.revoked IS NULL AND NOT t.erased
    AND (t.from_zone, t.to_region, t.instrument) = (%(zone)s, %(to)s, %(instrument)s) AND t.entities = %(entities)s
    AND (t.begins, t.expires) IS NOT DISTINCT FROM (%(begins)s::timestamptz, %(expires)s::timestamptz)
-- name: wanting
SELECT count(*) FROM acgs.acquisition
-- name: busy
SELECT EXISTS (SELECT FROM acgs.due) OR EXISTS (SELECT FROM acgs.sweep) OR EXISTS (SELECT FROM acgs.move WHERE done_at IS NULL)
-- name: unread
SELECT count(*) FROM acgs.region AS r CROSS JOIN acgs.self AS s
LEFT JOIN pg_catalog.pg_stat_replication AS p
    ON p.application_name = acgs.link_name(s.region, r.name) || '_' || s.incarnation
WHERE r.name <> s.region AND r.name = ANY (%(peers)s) AND (p.flush_lsn >= %(position)s::pg_lsn) IS NOT TRUE
-- name: position
SELECT pg_catalog.pg_current_wal_lsn()::text
-- name: forget_region
SELECT acgs.forget_region(%(name)s, %(principal)s)
