-- Queries of the bus.

-- name: accept
-- A batch of judged messages, in one transaction; see acgs.accept.
SELECT i, outcome, decision, impact, basis, accepted_us, origin, residency FROM acgs.accept(%s)
-- name: agents
-- What a verdict needs to know of agents.
SELECT a.key, a.tenant_id, a.zone, a.name, a.status, a.capabilities, a.accepts, a.hlc
FROM acgs.agent AS a WHERE a.key = ANY (%s) AND NOT a.erased
-- name: held
-- A message that was held, with what was said about it and how it ended, if it has.
SELECT m.key, m.zone, m.tenant_id, m.conversation_id, m.from_agent, m.to_agent, m.topic, m.message_type, m.priority, m.content,
    m.payload, m.metadata, m.impact, m.basis, m.proposer, m.hlc, m.decision,
    coalesce((SELECT jsonb_agg(jsonb_build_object('approver', a.approver, 'decision', a.decision, 'at_us', a.hlc,
        'reason', coalesce(a.reason, '')) ORDER BY a.hlc) FROM acgs.approval AS a
        WHERE a.message_id = m.key AND NOT a.erased), '[]') AS approvals,
    (SELECT jsonb_build_object('decision', v.decision, 'reason', v.reason, 'decided_in', v.decided_in, 'at_us', v.hlc,
        'approvals', v.approvals) FROM acgs.verdict AS v WHERE v.message_id = m.key AND NOT v.erased LIMIT 1) AS verdict
FROM acgs.message AS m WHERE m.key = ANY (%(keys)s) AND m.decision = 'deliberate' AND NOT m.erased ORDER BY m.hlc
-- name: waiting
-- Messages of some zones that wait for people, the first to end first.
SELECT h.key FROM acgs.held AS h WHERE h.zone = ANY (%(zones)s) AND (%(tenant)s::uuid IS NULL OR h.tenant_id = %(tenant)s)
ORDER BY h.deadline_us, h.key LIMIT %(limit)s
-- name: approve
INSERT INTO acgs.approval (key, zone, tenant_id, message_id, approver, decision, reason)
VALUES (%(key)s, %(zone)s, %(tenant_id)s, %(message_id)s, %(approver)s, %(decision)s, %(reason)s)
ON CONFLICT (key) DO NOTHING RETURNING hlc
-- name: said
SELECT decision FROM acgs.approval WHERE key = %(key)s
-- name: conclude
INSERT INTO acgs.verdict (key, zone, tenant_id, message_id, decision, reason, approvals, decided_in)
VALUES (%(key)s, %(zone)s, %(tenant_id)s, %(message_id)s, %(decision)s, %(reason)s, %(approvals)s, %(decided_in)s)
ON CONFLICT (key) DO NOTHING RETURNING hlc
-- name: trace
-- What this region knows of a message beside the message: on what ground who holds it, where it has been sent, whose inbox
-- it is for, and what was done about it where, of which the audit log of that region has a leaf each.
SELECT m.hlc, m.origin, m.sent_to,
    CASE WHEN m.to_tenant_id IS NULL THEN m.zone
        ELSE coalesce((SELECT a.zone FROM acgs.agent AS a WHERE a.key = m.to_agent), m.zone) END AS to_zone,
    coalesce((SELECT r.basis FROM acgs.rule AS r WHERE r.entity = 'message' AND r.zone = m.zone), '{}') AS grounds,
    (SELECT jsonb_agg(jsonb_build_object('kind', d.kind, 'region', split_part(d.origin, '#', 1), 'at_us', d.at_us,
        'decision', d.decision) ORDER BY d.at_us, d.origin)
        FROM (
            SELECT 'message' AS kind, m.origin, m.hlc AS at_us, m.decision
            -- Accepted in two regions at once: the strictest verdict stands, the other is kept as what lost.
            UNION ALL SELECT 'message', k.loser_origin, k.loser_hlc, k.loser_value ->> 'decision'
            FROM acgs.conflict AS k WHERE k.entity = 'message' AND k.key = m.key
            UNION ALL SELECT 'approval', a.origin, a.hlc, a.decision FROM acgs.approval AS a WHERE a.message_id = m.key AND NOT a.erased
            UNION ALL SELECT 'verdict', v.origin, v.hlc, v.decision FROM acgs.verdict AS v WHERE v.message_id = m.key AND NOT v.erased
        ) AS d) AS acts
FROM acgs.message AS m WHERE m.key = %(key)s AND NOT m.erased
