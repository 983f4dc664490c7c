-- Journals what one statement changed in {{entity}}: one row per set of targets, about 1 MB at most.
CREATE OR REPLACE FUNCTION acgs.capture_{{entity}}() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER AS $fn$
DECLARE
    me text := (SELECT region FROM acgs.self);
    too_large uuid;
BEGIN
    {{owner_check}}
    INSERT INTO acgs.journal
        (source, entity, kind, zone, targets, residency, basis, register_version, hlc_max, records)
    SELECT me, '{{entity}}', CASE WHEN b.erased THEN 'erase' ELSE 'put' END, b.zone,
        array_remove(CASE WHEN b.erased THEN b.sent_to ELSE b.residency END, me), b.residency,
        r.basis, r.register_version, b.hlc_max, b.records
    FROM (
        SELECT s.erased, s.zone, s.residency, CASE WHEN s.erased THEN s.sent_to END AS sent_to,
            max(s.hlc) AS hlc_max, json_agg(s.record ORDER BY s.key) AS records
        FROM (
            SELECT c.key, c.erased, c.zone, c.residency, c.sent_to, c.hlc, j.record,
                sum(octet_length(j.record::text)) OVER (ORDER BY c.key) / 1000000 AS part
            FROM changed AS c
            CROSS JOIN LATERAL (SELECT row_to_json(n) AS record FROM (SELECT {{journal_columns}}) AS n) AS j
        ) AS s
        GROUP BY s.erased, s.zone, s.residency, 4, s.part
    ) AS b,
    acgs.rule_of('{{entity}}', b.zone, acgs.now_us()) AS r
    WHERE cardinality(array_remove(CASE WHEN b.erased THEN b.sent_to ELSE b.residency END, me)) > 0;
    SELECT c.key INTO too_large FROM changed AS c
    WHERE pg_column_size(c.*) > 8192 AND octet_length(row_to_json(c)::text) > 262144 LIMIT 1;
    IF FOUND THEN
        PERFORM acgs.refuse('AC005', 'record-too-large', jsonb_build_object(
            'entity', '{{entity}}', 'key', too_large, 'limit_bytes', 262144));
    END IF;
    DELETE FROM acgs.conflict AS k USING changed AS c
    WHERE c.erased AND k.entity = '{{entity}}' AND k.key = c.key;
    {{after}}
    RETURN NULL;
END
$fn$;
CREATE OR REPLACE TRIGGER capture_insert AFTER INSERT ON acgs.{{entity}}
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION acgs.capture_{{entity}}();
CREATE OR REPLACE TRIGGER capture_update AFTER UPDATE ON acgs.{{entity}}
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION acgs.capture_{{entity}}();
