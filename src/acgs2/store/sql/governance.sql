-- Queries of what governs.

-- name: put_in_force
SELECT acgs.put_in_force(%(kind)s, %(version)s, %(digest)s, %(document)s, %(subject)s, %(body)s)
-- name: bound
UPDATE acgs.in_force SET bound_at = clock_timestamp()
WHERE kind = %(kind)s AND version = %(version)s AND bound_at IS NULL
-- name: governed_by
SELECT acgs.governed_by()
-- name: look
SELECT acgs.look_at_governance()
-- name: history
SELECT version, digest, document, learned_at, bound_at FROM acgs.in_force
WHERE kind = %(kind)s ORDER BY version DESC LIMIT %(limit)s
-- name: agents_of
SELECT key::text FROM acgs.agent WHERE tenant_id = %(tenant)s AND key = ANY (%(keys)s::uuid[]) AND NOT erased
-- name: known_here
SELECT EXISTS (SELECT FROM acgs.agent WHERE key = %(key)s AND NOT erased)
    OR EXISTS (SELECT FROM acgs.tenant WHERE key = %(key)s AND NOT erased)
-- name: tenant_policies_seen
SELECT tenant_id::text, hlc, origin FROM acgs.policy WHERE NOT erased
-- name: tenant_policies
SELECT tenant_id::text, policies, groups, policy_version, hlc, origin FROM acgs.policy WHERE NOT erased
