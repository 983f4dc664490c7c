-- Queries of a region's worker.

-- name: wanted
SELECT a.entity, a.zone, a.source, a.request, ARRAY(
    SELECT h FROM unnest(r.residency) AS h WHERE h <> r.region ORDER BY r.basis ->> h <> 'home', h
) AS sources
FROM acgs.acquisition AS a JOIN acgs.rule AS r USING (entity, zone)
WHERE a.asked_at IS NULL OR a.asked_at < clock_timestamp() - interval '5 seconds'
ORDER BY a.since, a.entity
-- name: asking
UPDATE acgs.acquisition SET source = %(source)s, request = %(request)s, asked_at = clock_timestamp()
WHERE entity = %(entity)s AND zone = %(zone)s
-- name: still_asked
UPDATE acgs.acquisition SET asked_at = clock_timestamp() WHERE request = %(request)s
-- name: ask
SELECT acgs.ask(%(request)s, %(target)s, %(entity)s, %(zone)s, NULL, NULL)
-- name: asked
SELECT acgs.asked(%(request)s)
