-- The receiving end of every link.

-- Takes in one journal row: merges it, or sets it aside whole. Never an error that would stop the link
-- for a row that this region may not hold or does not know how to merge.
CREATE OR REPLACE FUNCTION acgs.take_in(entry acgs.journal) RETURNS text
LANGUAGE plpgsql AS $fn$
DECLARE
    now_us bigint := (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
    rule acgs.rule;
    records json := entry.records;
    refused integer;
BEGIN
    SELECT * INTO rule FROM acgs.rule AS r WHERE r.entity = entry.entity AND r.zone = entry.zone;
    now_us := now_us + coalesce(rule.clock_offset_us, 0);
    IF rule.region IS NULL OR rule.valid_until_us <= now_us THEN
        IF NOT EXISTS (SELECT FROM acgs.entity AS e WHERE e.name = entry.entity) THEN
            PERFORM acgs.set_aside(entry, 'unknown-entity', NULL);
            RETURN 'unknown-entity';
        END IF;
        now_us := acgs.now_us();
        rule := acgs.decide(entry.entity, entry.zone, now_us);
    END IF;
    IF entry.kind = 'expel' THEN
        PERFORM acgs.keep_apart(entry, true);
        PERFORM acgs.take_expel(entry);
        RETURN 'expelled';
    ELSIF entry.kind = 'put' THEN
        IF rule.careful THEN
            PERFORM acgs.keep_apart(entry, false);
        END IF;
        -- Most rows may be held whole, and are not looked into.
        IF rule.careful OR (rule.region = ANY (rule.residency) AND rule.region = ANY (entry.residency)) IS NOT TRUE THEN
            records := acgs.admissible(entry, rule);
            refused := json_array_length(entry.records) - json_array_length(records);
        END IF;
        IF refused > 0 THEN
            -- Dropped, not kept: this region may not hold it. The sender's register or ours is behind.
            INSERT INTO acgs.incident (kind, source, entity, zone, detail)
            VALUES ('put-refused', entry.source, entry.entity, entry.zone, jsonb_build_object(
                'register_version', rule.register_version, 'sender_register_version', entry.register_version,
                'records', refused));
            INSERT INTO acgs.missed (entity, zone, source) VALUES (entry.entity, entry.zone, entry.source)
            ON CONFLICT DO NOTHING;
            IF json_array_length(records) = 0 THEN
                RETURN 'put-refused';
            END IF;
        END IF;
        -- Only what may be held is ever set aside; and rights wait neither for a clock nor for a release, so that
        -- none can end late.
        IF entry.zone <> '*' AND entry.entity <> 'consent' THEN
            IF entry.hlc_max > now_us + 500000 THEN
                RETURN acgs.take_later(entry, records, rule, 'clock-ahead', entry.hlc_max - 500000);
            ELSIF NOT rule.columns @> ARRAY(SELECT json_object_keys(records -> 0)) THEN
                PERFORM acgs.take_later(entry, acgs.unknown(records, rule.columns, true), rule, 'unknown-field', NULL);
                records := acgs.unknown(records, rule.columns, false);
                IF json_array_length(records) = 0 THEN
                    RETURN 'unknown-field';
                END IF;
            END IF;
        END IF;
    END IF;
    PERFORM acgs.merge_batch(entry.entity, records, rule.residency);
    PERFORM acgs.follow_up(entry, records, rule);
    RETURN 'merged';
END
$fn$;

-- Keeps puts and expulsions of one record that arrive by different links apart until the transaction ends: a put that
-- was let in before the fence stood would else be stored after what it is about was forgotten.
CREATE OR REPLACE FUNCTION acgs.keep_apart(entry acgs.journal, alone boolean) RETURNS void
LANGUAGE plpgsql AS $fn$
DECLARE
    place bigint;
BEGIN
    FOR place IN
        SELECT DISTINCT hashtextextended(k, 0) FROM json_array_elements(entry.records) AS r
        CROSS JOIN unnest(ARRAY[entry.entity || '/' || (r ->> 'key'), 'tenant/' || (r ->> 'tenant_id')]) AS k
        WHERE k IS NOT NULL ORDER BY 1
    LOOP
        IF alone THEN
            PERFORM pg_catalog.pg_advisory_xact_lock(place);
        ELSE
            PERFORM pg_catalog.pg_advisory_xact_lock_shared(place);
        END IF;
    END LOOP;
END
$fn$;

-- Returns the records of a put that this region may hold.
CREATE OR REPLACE FUNCTION acgs.admissible(entry acgs.journal, rule acgs.rule) RETURNS json
LANGUAGE plpgsql STABLE AS $fn$
BEGIN
    IF NOT (rule.region = ANY (rule.residency || rule.by_consent) AND rule.region = ANY (entry.residency)) THEN
        RETURN '[]';
    ELSIF rule.careful THEN
        RETURN acgs.admit(entry, rule);
    END IF;
    RETURN entry.records;
END
$fn$;

-- Sets records of a put aside that cannot be merged yet; those that were erased here meet their tombstone now.
CREATE OR REPLACE FUNCTION acgs.take_later(entry acgs.journal, records json, rule acgs.rule, reason text, ready_us bigint) RETURNS text
LANGUAGE plpgsql AS $fn$
DECLARE
    erased json;
    later json;
BEGIN
    -- Locked, so that an erasure under way is waited for, and one that comes finds what was set aside.
    EXECUTE format('SELECT FROM acgs.%I WHERE key = ANY ($1) ORDER BY key FOR SHARE', entry.entity) USING acgs.keys_of(records);
    EXECUTE format($sql$
        SELECT coalesce(json_agg(r) FILTER (WHERE t.erased), '[]'), coalesce(json_agg(r) FILTER (WHERE t.erased IS NOT TRUE), '[]')
        FROM json_array_elements($1) AS r LEFT JOIN acgs.%I AS t ON t.key = (r ->> 'key')::uuid$sql$, entry.entity)
    INTO erased, later USING records;
    IF json_array_length(erased) > 0 THEN
        PERFORM acgs.merge_batch(entry.entity, erased, rule.residency);
    END IF;
    IF json_array_length(later) = 0 THEN
        RETURN 'merged';
    END IF;
    entry.records := later;
    PERFORM acgs.set_aside(entry, reason, ready_us);
    RETURN reason;
END
$fn$;

-- Takes out of quarantine what this region may not hold any more: it can be there and in no table.
CREATE OR REPLACE FUNCTION acgs.review_quarantine(p_entity text, p_zone text) RETURNS void
LANGUAGE plpgsql AS $fn$
DECLARE
    rule acgs.rule;
BEGIN
    SELECT * INTO rule FROM acgs.rule AS r WHERE r.entity = p_entity AND r.zone = p_zone;
    UPDATE acgs.quarantine AS q SET records = acgs.admissible(acgs.entry_of(q), rule)
    WHERE q.entity = p_entity AND q.zone = p_zone AND q.kind = 'put';
    DELETE FROM acgs.quarantine AS q
    WHERE q.entity = p_entity AND q.zone = p_zone AND q.kind = 'put' AND json_array_length(q.records) = 0;
END
$fn$;

-- Returns the journal row that a row of quarantine was.
CREATE OR REPLACE FUNCTION acgs.entry_of(held acgs.quarantine) RETURNS acgs.journal
LANGUAGE sql IMMUTABLE AS $fn$
    SELECT ROW(0, held.at, held.source, held.entity, held.kind, held.zone, '{}', held.residency, '{}', 0,
        held.hlc_max, held.records)::acgs.journal
$fn$;

-- Does what a merge makes necessary: rules, rights that differ by record, forwarding, the report of an erasure.
CREATE OR REPLACE FUNCTION acgs.follow_up(entry acgs.journal, records json, rule acgs.rule) RETURNS void
LANGUAGE plpgsql AS $fn$
DECLARE
    missing text[] := '{}';
BEGIN
    IF entry.zone = '*' AND entry.entity IN ('zone', 'transfer') THEN
        PERFORM acgs.refresh_rules();
    ELSIF entry.entity = 'consent' THEN
        PERFORM acgs.settle_subjects(ARRAY(SELECT DISTINCT c.subject_id FROM acgs.consent AS c
            WHERE c.key = ANY (acgs.keys_of(records)) AND c.subject_id IS NOT NULL));
    ELSIF entry.entity = 'tenant' AND EXISTS (
        SELECT FROM json_array_elements(records) AS r WHERE acgs.epoch((r -> 'rights')::jsonb) > 0) THEN
        PERFORM acgs.note_moves(acgs.keys_of(records));
    END IF;
    IF entry.kind = 'erase' THEN
        PERFORM acgs.forget_quarantined(entry.entity, acgs.keys_of(records));
        INSERT INTO acgs.due (entity, kind, keys, targets, detail)
        VALUES (entry.entity, 'done', acgs.keys_of(records), ARRAY[entry.source], '{"kind": "erase"}');
        RETURN;
    END IF;
    -- The sender may not know yet that others may hold it too: of a rule, or of a person's consent.
    IF rule.careful THEN
        PERFORM acgs.settle(entry.entity, acgs.keys_of(records));
        PERFORM acgs.pass_on(entry.entity, acgs.keys_of(records), entry.residency);
    ELSIF NOT entry.residency @> rule.residency AND rule.region = ANY (rule.residency) THEN
        missing := ARRAY(SELECT h FROM unnest(rule.residency) AS h WHERE h <> ALL (entry.residency) ORDER BY h);
        INSERT INTO acgs.due (entity, kind, keys, targets)
        VALUES (entry.entity, 'put', acgs.keys_of(records), missing);
    END IF;
END
$fn$;

-- Queues records for those who may hold them and were not among those whom their sender knew of.
CREATE OR REPLACE FUNCTION acgs.pass_on(entity text, chosen uuid[], known text[]) RETURNS void
LANGUAGE plpgsql AS $fn$
BEGIN
    EXECUTE format($sql$
        INSERT INTO acgs.due (entity, kind, keys, targets)
        SELECT $1, 'put', array_agg(t.key), m.missing FROM acgs.%I AS t CROSS JOIN acgs.self AS s
        CROSS JOIN LATERAL (SELECT ARRAY(SELECT h FROM unnest(t.residency) AS h
            WHERE h <> ALL ($3) AND h <> s.region ORDER BY h) AS missing) AS m
        WHERE t.key = ANY ($2) AND NOT t.erased AND m.missing <> '{}' GROUP BY m.missing$sql$, entity)
    USING entity, chosen, known;
END
$fn$;

-- Returns the keys of a journal row's records.
CREATE OR REPLACE FUNCTION acgs.keys_of(records json) RETURNS uuid[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $fn$
    SELECT array_agg((r ->> 'key')::uuid) FROM json_array_elements(records) AS r
$fn$;

-- Keeps a journal row whole until it can be merged, and raises an incident.
CREATE OR REPLACE FUNCTION acgs.set_aside(entry acgs.journal, reason text, ready_us bigint, state text DEFAULT NULL)
RETURNS void LANGUAGE sql AS $fn$
    INSERT INTO acgs.quarantine (reason, ready_us, source, entity, kind, zone, residency, hlc_max, records, sqlstate)
    VALUES (reason, ready_us, entry.source, entry.entity, entry.kind, entry.zone, entry.residency,
            entry.hlc_max, entry.records, state);
    INSERT INTO acgs.incident (kind, source, entity, zone, detail)
    VALUES (reason, entry.source, entry.entity, entry.zone, jsonb_strip_nulls(jsonb_build_object(
        'records', json_array_length(entry.records), 'sent_at', entry.at, 'sqlstate', state)));
$fn$;

-- Returns the records in which a field is filled that this release does not know, or the others.
CREATE OR REPLACE FUNCTION acgs.unknown(records json, known text[], filled boolean) RETURNS json
LANGUAGE sql IMMUTABLE AS $fn$
    SELECT coalesce(json_agg(r.record), '[]') FROM json_array_elements(records) AS r (record)
    WHERE filled = (EXISTS (SELECT FROM json_each_text(r.record) AS e WHERE e.key <> ALL (known) AND e.value IS NOT NULL)
        OR EXISTS (SELECT FROM json_object_keys(r.record -> 'meta') AS m WHERE m <> ALL (known)))
$fn$;

-- Takes in a journal row record by record; a record that no code can merge is set aside, and the link goes on.
-- What may pass by itself (connections, conflicts of transactions, resources, locks, operators) is raised.
CREATE OR REPLACE FUNCTION acgs.take_in_carefully(entry acgs.journal) RETURNS void
LANGUAGE plpgsql AS $fn$
DECLARE
    one acgs.journal := entry;
    record json;
BEGIN
    BEGIN
        PERFORM acgs.take_in(entry);
        RETURN;
    EXCEPTION WHEN OTHERS THEN
        IF left(SQLSTATE, 2) IN ('08', '40', '53', '55', '57') THEN
            RAISE;
        END IF;
    END;
    FOR record IN SELECT r FROM json_array_elements(entry.records) AS r LOOP
        one.records := json_build_array(record);
        BEGIN
            PERFORM acgs.take_in(one);
        EXCEPTION WHEN OTHERS THEN
            IF left(SQLSTATE, 2) IN ('08', '40', '53', '55', '57') THEN
                RAISE;
            END IF;
            PERFORM acgs.set_aside(one, 'cannot-be-merged', NULL, SQLSTATE);
        END;
    END LOOP;
END
$fn$;

-- Merges what a link delivers in place of storing it.
CREATE OR REPLACE FUNCTION acgs.receive() RETURNS trigger
LANGUAGE plpgsql AS $fn$
BEGIN
    IF NEW.kind = 'beat' OR NEW.seq % 8 = 0 THEN
        INSERT INTO acgs.link_lag (source, at, lag_us)
        SELECT NEW.source, moment, (extract(epoch FROM moment - NEW.at) * 1000000)::bigint
        FROM clock_timestamp() AS moment;
    END IF;
    CASE NEW.kind
        WHEN 'beat' THEN NULL;
        WHEN 'seeded' THEN PERFORM acgs.take_seeded(NEW);
        WHEN 'done', 'swept' THEN PERFORM acgs.take_done(NEW);
        WHEN 'settled' THEN PERFORM acgs.take_settled(NEW.source, NEW.records::jsonb);
        ELSE
            IF EXISTS (SELECT FROM acgs.careful_link AS c WHERE c.source = NEW.source) THEN
                PERFORM acgs.take_in_carefully(NEW);
            ELSE
                PERFORM acgs.take_in(NEW);
            END IF;
    END CASE;
    RETURN NULL;
END
$fn$;
CREATE OR REPLACE TRIGGER receive BEFORE INSERT ON acgs.journal
    FOR EACH ROW EXECUTE FUNCTION acgs.receive();
ALTER TABLE acgs.journal ENABLE REPLICA TRIGGER receive;

-- Merges a batch outside a link (genesis, quarantine), with the triggers of local writes switched off.
CREATE OR REPLACE FUNCTION acgs.merge_directly(entity text, batch json, holders text[]) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET session_replication_role = replica AS $fn$
DECLARE
    known boolean := acgs.merge_batch(entity, batch, holders);
BEGIN
    PERFORM acgs.refresh_rules();
    RETURN known;
END
$fn$;
REVOKE EXECUTE ON FUNCTION acgs.merge_directly(text, json, text[]) FROM PUBLIC;

-- Takes in one row of quarantine again; returns NULL if it left, else why not.
CREATE OR REPLACE FUNCTION acgs.retry_one(held_id bigint) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET session_replication_role = replica AS $fn$
DECLARE
    held acgs.quarantine;
    outcome text;
BEGIN
    SELECT * INTO held FROM acgs.quarantine WHERE id = held_id FOR UPDATE;
    DELETE FROM acgs.quarantine WHERE id = held_id;
    outcome := acgs.take_in(acgs.entry_of(held));
    IF outcome IN ('merged', 'put-refused', 'expelled') THEN
        UPDATE acgs.incident SET closed_at = clock_timestamp() WHERE closed_at IS NULL
            AND (kind, source, entity, zone) = (held.reason, held.source, held.entity, held.zone)
            AND NOT EXISTS (SELECT FROM acgs.quarantine AS q WHERE (q.reason, q.source, q.entity, q.zone)
                = (held.reason, held.source, held.entity, held.zone));
        RETURN NULL;
    END IF;
    RETURN outcome;
EXCEPTION WHEN OTHERS THEN
    outcome := SQLSTATE;
    UPDATE acgs.quarantine AS q SET sqlstate = outcome,
        ready_us = CASE WHEN left(outcome, 2) IN ('08', '40', '53', '55', '57') THEN q.ready_us END WHERE q.id = held_id;
    RETURN outcome;
END
$fn$;

-- Gives up one row of quarantine for good; what it held is lost here, and the incident says by whom.
CREATE OR REPLACE FUNCTION acgs.drop_one(held_id bigint, principal text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER AS $fn$
DECLARE
    held acgs.quarantine;
BEGIN
    DELETE FROM acgs.quarantine WHERE id = held_id RETURNING * INTO held;
    IF held.id IS NULL THEN
        RETURN false;
    END IF;
    INSERT INTO acgs.incident (kind, source, entity, zone, detail, closed_at)
    VALUES ('quarantine-dropped', held.source, held.entity, held.zone, jsonb_build_object('reason', held.reason,
        'by', principal, 'records', json_array_length(held.records), 'set_aside_at', held.at), clock_timestamp());
    RETURN true;
END
$fn$;

-- Returns what one row of quarantine holds.
CREATE OR REPLACE FUNCTION acgs.show_one(held_id bigint) RETURNS SETOF acgs.quarantine
LANGUAGE sql STABLE SECURITY DEFINER AS $fn$
    SELECT * FROM acgs.quarantine WHERE id = held_id
$fn$;
REVOKE EXECUTE ON FUNCTION acgs.retry_one(bigint), acgs.drop_one(bigint, text), acgs.show_one(bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION acgs.retry_one(bigint), acgs.drop_one(bigint, text), acgs.show_one(bigint) TO acgs_app;

-- Puts links whose errors keep coming into careful mode, and takes them out once there were none for a minute.
CREATE OR REPLACE FUNCTION acgs.watch_links() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER AS $fn$
BEGIN
    INSERT INTO acgs.link_error AS e (source, errors, first_errors)
    SELECT i.peer, s.apply_error_count, s.apply_error_count
    FROM acgs.incoming AS i JOIN pg_catalog.pg_stat_subscription_stats AS s
        ON s.subname = acgs.link_name(i.peer, (SELECT region FROM acgs.self))
    ON CONFLICT (source) DO UPDATE SET errors = excluded.errors,
        first_errors = CASE WHEN excluded.errors < e.errors THEN excluded.errors
            WHEN e.changed_at < clock_timestamp() - interval '60 seconds' THEN e.errors ELSE e.first_errors END,
        changed_at = CASE WHEN excluded.errors <> e.errors THEN clock_timestamp() ELSE e.changed_at END;
    -- Twice in a row is not by chance.
    INSERT INTO acgs.careful_link (source, errors)
    SELECT e.source, e.errors FROM acgs.link_error AS e WHERE e.errors >= e.first_errors + 2
    ON CONFLICT DO NOTHING;
    DELETE FROM acgs.careful_link AS c USING acgs.link_error AS e
    WHERE e.source = c.source AND e.changed_at < clock_timestamp() - interval '60 seconds'
        AND c.since < clock_timestamp() - interval '60 seconds';
END
$fn$;
REVOKE EXECUTE ON FUNCTION acgs.watch_links() FROM PUBLIC;

-- Takes in again what was set aside for a reason that has passed; returns how many rows left quarantine.
CREATE OR REPLACE FUNCTION acgs.retry_quarantine() RETURNS integer
LANGUAGE sql SECURITY DEFINER AS $fn$
    SELECT count(*) FILTER (WHERE acgs.retry_one(q.id) IS NULL)::integer
    FROM (SELECT id FROM acgs.quarantine WHERE ready_us <= acgs.now_us() ORDER BY id LIMIT 100) AS q
$fn$;
REVOKE EXECUTE ON FUNCTION acgs.retry_quarantine() FROM PUBLIC;

-- Lets what a new release may know now be taken in again.
CREATE OR REPLACE FUNCTION acgs.know_more() RETURNS void
LANGUAGE sql AS $fn$
    UPDATE acgs.quarantine SET ready_us = 0 WHERE reason IN ('unknown-entity', 'unknown-field')
$fn$;
