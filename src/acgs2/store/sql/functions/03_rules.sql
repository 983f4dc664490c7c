-- Who may hold what: the twin of acgs2.residency.decide, property-tested equal to it.

-- Decides from the register who may hold records of an entity of a zone at a moment.
-- Home regions hold it; so does the region of every transfer that is in force. Unknown zone: nobody.
-- A revoked transfer is not in force, whatever the time: whoever learns of it obeys at once.
CREATE OR REPLACE FUNCTION acgs.decide(p_entity text, p_zone text, p_now_us bigint) RETURNS acgs.rule
LANGUAGE plpgsql STABLE AS $fn$
DECLARE
    decided acgs.rule;
    moment timestamptz := to_timestamp(p_now_us / 1000000.0);
BEGIN
    SELECT s.region, s.origin, s.clock_offset_us, CASE WHEN s.seeded AND NOT s.clock_apart THEN s.started END
    INTO decided.region, decided.origin, decided.clock_offset_us, decided.started FROM acgs.self AS s;
    decided.entity := p_entity;
    decided.zone := p_zone;
    decided.columns := coalesce((SELECT e.columns FROM acgs.entity AS e WHERE e.name = p_entity), '{}');
    decided.by_consent := '{}';
    decided.careful := EXISTS (SELECT FROM acgs.move AS m WHERE p_zone = ANY (m.from_zones || m.to_zone));
    decided.register_version := coalesce(
        (SELECT max(hlc) FROM (SELECT hlc FROM acgs.zone UNION ALL SELECT hlc FROM acgs.transfer) AS r), 0);
    IF EXISTS (SELECT FROM acgs.entity WHERE name = p_entity AND residency = 'everywhere') THEN
        SELECT coalesce(array_agg(name ORDER BY name), '{}'), coalesce(jsonb_object_agg(name, 'register'), '{}')
        INTO decided.residency, decided.basis FROM acgs.region;
        RETURN decided;
    END IF;
    WITH instruments AS (
        SELECT t.*, t.revoked IS NULL
            AND (t.begins IS NULL OR t.begins <= moment)
            AND (t.expires IS NULL OR moment < t.expires)
            AND (t.instrument <> 'adequacy_dpf' OR t.importer_certified) AS in_force
        FROM acgs.transfer AS t
        WHERE NOT t.erased AND t.from_zone = p_zone AND t.entities ? p_entity
    ), allowed AS (
        SELECT name, min(basis COLLATE "C") AS basis, bool_or(home) AS home
        FROM (
            SELECT jsonb_array_elements_text(z.regions) COLLATE "C" AS name, 'home' AS basis, true AS home
            FROM acgs.zone AS z
            WHERE z.name = p_zone AND NOT z.erased AND jsonb_typeof(z.regions) = 'array'
            UNION ALL
            SELECT i.to_region, i.instrument, false FROM instruments AS i
            WHERE i.in_force AND i.instrument <> 'explicit_consent'
        ) AS every
        WHERE name IN (SELECT r.name FROM acgs.region AS r)
            AND EXISTS (SELECT FROM acgs.zone AS z WHERE z.name = p_zone AND NOT z.erased)
        GROUP BY name
    )
    SELECT
        coalesce((SELECT array_agg(name ORDER BY name) FROM allowed), '{}'),
        coalesce((SELECT jsonb_object_agg(name, CASE WHEN home THEN 'home' ELSE basis END) FROM allowed), '{}'),
        (
            SELECT min((extract(epoch FROM edge) * 1000000)::bigint)
            FROM instruments AS i, unnest(ARRAY[i.begins, i.expires]) AS edge
            WHERE edge > moment
        ),
        coalesce((
            SELECT array_agg(DISTINCT i.to_region COLLATE "C") FROM instruments AS i
            WHERE i.in_force AND i.instrument = 'explicit_consent'
                AND i.to_region IN (SELECT r.name FROM acgs.region AS r)
                AND i.to_region NOT IN (SELECT name FROM allowed)
                AND EXISTS (SELECT FROM acgs.zone AS z WHERE z.name = p_zone AND NOT z.erased)
                AND EXISTS (SELECT FROM acgs.entity AS e WHERE e.name = p_entity AND e.subject IS NOT NULL)
        ), '{}')
    INTO decided.residency, decided.basis, decided.valid_until_us, decided.by_consent;
    decided.careful := decided.careful OR decided.by_consent <> '{}';
    RETURN decided;
END
$fn$;

-- Works the cache out anew from the register; run by every change of a zone or transfer and once a second.
-- Where the answer changed, what is held is swept by it, and what may be held newly is to be acquired.
CREATE OR REPLACE FUNCTION acgs.refresh_rules() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER AS $fn$
DECLARE
    now_us bigint;
    decided acgs.rule;
    had acgs.rule;
BEGIN
    -- One at a time, each from what the one before has committed: else one that began before a change of the
    -- register would write down its older answer after that change.
    PERFORM pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('acgs.refresh_rules'));
    now_us := acgs.now_us();
    FOR decided IN
        SELECT d.*
        FROM (
            SELECT e.name AS entity, z.name AS zone FROM acgs.entity AS e, acgs.zone AS z
            WHERE e.residency = 'zone' AND NOT z.erased
            UNION
            SELECT r.entity, r.zone FROM acgs.rule AS r WHERE r.zone <> '*'
            UNION
            SELECT e.name, '*' FROM acgs.entity AS e WHERE e.residency = 'everywhere'
        ) AS wanted, acgs.decide(wanted.entity, wanted.zone, now_us) AS d
        ORDER BY d.entity, d.zone
    LOOP
        had := NULL;
        SELECT * INTO had FROM acgs.rule AS r WHERE r.entity = decided.entity AND r.zone = decided.zone FOR UPDATE;
        CONTINUE WHEN had IS NOT DISTINCT FROM decided;
        INSERT INTO acgs.rule AS r VALUES (decided.*)
        ON CONFLICT (entity, zone) DO UPDATE SET
            residency = excluded.residency, basis = excluded.basis,
            register_version = excluded.register_version, valid_until_us = excluded.valid_until_us,
            by_consent = excluded.by_consent, careful = excluded.careful,
            region = excluded.region, origin = excluded.origin, clock_offset_us = excluded.clock_offset_us,
            started = excluded.started, columns = excluded.columns;
        IF (had.residency, had.by_consent) IS DISTINCT FROM (decided.residency, decided.by_consent) THEN
            PERFORM acgs.change_rights(had, decided);
        END IF;
    END LOOP;
END
$fn$;

-- Queues what a changed rule makes necessary here.
CREATE OR REPLACE FUNCTION acgs.change_rights(had acgs.rule, decided acgs.rule) RETURNS void
LANGUAGE plpgsql AS $fn$
DECLARE
    held boolean := coalesce(decided.region = ANY (had.residency || had.by_consent), false);
    holds boolean := coalesce(decided.region = ANY (decided.residency || decided.by_consent), false);
    -- Who held by consent had only what is about those who gave theirs.
    gained boolean := coalesce(decided.region = ANY (decided.residency), false) AND NOT coalesce(decided.region = ANY (had.residency), false);
BEGIN
    IF held THEN
        INSERT INTO acgs.sweep (entity, zone, register_version)
        VALUES (decided.entity, decided.zone, decided.register_version)
        ON CONFLICT (entity, zone) DO UPDATE SET register_version = excluded.register_version, next_key = NULL;
    END IF;
    IF gained OR (holds AND NOT held) THEN
        INSERT INTO acgs.acquisition (entity, zone, source)
        SELECT decided.entity, decided.zone, NULL FROM acgs.self AS s WHERE s.seeded
        UNION ALL
        -- A life that is being given its data asks everyone: what one lacks another may have.
        SELECT decided.entity, decided.zone, i.peer FROM acgs.incoming AS i CROSS JOIN acgs.self AS s
        WHERE NOT s.seeded AND i.peer = ANY (decided.residency || decided.by_consent)
        UNION ALL
        SELECT m.entity, m.zone, m.source FROM acgs.missed AS m WHERE m.entity = decided.entity AND m.zone = decided.zone
        ON CONFLICT DO NOTHING;
        DELETE FROM acgs.missed AS m WHERE m.entity = decided.entity AND m.zone = decided.zone;
    ELSIF NOT holds THEN
        DELETE FROM acgs.acquisition AS a WHERE a.entity = decided.entity AND a.zone = decided.zone;
    END IF;
    -- Nobody is waited for who may not have it: a region that alone may hold something has all that there is.
    DELETE FROM acgs.acquisition AS a WHERE a.entity = decided.entity AND a.zone = decided.zone
        AND NOT CASE WHEN a.source IS NULL THEN cardinality(array_remove(decided.residency, decided.region)) > 0
            ELSE a.source = ANY (decided.residency || decided.by_consent) END;
END
$fn$;
