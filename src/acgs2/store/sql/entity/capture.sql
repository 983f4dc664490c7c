-- Journals what one statement changed in {{entity}}: one row per set of targets, about 1 MB at most.
CREATE OR REPLACE FUNCTION acgs.capture_{{entity}}() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER AS $fn$
DECLARE
    large boolean;
    erasing boolean;
    misplaced boolean;
    outdated boolean;
    bytes bigint;
    too_large uuid;
BEGIN
    SELECT sum(pg_column_size(c.*)) > 100000, bool_or(c.erased), bool_or({{misplaced}}),
        bool_or(r.entity IS NULL OR r.valid_until_us <= extract(epoch FROM clock_timestamp()) * 1000000 + r.clock_offset_us)
    INTO large, erasing, misplaced, outdated
    FROM changed AS c
    LEFT JOIN acgs.rule AS r ON r.entity = '{{entity}}' AND r.zone = c.zone {{owner_join}};
    IF large IS NULL THEN
        RETURN NULL;
    ELSIF misplaced THEN
        RAISE EXCEPTION USING ERRCODE = 'AC006', MESSAGE = 'zone-mismatch',
            DETAIL = jsonb_build_object('entity', '{{entity}}');
    ELSIF outdated THEN
        PERFORM acgs.refresh_rules();
    END IF;
    WITH part AS (
        -- Only a large statement pays for being cut into parts.
        SELECT c.*, 0 AS part FROM changed AS c WHERE NOT large
        UNION ALL
        SELECT c.*, sum(octet_length(row_to_json(c)::text)) OVER (ORDER BY c.key) / 1000000
        FROM changed AS c WHERE large
    ), batch AS (
        SELECT c.erased, c.zone, c.residency, CASE WHEN c.erased THEN c.sent_to END AS reached,
            max(c.hlc) AS hlc_max, json_agg(j.record ORDER BY c.key) AS records
        FROM part AS c
        CROSS JOIN LATERAL (SELECT row_to_json(n) AS record FROM (SELECT {{journal_columns}}) AS n) AS j
        GROUP BY c.erased, c.zone, c.residency, 4, c.part
    ), written AS (
        INSERT INTO acgs.journal
            (source, entity, kind, zone, targets, residency, basis, register_version, hlc_max, records)
        SELECT r.region, '{{entity}}', CASE WHEN b.erased THEN 'erase' ELSE 'put' END, b.zone,
            t.targets, b.residency, r.basis, r.register_version, b.hlc_max, b.records
        FROM batch AS b
        JOIN acgs.rule AS r ON r.entity = '{{entity}}' AND r.zone = b.zone
        CROSS JOIN LATERAL (SELECT array_remove(coalesce(b.reached, b.residency), r.region) AS targets) AS t
        WHERE cardinality(t.targets) > 0
        RETURNING octet_length(records::text) AS bytes
    )
    SELECT max(w.bytes) INTO bytes FROM written AS w;
    IF bytes > 262144 THEN
        SELECT c.key INTO too_large FROM changed AS c WHERE octet_length(row_to_json(c)::text) > 262144 LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION USING ERRCODE = 'AC005', MESSAGE = 'record-too-large', DETAIL = jsonb_build_object(
                'entity', '{{entity}}', 'key', too_large, 'limit_bytes', 262144);
        END IF;
    END IF;
    {{audit}}
    IF erasing THEN
        {{audit_erased}}
        DELETE FROM acgs.conflict AS k USING changed AS c
        WHERE c.erased AND k.entity = '{{entity}}' AND k.key = c.key;
        PERFORM acgs.forget_quarantined('{{entity}}', (SELECT array_agg(c.key) FROM changed AS c WHERE c.erased));
        PERFORM acgs.owe_emptying('{{entity}}');
        INSERT INTO acgs.duty (entity, key, region, zone, kind)
        SELECT '{{entity}}', c.key, s.region, c.zone, 'erase' FROM changed AS c CROSS JOIN unnest(c.sent_to) AS s (region)
        WHERE c.erased AND c.origin NOT LIKE s.region || '#%' AND s.region IN (SELECT r.name FROM acgs.region AS r)
        ON CONFLICT (entity, key, region) DO UPDATE SET kind = 'erase', rights = '{}', since = clock_timestamp(), done_at = NULL;
    END IF;
    {{after}}
    RETURN NULL;
END
$fn$;
CREATE OR REPLACE TRIGGER capture_insert AFTER INSERT ON acgs.{{entity}}
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION acgs.capture_{{entity}}();
CREATE OR REPLACE TRIGGER capture_update AFTER UPDATE ON acgs.{{entity}}
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION acgs.capture_{{entity}}();
