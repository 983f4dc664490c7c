-- The audit log. Twin of acgs2.audit: leaf.py makes the same entries, tree.py the same hashes.

-- Adds a leaf to the log of this region, in the caller's transaction. The body is canonical JSON (RFC 8785) without
-- floats, at most 60,000 bytes; personal data enters as a salted commitment only. Whoever adds many at once inserts into
-- acgs.audit_leaf (kind, subject, tenant, body) instead, and answers for the bodies.
CREATE OR REPLACE FUNCTION acgs.audit(kind text, subject uuid, body text, tenant uuid DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER AS $fn$
BEGIN
    IF (body IS JSON OBJECT WITH UNIQUE KEYS) IS NOT TRUE OR octet_length(body) > 60000 THEN
        RAISE EXCEPTION USING ERRCODE = 'AC017', MESSAGE = 'audit-body-invalid', DETAIL = jsonb_build_object('kind', kind);
    END IF;
    INSERT INTO acgs.audit_leaf (kind, subject, tenant, body) VALUES (kind, subject, tenant, body);
END
$fn$;
REVOKE EXECUTE ON FUNCTION acgs.audit(text, uuid, text, uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION acgs.audit(text, uuid, text, uuid) TO acgs_app;

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
