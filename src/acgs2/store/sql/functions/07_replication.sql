-- Publications and slots towards peers, and statistics of links.

-- Returns the name that publication, slot and subscription of a direction share.
CREATE OR REPLACE FUNCTION acgs.link_name(source text, target text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $fn$
    SELECT 'acgs_' || translate(source, '-', '_') || '_to_' || translate(target, '-', '_')
$fn$;

-- Creates the publication for a peer, once; it is never altered, a change of rules changes rows.
CREATE OR REPLACE FUNCTION acgs.ensure_publication(target text) RETURNS void
LANGUAGE plpgsql AS $fn$
DECLARE
    name text := acgs.link_name((SELECT region FROM acgs.self), target);
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_publication WHERE pubname = name) THEN
        EXECUTE format(
            'CREATE PUBLICATION %I FOR TABLE acgs.journal WHERE (%L = ANY (targets)) '
            'WITH (publish = ''insert'', publish_via_partition_root = true)', name, target);
    END IF;
END
$fn$;

-- Creates the slot from which a peer reads; it must exist before the first record does.
CREATE OR REPLACE FUNCTION acgs.ensure_slot(target text) RETURNS void
LANGUAGE plpgsql AS $fn$
DECLARE
    name text := acgs.link_name((SELECT region FROM acgs.self), target);
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_replication_slots WHERE slot_name = name) THEN
        PERFORM pg_catalog.pg_create_logical_replication_slot(name, 'pgoutput');
    END IF;
END
$fn$;

-- Takes a region that is gone for good out of this one: nothing is sent to it any more, and what it still owed is
-- closed, with an incident that says on whose word.
CREATE OR REPLACE FUNCTION acgs.forget_region(gone text, principal text) RETURNS void
LANGUAGE plpgsql AS $fn$
DECLARE
    link text := acgs.link_name((SELECT s.region FROM acgs.self AS s), gone);
    owed bigint;
BEGIN
    DELETE FROM acgs.region WHERE name = gone;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    DELETE FROM acgs.peer WHERE region = gone;
    DELETE FROM acgs.incoming WHERE peer = gone;
    DELETE FROM acgs.careful_link WHERE source = gone;
    DELETE FROM acgs.link_error WHERE source = gone;
    DELETE FROM acgs.missed WHERE source = gone;
    DELETE FROM acgs.acquisition WHERE source = gone;
    UPDATE acgs.acquisition SET asked = NULL, asked_at = NULL, request = NULL WHERE asked = gone;
    DELETE FROM acgs.provision WHERE target = gone;
    UPDATE acgs.due SET targets = array_remove(targets, gone) WHERE gone = ANY (targets);
    DELETE FROM acgs.due WHERE targets = '{}' AND kind <> 'done';
    WITH closed AS (UPDATE acgs.duty SET done_at = clock_timestamp() WHERE region = gone AND done_at IS NULL RETURNING 1)
    SELECT count(*) INTO owed FROM closed;
    INSERT INTO acgs.incident (kind, source, detail, closed_at)
    VALUES ('region-removed', gone, jsonb_build_object('by', principal, 'duties_closed', owed), clock_timestamp());
    EXECUTE format('DROP PUBLICATION IF EXISTS %I', link);
    PERFORM acgs.audit_act('region-removed', NULL, NULL, jsonb_build_object('by', principal, 'duties_closed', owed, 'region', gone));
    PERFORM pg_catalog.pg_drop_replication_slot(s.slot_name) FROM pg_catalog.pg_replication_slots AS s WHERE s.slot_name = link;
    PERFORM acgs.refresh_rules();
END
$fn$;

-- Sends a heartbeat to every peer, so that lag is known where nothing is written.
CREATE OR REPLACE FUNCTION acgs.beat() RETURNS void
LANGUAGE sql SECURITY DEFINER AS $fn$
    INSERT INTO acgs.journal (source, entity, kind, zone, targets, residency, basis, register_version, hlc_max, records)
    SELECT s.region, '', 'beat', '*', array_agg(r.name), '{}', '{}', 0, 0, '[]'
    FROM acgs.self AS s JOIN acgs.region AS r ON r.name <> s.region GROUP BY s.region
$fn$;

-- Makes the partitions of this hour and the next, drops those older than an hour, trims statistics.
-- Decoding reads WAL: a partition dropped before it was decoded still arrives.
CREATE OR REPLACE FUNCTION acgs.maintain() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER AS $fn$
DECLARE
    hour timestamptz;
    old text;
    name text;
BEGIN
    FOR hour IN SELECT generate_series(date_trunc('hour', clock_timestamp(), 'UTC') + '1 hour',
                                       date_trunc('hour', clock_timestamp(), 'UTC') + '2 hours', '1 hour') LOOP
        name := 'journal_' || to_char(hour AT TIME ZONE 'UTC', 'YYYYMMDDHH24');
        IF to_regclass('acgs.' || name) IS NULL THEN
            EXECUTE format('CREATE TABLE acgs.%I PARTITION OF acgs.journal FOR VALUES FROM (%L) TO (%L)',
                           name, hour, hour + interval '1 hour');
        END IF;
    END LOOP;
    FOR old IN
        SELECT c.relname FROM pg_catalog.pg_inherits AS i JOIN pg_catalog.pg_class AS c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'acgs.journal'::regclass AND c.relname ~ '^journal_\d{10}$'
            AND c.relname < 'journal_' || to_char(clock_timestamp() AT TIME ZONE 'UTC' - interval '1 hour', 'YYYYMMDDHH24')
    LOOP
        EXECUTE format('DROP TABLE acgs.%I', old);
    END LOOP;
    -- What came in before there was a partition for its hour goes once all of it is an hour old.
    IF to_regclass('acgs.journal_' || to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYYMMDDHH24')) IS NOT NULL
        AND EXISTS (SELECT FROM acgs.journal_default)
        AND NOT EXISTS (SELECT FROM acgs.journal_default WHERE at > clock_timestamp() - interval '1 hour')
    THEN
        TRUNCATE acgs.journal_default;
    END IF;
    DELETE FROM acgs.link_lag WHERE at < clock_timestamp() - interval '5 minutes';
    DELETE FROM acgs.request WHERE at < clock_timestamp() - interval '24 hours';
END
$fn$;

-- Duties of the region's server, nobody else's.
REVOKE EXECUTE ON FUNCTION acgs.beat(), acgs.maintain(), acgs.refresh_rules() FROM PUBLIC;
