-- Pieces that the compiler puts into the templates, by name. {{f}} is the field.

-- name: stamp_latest
IF TG_OP = 'INSERT' THEN
    IF NEW.{{f}} IS NOT NULL THEN
        NEW.meta := NEW.meta || jsonb_build_object('{{f}}', jsonb_build_array(NEW.hlc, NEW.origin, n));
    END IF;
ELSIF NEW.{{f}} IS DISTINCT FROM OLD.{{f}} THEN
    NEW.meta := NEW.meta || jsonb_build_object('{{f}}', jsonb_build_array(NEW.hlc, NEW.origin, n));
END IF;
-- name: stamp_max
IF TG_OP = 'UPDATE' THEN NEW.{{f}} := greatest(OLD.{{f}}, NEW.{{f}}); END IF;
-- name: stamp_min
IF TG_OP = 'UPDATE' THEN NEW.{{f}} := least(OLD.{{f}}, NEW.{{f}}); END IF;
-- name: stamp_union
NEW.meta := NEW.meta || coalesce(jsonb_build_object('{{f}}', acgs.elements_write(NEW.meta -> '{{f}}',
    CASE WHEN TG_OP = 'UPDATE' THEN OLD.{{f}} END, NEW.{{f}}, NEW.hlc, NEW.origin)), '{}');
NEW.meta := CASE WHEN NEW.meta -> '{{f}}' = 'null' THEN NEW.meta - '{{f}}' ELSE NEW.meta END;
NEW.{{f}} := acgs.elements_present(NEW.meta -> '{{f}}');
-- name: stamp_map
NEW.meta := NEW.meta || jsonb_build_object('{{f}}', acgs.map_write(NEW.meta -> '{{f}}',
    CASE WHEN TG_OP = 'UPDATE' THEN OLD.{{f}} END, NEW.{{f}}, NEW.hlc, NEW.origin));
NEW.meta := CASE WHEN NEW.meta -> '{{f}}' = 'null' THEN NEW.meta - '{{f}}' ELSE NEW.meta END;
NEW.{{f}} := acgs.map_value(NEW.meta -> '{{f}}');
-- name: stamp_counter
NEW.meta := NEW.meta || jsonb_build_object('{{f}}', acgs.counter_write(NEW.meta -> '{{f}}',
    coalesce(NEW.{{f}}, 0) - CASE WHEN TG_OP = 'UPDATE' THEN coalesce(OLD.{{f}}, 0) ELSE 0 END,
    -- A create that is repeated in another region is the same count, not a second one.
    CASE WHEN TG_OP = 'UPDATE' THEN NEW.origin ELSE 'created' END, n));
NEW.meta := CASE WHEN NEW.meta -> '{{f}}' = 'null' THEN NEW.meta - '{{f}}' ELSE NEW.meta END;
NEW.{{f}} := acgs.counter_value(NEW.meta -> '{{f}}');
-- name: stamp_versioned
IF TG_OP = 'INSERT' THEN
    NEW.{{f}} := 1;
ELSIF NEW.{{f}} IS DISTINCT FROM OLD.{{f}} + 1 THEN
    RAISE EXCEPTION USING ERRCODE = 'AC003', MESSAGE = 'version-mismatch', DETAIL = jsonb_build_object(
        'entity', '{{entity}}', 'key', OLD.key, 'version', OLD.{{f}});
END IF;
-- name: stamp_append_only
IF TG_OP = 'UPDATE' THEN
    RAISE EXCEPTION USING ERRCODE = 'AC004', MESSAGE = 'append-only', DETAIL = jsonb_build_object('entity', '{{entity}}', 'key', OLD.key);
END IF;
-- name: owner_join
LEFT JOIN acgs.tenant AS o ON o.key = c.tenant_id
-- name: stamp_subject
NEW.rights := acgs.rights_now(NEW.rights, NEW.zone, NEW.{{f}});
-- name: stamp_epoch
IF TG_OP = 'INSERT' THEN
    NEW.rights := coalesce((SELECT o.rights - 'consents' - 'handed' FROM acgs.tenant AS o WHERE o.key = NEW.tenant_id), '{}');
END IF;
-- name: follow_tenant
UPDATE acgs.{{entity}} AS t SET zone = o.zone, rights = acgs.rights_join(t.rights, o.rights - 'consents' - 'handed')
FROM acgs.tenant AS o
WHERE t.key = ANY (chosen) AND o.key = t.tenant_id AND acgs.epoch(o.rights) > acgs.epoch(t.rights);
-- name: rights_now
CASE WHEN r.by_consent = '{}' THEN t.rights ELSE acgs.rights_now(t.rights, t.zone, t.{{f}}) END
-- name: withdrawn
CASE WHEN r.by_consent <> '{}' AND acgs.knows_consents(t.zone) THEN acgs.consents(t.{{f}}, false) ELSE '{}' END
-- name: after_register
PERFORM acgs.refresh_rules();
-- name: after_consent
PERFORM acgs.settle_subjects((SELECT array_agg(DISTINCT c.subject_id) FROM changed AS c));
-- name: audit_leaf
INSERT INTO acgs.audit_leaf (kind, subject, tenant, body)
SELECT '{{entity}}-' || CASE WHEN c.erased THEN 'erased' WHEN TG_OP = 'INSERT' THEN 'created' ELSE 'changed' END, c.key, {{tenant}},
    acgs.audit_body(CASE WHEN c.erased THEN '{}' ELSE {{values}} END, c.hlc, c.origin, c.zone)
FROM changed AS c WHERE {{only}} ORDER BY c.key;
-- name: audited_digest
encode(sha256(convert_to(coalesce(c.{{f}}::text, ''), 'UTF8')), 'hex')
-- name: wins_last_write_wins
(i.erased, i.hlc, i.origin) > (l.erased, l.hlc, l.origin)
-- name: wins_versioned
(i.erased, coalesce(i.{{f}}, 0), i.hlc, i.origin) > (l.erased, coalesce(l.{{f}}, 0), l.hlc, l.origin)
-- name: wins_append_only
CASE WHEN i.erased OR l.erased THEN (i.erased, i.hlc, i.origin) > (l.erased, l.hlc, l.origin)
    ELSE ({{i_rank}}, l.hlc, l.origin) > ({{l_rank}}, i.hlc, i.origin) END
-- name: rank
coalesce(array_position('{{values}}'::text[], {{side}}.{{f}}), 0)
-- name: conflict_whole
'',
    CASE WHEN w.i_wins THEN l.hlc ELSE i.hlc END, CASE WHEN w.i_wins THEN l.origin ELSE i.origin END,
    CASE WHEN w.i_wins THEN i.hlc ELSE l.hlc END, CASE WHEN w.i_wins THEN i.origin ELSE l.origin END,
    CASE WHEN w.i_wins THEN {{l_object}} ELSE {{i_object}} END
FROM acgs.{{entity}} AS l JOIN unnest(incoming) AS i ON i.key = l.key
CROSS JOIN LATERAL (SELECT {{lateral}}) AS w
WHERE NOT l.erased AND NOT i.erased AND (l.hlc, l.origin) <> (i.hlc, i.origin)
    AND ({{l_data}}) IS DISTINCT FROM ({{i_data}}) {{concurrent}}
-- name: concurrent
AND NOT acgs.vv_covers(i.vv, l.vv) AND NOT acgs.vv_covers(l.vv, i.vv)
-- name: conflict_fields
v.field,
    (v.loser -> 0)::bigint, v.loser ->> 1, (v.winner -> 0)::bigint, v.winner ->> 1, v.value
FROM acgs.{{entity}} AS l JOIN unnest(incoming) AS i ON i.key = l.key
CROSS JOIN LATERAL (SELECT {{lateral}}) AS w
CROSS JOIN LATERAL (VALUES {{values}}) AS c (field, i_wins, l_stamp, i_stamp, l_value, i_value)
CROSS JOIN LATERAL (SELECT c.field, CASE WHEN c.i_wins THEN c.l_stamp ELSE c.i_stamp END AS loser,
    CASE WHEN c.i_wins THEN c.i_stamp ELSE c.l_stamp END AS winner,
    CASE WHEN c.i_wins THEN c.l_value ELSE c.i_value END AS value) AS v
WHERE NOT w.gone AND c.l_stamp <> c.i_stamp AND c.l_value IS DISTINCT FROM c.i_value
    AND NOT acgs.stamp_seen(l.vv, c.i_stamp) AND NOT acgs.stamp_seen(i.vv, c.l_stamp)
-- name: assign_whole
{{f}} = CASE WHEN w.i_wins THEN i.{{f}} ELSE l.{{f}} END
-- name: assign_latest
{{f}} = CASE WHEN w.gone THEN NULL WHEN w.later_{{f}} THEN i.{{f}} ELSE l.{{f}} END
-- name: assign_max
{{f}} = CASE WHEN NOT w.gone THEN greatest(l.{{f}}, i.{{f}}) END
-- name: assign_min
{{f}} = CASE WHEN NOT w.gone THEN least(l.{{f}}, i.{{f}}) END
-- name: assign_union
{{f}} = CASE WHEN NOT w.gone THEN acgs.elements_present(w.joined_{{f}}) END
-- name: assign_map
{{f}} = CASE WHEN NOT w.gone THEN acgs.map_value(w.joined_{{f}}) END
-- name: assign_counter
{{f}} = CASE WHEN NOT w.gone THEN acgs.counter_value(w.joined_{{f}}) END
-- name: lateral_latest
acgs.stamp_later(i.meta -> '{{f}}', l.meta -> '{{f}}') AS later_{{f}}
-- name: lateral_union
acgs.elements_join(l.meta -> '{{f}}', i.meta -> '{{f}}') AS joined_{{f}}
-- name: lateral_map
acgs.elements_join(l.meta -> '{{f}}', i.meta -> '{{f}}') AS joined_{{f}}
-- name: lateral_counter
acgs.counter_join(l.meta -> '{{f}}', i.meta -> '{{f}}') AS joined_{{f}}
-- name: meta_latest
CASE WHEN w.later_{{f}} THEN jsonb_build_object('{{f}}', i.meta -> '{{f}}') ELSE '{}' END
-- name: meta_joined
CASE WHEN w.joined_{{f}} IS NOT NULL THEN jsonb_build_object('{{f}}', w.joined_{{f}}) ELSE '{}' END
