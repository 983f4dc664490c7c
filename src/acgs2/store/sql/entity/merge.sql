-- Merges a batch of {{entity}} records by {{strategy}}: new ones are inserted, the others are locked in
-- key order, a concurrent loser is kept in acgs.conflict, the winner stays. Idempotent.
CREATE OR REPLACE FUNCTION acgs.merge_{{entity}}(batch json, holders text[]) RETURNS void
LANGUAGE plpgsql AS $fn$
DECLARE
    incoming acgs.{{entity}}[];
    fresh bigint;
BEGIN
    SELECT array_agg(r ORDER BY r.key) INTO incoming
    FROM json_populate_recordset(NULL::acgs.{{entity}}, batch) AS r;
    INSERT INTO acgs.{{entity}} ({{columns}}, residency)
    SELECT {{incoming_columns}}, holders FROM unnest(incoming) AS i
    ON CONFLICT (key) DO NOTHING;
    GET DIAGNOSTICS fresh = ROW_COUNT;
    IF fresh = coalesce(cardinality(incoming), 0) THEN
        RETURN;
    END IF;
    PERFORM FROM acgs.{{entity}} AS l JOIN unnest(incoming) AS i ON i.key = l.key
    ORDER BY l.key FOR UPDATE OF l;
    INSERT INTO acgs.conflict (entity, key, strategy, zone, field,
        loser_hlc, loser_origin, winner_hlc, winner_origin, loser_value)
    SELECT '{{entity}}', l.key, '{{strategy}}', l.zone, {{conflict}}
    ON CONFLICT DO NOTHING;
    UPDATE acgs.{{entity}} AS t SET
        residency = holders,
        sent_to = acgs.names_union(l.sent_to, i.sent_to),
        vv = acgs.vv_join(l.vv, i.vv),
        erased = l.erased OR i.erased,
        {{assignments}}
    FROM acgs.{{entity}} AS l JOIN unnest(incoming) AS i ON i.key = l.key
    CROSS JOIN LATERAL (SELECT {{lateral}}) AS w
    WHERE t.key = l.key
        AND ((l.hlc, l.origin) <> (i.hlc, i.origin) OR l.vv <> i.vv OR NOT l.sent_to @> i.sent_to);
    DELETE FROM acgs.conflict AS k USING unnest(incoming) AS i
    WHERE i.erased AND k.entity = '{{entity}}' AND k.key = i.key;
END
$fn$;
