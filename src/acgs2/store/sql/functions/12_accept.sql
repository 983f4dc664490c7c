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
LANGUAGE plpgsql SECURITY DEFINER AS $fn$
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
        SELECT g.*, m.digest AS known_digest, CASE
            WHEN m.erased THEN 'erased'
            WHEN m.key IS NOT NULL AND m.digest IS DISTINCT FROM g.digest THEN 'reused'
            WHEN m.key IS NOT NULL THEN 'repeat'
            WHEN t.key IS NULL THEN 'tenant-unknown'
            WHEN t.zone <> g.zone THEN 'zone-mismatch'
            WHEN t.status = 'suspended' THEN 'tenant-suspended'
            WHEN f.hlc IS DISTINCT FROM g.from_hlc OR (g.to_agent IS NOT NULL AND a.hlc IS DISTINCT FROM g.to_hlc) THEN 'stale'
            ELSE 'new' END AS seen
        FROM given AS g
        LEFT JOIN acgs.message AS m ON m.key = g.key
        LEFT JOIN acgs.tenant AS t ON t.key = g.tenant_id AND NOT t.erased
        LEFT JOIN acgs.agent AS f ON f.key = g.from_agent AND f.tenant_id = g.tenant_id AND NOT f.erased
        LEFT JOIN acgs.agent AS a ON a.key = g.to_agent AND a.tenant_id = coalesce(g.to_tenant_id, g.tenant_id) AND NOT a.erased
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
        coalesce(m.decision, l.decision), coalesce(m.impact, l.impact), coalesce(m.basis, l.basis),
        coalesce(s.hlc, m.hlc), coalesce(s.origin, m.origin), coalesce(s.residency, m.residency)
    FROM looked AS l LEFT JOIN stored AS s ON s.key = l.key LEFT JOIN acgs.message AS m ON l.seen IN ('repeat', 'reused') AND m.key = l.key;
END
$fn$;
REVOKE EXECUTE ON FUNCTION acgs.accept(json) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION acgs.accept(json) TO acgs_app;
