-- Lives of data directories: a restored or copied one takes a new identity before it does anything.

-- Begins a start of this region: goes on with its life, or begins a new one. Returns the incarnation.
--   known: the highest pulse of this region that is noted outside the database or was heard by a peer;
--   elder: when the newest life of this region began that a peer has heard of, in microseconds, 0 for none;
--   fresh: the incarnation to take if the database is not where it was left.
CREATE OR REPLACE FUNCTION acgs.awaken(known bigint, elder bigint, fresh text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER AS $fn$
DECLARE
    me acgs.self;
    now_us bigint := (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
BEGIN
    SELECT * INTO me FROM acgs.self FOR UPDATE;
    IF me.born_us = 0 THEN
        UPDATE acgs.self SET born_us = greatest(now_us, elder + 1);
    ELSIF me.pulse < known OR me.born_us < elder THEN
        UPDATE acgs.self SET incarnation = fresh, seeded = false, born_us = greatest(now_us, elder + 1);
        DELETE FROM acgs.incoming;
        DELETE FROM acgs.acquisition;
        DELETE FROM acgs.provision;
        INSERT INTO acgs.incident (kind, detail)
        VALUES ('new-incarnation', jsonb_build_object('was', me.incarnation, 'is', fresh));
    END IF;
    UPDATE acgs.self SET pulse = greatest(me.pulse, known) + 1, started = pg_catalog.pg_postmaster_start_time();
    PERFORM acgs.refresh_rules();
    RETURN (SELECT s.incarnation FROM acgs.self AS s);
END
$fn$;
REVOKE EXECUTE ON FUNCTION acgs.awaken(bigint, bigint, text) FROM PUBLIC;

-- Beats once; returns what is to be noted outside and told to peers, and this region's time.
CREATE OR REPLACE FUNCTION acgs.pulse() RETURNS TABLE (incarnation text, born_us bigint, pulse bigint, seeded boolean, now_us bigint)
LANGUAGE sql AS $fn$
    UPDATE acgs.self AS s SET pulse = s.pulse + 1 RETURNING s.incarnation, s.born_us, s.pulse, s.seeded, acgs.now_us()
$fn$;

-- Returns what this region has heard of a peer's newest life.
CREATE OR REPLACE FUNCTION acgs.heard(p_region text) RETURNS TABLE (incarnation text, born_us bigint, pulse bigint)
LANGUAGE sql STABLE SECURITY DEFINER AS $fn$
    SELECT p.incarnation, p.born_us, p.pulse FROM acgs.peer AS p WHERE p.region = p_region
$fn$;
REVOKE EXECUTE ON FUNCTION acgs.heard(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION acgs.heard(text) TO acgs_link;

-- Takes a peer's greeting and tells it who lives here, whether its slot is usable, and whether a later life
-- of the peer is known: then the one that greets has been replaced and must stand down. One that has beaten less
-- often than was heard before has been restored or copied, and found nobody at its start to tell it so.
CREATE OR REPLACE FUNCTION acgs.greet(p_region text, p_incarnation text, p_born_us bigint, p_pulse bigint)
RETURNS TABLE (incarnation text, replaced boolean, behind boolean, wal_position pg_lsn, slot text, now_us bigint)
LANGUAGE plpgsql SECURITY DEFINER SET synchronous_commit = off AS $fn$
#variable_conflict use_column
DECLARE
    had acgs.peer;
    me acgs.self;
BEGIN
    SELECT * INTO me FROM acgs.self;
    SELECT * INTO had FROM acgs.peer AS p WHERE p.region = p_region FOR UPDATE;
    IF had.region IS NULL OR (p_born_us, p_pulse) >= (had.born_us, had.pulse) THEN
        IF had.region IS NULL AND EXISTS (SELECT FROM acgs.region AS r WHERE r.name = p_region) THEN
            PERFORM acgs.ensure_publication(p_region);
        END IF;
        INSERT INTO acgs.peer AS p VALUES (p_region, p_incarnation, p_born_us, p_pulse, clock_timestamp())
        ON CONFLICT (region) DO UPDATE SET incarnation = excluded.incarnation, born_us = excluded.born_us,
            pulse = excluded.pulse, heard_at = excluded.heard_at;
    END IF;
    RETURN QUERY SELECT me.incarnation, coalesce(had.born_us > p_born_us, false),
        coalesce(had.born_us = p_born_us AND had.pulse > p_pulse, false), pg_catalog.pg_current_wal_lsn(),
        (SELECT CASE WHEN s.wal_status = 'lost' THEN 'lost' ELSE 'there' END
         FROM pg_catalog.pg_replication_slots AS s WHERE s.slot_name = acgs.link_name(me.region, p_region)), acgs.now_us();
END
$fn$;
REVOKE EXECUTE ON FUNCTION acgs.greet(text, text, bigint, bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION acgs.greet(text, text, bigint, bigint) TO acgs_link;

-- Stands down because a later life of this region is known: nothing is written any more.
CREATE OR REPLACE FUNCTION acgs.stand_down() RETURNS void
LANGUAGE plpgsql AS $fn$
BEGIN
    UPDATE acgs.self SET started = NULL;
    PERFORM acgs.refresh_rules();
END
$fn$;

-- Notes a link that was made anew, and asks the peer for all that both may hold.
CREATE OR REPLACE FUNCTION acgs.note_link(p_peer text, p_incarnation text, p_reason text) RETURNS void
LANGUAGE plpgsql AS $fn$
BEGIN
    INSERT INTO acgs.incoming (peer, incarnation, reason) VALUES (p_peer, p_incarnation, p_reason)
    ON CONFLICT (peer) DO UPDATE SET
        incarnation = excluded.incarnation, linked_at = clock_timestamp(), reason = excluded.reason;
    IF p_reason <> 'first' THEN
        INSERT INTO acgs.acquisition (entity, zone, source)
        SELECT r.entity, r.zone, p_peer FROM acgs.rule AS r
        WHERE r.region = ANY (r.residency || r.by_consent) AND p_peer = ANY (r.residency || r.by_consent)
        ON CONFLICT DO NOTHING;
    END IF;
END
$fn$;

-- Notes that this life has been given all that others could give; from here on it writes and serves. Peers that are
-- away are not waited for: what only they have comes when they are back.
CREATE OR REPLACE FUNCTION acgs.note_seeded(away text[]) RETURNS boolean
LANGUAGE plpgsql AS $fn$
BEGIN
    IF EXISTS (SELECT FROM acgs.acquisition AS a WHERE (a.source = ANY (away)) IS NOT TRUE) OR EXISTS (SELECT FROM acgs.sweep) THEN
        RETURN false;
    END IF;
    UPDATE acgs.self SET seeded = true WHERE NOT seeded;
    IF FOUND THEN
        PERFORM acgs.refresh_rules();
        UPDATE acgs.incident SET closed_at = clock_timestamp() WHERE kind = 'new-incarnation' AND closed_at IS NULL;
    END IF;
    RETURN true;
END
$fn$;

-- Says why this region writes nothing now: its data has not come yet, or its clock is not to be trusted.
CREATE OR REPLACE FUNCTION acgs.refuse_writing() RETURNS void
LANGUAGE plpgsql STABLE AS $fn$
DECLARE
    me acgs.self;
BEGIN
    SELECT * INTO me FROM acgs.self;
    IF me.clock_apart THEN
        RAISE EXCEPTION USING ERRCODE = 'AC015', MESSAGE = 'clock-apart', DETAIL = jsonb_build_object('region', me.region);
    END IF;
    RAISE EXCEPTION USING ERRCODE = 'AC013', MESSAGE = 'region-not-seeded', DETAIL = jsonb_build_object('region', me.region);
END
$fn$;

-- Notes whether this region's time is far from that of most regions; while it is, nothing is written here.
CREATE OR REPLACE FUNCTION acgs.note_clock(apart boolean, offsets_ms jsonb) RETURNS void
LANGUAGE plpgsql AS $fn$
BEGIN
    UPDATE acgs.self SET clock_apart = apart WHERE clock_apart <> apart;
    IF FOUND THEN
        PERFORM acgs.refresh_rules();
        IF apart THEN
            INSERT INTO acgs.incident (kind, detail) VALUES ('clock-apart', jsonb_build_object('offsets_ms', offsets_ms));
        ELSE
            UPDATE acgs.incident SET closed_at = clock_timestamp() WHERE kind = 'clock-apart' AND closed_at IS NULL;
        END IF;
    END IF;
END
$fn$;
