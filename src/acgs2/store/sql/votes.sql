-- Queries of voters.

-- name: look
SELECT promised_n, promised_by, accepted_n, accepted_by, value, epoch, names FROM acgs.vote_look(%(key)s)
-- name: prepare
SELECT life, ok, promised_n, promised_by, accepted_n, accepted_by, value, epoch, names
FROM acgs.vote_prepare(%(key)s, %(n)s, %(by)s, %(epoch)s, %(names)s)
-- name: accept
SELECT ok, promised_n, promised_by, epoch, names
FROM acgs.vote_accept(%(key)s, %(n)s, %(by)s, %(value)s, %(life)s, %(epoch)s, %(names)s)
-- name: votes
SELECT epoch, names, votes FROM acgs.votes_for(%(region)s)
-- name: adopt
SELECT acgs.adopt_votes(%(known)s, %(epoch)s, %(names)s)
-- name: forgotten
SELECT voting IS DISTINCT FROM incarnation FROM acgs.self
-- name: enroll
SELECT acgs.enroll_voter(%(epoch)s, %(names)s)
-- name: keys
SELECT acgs.vote_keys()
-- name: who
SELECT epoch, names FROM acgs.who_votes()
