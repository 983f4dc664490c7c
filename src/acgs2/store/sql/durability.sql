-- Queries of the flush watcher.

-- name: positions
SELECT application_name, flush_lsn::text, reply_time FROM pg_catalog.pg_stat_replication
WHERE state IN ('streaming', 'catchup')
