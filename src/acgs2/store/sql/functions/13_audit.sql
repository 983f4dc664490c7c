-- The audit log. Twin of acgs2.audit: leaf.py makes the same entries, tree.py the same hashes.

-- Adds a leaf to the log of this region, in the caller's transaction. The body is canonical JSON (RFC 8785) without
-- floats, at most 60,000 bytes; personal data enters as a salted commitment only. Whoever adds many at once inserts into
-- acgs.audit_leaf (kind, subject, tenant, body) instead, and answers for the bodies.
DROP FUNCTION IF EXISTS acgs.audit(text, uuid, text, uuid);
CREATE FUNCTION acgs.audit(kind text, subject uuid, body text, tenant uuid) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER AS $fn$
BEGIN
    IF (body IS JSON OBJECT WITH UNIQUE KEYS) IS NOT TRUE OR octet_length(body) > 60000 THEN
        RAISE EXCEPTION USING ERRCODE = 'AC017', MESSAGE = 'audit-body-invalid', DETAIL = jsonb_build_object('kind', kind);
    END IF;
    INSERT INTO acgs.audit_leaf (kind, subject, tenant, body) VALUES (kind, subject, tenant, body);
END
$fn$;

-- The same about no tenant.
CREATE OR REPLACE FUNCTION acgs.audit(kind text, subject uuid, body text) RETURNS void
LANGUAGE sql SECURITY DEFINER AS $fn$
    SELECT acgs.audit(kind, subject, body, NULL)
$fn$;
REVOKE EXECUTE ON FUNCTION acgs.audit(text, uuid, text, uuid), acgs.audit(text, uuid, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION acgs.audit(text, uuid, text, uuid), acgs.audit(text, uuid, text) TO acgs_app;

-- Returns JSON as RFC 8785 writes it: no spaces, keys in order (of code points; of UTF-16 units that is the same below
-- U+10000). Refuses fractions and what is beyond 2^53, which two programs may write in two ways.
CREATE OR REPLACE FUNCTION acgs.canonical(value jsonb) RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $fn$
BEGIN
    CASE jsonb_typeof(value)
        WHEN 'object' THEN
            RETURN '{' || coalesce((SELECT string_agg(to_json(e.key)::text || ':' || acgs.canonical(e.value), ',' ORDER BY e.key COLLATE "C")
                FROM jsonb_each(value) AS e), '') || '}';
        WHEN 'array' THEN
            RETURN '[' || coalesce((SELECT string_agg(acgs.canonical(e.value), ',' ORDER BY e.n)
                FROM jsonb_array_elements(value) WITH ORDINALITY AS e (value, n)), '') || ']';
        WHEN 'number' THEN
            IF value::numeric <> trunc(value::numeric) OR abs(value::numeric) > 9007199254740991 THEN
                RAISE EXCEPTION USING ERRCODE = 'AC017', MESSAGE = 'audit-body-invalid', DETAIL = jsonb_build_object('number', value);
            END IF;
            RETURN trunc(value::numeric)::bigint::text;
        ELSE
            RETURN value::text;
    END CASE;
END
$fn$;

-- Returns the body of a leaf about a write: who did it, as the transaction says by acgs.actor, and which version it made.
CREATE OR REPLACE FUNCTION acgs.audit_body(fields text, hlc bigint, origin text, zone text) RETURNS text
LANGUAGE sql STABLE AS $fn$
    SELECT '{"actor":' || to_json(coalesce(nullif(current_setting('acgs.actor', true), ''), 'database:' || session_user))
        || ',"fields":' || fields || ',"hlc":' || hlc || ',"origin":' || to_json(origin) || ',"zone":' || to_json(zone) || '}'
$fn$;

-- Adds a leaf about an act that is no write of a record.
CREATE OR REPLACE FUNCTION acgs.audit_act(kind text, subject uuid, tenant uuid, fields jsonb) RETURNS void
LANGUAGE sql AS $fn$
    INSERT INTO acgs.audit_leaf (kind, subject, tenant, body)
    SELECT kind, subject, tenant, '{"actor":' || to_json(coalesce(fields ->> 'by', nullif(current_setting('acgs.actor', true), ''),
        'database:' || session_user)) || ',"fields":' || acgs.canonical(fields - 'by') || '}'
$fn$;
REVOKE EXECUTE ON FUNCTION acgs.audit_act(text, uuid, uuid, jsonb) FROM PUBLIC;

-- Refuses to change what was logged. A superuser can get around this, and is found out by the tree.
CREATE OR REPLACE FUNCTION acgs.refuse_rewriting() RETURNS trigger
LANGUAGE plpgsql AS $fn$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'AC018', MESSAGE = 'audit-append-only', DETAIL = jsonb_build_object('table', TG_TABLE_NAME);
END
$fn$;
CREATE OR REPLACE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON acgs.audit_leaf
    FOR EACH STATEMENT EXECUTE FUNCTION acgs.refuse_rewriting();
CREATE OR REPLACE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON acgs.audit_cut
    FOR EACH STATEMENT EXECUTE FUNCTION acgs.refuse_rewriting();
CREATE OR REPLACE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON acgs.audit_tile
    FOR EACH STATEMENT EXECUTE FUNCTION acgs.refuse_rewriting();
CREATE OR REPLACE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON acgs.audit_cosignature
    FOR EACH STATEMENT EXECUTE FUNCTION acgs.refuse_rewriting();

-- Returns what is hashed of a leaf: canonical JSON, for its keys are in order and its body is canonical. It and the
-- next are called STABLE, as to_json is, so that they are inlined: once per leaf is often.
CREATE OR REPLACE FUNCTION acgs.audit_entry(leaf acgs.audit_leaf) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE AS $fn$
    SELECT '{"at_us":' || (leaf).at_us || ',"body":' || (leaf).body || ',"kind":' || to_json((leaf).kind)
        || ',"subject":' || coalesce('"' || (leaf).subject || '"', 'null')
        || ',"tenant":' || coalesce('"' || (leaf).tenant || '"', 'null') || '}'
$fn$;

-- Returns the hash of a leaf as RFC 9162 section 2.1.1 has it.
CREATE OR REPLACE FUNCTION acgs.audit_hash(leaf acgs.audit_leaf) RETURNS bytea
LANGUAGE sql STABLE PARALLEL SAFE AS $fn$
    SELECT sha256('\x00'::bytea || convert_to(acgs.audit_entry(leaf), 'UTF8'))
$fn$;

-- Returns the leaves of a log from one index up to another, which the newest checkpoint may not have come to.
CREATE OR REPLACE FUNCTION acgs.audit_leaves(p_log integer, p_from bigint, p_to bigint)
RETURNS TABLE (index bigint, leaf acgs.audit_leaf)
LANGUAGE plpgsql STABLE AS $fn$
DECLARE
    cut acgs.audit_cut;
BEGIN
    IF p_from = 0 AND p_to > 0 THEN
        RETURN QUERY SELECT 0::bigint, l FROM acgs.audit_leaf AS l WHERE l.xid = '0'::xid8 AND l.id = -p_log;
        p_from := 1;
    END IF;
    SELECT * INTO cut FROM acgs.audit_cut AS c WHERE c.log = p_log AND c.size <= p_from ORDER BY c.size DESC LIMIT 1;
    IF p_to > p_from AND cut.size IS NOT NULL THEN
        RETURN QUERY SELECT p_from - 1 + row_number() OVER (ORDER BY n.xid, n.id), n::acgs.audit_leaf
        FROM (SELECT l.* FROM acgs.audit_leaf AS l WHERE (l.xid, l.id) > (cut.xid, cut.id)
              ORDER BY l.xid, l.id OFFSET p_from - cut.size LIMIT p_to - p_from) AS n;
    END IF;
END
$fn$;

-- Returns a tile of a log, full or as wide as asked for; NULL where the log has not come so far.
CREATE OR REPLACE FUNCTION acgs.audit_hashes(p_log integer, p_level integer, p_number bigint, p_width integer) RETURNS bytea
LANGUAGE plpgsql STABLE AS $fn$
DECLARE
    found bytea;
BEGIN
    SELECT substring(t.hashes FROM 1 FOR 32 * p_width) INTO found FROM acgs.audit_tile AS t
    WHERE t.log = p_log AND t.level = p_level AND t.number = p_number;
    IF found IS NULL AND p_level = 0 THEN
        SELECT string_agg(acgs.audit_hash(l.leaf), '' ORDER BY l.index) INTO found
        FROM acgs.audit_leaves(p_log, p_number * 256, p_number * 256 + p_width) AS l;
    ELSIF found IS NULL THEN
        SELECT string_agg(t.root, '' ORDER BY t.number) INTO found FROM acgs.audit_tile AS t
        WHERE t.log = p_log AND t.level = p_level - 1 AND t.number >= p_number * 256 AND t.number < p_number * 256 + p_width;
    END IF;
    RETURN CASE WHEN octet_length(found) = 32 * p_width THEN found END;
END
$fn$;

-- Witnessing. Regions ask each other as acgs_link; nothing that is asked for here has a leaf's content but the first.

-- Returns the checkpoint of this region's log that is to be cosigned now.
CREATE OR REPLACE FUNCTION acgs.audit_newest() RETURNS TABLE (log integer, origin text, size bigint, root bytea, signature bytea)
LANGUAGE sql STABLE SECURITY DEFINER AS $fn$
    SELECT c.log, l.origin, c.size, c.root, c.signature FROM acgs.audit_offer AS o
    JOIN acgs.audit_cut AS c ON c.log = o.log AND c.size = o.size JOIN acgs.audit_log AS l ON l.number = c.log
$fn$;

-- Returns the first leaf of a log of this region, which says what came before it.
CREATE OR REPLACE FUNCTION acgs.audit_first(p_log integer) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER AS $fn$
    SELECT acgs.audit_entry(l) FROM acgs.audit_leaf AS l WHERE l.xid = '0'::xid8 AND l.id = -p_log
$fn$;

-- Returns tiles of a log, each as wide as asked for.
CREATE OR REPLACE FUNCTION acgs.audit_tiles(p_log integer, p_levels integer[], p_numbers bigint[], p_widths integer[])
RETURNS TABLE (level integer, number bigint, hashes bytea)
LANGUAGE sql STABLE SECURITY DEFINER AS $fn$
    SELECT w.level, w.number, acgs.audit_hashes(p_log, w.level, w.number, w.width)
    FROM unnest(p_levels, p_numbers, p_widths) AS w (level, number, width)
$fn$;

-- Takes a witness's signature of a checkpoint of this region; whoever counts it checks it first.
CREATE OR REPLACE FUNCTION acgs.audit_cosigned(p_origin text, p_size bigint, p_witness text, p_time_s bigint, p_signature bytea)
RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER AS $fn$
BEGIN
    IF octet_length(p_signature) <> 64 OR NOT EXISTS (SELECT FROM acgs.region AS r WHERE p_witness LIKE '%/' || r.name) THEN
        RETURN false;
    END IF;
    INSERT INTO acgs.audit_cosignature (log, size, witness, time_s, signature)
    SELECT c.log, c.size, p_witness, p_time_s, p_signature
    FROM acgs.audit_log AS l JOIN acgs.audit_cut AS c ON c.log = l.number AND c.size = p_size WHERE l.origin = p_origin
    ON CONFLICT DO NOTHING;
    PERFORM pg_catalog.pg_notify('acgs_audit_cosigned', '');
    RETURN true;
END
$fn$;

-- Returns what this region has cosigned of others' logs; refuses where this life has forgotten it.
CREATE OR REPLACE FUNCTION acgs.audit_known() RETURNS TABLE (origin text, region text, size bigint, root bytea, note text, time_s bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER AS $fn$
BEGIN
    IF (SELECT s.witnessing IS DISTINCT FROM s.incarnation FROM acgs.self AS s) THEN
        RAISE EXCEPTION USING ERRCODE = 'AC019', MESSAGE = 'witness-forgot';
    END IF;
    RETURN QUERY SELECT w.origin, w.region, w.size, w.root, w.note, w.time_s FROM acgs.audit_witnessed AS w;
END
$fn$;

-- Remembers what is about to be cosigned; refuses what would contradict what was cosigned before, or a life that forgot.
CREATE OR REPLACE FUNCTION acgs.audit_remember(p_origin text, p_region text, p_size bigint, p_root bytea, p_note text, p_time_s bigint)
RETURNS boolean
LANGUAGE plpgsql SET synchronous_commit = local AS $fn$
BEGIN
    IF (SELECT s.witnessing IS DISTINCT FROM s.incarnation FROM acgs.self AS s) THEN
        RETURN false;
    END IF;
    INSERT INTO acgs.audit_witnessed AS w (origin, region, size, root, note, time_s)
    VALUES (p_origin, p_region, p_size, p_root, p_note, p_time_s)
    ON CONFLICT (origin) DO UPDATE SET size = excluded.size, root = excluded.root, note = excluded.note, time_s = excluded.time_s
    WHERE w.time_s <= excluded.time_s AND (w.size < excluded.size OR (w.size = excluded.size AND w.root = excluded.root));
    RETURN FOUND;
END
$fn$;

-- Takes over what other witnesses know, the most of each log, and witnesses from here on in this life.
CREATE OR REPLACE FUNCTION acgs.audit_relearn(known jsonb) RETURNS void
LANGUAGE plpgsql AS $fn$
BEGIN
    INSERT INTO acgs.audit_witnessed AS w (origin, region, size, root, note, time_s)
    SELECT DISTINCT ON (k.origin) k.origin, k.region, k.size, decode(k.root, 'hex'), k.note, k.time_s
    FROM jsonb_to_recordset(known) AS k (origin text, region text, size bigint, root text, note text, time_s bigint)
    ORDER BY k.origin, k.size DESC, k.time_s DESC
    ON CONFLICT (origin) DO UPDATE SET size = excluded.size, root = excluded.root, note = excluded.note, time_s = excluded.time_s
    WHERE w.size < excluded.size;
    UPDATE acgs.self SET witnessing = incarnation;
END
$fn$;

-- Opens an incident about a log, unless the same is open; closes it where `wrong` is false.
CREATE OR REPLACE FUNCTION acgs.audit_incident(p_kind text, p_source text, p_origin text, p_detail jsonb, wrong boolean DEFAULT true)
RETURNS boolean
LANGUAGE plpgsql AS $fn$
BEGIN
    IF NOT wrong THEN
        UPDATE acgs.incident AS i SET closed_at = clock_timestamp()
        WHERE i.kind = p_kind AND i.detail ->> 'origin' = p_origin AND i.closed_at IS NULL;
        RETURN FOUND;
    END IF;
    INSERT INTO acgs.incident (kind, source, detail)
    SELECT p_kind, p_source, p_detail || jsonb_build_object('origin', p_origin)
    WHERE NOT EXISTS (SELECT FROM acgs.incident AS i
        WHERE i.kind = p_kind AND i.source = p_source AND i.detail ->> 'origin' = p_origin AND i.closed_at IS NULL);
    RETURN FOUND;
END
$fn$;

REVOKE EXECUTE ON FUNCTION acgs.audit_newest(), acgs.audit_first(integer), acgs.audit_known(),
    acgs.audit_tiles(integer, integer[], bigint[], integer[]), acgs.audit_cosigned(text, bigint, text, bigint, bytea),
    acgs.audit_remember(text, text, bigint, bytea, text, bigint), acgs.audit_relearn(jsonb),
    acgs.audit_incident(text, text, text, jsonb, boolean) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION acgs.audit_newest(), acgs.audit_first(integer), acgs.audit_known(),
    acgs.audit_tiles(integer, integer[], bigint[], integer[]), acgs.audit_cosigned(text, bigint, text, bigint, bytea) TO acgs_link;
GRANT EXECUTE ON FUNCTION acgs.audit_tiles(integer, integer[], bigint[], integer[]), acgs.audit_newest() TO acgs_app;
