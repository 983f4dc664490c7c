-- Queries of lives and links.

-- name: awaken
SELECT acgs.awaken(%(known)s, %(elder)s, %(fresh)s)
-- name: pulse
SELECT incarnation, born_us, pulse, seeded, now_us FROM acgs.pulse()
-- name: heard
SELECT born_us, pulse FROM acgs.heard(%(region)s)
-- name: greet
SELECT incarnation, replaced, behind, wal_position::text, slot, now_us
FROM acgs.greet(%(region)s, %(incarnation)s, %(born_us)s, %(pulse)s)
-- name: incoming
SELECT i.incarnation, (
    SELECT pg_catalog.pg_replication_origin_progress('pg_' || s.oid, false)::text
    FROM pg_catalog.pg_subscription AS s
    WHERE s.subname = %(name)s AND s.subdbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
)
FROM acgs.incoming AS i WHERE i.peer = %(peer)s
-- name: note_link
SELECT acgs.note_link(%(peer)s, %(incarnation)s, %(reason)s)
-- name: note_seeded
SELECT acgs.note_seeded(%(away)s)
-- name: stand_down
SELECT acgs.stand_down()
-- name: end_readers
SELECT pg_catalog.pg_terminate_backend(active_pid) FROM pg_catalog.pg_replication_slots
WHERE slot_name = %(name)s AND active_pid IS NOT NULL
-- name: drop_slot
SELECT pg_catalog.pg_drop_replication_slot(slot_name) FROM pg_catalog.pg_replication_slots WHERE slot_name = %(name)s
-- name: make_slot
SELECT pg_catalog.pg_create_logical_replication_slot(%(name)s, 'pgoutput')
-- name: note_clock
SELECT acgs.note_clock(%(apart)s, %(offsets_ms)s)
-- name: clock_apart
SELECT clock_apart FROM acgs.self
