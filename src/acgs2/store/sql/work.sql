-- Queries of a region's worker.

-- name: wanted
SELECT a.id, a.asked, a.request, a.entity, a.zone, CASE WHEN a.source IS NOT NULL THEN ARRAY[a.source] ELSE ARRAY(
    SELECT h FROM unnest(r.residency) AS h WHERE h <> r.region ORDER BY r.basis ->> h <> 'home', h
) END AS sources, a.source IS NULL AS everything
FROM acgs.acquisition AS a JOIN acgs.rule AS r USING (entity, zone)
WHERE (a.asked_at IS NULL OR a.asked_at < clock_timestamp() - interval '5 seconds')
    -- The register first: by it the rest is taken in.
    AND (a.zone = '*' OR NOT EXISTS (SELECT FROM acgs.acquisition AS b WHERE b.zone = '*' AND b.source = a.source))
ORDER BY a.id
-- name: asking
UPDATE acgs.acquisition SET asked = %(source)s, request = %(request)s, asked_at = clock_timestamp() WHERE id = %(id)s
-- name: still_asked
UPDATE acgs.acquisition SET asked_at = clock_timestamp() WHERE request = %(request)s
-- name: ask
SELECT acgs.ask(%(request)s, %(target)s, %(entity)s, %(zone)s, NULL, NULL, %(everything)s)
-- name: asked
SELECT acgs.asked(%(request)s)
-- name: nobody_knows
DELETE FROM acgs.acquisition WHERE id = %(id)s
