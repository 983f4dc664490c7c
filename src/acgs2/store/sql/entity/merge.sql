-- Merges a batch of {{entity}} records by {{strategy}}. Idempotent; in three steps, each for what is left:
-- new records are inserted; a record that has seen all of ours replaces it; concurrent ones are locked in
-- key order, the losing value is kept in acgs.conflict, the joined record stays.
CREATE OR REPLACE FUNCTION acgs.merge_{{entity}}(batch json, holders text[]) RETURNS void
LANGUAGE plpgsql AS $fn$
DECLARE
    incoming acgs.{{entity}}[];
    erasing boolean;
    size bigint := json_array_length(batch);
    done bigint;
    moved bigint;
BEGIN
    INSERT INTO acgs.{{entity}} ({{columns}}, residency)
    SELECT {{incoming_columns}}, holders FROM json_populate_recordset(NULL::acgs.{{entity}}, batch) AS i
    ON CONFLICT (key) DO NOTHING;
    GET DIAGNOSTICS done = ROW_COUNT;
    IF done = size THEN
        RETURN;
    END IF;
    SELECT array_agg(r ORDER BY r.key), bool_or(r.erased) INTO incoming, erasing
    FROM json_populate_recordset(NULL::acgs.{{entity}}, batch) AS r;
    UPDATE acgs.{{entity}} AS t SET
        residency = CASE WHEN t.rights = '{}' THEN holders ELSE t.residency END,
        sent_to = CASE WHEN i.sent_to @> t.sent_to THEN i.sent_to ELSE acgs.names_union(t.sent_to, i.sent_to) END,
        {{replacements}}
    FROM unnest(incoming) AS i
    WHERE t.key = i.key AND t.rights = i.rights AND t.vv <> i.vv AND acgs.vv_covers(i.vv, i.origin, t.vv);
    GET DIAGNOSTICS moved = ROW_COUNT;
    IF done + moved < size THEN
        PERFORM FROM acgs.{{entity}} AS l JOIN unnest(incoming) AS i ON i.key = l.key
        ORDER BY l.key FOR UPDATE OF l;
        INSERT INTO acgs.conflict (entity, key, strategy, zone, field,
            loser_hlc, loser_origin, winner_hlc, winner_origin, loser_value)
        SELECT '{{entity}}', l.key, '{{strategy}}', l.zone, {{conflict}}
        ON CONFLICT DO NOTHING;
        -- What was erased here had gone further than we knew.
        INSERT INTO acgs.due (entity, kind, keys, targets)
        SELECT '{{entity}}', 'erase', array_agg(l.key), n.targets
        FROM acgs.{{entity}} AS l JOIN unnest(incoming) AS i ON i.key = l.key
        CROSS JOIN LATERAL (SELECT ARRAY(SELECT s FROM unnest(i.sent_to) AS s WHERE s <> ALL (l.sent_to)) AS targets) AS n
        WHERE l.erased AND NOT l.sent_to @> i.sent_to GROUP BY n.targets;
        UPDATE acgs.{{entity}} AS t SET
            zone = CASE WHEN i_rules THEN i.zone ELSE l.zone END,
            residency = CASE WHEN i_rules THEN holders ELSE l.residency END,
            rights = acgs.rights_join(l.rights, i.rights),
            sent_to = acgs.names_union(l.sent_to, i.sent_to),
            vv = acgs.vv_join(l.vv, i.vv),
            erased = l.erased OR i.erased,
            {{assignments}}
        FROM acgs.{{entity}} AS l JOIN unnest(incoming) AS i ON i.key = l.key
        CROSS JOIN LATERAL (SELECT {{lateral}}) AS w
        CROSS JOIN LATERAL (SELECT (acgs.epoch(i.rights), i.zone) >= (acgs.epoch(l.rights), l.zone)) AS z (i_rules)
        WHERE t.key = l.key AND (l.vv <> i.vv OR l.rights <> i.rights OR NOT l.sent_to @> i.sent_to);
    END IF;
    IF erasing THEN
        DELETE FROM acgs.conflict AS k USING unnest(incoming) AS i
        WHERE i.erased AND k.entity = '{{entity}}' AND k.key = i.key;
        -- It had gone further from here than the one who erased it knew.
        INSERT INTO acgs.due (entity, kind, keys, targets)
        SELECT '{{entity}}', 'erase', array_agg(t.key), n.targets
        FROM acgs.{{entity}} AS t JOIN unnest(incoming) AS i ON i.key = t.key
        CROSS JOIN LATERAL (SELECT ARRAY(SELECT s FROM unnest(t.sent_to) AS s WHERE s <> ALL (i.sent_to)) AS targets) AS n
        WHERE i.erased AND NOT i.sent_to @> t.sent_to GROUP BY n.targets;
    END IF;
END
$fn$;
