-- Queries of inboxes.

-- name: agent
SELECT tenant_id, zone, status FROM acgs.agent WHERE key = %(agent)s AND NOT erased
-- name: claim
SELECT n, claim, attempt, deadline, message_id, message FROM acgs.claim(%(asked)s, %(max_attempts)s)
-- name: next_claimable
SELECT extract(epoch FROM acgs.next_claimable(%(agent)s) - clock_timestamp())::float8
-- name: acknowledge
SELECT n, outcome, accepted_us FROM acgs.acknowledge(%(agents)s, %(messages)s, %(claims)s, %(generations)s) ORDER BY n
-- name: give_back
SELECT n, outcome FROM acgs.return_claims(%(agent)s, %(messages)s, %(claims)s, %(generation)s, %(delay_s)s) ORDER BY n
-- name: settle_done
SELECT acgs.settle_done(%(agents)s, %(messages)s)
-- name: serve
SELECT acgs.serve_inboxes(%(zone)s, %(generation)s, %(serving)s)
-- name: tidy
SELECT acgs.tidy_deliveries(%(after)s, 1000, %(max_attempts)s)
-- name: maintain
SELECT acgs.maintain_delivered()
-- name: dead
SELECT message_id, conversation_id, priority, attempts, reason, at, expires_at FROM acgs.dead_letter
WHERE agent = %(agent)s AND tenant_id = %(tenant)s AND (%(after)s::timestamptz IS NULL OR at > %(after)s)
ORDER BY at, message_id LIMIT %(limit)s
-- name: requeue
SELECT acgs.requeue(%(agent)s, %(tenant)s, %(messages)s)
-- name: depth
SELECT count(*) FILTER (WHERE state = 'ready'), count(*) FILTER (WHERE state = 'claimed') FROM acgs.delivery
WHERE agent = %(agent)s AND tenant_id = %(tenant)s AND state <> 'done'
-- What became of one message here, agent by agent.
-- name: deliveries
SELECT d.agent, d.tenant_id, CASE WHEN d.state = 'claimed' AND d.hold_until <= clock_timestamp() THEN 'ready' ELSE d.state END AS state,
    d.attempts, d.generation, s.region, NULL::text AS reason, NULL::timestamptz AS at, d.zone
FROM acgs.delivery AS d CROSS JOIN acgs.self AS s WHERE d.message_id = %(message_id)s AND (%(tenant)s::uuid IS NULL OR d.tenant_id = %(tenant)s)
UNION ALL
SELECT d.agent, d.tenant_id, 'dead', d.attempts, NULL, s.region, d.reason, d.at, d.zone
FROM acgs.dead_letter AS d CROSS JOIN acgs.self AS s WHERE d.message_id = %(message_id)s AND (%(tenant)s::uuid IS NULL OR d.tenant_id = %(tenant)s)
UNION ALL
SELECT d.agent, d.tenant_id, 'done', d.attempts, d.generation, d.region, NULL, d.at, NULL
FROM acgs.delivered AS d WHERE d.message_id = %(message_id)s AND (%(tenant)s::uuid IS NULL OR d.tenant_id = %(tenant)s)
ORDER BY 1, 8
