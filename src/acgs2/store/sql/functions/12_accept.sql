-- Takes messages in: a batch of judged requests, each accepted, known from before, or refused, in one transaction.

-- Stores what may be stored of a batch and says of each entry, by its number, what became of it:
--   accepted   it is stored now
--   repeat     it was stored before, by the same request; its decision and basis are those of that time
--   erased     it was stored and erased since; its id is not used again
--   reused     the id was used for another request
--   again      the same id is being stored at this moment; ask again
--   stale      an agent or its tenant has changed since it was judged; judge again
--   tenant-unknown, tenant-suspended, zone-mismatch   nothing was stored
-- An entry names the versions (clocks) of the agents that its verdict was made with: what is stored was judged by
-- what was true when it was stored.
CREATE OR REPLACE FUNCTION acgs.accept(batch json)
RETURNS TABLE (i integer, outcome text, decision text, impact bigint, basis jsonb, accepted_us bigint, origin text, residency text[])
LANGUAGE plpgsql SECURITY DEFINER SET plan_cache_mode = force_generic_plan AS $fn$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH given AS MATERIALIZED (
        SELECT r.*, r.tenant_id AS of_tenant FROM json_to_recordset(batch) AS r (
            i integer, key uuid, zone text, tenant_id uuid, conversation_id uuid, from_agent uuid, to_tenant_id uuid,
            to_agent uuid, topic text, message_type text, priority bigint, content text, payload jsonb, metadata jsonb,
            constitutional_hash text, expires_at timestamptz, digest text, salt text, proposer text, decision text,
            impact bigint, basis jsonb, leaf text, from_hlc bigint, to_hlc bigint)
    ), looked AS MATERIALIZED (
        -- One lookup by key for each entry: a join may be planned as a scan of all messages, and stay so.
        SELECT g.*, m.decision AS of_decision, m.impact AS of_impact, m.basis AS of_basis, m.hlc AS of_hlc,
            m.origin AS of_origin, m.residency AS of_residency, CASE
            WHEN m.erased THEN 'erased'
            WHEN m.key IS NOT NULL AND m.digest IS DISTINCT FROM g.digest THEN 'reused'
            WHEN m.key IS NOT NULL THEN 'repeat'
            WHEN t.zone IS NULL THEN 'tenant-unknown'
            WHEN t.zone <> g.zone THEN 'zone-mismatch'
            WHEN t.status = 'suspended' THEN 'tenant-suspended'
            WHEN f.hlc IS DISTINCT FROM g.from_hlc OR (g.to_agent IS NOT NULL AND a.hlc IS DISTINCT FROM g.to_hlc) THEN 'stale'
            ELSE 'new' END AS seen
        FROM given AS g
        LEFT JOIN LATERAL (SELECT * FROM acgs.message AS m WHERE m.key = g.key LIMIT 1) AS m ON true
        LEFT JOIN LATERAL (SELECT t.zone, t.status FROM acgs.tenant AS t WHERE t.key = g.tenant_id AND NOT t.erased LIMIT 1) AS t ON true
        LEFT JOIN LATERAL (SELECT f.hlc FROM acgs.agent AS f
            WHERE f.key = g.from_agent AND f.tenant_id = g.tenant_id AND NOT f.erased LIMIT 1) AS f ON true
        LEFT JOIN LATERAL (SELECT a.hlc FROM acgs.agent AS a
            WHERE a.key = g.to_agent AND a.tenant_id = coalesce(g.to_tenant_id, g.tenant_id) AND NOT a.erased LIMIT 1) AS a ON true
    ), stored AS (
        INSERT INTO acgs.message AS m (key, zone, tenant_id, conversation_id, from_agent, to_tenant_id, to_agent, topic,
            message_type, priority, content, payload, metadata, constitutional_hash, expires_at, digest, salt, proposer,
            decision, impact, basis)
        SELECT DISTINCT ON (l.key) l.key, l.zone, l.tenant_id, l.conversation_id, l.from_agent, l.to_tenant_id, l.to_agent,
            l.topic, l.message_type, l.priority, l.content, l.payload, l.metadata, l.constitutional_hash, l.expires_at,
            l.digest, l.salt, l.proposer, l.decision, l.impact, l.basis
        FROM looked AS l WHERE l.seen = 'new' ORDER BY l.key, l.i
        ON CONFLICT (key) DO NOTHING
        RETURNING m.key, m.salt, m.hlc, m.origin, m.residency
    ), logged AS (
        INSERT INTO acgs.audit_leaf (kind, subject, tenant, body)
        SELECT 'message', l.key, l.of_tenant, l.leaf FROM looked AS l JOIN stored AS s ON s.key = l.key AND s.salt = l.salt
        ORDER BY l.i
    )
    SELECT l.i, CASE WHEN l.seen <> 'new' THEN l.seen WHEN s.salt = l.salt THEN 'accepted' ELSE 'again' END,
        coalesce(l.of_decision, l.decision), coalesce(l.of_impact, l.impact), coalesce(l.of_basis, l.basis),
        coalesce(s.hlc, l.of_hlc), coalesce(s.origin, l.of_origin), coalesce(s.residency, l.of_residency)
    FROM looked AS l LEFT JOIN stored AS s ON s.key = l.key;
END
$fn$;
REVOKE EXECUTE ON FUNCTION acgs.accept(json) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION acgs.accept(json) TO acgs_app;
