-- How a region is given what it may hold and does not have: it asks another, which emits it to it alone,
-- through the journal like everything else; the merge makes repetition and overlap harmless.

-- Takes a peer's request for an entity of a zone, or for a range of its keys. One that counts on being given
-- everything is refused by a region that does not hold, or has not been given, everything itself.
CREATE OR REPLACE FUNCTION acgs.ask(request uuid, target text, p_entity text, p_zone text, first_after uuid, last_key uuid, everything boolean)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $fn$
DECLARE
    rule acgs.rule;
BEGIN
    IF NOT EXISTS (SELECT FROM acgs.entity AS e WHERE e.name = p_entity) THEN
        RAISE EXCEPTION USING ERRCODE = 'AC016', MESSAGE = 'asked-for-unknown-entity', DETAIL = jsonb_build_object('entity', p_entity);
    END IF;
    SELECT * INTO rule FROM acgs.rule AS r WHERE r.entity = p_entity AND r.zone = p_zone;
    IF target = ANY (rule.residency || rule.by_consent) IS NOT TRUE THEN
        RAISE EXCEPTION USING ERRCODE = 'AC011', MESSAGE = 'asked-without-right', DETAIL = jsonb_build_object(
            'entity', p_entity, 'zone', p_zone, 'target', target, 'register_version', rule.register_version);
    -- One that holds by consent gives what it has: of some records it may have the only copy left.
    ELSIF NOT rule.region = ANY (rule.residency || rule.by_consent) OR (everything AND (NOT rule.region = ANY (rule.residency)
        OR EXISTS (SELECT FROM acgs.acquisition AS a WHERE a.entity = p_entity AND a.zone = p_zone AND a.source IS NULL)
        OR EXISTS (SELECT FROM acgs.self AS s WHERE NOT s.seeded))) THEN
        RAISE EXCEPTION USING ERRCODE = 'AC012', MESSAGE = 'asked-the-wrong-region', DETAIL = jsonb_build_object(
            'entity', p_entity, 'zone', p_zone, 'region', rule.region);
    END IF;
    -- What the asking region was told to forget, it must know again before it is given anything.
    INSERT INTO acgs.due (entity, kind, keys, targets, detail)
    SELECT p_entity, 'expel', array_agg(d.key), ARRAY[target], jsonb_build_object('zone', p_zone, 'rights', d.rights)
    FROM acgs.duty AS d WHERE d.entity = p_entity AND d.zone = p_zone AND d.region = target AND d.kind = 'expel'
    GROUP BY d.rights;
    INSERT INTO acgs.provision (request, target, entity, zone, next_key, last_key)
    VALUES (request, target, p_entity, p_zone, first_after, last_key) ON CONFLICT DO NOTHING;
END
$fn$;
REVOKE EXECUTE ON FUNCTION acgs.ask(uuid, text, text, text, uuid, uuid, boolean) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION acgs.ask(uuid, text, text, text, uuid, uuid, boolean) TO acgs_link;

-- Returns how many records have been emitted for a request, NULL once nothing of it is left to do.
CREATE OR REPLACE FUNCTION acgs.asked(p_request uuid) RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER AS $fn$
    SELECT p.records FROM acgs.provision AS p WHERE p.request = p_request
$fn$;
REVOKE EXECUTE ON FUNCTION acgs.asked(uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION acgs.asked(uuid) TO acgs_link;

-- Emits the next records that a peer asked for, and at the end says so.
CREATE OR REPLACE FUNCTION acgs.provision_step(batch integer) RETURNS integer
LANGUAGE plpgsql AS $fn$
DECLARE
    task acgs.provision;
    chosen uuid[];
    emitted bigint;
BEGIN
    IF EXISTS (SELECT FROM acgs.due AS d WHERE d.kind = 'expel' AND acgs.may_emit(d)) THEN
        RETURN 0;
    END IF;
    -- Not before this region's own records say who may hold them: what is not swept yet would be passed over.
    SELECT * INTO task FROM acgs.provision AS p
    WHERE NOT EXISTS (SELECT FROM acgs.sweep AS s WHERE s.entity = p.entity AND s.zone = p.zone)
    ORDER BY since LIMIT 1 FOR UPDATE SKIP LOCKED;
    IF task.request IS NULL THEN
        RETURN 0;
    END IF;
    chosen := acgs.next_keys(task.entity, 'zone', task.zone, task.next_key, task.last_key, batch);
    IF chosen IS NOT NULL THEN
        emitted := acgs.emit(task.entity, chosen, ARRAY[task.target]);
        UPDATE acgs.provision AS p SET next_key = chosen[cardinality(chosen)], records = p.records + emitted
        WHERE p.request = task.request;
        RETURN cardinality(chosen);
    END IF;
    INSERT INTO acgs.journal (source, entity, kind, zone, targets, residency, basis, register_version, hlc_max, records)
    SELECT s.region, task.entity, 'seeded', task.zone, ARRAY[task.target], '{}', '{}', 0, 0,
        json_build_array(json_build_object('request', task.request, 'records', task.records))
    FROM acgs.self AS s;
    DELETE FROM acgs.provision AS p WHERE p.request = task.request;
    RETURN 1;
END
$fn$;

-- Notes that all that was asked for has arrived: links keep the order.
CREATE OR REPLACE FUNCTION acgs.take_seeded(entry acgs.journal) RETURNS void
LANGUAGE sql AS $fn$
    DELETE FROM acgs.acquisition AS a WHERE a.request = (entry.records -> 0 ->> 'request')::uuid
$fn$;
