-- Which messages wait for people: noted as they are written or arrive, and until their verdict does.

CREATE OR REPLACE FUNCTION acgs.note_held() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER AS $fn$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        DELETE FROM acgs.held AS h USING changed AS c WHERE h.key = c.key AND (c.erased OR c.decision <> 'deliberate');
    END IF;
    INSERT INTO acgs.held (key, zone, tenant_id, deadline_us)
    SELECT c.key, c.zone, c.tenant_id, c.hlc + coalesce((c.basis ->> 'deadline_s')::bigint, 300) * 1000000
    FROM changed AS c WHERE c.decision = 'deliberate' AND NOT c.erased
        -- The verdict may have come by another link, before what it is about.
        AND NOT EXISTS (SELECT FROM acgs.verdict AS v WHERE v.message_id = c.key AND NOT v.erased)
    ON CONFLICT DO NOTHING;
    IF FOUND THEN
        PERFORM pg_catalog.pg_notify('acgs_held', '');
    END IF;
    RETURN NULL;
END
$fn$;

CREATE OR REPLACE FUNCTION acgs.note_said() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER AS $fn$
BEGIN
    IF TG_TABLE_NAME = 'verdict' THEN
        DELETE FROM acgs.held AS h USING changed AS c WHERE h.key = c.message_id;
    END IF;
    PERFORM pg_catalog.pg_notify('acgs_held', '');
    RETURN NULL;
END
$fn$;
