-- A voter of the register: two calls, each locally flushed, never waiting for a peer. Twin of acgs2.consensus.votes.

-- Returns the incarnation in which this database votes; refuses where it has forgotten its votes.
CREATE OR REPLACE FUNCTION acgs.voting_life() RETURNS text
LANGUAGE plpgsql STABLE AS $fn$
DECLARE
    me acgs.self;
BEGIN
    SELECT * INTO me FROM acgs.self;
    IF me.voting IS DISTINCT FROM me.incarnation OR me.started IS DISTINCT FROM pg_catalog.pg_postmaster_start_time() THEN
        RAISE EXCEPTION USING ERRCODE = 'AC014', MESSAGE = 'votes-forgotten', DETAIL = jsonb_build_object('region', me.region);
    END IF;
    RETURN me.incarnation;
END
$fn$;

-- Takes over a newer set of voters from a caller, and returns the newest that is known here. It stays what it is
-- until the caller's transaction ends: a call under an older set is done before a newer one is known, or refused.
CREATE OR REPLACE FUNCTION acgs.meet_voters(p_epoch bigint, p_names text[]) RETURNS acgs.voters
LANGUAGE plpgsql AS $fn$
DECLARE
    known acgs.voters;
BEGIN
    IF p_epoch > coalesce((SELECT v.epoch FROM acgs.voters AS v), 0) THEN
        INSERT INTO acgs.voters AS v (epoch, names) VALUES (p_epoch, p_names)
        ON CONFLICT (one) DO UPDATE SET epoch = excluded.epoch, names = excluded.names WHERE v.epoch < excluded.epoch;
    END IF;
    SELECT * INTO known FROM acgs.voters FOR SHARE;
    RETURN known;
END
$fn$;

-- Returns what this voter remembers, without a promise, and who votes; nulls where it was never asked.
CREATE OR REPLACE FUNCTION acgs.vote_look(p_key text)
RETURNS TABLE (promised_n bigint, promised_by text, accepted_n bigint, accepted_by text, value jsonb, epoch bigint, names text[])
LANGUAGE plpgsql STABLE SECURITY DEFINER AS $fn$
BEGIN
    PERFORM acgs.voting_life();
    RETURN QUERY SELECT v.promised_n, v.promised_by, v.accepted_n, v.accepted_by, v.value, w.epoch, w.names
        FROM (VALUES (p_key)) AS asked (key) LEFT JOIN acgs.vote AS v ON v.key = asked.key LEFT JOIN acgs.voters AS w ON true;
END
$fn$;

-- Promises to accept nothing below a ballot, unless as much was promised already, or the caller goes by an older
-- set of voters than this one.
CREATE OR REPLACE FUNCTION acgs.vote_prepare(p_key text, n bigint, by text, p_epoch bigint, p_names text[])
RETURNS TABLE (life text, ok boolean, promised_n bigint, promised_by text, accepted_n bigint, accepted_by text, value jsonb,
    epoch bigint, names text[])
LANGUAGE plpgsql SECURITY DEFINER SET synchronous_commit = local AS $fn$
#variable_conflict use_column
DECLARE
    mine text := acgs.voting_life();
    known acgs.voters := acgs.meet_voters(p_epoch, p_names);
    moved boolean := false;
BEGIN
    IF known.epoch = p_epoch THEN
        INSERT INTO acgs.vote AS v (key, promised_n, promised_by) VALUES (p_key, n, by)
        ON CONFLICT (key) DO UPDATE SET promised_n = excluded.promised_n, promised_by = excluded.promised_by
        WHERE (v.promised_n, v.promised_by) < (excluded.promised_n, excluded.promised_by);
        moved := FOUND;
    END IF;
    RETURN QUERY SELECT mine, moved, v.promised_n, v.promised_by, v.accepted_n, v.accepted_by, v.value, known.epoch, known.names
        FROM (SELECT) AS one LEFT JOIN acgs.vote AS v ON v.key = p_key;
END
$fn$;

-- Accepts a value on a promise of this life, unless a higher ballot was promised since, or the set is older.
CREATE OR REPLACE FUNCTION acgs.vote_accept(p_key text, n bigint, by text, p_value jsonb, p_life text, p_epoch bigint, p_names text[])
RETURNS TABLE (ok boolean, promised_n bigint, promised_by text, epoch bigint, names text[])
LANGUAGE plpgsql SECURITY DEFINER SET synchronous_commit = local AS $fn$
#variable_conflict use_column
DECLARE
    mine text := acgs.voting_life();
    known acgs.voters := acgs.meet_voters(p_epoch, p_names);
    moved boolean := false;
BEGIN
    IF mine = p_life AND known.epoch = p_epoch THEN
        INSERT INTO acgs.vote AS v (key, promised_n, promised_by, accepted_n, accepted_by, value)
        VALUES (p_key, n, by, n, by, p_value)
        ON CONFLICT (key) DO UPDATE SET promised_n = excluded.promised_n, promised_by = excluded.promised_by,
            accepted_n = excluded.accepted_n, accepted_by = excluded.accepted_by, value = excluded.value
        WHERE (v.promised_n, v.promised_by) <= (excluded.promised_n, excluded.promised_by);
        moved := FOUND;
    END IF;
    RETURN QUERY SELECT moved, v.promised_n, v.promised_by, known.epoch, known.names
        FROM (SELECT) AS one LEFT JOIN acgs.vote AS v ON v.key = p_key;
END
$fn$;

-- Tells one that has forgotten everything this voter remembers, and promises above all that it promised: what
-- is under way, which the other may have accepted before, cannot be completed here behind its back.
CREATE OR REPLACE FUNCTION acgs.votes_for(forgetful text)
RETURNS TABLE (epoch bigint, names text[], votes jsonb)
LANGUAGE plpgsql SECURITY DEFINER SET synchronous_commit = local AS $fn$
#variable_conflict use_column
BEGIN
    PERFORM acgs.voting_life();
    LOCK TABLE acgs.vote IN SHARE ROW EXCLUSIVE MODE;
    RETURN QUERY SELECT v.epoch, v.names, (SELECT coalesce(jsonb_agg(to_jsonb(k)), '[]') FROM acgs.vote AS k)
        FROM acgs.voters AS v;
    UPDATE acgs.vote SET promised_n = promised_n + 1, promised_by = forgetful;
END
$fn$;

-- Takes over the votes of a majority of other voters, key by key the highest promised and the highest
-- accepted, and votes from here on, in this life.
CREATE OR REPLACE FUNCTION acgs.adopt_votes(known jsonb, p_epoch bigint, p_names text[]) RETURNS void
LANGUAGE plpgsql AS $fn$
BEGIN
    PERFORM acgs.meet_voters(p_epoch, p_names);
    DELETE FROM acgs.vote;
    INSERT INTO acgs.vote (key, promised_n, promised_by, accepted_n, accepted_by, value)
    SELECT p.key, p.promised_n, p.promised_by, a.accepted_n, a.accepted_by, a.value
    FROM (SELECT DISTINCT ON (r.key) r.* FROM jsonb_populate_recordset(NULL::acgs.vote, known) AS r
          ORDER BY r.key, r.promised_n DESC, r.promised_by DESC) AS p
    LEFT JOIN (SELECT DISTINCT ON (r.key) r.* FROM jsonb_populate_recordset(NULL::acgs.vote, known) AS r
          WHERE r.accepted_n IS NOT NULL ORDER BY r.key, r.accepted_n DESC, r.accepted_by DESC) AS a ON a.key = p.key;
    UPDATE acgs.self SET voting = incarnation;
END
$fn$;

-- Makes this database a voter that has never voted, before a set that it is part of is agreed on. Refused where it
-- is part of the set already: then it has votes, here or in an earlier life, that others count on.
CREATE OR REPLACE FUNCTION acgs.enroll_voter(p_epoch bigint, p_names text[]) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET synchronous_commit = local AS $fn$
DECLARE
    known acgs.voters := acgs.meet_voters(p_epoch, p_names);
BEGIN
    IF known.epoch <> p_epoch OR (SELECT s.region FROM acgs.self AS s) = ANY (known.names) THEN
        RETURN false;
    END IF;
    DELETE FROM acgs.vote;
    UPDATE acgs.self SET voting = incarnation;
    RETURN true;
END
$fn$;

-- Returns who votes, as far as it is known here.
CREATE OR REPLACE FUNCTION acgs.who_votes() RETURNS TABLE (epoch bigint, names text[])
LANGUAGE sql STABLE SECURITY DEFINER AS $fn$
    SELECT v.epoch, v.names FROM acgs.voters AS v
$fn$;

-- Returns the keys that this voter has votes for.
CREATE OR REPLACE FUNCTION acgs.vote_keys() RETURNS text[]
LANGUAGE sql STABLE SECURITY DEFINER AS $fn$
    SELECT coalesce(array_agg(v.key ORDER BY v.key), '{}') FROM acgs.vote AS v
$fn$;

REVOKE EXECUTE ON FUNCTION acgs.vote_look(text), acgs.vote_prepare(text, bigint, text, bigint, text[]),
    acgs.vote_accept(text, bigint, text, jsonb, text, bigint, text[]), acgs.votes_for(text),
    acgs.adopt_votes(jsonb, bigint, text[]), acgs.enroll_voter(bigint, text[]), acgs.vote_keys(), acgs.who_votes() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION acgs.vote_look(text), acgs.vote_prepare(text, bigint, text, bigint, text[]),
    acgs.vote_accept(text, bigint, text, jsonb, text, bigint, text[]), acgs.votes_for(text),
    acgs.enroll_voter(bigint, text[]), acgs.vote_keys(), acgs.who_votes() TO acgs_link;
