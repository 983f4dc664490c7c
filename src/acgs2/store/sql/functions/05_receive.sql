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
    IF entry.kind = 'put' AND entry.hlc_max > now_us + 500000 THEN
        PERFORM acgs.set_aside(entry, 'clock-ahead', entry.hlc_max - 500000);
        RETURN 'clock-ahead';
    END IF;
    IF entry.kind = 'expel' THEN
        PERFORM acgs.take_expel(entry);
        RETURN 'expelled';
    ELSIF entry.kind = 'put' THEN
        IF NOT (rule.region = ANY (rule.residency || rule.by_consent) AND rule.region = ANY (entry.residency)) THEN
            records := '[]';
        ELSIF rule.careful THEN
            records := acgs.admit(entry, rule);
        END IF;
        refused := json_array_length(entry.records) - json_array_length(records);
        IF refused > 0 THEN
            -- Dropped, not kept: this region may not hold it. The sender's register or ours is behind.
            INSERT INTO acgs.incident (kind, source, entity, zone, detail)
            VALUES ('put-refused', entry.source, entry.entity, entry.zone, jsonb_build_object(
                'register_version', rule.register_version, 'sender_register_version', entry.register_version,
                'records', refused));
            IF json_array_length(records) = 0 THEN
                RETURN 'put-refused';
            END IF;
        END IF;
    END IF;
    PERFORM acgs.merge_batch(entry.entity, records, rule.residency);
    PERFORM acgs.follow_up(entry, records, rule);
    RETURN 'merged';
END
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
    IF rule.careful THEN
        PERFORM acgs.settle(entry.entity, acgs.keys_of(records));
    END IF;
    IF NOT entry.residency @> rule.residency AND rule.region = ANY (rule.residency) THEN
        -- The sender did not know yet that others may hold it too.
        missing := ARRAY(SELECT h FROM unnest(rule.residency) AS h WHERE h <> ALL (entry.residency) ORDER BY h);
        INSERT INTO acgs.due (entity, kind, keys, targets)
        VALUES (entry.entity, 'put', acgs.keys_of(records), missing);
    END IF;
END
$fn$;

-- Returns the keys of a journal row's records.
CREATE OR REPLACE FUNCTION acgs.keys_of(records json) RETURNS uuid[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $fn$
    SELECT array_agg((r ->> 'key')::uuid) FROM json_array_elements(records) AS r
$fn$;

-- Keeps a journal row whole until it can be merged, and raises an incident.
CREATE OR REPLACE FUNCTION acgs.set_aside(entry acgs.journal, reason text, ready_us bigint) RETURNS void
LANGUAGE sql AS $fn$
    INSERT INTO acgs.quarantine (reason, ready_us, source, entity, kind, zone, residency, hlc_max, records)
    VALUES (reason, ready_us, entry.source, entry.entity, entry.kind, entry.zone, entry.residency,
            entry.hlc_max, entry.records);
    INSERT INTO acgs.incident (kind, source, entity, zone, detail)
    VALUES (reason, entry.source, entry.entity, entry.zone,
            jsonb_build_object('records', json_array_length(entry.records), 'sent_at', entry.at));
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
        ELSE PERFORM acgs.take_in(NEW);
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

-- Takes in again what was set aside for a reason that has passed; returns how many rows left quarantine.
CREATE OR REPLACE FUNCTION acgs.retry_quarantine() RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET session_replication_role = replica AS $fn$
DECLARE
    held acgs.quarantine;
    left_it integer := 0;
BEGIN
    FOR held IN
        SELECT * FROM acgs.quarantine AS q
        WHERE (q.ready_us IS NOT NULL AND q.ready_us <= acgs.now_us())
            OR (q.reason = 'unknown-entity' AND EXISTS (SELECT FROM acgs.entity AS e WHERE e.name = q.entity))
        ORDER BY q.id LIMIT 100 FOR UPDATE SKIP LOCKED
    LOOP
        DELETE FROM acgs.quarantine WHERE id = held.id;
        PERFORM acgs.take_in(ROW(0, held.at, held.source, held.entity, held.kind, held.zone, '{}',
            held.residency, '{}', 0, held.hlc_max, held.records)::acgs.journal);
        left_it := left_it + 1;
    END LOOP;
    RETURN left_it;
END
$fn$;
REVOKE EXECUTE ON FUNCTION acgs.retry_quarantine() FROM PUBLIC;
