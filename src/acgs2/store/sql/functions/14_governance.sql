-- What governs this region, as it noted it itself; what is agreed is in the register.

-- Notes a version of an agreed document, with its leaf in the audit log, before anything is done by it. Returns why
-- it may not govern here, null if it may: what this region had in force before is never replaced by something older
-- (`behind`), nor by something else under the same number (`forked`).
CREATE OR REPLACE FUNCTION acgs.put_in_force(p_kind text, p_version bigint, p_digest text, p_document jsonb, p_subject uuid, p_body text)
RETURNS text LANGUAGE plpgsql AS $fn$
DECLARE
    known text;
BEGIN
    IF p_version < (SELECT max(f.version) FROM acgs.in_force AS f WHERE f.kind = p_kind) THEN
        RETURN 'behind';
    END IF;
    INSERT INTO acgs.in_force (kind, version, digest, document) VALUES (p_kind, p_version, p_digest, p_document)
    ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        SELECT f.digest INTO known FROM acgs.in_force AS f WHERE f.kind = p_kind AND f.version = p_version;
        RETURN CASE WHEN known <> p_digest THEN 'forked' END;
    END IF;
    PERFORM acgs.audit(p_kind || '-in-force', p_subject, p_body);
    IF p_kind = 'halts' THEN
        PERFORM pg_catalog.pg_notify('acgs_inbox', '');  -- what waited for a resume may be claimed
    END IF;
    RETURN NULL;
END
$fn$;

-- Returns the newest version of each document by which this region governs, and its digest, for a peer that asks.
CREATE OR REPLACE FUNCTION acgs.governed_by() RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER AS $fn$
    SELECT coalesce(jsonb_object_agg(k.kind, jsonb_build_object('version', k.version, 'digest', k.digest)), '{}')
    FROM (SELECT DISTINCT ON (f.kind) f.* FROM acgs.in_force AS f WHERE f.bound_at IS NOT NULL
          ORDER BY f.kind, f.version DESC) AS k
$fn$;

-- Returns whether an agent may not act now: it, its tenant, or everything is halted.
CREATE OR REPLACE FUNCTION acgs.is_halted(p_tenant uuid, p_agent uuid) RETURNS boolean
LANGUAGE sql STABLE AS $fn$
    SELECT coalesce((SELECT h.entries @> '[{"scope": "all"}]'
            OR h.entries @> jsonb_build_array(jsonb_build_object('scope', 'tenant', 'target', p_tenant))
            OR h.entries @> jsonb_build_array(jsonb_build_object('scope', 'agent', 'target', p_agent))
        FROM (SELECT f.document -> 'entries' AS entries FROM acgs.in_force AS f
            WHERE f.kind = 'halts' ORDER BY f.version DESC LIMIT 1) AS h WHERE h.entries <> '[]'), false)
$fn$;

-- Has this region look at once at what is agreed; a peer that changed it need not wait for its next look.
CREATE OR REPLACE FUNCTION acgs.look_at_governance() RETURNS void
LANGUAGE sql SECURITY DEFINER AS $fn$
    SELECT pg_catalog.pg_notify('acgs_governance', '')
$fn$;

-- Has this region take over a tenant's changed policies at once, wherever they were changed.
CREATE OR REPLACE FUNCTION acgs.note_policies() RETURNS trigger
LANGUAGE plpgsql AS $fn$
BEGIN
    PERFORM acgs.look_at_governance();
    RETURN NULL;
END
$fn$;

REVOKE EXECUTE ON FUNCTION acgs.put_in_force(text, bigint, text, jsonb, uuid, text), acgs.governed_by(),
    acgs.look_at_governance(), acgs.is_halted(uuid, uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION acgs.governed_by(), acgs.look_at_governance() TO acgs_link, acgs_app;
