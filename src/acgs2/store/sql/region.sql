-- Queries that make a database a region.

-- name: become
INSERT INTO acgs.self (region, incarnation, topology_digest, seeded, voting, witnessing)
VALUES (%(region)s, %(incarnation)s, %(digest)s, %(first)s, CASE WHEN %(first)s THEN %(incarnation)s END,
    CASE WHEN %(first)s THEN %(incarnation)s END)
ON CONFLICT (one) DO UPDATE SET topology_digest = excluded.topology_digest
-- name: first_voters
INSERT INTO acgs.voters (epoch, names) SELECT 1, %(names)s FROM acgs.self AS s WHERE s.voting IS NOT NULL ON CONFLICT DO NOTHING
-- name: who
SELECT region FROM acgs.self
-- name: know_region
INSERT INTO acgs.region (name, role, cloud) VALUES (%(name)s, %(role)s, %(cloud)s)
ON CONFLICT (name) DO UPDATE SET role = excluded.role, cloud = excluded.cloud
-- name: subscribed
SELECT subname FROM pg_catalog.pg_subscription
WHERE subname = %(name)s AND subdbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
-- name: subscribe
CREATE SUBSCRIPTION {name} CONNECTION {info} PUBLICATION {name} WITH (
    create_slot = false, copy_data = false, origin = none, streaming = off, two_phase = off,
    synchronous_commit = local, run_as_owner = true)
