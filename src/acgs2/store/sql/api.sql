-- Queries of the region server.

-- name: rules
SELECT entity, zone, residency, by_consent FROM acgs.rule
-- name: zones
SELECT name, ARRAY(SELECT jsonb_array_elements_text(coalesce(pair, '[]'))) FROM acgs.zone WHERE NOT erased
-- name: residency
-- What the edge goes by; `changes_in_s` is after how long the answer changes by itself, NULL if it does not.
SELECT zone, entity, residency AS regions, by_consent,
    ARRAY(SELECT key FROM jsonb_each_text(basis) WHERE value = 'home' ORDER BY key) AS homes,
    (valid_until_us - extract(epoch FROM clock_timestamp()) * 1000000 - clock_offset_us)::float8 / 1000000 AS changes_in_s
FROM acgs.rule WHERE zone <> '*' ORDER BY zone, entity
-- name: tenant_zone
SELECT zone FROM acgs.tenant WHERE key = %(key)s AND NOT erased
-- name: remember
INSERT INTO acgs.request (principal, idempotency_key, digest, entity, key, status)
VALUES (%(principal)s, %(idempotency_key)s, %(digest)s, %(entity)s, %(key)s, %(status)s)
ON CONFLICT (principal, idempotency_key) DO NOTHING RETURNING 1
-- name: recall
SELECT digest, entity, key, status FROM acgs.request
WHERE principal = %(principal)s AND idempotency_key = %(idempotency_key)s
-- name: flushed
SELECT pg_catalog.pg_current_wal_flush_lsn()::text
-- name: conflicts
SELECT entity, key::text, field, strategy, zone, loser_value, loser_hlc, loser_origin, winner_hlc,
    winner_origin, detected_at
FROM acgs.conflict ORDER BY detected_at DESC LIMIT %(limit)s
-- name: lag
SELECT source, count(*) AS samples,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY lag_us) / 1000.0 AS p50_ms,
    percentile_cont(0.99) WITHIN GROUP (ORDER BY lag_us) / 1000.0 AS p99_ms
FROM acgs.link_lag JOIN acgs.incoming ON peer = source
-- What was sent before the link was made waited for that, not on the way.
WHERE at > clock_timestamp() - make_interval(secs => %(window_s)s) AND at - lag_us * interval '1 microsecond' > linked_at
GROUP BY source ORDER BY source
-- name: incidents
SELECT id, at, kind, source, entity, zone, detail FROM acgs.incident WHERE closed_at IS NULL
ORDER BY id DESC LIMIT %(limit)s
-- name: holdings
SELECT zone, count(*) FROM {table} WHERE NOT erased GROUP BY zone ORDER BY zone
-- name: act_as
SELECT pg_catalog.set_config('acgs.actor', %(actor)s, true)
