-- Queries of voters.

-- name: look
SELECT promised_n, promised_by, accepted_n, accepted_by, value FROM acgs.vote_look(%(key)s)
-- name: prepare
SELECT life, ok, promised_n, promised_by, accepted_n, accepted_by, value
FROM acgs.vote_prepare(%(key)s, %(n)s, %(by)s)
-- name: accept
SELECT ok, promised_n, promised_by FROM acgs.vote_accept(%(key)s, %(n)s, %(by)s, %(value)s, %(life)s)
-- name: votes
SELECT acgs.votes_for(%(region)s)
-- name: adopt
SELECT acgs.adopt_votes(%(known)s)
-- name: forgotten
SELECT voting IS DISTINCT FROM incarnation FROM acgs.self
