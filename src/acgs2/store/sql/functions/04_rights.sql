-- Rights that differ by record: consents of persons, tenants that moved, and fences against what comes late.
-- A record's `rights`: {"epoch": how often its tenant moved, "from": [where it was before],
--   "handed": for a tenant: all that is its own is safe where it moved to, and others may be told to forget,
--   "consents": {region: the withdrawals that the consent to it has seen}}; empty for most.

-- Returns a consent's withdrawals by origin, from the state of its counter.
CREATE OR REPLACE FUNCTION acgs.withdrawals(state jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $fn$
    SELECT coalesce(jsonb_object_agg(w.key, w.value -> 1), '{}') FROM jsonb_each(coalesce(state, '{}')) AS w
$fn$;

-- Returns whether some grant knew of all withdrawals: twin of acgs2.residency.consent.
CREATE OR REPLACE FUNCTION acgs.consent_given(withdrawals jsonb, grants jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $fn$
    SELECT EXISTS (SELECT FROM jsonb_each(coalesce(grants, '{}')) AS g WHERE acgs.vv_covers(g.value, withdrawals))
$fn$;

-- Returns the consents of a subject that are given, or those that are not: {region: withdrawals}.
CREATE OR REPLACE FUNCTION acgs.consents(subject uuid, given boolean) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $fn$
BEGIN
    RETURN (
        SELECT coalesce(jsonb_object_agg(c.to_region, acgs.withdrawals(c.meta -> 'withdrawals')), '{}')
        FROM acgs.consent AS c
        WHERE c.subject_id = subject AND NOT c.erased
            AND acgs.consent_given(acgs.withdrawals(c.meta -> 'withdrawals'), c.grants) = given
    );
END
$fn$;

-- Returns whether this region holds the consents of a zone; if not, it goes by those that came with a record.
CREATE OR REPLACE FUNCTION acgs.knows_consents(p_zone text) RETURNS boolean
LANGUAGE sql STABLE AS $fn$
    SELECT coalesce((SELECT r.region = ANY (r.residency) FROM acgs.rule AS r
        WHERE r.entity = 'consent' AND r.zone = p_zone), false)
$fn$;

-- Returns a record's rights with the consents of its subject as they are known here.
CREATE OR REPLACE FUNCTION acgs.rights_now(rights jsonb, p_zone text, subject uuid) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $fn$
DECLARE
    given jsonb;
BEGIN
    IF NOT acgs.knows_consents(p_zone) THEN
        RETURN rights;
    END IF;
    given := acgs.consents(subject, true);
    RETURN CASE WHEN given = '{}' THEN rights - 'consents' ELSE rights || jsonb_build_object('consents', given) END;
END
$fn$;

-- Returns who may hold a record with these rights.
CREATE OR REPLACE FUNCTION acgs.holders(residency text[], by_consent text[], rights jsonb) RETURNS text[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $fn$
BEGIN
    IF by_consent = '{}' OR NOT rights ? 'consents' THEN
        RETURN residency;
    END IF;
    RETURN acgs.names_union(residency,
        ARRAY(SELECT c FROM unnest(by_consent) AS c WHERE rights -> 'consents' ? c ORDER BY c COLLATE "C"));
END
$fn$;

-- Returns how often a record's tenant had moved.
CREATE OR REPLACE FUNCTION acgs.epoch(rights jsonb) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $fn$ SELECT coalesce((rights -> 'epoch')::bigint, 0) $fn$;

-- Returns the zones in which a record's tenant was before.
CREATE OR REPLACE FUNCTION acgs.zones_before(rights jsonb) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $fn$
    SELECT ARRAY(SELECT jsonb_array_elements_text(coalesce(rights -> 'from', '[]')) COLLATE "C")
$fn$;

-- Returns the join of two rights: the later epoch with where it came from, and of every consent what both knew.
CREATE OR REPLACE FUNCTION acgs.rights_join(a jsonb, b jsonb) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $fn$
DECLARE
    joined jsonb := CASE WHEN acgs.epoch(a) >= acgs.epoch(b) THEN a ELSE b END - 'consents';
    consents jsonb;
BEGIN
    IF a = b THEN
        RETURN a;
    END IF;
    IF acgs.epoch(a) = acgs.epoch(b) AND b ? 'handed' THEN
        joined := joined || '{"handed": true}';
    END IF;
    SELECT jsonb_object_agg(r.region, acgs.vv_join(coalesce(a #> ARRAY['consents', r.region], '{}'),
                                                   coalesce(b #> ARRAY['consents', r.region], '{}')))
    INTO consents
    FROM (SELECT jsonb_object_keys(coalesce(a -> 'consents', '{}')) AS region
          UNION SELECT jsonb_object_keys(coalesce(b -> 'consents', '{}'))) AS r;
    RETURN CASE WHEN consents IS NULL THEN joined ELSE joined || jsonb_build_object('consents', consents) END;
END
$fn$;

-- Returns whether rights are at least as new as those with which this region was told to forget.
CREATE OR REPLACE FUNCTION acgs.rights_cover(rights jsonb, fenced jsonb, region text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $fn$
    SELECT acgs.epoch(rights) >= acgs.epoch(fenced) AND (
        fenced #> ARRAY['consents', region] IS NULL
        OR (rights #> ARRAY['consents', region] IS NOT NULL
            AND acgs.vv_covers(rights #> ARRAY['consents', region], fenced #> ARRAY['consents', region]))
    )
$fn$;

-- Returns what a fence keeps in place of a key: NMAC-SHA-256 of it under this database's own secret.
CREATE OR REPLACE FUNCTION acgs.fence_hash(entity text, key uuid) RETURNS bytea
LANGUAGE sql STABLE AS $fn$
    SELECT sha256(k.secret || sha256(k.secret || convert_to(entity || '/' || key, 'UTF8'))) FROM acgs.fence_key AS k
$fn$;

-- Returns the records of a put that this region may hold one by one: consented to, and behind no fence.
CREATE OR REPLACE FUNCTION acgs.admit(entry acgs.journal, rule acgs.rule) RETURNS json
LANGUAGE sql STABLE AS $fn$
    SELECT coalesce(json_agg(r.record), '[]')
    FROM json_array_elements(entry.records) AS r (record)
    CROSS JOIN LATERAL (SELECT coalesce((r.record -> 'rights')::jsonb, '{}') AS rights) AS w
    WHERE (rule.region = ANY (rule.residency) OR w.rights -> 'consents' ? rule.region)
        AND NOT EXISTS (
            SELECT FROM acgs.fence AS f
            WHERE f.hash IN (acgs.fence_hash(entry.entity, (r.record ->> 'key')::uuid),
                             acgs.fence_hash('tenant', (r.record ->> 'tenant_id')::uuid))
                -- Who may hold it on another ground needs no consent, and none that was withdrawn keeps it out.
                AND NOT acgs.rights_cover(w.rights, CASE WHEN rule.region = ANY (rule.residency) THEN f.rights - 'consents'
                    ELSE f.rights END, rule.region)
        )
$fn$;

-- Forgets records that this region was told to, unless its own register or a newer consent lets it hold them.
CREATE OR REPLACE FUNCTION acgs.take_expel(entry acgs.journal) RETURNS void
LANGUAGE plpgsql AS $fn$
DECLARE
    rule acgs.rule := acgs.decide(entry.entity, entry.zone, acgs.now_us());
    told jsonb := entry.records::jsonb;
    forgotten uuid[];
BEGIN
    INSERT INTO acgs.fence AS f (hash, rights)
    SELECT acgs.fence_hash(entry.entity, (r ->> 'key')::uuid), r -> 'rights' FROM jsonb_array_elements(told) AS r
    ON CONFLICT (hash) DO UPDATE SET rights = acgs.rights_join(f.rights, excluded.rights);
    IF NOT rule.region = ANY (rule.residency) THEN
        SELECT array_agg((r ->> 'key')::uuid) INTO forgotten
        FROM jsonb_array_elements(told) AS r
        WHERE acgs.rights_cover(acgs.rights_of(entry.entity, (r ->> 'key')::uuid), r -> 'rights', rule.region) IS NOT TRUE;
        PERFORM acgs.forward_expel(entry, told, forgotten, rule);
        PERFORM acgs.forget(entry.entity, forgotten);
        IF entry.entity = 'tenant' THEN
            INSERT INTO acgs.move (tenant, epoch, from_zones, to_zone)
            SELECT (r ->> 'key')::uuid, acgs.epoch(r -> 'rights'), acgs.zones_before(r -> 'rights'), entry.zone
            FROM jsonb_array_elements(told) AS r WHERE acgs.epoch(r -> 'rights') > 0
            ON CONFLICT DO NOTHING;
            PERFORM acgs.refresh_rules();
            PERFORM pg_catalog.pg_notify('acgs_work', '');
        END IF;
    END IF;
    INSERT INTO acgs.due (entity, kind, keys, targets, detail)
    SELECT entry.entity, 'done', array_agg((r ->> 'key')::uuid), ARRAY[entry.source],
        jsonb_build_object('kind', 'expel', 'rights', r -> 'rights')
    FROM jsonb_array_elements(told) AS r GROUP BY r -> 'rights';
END
$fn$;

-- Passes an expulsion on to those whom this region had sent the records and whom it concerns too.
CREATE OR REPLACE FUNCTION acgs.forward_expel(entry acgs.journal, told jsonb, forgotten uuid[], rule acgs.rule) RETURNS void
LANGUAGE plpgsql AS $fn$
BEGIN
    EXECUTE format($sql$
        INSERT INTO acgs.due (entity, kind, keys, targets, detail)
        SELECT $1, 'expel', array_agg(t.key), ARRAY[s.region], jsonb_build_object('zone', $2, 'rights', r -> 'rights')
        FROM jsonb_array_elements($3) AS r JOIN acgs.%I AS t ON t.key = (r ->> 'key')::uuid
        CROSS JOIN unnest(t.sent_to) AS s (region)
        WHERE t.key = ANY ($4) AND s.region <> ALL ($5)
            AND (acgs.epoch(r -> 'rights') > 0 OR r #> ARRAY['rights', 'consents', s.region] IS NOT NULL)
        GROUP BY s.region, r -> 'rights'$sql$, entry.entity)
    USING entry.entity, entry.zone, told, forgotten, rule.residency || ARRAY[rule.region, entry.source];
END
$fn$;

-- Takes parts of held-back journal rows out that are about forgotten records.
CREATE OR REPLACE FUNCTION acgs.forget_quarantined(p_entity text, forgotten uuid[]) RETURNS void
LANGUAGE sql AS $fn$
    UPDATE acgs.quarantine AS q SET records = (
        SELECT coalesce(json_agg(r), '[]') FROM json_array_elements(q.records) AS r
        WHERE (r ->> 'key')::uuid <> ALL (forgotten))
    WHERE q.entity = p_entity AND q.kind = 'put' AND EXISTS (
        SELECT FROM json_array_elements(q.records) AS r WHERE (r ->> 'key')::uuid = ANY (forgotten));
    DELETE FROM acgs.quarantine AS q WHERE q.entity = p_entity AND q.kind = 'put' AND json_array_length(q.records) = 0;
$fn$;

-- Moves a tenant to another zone: from here on its records follow that zone's rules; the worker takes them along.
CREATE OR REPLACE FUNCTION acgs.move_tenant(p_tenant uuid, p_zone text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER AS $fn$
DECLARE
    was record;
    there acgs.rule := acgs.decide('tenant', p_zone, acgs.now_us());
BEGIN
    SELECT * INTO was FROM acgs.tenant AS t WHERE t.key = p_tenant AND NOT t.erased FOR UPDATE;
    IF was.zone = p_zone AND acgs.epoch(was.rights) > 0 AND NOT was.rights ? 'handed' AND there.region = ANY (there.residency) THEN
        -- The one who moved it may be lost: whoever is asked again takes the rest along, and hands over.
        UPDATE acgs.move AS m SET mover = true, done_at = NULL, lsn = NULL, entity = NULL, next_key = NULL
        WHERE m.tenant = p_tenant AND m.epoch = acgs.epoch(was.rights);
        PERFORM pg_catalog.pg_notify('acgs_work', '');
        RETURN acgs.epoch(was.rights);
    ELSIF was.key IS NULL OR was.zone = p_zone THEN
        RETURN NULL;
    ELSIF NOT there.region = ANY (there.residency) THEN
        RAISE EXCEPTION USING ERRCODE = 'AC001', MESSAGE = 'residency-not-lawful-here', DETAIL = jsonb_build_object(
            'entity', 'tenant', 'zone', p_zone, 'region', there.region, 'lawful', to_jsonb(there.residency));
    END IF;
    PERFORM acgs.place_tenant(p_tenant, p_zone, (was.rights - 'consents' - 'handed')
        || jsonb_build_object('epoch', acgs.epoch(was.rights) + 1,
            'from', to_jsonb(acgs.names_union(acgs.zones_before(was.rights), ARRAY[was.zone]))));
    PERFORM acgs.note_moves(ARRAY[p_tenant]);
    UPDATE acgs.move AS m SET mover = true WHERE m.tenant = p_tenant AND m.epoch = acgs.epoch(was.rights) + 1;
    PERFORM acgs.settle_tenant(ARRAY[p_tenant]);
    -- Here and not by the worker: whoever waits for a peer to have the move waits for this.
    PERFORM acgs.emit('tenant', ARRAY[p_tenant], array_remove(there.residency, there.region));
    PERFORM acgs.audit_act('tenant-moved', p_tenant, p_tenant, jsonb_build_object('from_zone', was.zone, 'to_zone', p_zone));
    RETURN acgs.epoch(was.rights) + 1;
END
$fn$;
REVOKE EXECUTE ON FUNCTION acgs.move_tenant(uuid, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION acgs.move_tenant(uuid, text) TO acgs_app;

-- Writes a tenant's new zone past the triggers, which would refuse to change what a record is.
CREATE OR REPLACE FUNCTION acgs.place_tenant(p_tenant uuid, p_zone text, p_rights jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET session_replication_role = replica AS $fn$
BEGIN
    UPDATE acgs.tenant SET zone = p_zone, rights = p_rights WHERE key = p_tenant;
END
$fn$;
REVOKE EXECUTE ON FUNCTION acgs.place_tenant(uuid, text, jsonb) FROM PUBLIC;

-- Notes which of these tenants have moved, so that their zones are looked at closely and their records follow.
CREATE OR REPLACE FUNCTION acgs.note_moves(tenants uuid[]) RETURNS void
LANGUAGE plpgsql AS $fn$
BEGIN
    INSERT INTO acgs.move (tenant, epoch, from_zones, to_zone)
    SELECT t.key, acgs.epoch(t.rights), acgs.zones_before(t.rights), t.zone FROM acgs.tenant AS t
    WHERE t.key = ANY (tenants) AND acgs.epoch(t.rights) > 0
    ON CONFLICT DO NOTHING;
    IF FOUND THEN
        PERFORM acgs.refresh_rules();
        PERFORM pg_catalog.pg_notify('acgs_work', '');
    END IF;
END
$fn$;

-- Records that a person agrees to a region outside their zone's homes; knows every withdrawal known here.
CREATE OR REPLACE FUNCTION acgs.grant_consent(p_key uuid, p_zone text, p_tenant uuid, p_subject uuid, p_region text, p_evidence text)
RETURNS void LANGUAGE plpgsql AS $fn$
DECLARE
    me text := (SELECT s.origin FROM acgs.self AS s);
BEGIN
    INSERT INTO acgs.consent AS c (key, zone, tenant_id, subject_id, to_region, evidence, grants)
    VALUES (p_key, p_zone, p_tenant, p_subject, p_region, p_evidence, jsonb_build_object(me, '{}'::jsonb))
    ON CONFLICT (key) DO UPDATE SET evidence = excluded.evidence,
        grants = coalesce(c.grants, '{}') || jsonb_build_object(me, acgs.withdrawals(c.meta -> 'withdrawals'));
END
$fn$;

-- Records that a person withdraws a consent, given or not: it wins over every grant that does not know of it.
CREATE OR REPLACE FUNCTION acgs.withdraw_consent(p_key uuid, p_zone text, p_tenant uuid, p_subject uuid, p_region text)
RETURNS void LANGUAGE plpgsql AS $fn$
BEGIN
    INSERT INTO acgs.consent AS c (key, zone, tenant_id, subject_id, to_region, withdrawals)
    VALUES (p_key, p_zone, p_tenant, p_subject, p_region, 1)
    ON CONFLICT (key) DO UPDATE SET withdrawals = coalesce(c.withdrawals, 0) + 1;
END
$fn$;
