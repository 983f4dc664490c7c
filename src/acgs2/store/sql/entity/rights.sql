-- Brings residency and rights of some {{entity}} records up to what is known here, forgets those that may not
-- be held here any more, and queues what follows for others. Returns how many were forgotten.
CREATE OR REPLACE FUNCTION acgs.settle_{{entity}}(chosen uuid[]) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET session_replication_role = replica AS $fn$
DECLARE
    lost uuid[];
BEGIN
    PERFORM FROM acgs.{{entity}} WHERE key = ANY (chosen) ORDER BY key FOR UPDATE;
    {{follow}}
    WITH wanted AS MATERIALIZED (
        SELECT t.key, t.zone, t.sent_to, t.residency, t.rights AS had, t.origin LIKE r.region || '#%' AS ours, w.rights, w.withdrawn, r.region,
            acgs.holders(r.residency, r.by_consent, w.rights) AS holders
        FROM acgs.{{entity}} AS t
        JOIN acgs.rule AS r ON r.entity = '{{entity}}' AND r.zone = t.zone
        CROSS JOIN LATERAL (SELECT {{rights_now}} AS rights, {{withdrawn}} AS withdrawn) AS w
        WHERE t.key = ANY (chosen) AND NOT t.erased
    ), settled AS (
        UPDATE acgs.{{entity}} AS t SET residency = w.holders, rights = w.rights FROM wanted AS w
        WHERE t.key = w.key AND (w.residency, w.had) IS DISTINCT FROM (w.holders, w.rights)
    ), given AS (
        INSERT INTO acgs.due (entity, kind, keys, targets)
        SELECT '{{entity}}', 'put', array_agg(w.key), g.gained FROM wanted AS w
        CROSS JOIN LATERAL (SELECT ARRAY(
            SELECT h FROM unnest(w.holders) AS h
            -- Who gained a right asks for what there is; what was written here while it was thought to have none,
            -- perhaps only here, is sent by the one who wrote it.
            WHERE ((acgs.epoch(w.rights) > 0 OR w.ours) AND h <> ALL (w.sent_to))
                -- Sent before, and forgotten when the tenant moved away: now it has come back.
                OR (acgs.epoch(w.rights) > 0 AND h <> ALL (w.residency))
                OR (w.rights #> ARRAY['consents', h] IS NOT NULL AND (h <> ALL (w.sent_to)
                    OR (w.rights #> ARRAY['consents', h]) IS DISTINCT FROM (w.had #> ARRAY['consents', h])))
            ORDER BY h) AS gained) AS g
        WHERE w.region = ANY (w.holders) AND g.gained <> '{}' GROUP BY g.gained
    ), expelled AS (
        SELECT w.key, w.zone, s.region, n.rights
        FROM wanted AS w CROSS JOIN unnest(w.sent_to) AS s (region)
        CROSS JOIN LATERAL (SELECT (w.rights - 'consents' - 'handed') || CASE WHEN w.withdrawn ? s.region
            THEN jsonb_build_object('consents', jsonb_build_object(s.region, w.withdrawn -> s.region)) ELSE '{}' END AS rights) AS n
        WHERE s.region <> ALL (w.holders) AND s.region <> w.region AND n.rights <> '{}'
            AND s.region IN (SELECT g.name FROM acgs.region AS g)
            AND NOT EXISTS (SELECT FROM acgs.duty AS d WHERE d.entity = '{{entity}}' AND d.key = w.key
                AND d.region = s.region AND d.kind = 'expel' AND d.rights = n.rights)
    ), taken AS (
        INSERT INTO acgs.due (entity, kind, keys, targets, detail)
        SELECT '{{entity}}', 'expel', array_agg(e.key), ARRAY[e.region], jsonb_build_object('zone', e.zone, 'rights', e.rights)
        FROM expelled AS e GROUP BY e.region, e.zone, e.rights
    ), owed AS (
        INSERT INTO acgs.duty AS d (entity, key, region, zone, kind, rights)
        SELECT '{{entity}}', e.key, e.region, e.zone, 'expel', e.rights FROM expelled AS e
        ON CONFLICT (entity, key, region) DO UPDATE SET
            kind = 'expel', zone = excluded.zone, rights = excluded.rights, since = excluded.since, done_at = NULL
    )
    SELECT array_agg(w.key) INTO lost FROM wanted AS w WHERE w.region <> ALL (w.holders);
    PERFORM acgs.forget_{{entity}}(lost);
    RETURN coalesce(cardinality(lost), 0);
END
$fn$;
REVOKE EXECUTE ON FUNCTION acgs.settle_{{entity}}(uuid[]) FROM PUBLIC;

-- Forgets {{entity}} records, and everything that was kept because of them; tombstones stay.
CREATE OR REPLACE FUNCTION acgs.forget_{{entity}}(chosen uuid[]) RETURNS void
LANGUAGE plpgsql AS $fn$
BEGIN
    IF chosen IS NOT NULL THEN
        DELETE FROM acgs.{{entity}} WHERE key = ANY (chosen) AND NOT erased;
        DELETE FROM acgs.conflict WHERE entity = '{{entity}}' AND key = ANY (chosen);
        PERFORM acgs.forget_quarantined('{{entity}}', chosen);
        PERFORM acgs.owe_emptying('{{entity}}');
    END IF;
END
$fn$;

-- Notes in {{entity}} records to whom they are about to be sent: to those who may hold them, and the erased to all.
CREATE OR REPLACE FUNCTION acgs.mark_{{entity}}(chosen uuid[], towards text[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET session_replication_role = replica AS $fn$
BEGIN
    PERFORM FROM acgs.{{entity}} WHERE key = ANY (chosen) ORDER BY key FOR UPDATE;
    UPDATE acgs.{{entity}} AS t SET sent_to = acgs.names_union(t.sent_to, w.targets)
    FROM acgs.{{entity}} AS l CROSS JOIN LATERAL (
        SELECT ARRAY(SELECT n FROM unnest(towards) AS n WHERE l.erased OR n = ANY (l.residency)) AS targets
    ) AS w
    WHERE l.key = ANY (chosen) AND t.key = l.key AND NOT t.sent_to @> w.targets;
END
$fn$;
REVOKE EXECUTE ON FUNCTION acgs.mark_{{entity}}(uuid[], text[]) FROM PUBLIC;

-- Journals {{entity}} records as they are, for some regions only: for those of them that may hold each.
CREATE OR REPLACE FUNCTION acgs.emit_{{entity}}(chosen uuid[], towards text[]) RETURNS bigint
LANGUAGE plpgsql AS $fn$
DECLARE
    emitted bigint;
BEGIN
    PERFORM acgs.mark_{{entity}}(chosen, towards);
    WITH part AS (
        SELECT c.*, r.region AS _region, r.basis AS _basis, r.register_version AS _version, g.targets AS _targets,
            sum(pg_column_size(c.*)) OVER (ORDER BY c.key) / 250000 AS _part
        FROM acgs.{{entity}} AS c JOIN acgs.rule AS r ON r.entity = '{{entity}}' AND r.zone = c.zone
        CROSS JOIN LATERAL (SELECT ARRAY(SELECT n FROM unnest(towards) AS n
            WHERE n <> r.region AND (c.erased OR n = ANY (c.residency)) ORDER BY n) AS targets) AS g
        WHERE c.key = ANY (chosen) AND g.targets <> '{}'
    ), batch AS (
        SELECT c._region, c.erased, c.zone, c.residency, c._targets, c._basis, c._version,
            max(c.hlc) AS hlc_max, json_agg(j.record ORDER BY c.key) AS records, count(*) AS n
        FROM part AS c
        CROSS JOIN LATERAL (SELECT row_to_json(n) AS record FROM (SELECT {{journal_columns}}) AS n) AS j
        GROUP BY c._region, c.erased, c.zone, c.residency, c._targets, c._basis, c._version, c._part
    ), owed AS (
        INSERT INTO acgs.duty (entity, key, region, zone, kind)
        SELECT '{{entity}}', p.key, n, p.zone, 'erase' FROM part AS p CROSS JOIN unnest(p._targets) AS n
        WHERE p.erased AND n IN (SELECT g.name FROM acgs.region AS g)
        ON CONFLICT DO NOTHING
    ), written AS (
        INSERT INTO acgs.journal
            (source, entity, kind, zone, targets, residency, basis, register_version, hlc_max, records)
        SELECT b._region, '{{entity}}', CASE WHEN b.erased THEN 'erase' ELSE 'put' END, b.zone,
            b._targets, b.residency, b._basis, b._version, b.hlc_max, b.records
        FROM batch AS b
    )
    SELECT coalesce(sum(n), 0) INTO emitted FROM batch;
    RETURN emitted;
END
$fn$;
