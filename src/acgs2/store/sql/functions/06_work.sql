-- What the region's worker does: every step is one short transaction, repeated until nothing is left.

-- Brings records of any entity up to what is known here; returns how many were forgotten.
CREATE OR REPLACE FUNCTION acgs.settle(entity text, chosen uuid[]) RETURNS bigint
LANGUAGE plpgsql AS $fn$
DECLARE
    forgotten bigint;
BEGIN
    EXECUTE format('SELECT acgs.%I($1)', 'settle_' || entity) INTO forgotten USING chosen;
    RETURN forgotten;
END
$fn$;

-- Forgets records of any entity.
CREATE OR REPLACE FUNCTION acgs.forget(entity text, chosen uuid[]) RETURNS void
LANGUAGE plpgsql AS $fn$
BEGIN
    EXECUTE format('SELECT acgs.%I($1)', 'forget_' || entity) USING chosen;
END
$fn$;

-- Journals records of any entity for some regions; returns how many.
CREATE OR REPLACE FUNCTION acgs.emit(entity text, chosen uuid[], towards text[]) RETURNS bigint
LANGUAGE plpgsql AS $fn$
DECLARE
    emitted bigint;
BEGIN
    EXECUTE format('SELECT acgs.%I($1, $2)', 'emit_' || entity) INTO emitted USING chosen, towards;
    IF entity = 'message' THEN
        PERFORM acgs.tell_states(chosen, towards);
    END IF;
    RETURN emitted;
END
$fn$;

-- Returns a record's rights, NULL where it is not held.
CREATE OR REPLACE FUNCTION acgs.rights_of(entity text, key uuid) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $fn$
DECLARE
    found jsonb;
BEGIN
    EXECUTE format('SELECT rights FROM acgs.%I WHERE key = $1 AND NOT erased', entity) INTO found USING key;
    RETURN found;
END
$fn$;

-- Returns the next keys of an entity where a column has a value, in order: zone, or tenant_id as text.
CREATE OR REPLACE FUNCTION acgs.next_keys(entity text, field text, value text, after uuid, upto uuid, batch integer)
RETURNS uuid[] LANGUAGE plpgsql STABLE AS $fn$
DECLARE
    found uuid[];
BEGIN
    EXECUTE format('SELECT array_agg(key) FROM (SELECT key FROM acgs.%I WHERE %I::text = $1 '
        'AND ($2 IS NULL OR key > $2) AND ($3 IS NULL OR key <= $3) ORDER BY key LIMIT $4) AS k', entity, field)
    INTO found USING value, after, upto, batch;
    RETURN found;
END
$fn$;

-- Brings everything that is about these persons up to their consents.
CREATE OR REPLACE FUNCTION acgs.settle_subjects(subjects uuid[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER AS $fn$
DECLARE
    about record;
    chosen uuid[];
BEGIN
    FOR about IN SELECT e.name, e.subject FROM acgs.entity AS e WHERE e.subject IS NOT NULL LOOP
        EXECUTE format('SELECT array_agg(key) FROM acgs.%I WHERE %I = ANY ($1)', about.name, about.subject)
        INTO chosen USING subjects;
        IF chosen IS NOT NULL THEN
            PERFORM acgs.settle(about.name, chosen);
        END IF;
    END LOOP;
END
$fn$;
REVOKE EXECUTE ON FUNCTION acgs.settle_subjects(uuid[]) FROM PUBLIC;

-- Returns whether an entry may be emitted by now: nobody is told to forget what moved before it is safe where it
-- went, for theirs may be the last copy.
CREATE OR REPLACE FUNCTION acgs.may_emit(entry acgs.due) RETURNS boolean
LANGUAGE plpgsql STABLE AS $fn$
DECLARE
    tenants uuid[] := entry.keys;
BEGIN
    IF entry.kind <> 'expel' OR acgs.epoch(entry.detail -> 'rights') = 0 THEN
        RETURN true;
    ELSIF entry.entity <> 'tenant' THEN
        EXECUTE format('SELECT array_agg(DISTINCT tenant_id) FROM acgs.%I WHERE key = ANY ($1)', entry.entity)
        INTO tenants USING entry.keys;
    END IF;
    RETURN NOT EXISTS (SELECT FROM acgs.tenant AS t WHERE t.key = ANY (tenants) AND NOT t.erased
        AND acgs.epoch(t.rights) >= acgs.epoch(entry.detail -> 'rights') AND NOT t.rights ? 'handed');
END
$fn$;

-- Returns whether another region that may hold a zone's tenants has this region's log on disk up to a position: one of
-- the zone's pair, where it has one; true where nobody else may hold them.
CREATE OR REPLACE FUNCTION acgs.safe_elsewhere(p_zone text, upto pg_lsn) RETURNS boolean
LANGUAGE plpgsql AS $fn$
DECLARE
    me acgs.self;
    others text[];
BEGIN
    SELECT * INTO me FROM acgs.self;
    others := ARRAY(SELECT r FROM acgs.zone AS z CROSS JOIN jsonb_array_elements_text(coalesce(z.pair, '[]')) AS r
        WHERE z.name = p_zone AND r <> me.region);
    IF others = '{}' THEN
        SELECT array_remove(r.residency, me.region) INTO others FROM acgs.rule AS r WHERE r.entity = 'tenant' AND r.zone = p_zone;
    END IF;
    RETURN others = '{}' OR EXISTS (SELECT FROM pg_catalog.pg_stat_replication AS p JOIN unnest(others) AS o
        ON p.application_name = acgs.link_name(me.region, o) || '_' || me.incarnation WHERE p.flush_lsn >= upto);
END
$fn$;

-- Returns whether this region could have carried a move out: it may hold the tenant where it was, and where it is.
CREATE OR REPLACE FUNCTION acgs.could_move(task acgs.move) RETURNS boolean
LANGUAGE sql STABLE AS $fn$
    SELECT count(*) FILTER (WHERE r.zone = task.to_zone) > 0 AND count(*) FILTER (WHERE r.zone <> task.to_zone) > 0
    FROM acgs.rule AS r WHERE r.entity = 'tenant' AND r.zone = ANY (task.from_zones || task.to_zone) AND r.region = ANY (r.residency)
$fn$;

-- Hands moved tenants over: notes where the log has all that is theirs, and once that is safe elsewhere says so. When
-- the one who moved a tenant has not done so in half a minute, another who has what it had does it.
CREATE OR REPLACE FUNCTION acgs.handover_step() RETURNS integer
LANGUAGE plpgsql AS $fn$
DECLARE
    task acgs.move;
    tenant record;
BEGIN
    FOR task IN SELECT * FROM acgs.move AS m WHERE m.done_at IS NOT NULL AND m.handed_at IS NULL
        AND (m.mover OR (m.at < clock_timestamp() - interval '30 seconds' AND acgs.could_move(m)))
        ORDER BY m.at FOR UPDATE SKIP LOCKED
    LOOP
        SELECT t.key, t.zone, t.rights, r.residency, r.region INTO tenant
        FROM acgs.tenant AS t JOIN acgs.rule AS r ON r.entity = 'tenant' AND r.zone = t.zone
        WHERE t.key = task.tenant AND NOT t.erased AND acgs.epoch(t.rights) = task.epoch;
        IF tenant.key IS NULL THEN
            UPDATE acgs.move AS m SET handed_at = clock_timestamp() WHERE m.tenant = task.tenant AND m.epoch = task.epoch;
        ELSIF task.lsn IS NULL THEN
            CONTINUE WHEN EXISTS (SELECT FROM acgs.due AS d WHERE d.kind = 'put');
            UPDATE acgs.move AS m SET lsn = pg_catalog.pg_current_wal_insert_lsn() WHERE m.tenant = task.tenant AND m.epoch = task.epoch;
        ELSIF acgs.safe_elsewhere(tenant.zone, task.lsn) THEN
            PERFORM acgs.place_tenant(task.tenant, tenant.zone, tenant.rights || '{"handed": true}');
            PERFORM acgs.emit('tenant', ARRAY[task.tenant], array_remove(tenant.residency, tenant.region));
            UPDATE acgs.move AS m SET handed_at = clock_timestamp() WHERE m.tenant = task.tenant AND m.epoch = task.epoch;
        ELSE
            CONTINUE;
        END IF;
        RETURN 1;
    END LOOP;
    RETURN 0;
END
$fn$;

-- Emits what merges and changes of rights made necessary for others; returns how many entries were done.
CREATE OR REPLACE FUNCTION acgs.emit_due(batch integer) RETURNS integer
LANGUAGE plpgsql AS $fn$
DECLARE
    entry acgs.due;
    me text := (SELECT s.region FROM acgs.self AS s);
    emitted integer := 0;
BEGIN
    FOR entry IN SELECT * FROM acgs.due AS d WHERE d.kind <> 'done' AND acgs.may_emit(d) ORDER BY d.id LIMIT batch FOR UPDATE SKIP LOCKED LOOP
        IF entry.kind = 'expel' THEN
            INSERT INTO acgs.duty (entity, key, region, zone, kind, rights)
            SELECT entry.entity, k, t, entry.detail ->> 'zone', 'expel', entry.detail -> 'rights'
            FROM unnest(entry.keys) AS k CROSS JOIN unnest(entry.targets) AS t
            ON CONFLICT DO NOTHING;
            INSERT INTO acgs.journal
                (source, entity, kind, zone, targets, residency, basis, register_version, hlc_max, records)
            SELECT me, entry.entity, 'expel', entry.detail ->> 'zone', entry.targets, '{}', '{}', 0, 0,
                json_agg(json_build_object('key', k, 'rights', entry.detail -> 'rights'))
            FROM unnest(entry.keys) AS k;
        ELSE
            PERFORM acgs.emit(entry.entity, entry.keys, entry.targets);
        END IF;
        DELETE FROM acgs.due AS d WHERE d.id = entry.id;
        emitted := emitted + 1;
    END LOOP;
    RETURN emitted;
END
$fn$;

-- Returns whether a transaction still runs that may have begun to write an entity before some moment, by older rules.
CREATE OR REPLACE FUNCTION acgs.written_before(entity text, moment timestamptz) RETURNS boolean
LANGUAGE plpgsql AS $fn$
BEGIN
    PERFORM pg_catalog.pg_stat_clear_snapshot();
    RETURN EXISTS (
        SELECT FROM pg_catalog.pg_locks AS l JOIN pg_catalog.pg_stat_activity AS a USING (pid)
        WHERE l.database = (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = current_database())
            AND l.relation IN (to_regclass('acgs.' || entity), 'acgs.journal'::regclass)
            AND l.mode = 'RowExclusiveLock' AND l.pid <> pg_catalog.pg_backend_pid() AND a.xact_start <= moment);
END
$fn$;

-- Returns keys of records whose residency is not what a rule and their own rights make it.
CREATE OR REPLACE FUNCTION acgs.left_behind(rule acgs.rule, batch integer) RETURNS uuid[]
LANGUAGE plpgsql AS $fn$
DECLARE
    found uuid[];
BEGIN
    EXECUTE format('SELECT array_agg(key) FROM (SELECT key FROM acgs.%I WHERE zone = $1 AND NOT erased '
        'AND residency <> acgs.holders($2, $3, rights) LIMIT $4) AS k', rule.entity)
    INTO found USING rule.zone, rule.residency, rule.by_consent, batch;
    RETURN found;
END
$fn$;

-- Does the next part of a sweep; one that waits for a writer lets the others go first.
CREATE OR REPLACE FUNCTION acgs.sweep_step(batch integer) RETURNS integer
LANGUAGE plpgsql AS $fn$
DECLARE
    task acgs.sweep;
    did integer;
BEGIN
    FOR task IN SELECT * FROM acgs.sweep ORDER BY began_at FOR UPDATE SKIP LOCKED LOOP
        did := acgs.sweep_on(task, batch);
        IF did > 0 THEN
            RETURN did;
        END IF;
    END LOOP;
    RETURN 0;
END
$fn$;

-- Brings the next records of a changed rule up to it; at the end of a zone that was lost, queues the report.
CREATE OR REPLACE FUNCTION acgs.sweep_on(task acgs.sweep, batch integer) RETURNS integer
LANGUAGE plpgsql AS $fn$
DECLARE
    rule acgs.rule;
    chosen uuid[];
    forgotten bigint;
    first_key CONSTANT uuid := '00000000-0000-0000-0000-000000000000';
BEGIN
    IF task.next_key IS NULL THEN
        UPDATE acgs.sweep AS s SET next_key = first_key, began_at = clock_timestamp()
        WHERE s.entity = task.entity AND s.zone = task.zone;
        RETURN 1;
    END IF;
    SELECT * INTO rule FROM acgs.rule AS r WHERE r.entity = task.entity AND r.zone = task.zone;
    chosen := acgs.next_keys(task.entity, 'zone', task.zone, task.next_key, NULL, batch);
    IF chosen IS NULL THEN
        -- What was being written by the older rule meanwhile may be committed behind the sweep's back.
        IF acgs.written_before(task.entity, task.began_at) THEN
            RETURN 0;
        END IF;
        chosen := acgs.left_behind(rule, batch);
    END IF;
    IF chosen IS NOT NULL THEN
        forgotten := acgs.settle(task.entity, chosen);
        UPDATE acgs.sweep AS s SET next_key = greatest(s.next_key, chosen[cardinality(chosen)]), records = s.records + forgotten
        WHERE s.entity = task.entity AND s.zone = task.zone;
        RETURN cardinality(chosen);
    END IF;
    PERFORM acgs.review_quarantine(task.entity, task.zone);
    DELETE FROM acgs.sweep AS s WHERE s.entity = task.entity AND s.zone = task.zone;
    IF NOT rule.region = ANY (rule.residency) THEN
        INSERT INTO acgs.due (entity, kind, keys, targets, detail)
        VALUES (task.entity, 'done', '{}', '{}', jsonb_build_object('kind', 'swept', 'zone', task.zone,
            'register_version', task.register_version, 'records', task.records, 'began_at', task.began_at));
    END IF;
    RETURN 1;
END
$fn$;

-- Takes the next records of a moved tenant along; where it is forgotten, forgets them.
CREATE OR REPLACE FUNCTION acgs.move_step(batch integer) RETURNS integer
LANGUAGE plpgsql AS $fn$
DECLARE
    task acgs.move;
    kind text;
    chosen uuid[];
BEGIN
    SELECT * INTO task FROM acgs.move WHERE done_at IS NULL ORDER BY at LIMIT 1 FOR UPDATE SKIP LOCKED;
    IF task.tenant IS NULL THEN
        RETURN 0;
    END IF;
    SELECT e.name INTO kind FROM acgs.entity AS e
    WHERE e.scope = 'tenant' AND e.name >= coalesce(task.entity, '') ORDER BY e.name LIMIT 1;
    chosen := acgs.next_keys(kind, 'tenant_id', task.tenant::text, task.next_key, NULL, batch);
    IF chosen IS NOT NULL THEN
        IF EXISTS (SELECT FROM acgs.tenant AS t WHERE t.key = task.tenant) THEN
            PERFORM acgs.settle(kind, chosen);
        ELSE
            PERFORM acgs.forget(kind, chosen);
        END IF;
        UPDATE acgs.move AS m SET entity = kind, next_key = chosen[cardinality(chosen)]
        WHERE m.tenant = task.tenant AND m.epoch = task.epoch;
        RETURN cardinality(chosen);
    END IF;
    PERFORM acgs.review_quarantine(kind, z) FROM unnest(task.from_zones) AS z;
    SELECT min(e.name) INTO kind FROM acgs.entity AS e WHERE e.scope = 'tenant' AND e.name > kind;
    UPDATE acgs.move AS m SET entity = kind, next_key = NULL, done_at = CASE WHEN kind IS NULL THEN clock_timestamp() END
    WHERE m.tenant = task.tenant AND m.epoch = task.epoch;
    RETURN 1;
END
$fn$;

-- Reports what was forgotten here, once no table holds it: the journal's partitions are emptied first.
CREATE OR REPLACE FUNCTION acgs.report_done() RETURNS integer
LANGUAGE plpgsql AS $fn$
DECLARE
    me text := (SELECT s.region FROM acgs.self AS s);
    reported bigint[];
BEGIN
    SELECT array_agg(d.id) INTO reported FROM acgs.due AS d WHERE d.kind = 'done';
    IF reported IS NULL THEN
        RETURN 0;
    END IF;
    BEGIN
        PERFORM acgs.empty_journal();
    EXCEPTION WHEN lock_not_available THEN
        RETURN 0;  -- somebody is writing; what they write may be in there too
    END;
    INSERT INTO acgs.disposal (region, entity, zone, register_version, records, began_at, done_at)
    SELECT DISTINCT ON (d.entity, d.detail ->> 'zone', d.detail -> 'register_version')
        me, d.entity, d.detail ->> 'zone', (d.detail -> 'register_version')::bigint, (d.detail -> 'records')::bigint,
        (d.detail ->> 'began_at')::timestamptz, clock_timestamp()
    FROM acgs.due AS d WHERE d.id = ANY (reported) AND d.detail ->> 'kind' = 'swept'
    ORDER BY d.entity, d.detail ->> 'zone', d.detail -> 'register_version', d.id DESC
    ON CONFLICT (region, entity, zone, register_version) DO UPDATE SET
        records = excluded.records, began_at = excluded.began_at, done_at = excluded.done_at;
    INSERT INTO acgs.journal
        (source, entity, kind, zone, targets, residency, basis, register_version, hlc_max, records)
    SELECT me, d.entity, CASE d.detail ->> 'kind' WHEN 'swept' THEN 'swept' ELSE 'done' END, '*',
        CASE WHEN d.targets = '{}' THEN ARRAY(SELECT r.name FROM acgs.region AS r WHERE r.name <> me) ELSE d.targets END,
        '{}', '{}', 0, 0, json_build_array(d.detail || jsonb_build_object('keys', d.keys, 'done_at', clock_timestamp()))
    FROM acgs.due AS d WHERE d.id = ANY (reported) AND d.targets <> ARRAY[me] ORDER BY d.id;
    DELETE FROM acgs.due AS d WHERE d.id = ANY (reported);
    RETURN cardinality(reported);
END
$fn$;

-- Makes the worker empty the journal, because something that it may still hold was forgotten here.
CREATE OR REPLACE FUNCTION acgs.owe_emptying(entity text) RETURNS void
LANGUAGE sql AS $fn$
    INSERT INTO acgs.due (entity, kind, keys, targets) SELECT entity, 'done', '{}', ARRAY[s.region] FROM acgs.self AS s
$fn$;

-- Empties the journal's partitions. What they held is decoded from WAL; the tables need not keep it.
CREATE OR REPLACE FUNCTION acgs.empty_journal() RETURNS void
LANGUAGE plpgsql SET lock_timeout = '1s' AS $fn$
DECLARE
    leaf regclass;
    filled boolean;
BEGIN
    FOR leaf IN SELECT i.inhrelid::regclass FROM pg_catalog.pg_inherits AS i WHERE i.inhparent = 'acgs.journal'::regclass LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM %s WHERE kind = ''put'')', leaf) INTO filled;
        IF filled THEN
            EXECUTE format('TRUNCATE %s', leaf);
        END IF;
    END LOOP;
END
$fn$;

-- Takes the report of a region that it has forgotten what it was told to, or a zone that it lost.
CREATE OR REPLACE FUNCTION acgs.take_done(entry acgs.journal) RETURNS void
LANGUAGE plpgsql AS $fn$
DECLARE
    told jsonb := entry.records::jsonb -> 0;
BEGIN
    IF entry.kind = 'swept' THEN
        INSERT INTO acgs.disposal (region, entity, zone, register_version, records, began_at, done_at)
        VALUES (entry.source, entry.entity, told ->> 'zone', (told -> 'register_version')::bigint,
            (told -> 'records')::bigint, (told ->> 'began_at')::timestamptz, (told ->> 'done_at')::timestamptz)
        ON CONFLICT (region, entity, zone, register_version) DO UPDATE SET
            records = excluded.records, began_at = excluded.began_at, done_at = excluded.done_at;
    ELSE
        UPDATE acgs.duty AS d SET done_at = clock_timestamp()
        WHERE d.entity = entry.entity AND d.region = entry.source AND d.done_at IS NULL
            AND d.key IN (SELECT jsonb_array_elements_text(told -> 'keys')::uuid)
            AND d.kind = told ->> 'kind' AND (d.kind = 'erase' OR d.rights = told -> 'rights');
    END IF;
END
$fn$;
