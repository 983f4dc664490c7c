-- What health and metrics look at: short, by indexes, never a count over large tables.

-- name: health
SELECT (SELECT s.origin FROM acgs.self AS s),
    pg_catalog.pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on',
    -- The best of what has just arrived: a long transaction of the source is no lag.
    (SELECT jsonb_object_agg(i.peer, l.lag_us) FROM acgs.incoming AS i CROSS JOIN LATERAL (
        SELECT min(k.lag_us) AS lag_us FROM acgs.link_lag AS k
        WHERE k.source = i.peer AND k.at > statement_timestamp() - make_interval(secs => %(fresh_s)s)
            AND k.at - k.lag_us * interval '1 microsecond' > i.linked_at
    ) AS l WHERE l.lag_us IS NOT NULL)
-- name: incidents
SELECT kind, count(*) FROM acgs.incident WHERE closed_at IS NULL GROUP BY kind
-- name: quarantine
SELECT reason, count(id) FROM acgs.quarantine GROUP BY reason
-- name: lag
SELECT l.source, percentile_cont(ARRAY[0.5, 0.99]) WITHIN GROUP (ORDER BY l.lag_us),
    (extract(epoch FROM statement_timestamp() - max(l.at)))::float8
FROM acgs.incoming AS i JOIN acgs.link_lag AS l ON l.source = i.peer
WHERE l.at > statement_timestamp() - interval '60 seconds'
    AND l.at - l.lag_us * interval '1 microsecond' > i.linked_at
GROUP BY l.source
-- name: slots
SELECT r.name, pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), p.restart_lsn)::float8
FROM acgs.self AS s CROSS JOIN acgs.region AS r
JOIN pg_catalog.pg_replication_slots AS p ON p.slot_name = acgs.link_name(s.region, r.name)
WHERE p.restart_lsn IS NOT NULL
-- name: sizes
SELECT t.name, pg_catalog.pg_relation_size(('acgs.' || quote_ident(t.name))::regclass)
FROM unnest(%(tables)s::text[]) AS t (name)
-- What a column's commonest values come to, by the statistics that autovacuum keeps.
-- name: estimate
SELECT v.value, greatest(c.reltuples, 0) * v.share
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_stats AS p ON p.schemaname = 'acgs' AND p.tablename = c.relname AND p.attname = %(column)s
CROSS JOIN LATERAL unnest(p.most_common_vals::text::text[], p.most_common_freqs) AS v (value, share)
WHERE c.oid = ('acgs.' || quote_ident(%(table)s))::regclass
-- name: deliveries
SELECT state, count(*) FROM acgs.delivery WHERE state <> 'done' GROUP BY state
-- name: dead_letters
SELECT reason, count(*) FROM acgs.dead_letter GROUP BY reason
-- name: conflicts
SELECT entity, count(*) FROM acgs.conflict GROUP BY entity
