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

-- Returns what this voter remembers, without a promise; nulls where it was never asked.
CREATE OR REPLACE FUNCTION acgs.vote_look(p_key text)
RETURNS TABLE (promised_n bigint, promised_by text, accepted_n bigint, accepted_by text, value jsonb)
LANGUAGE plpgsql STABLE SECURITY DEFINER AS $fn$
BEGIN
    PERFORM acgs.voting_life();
    RETURN QUERY SELECT v.promised_n, v.promised_by, v.accepted_n, v.accepted_by, v.value
        FROM (VALUES (p_key)) AS asked (key) LEFT JOIN acgs.vote AS v ON v.key = asked.key;
END
$fn$;

-- Promises to accept nothing below a ballot, unless as much was promised already.
CREATE OR REPLACE FUNCTION acgs.vote_prepare(p_key text, n bigint, by text)
RETURNS TABLE (life text, ok boolean, promised_n bigint, promised_by text, accepted_n bigint, accepted_by text, value jsonb)
LANGUAGE plpgsql SECURITY DEFINER SET synchronous_commit = local AS $fn$
#variable_conflict use_column
DECLARE
    mine text := acgs.voting_life();
    moved boolean;
BEGIN
    INSERT INTO acgs.vote AS v (key, promised_n, promised_by) VALUES (p_key, n, by)
    ON CONFLICT (key) DO UPDATE SET promised_n = excluded.promised_n, promised_by = excluded.promised_by
    WHERE (v.promised_n, v.promised_by) < (excluded.promised_n, excluded.promised_by);
    moved := FOUND;
    RETURN QUERY SELECT mine, moved, v.promised_n, v.promised_by, v.accepted_n, v.accepted_by, v.value
        FROM acgs.vote AS v WHERE v.key = p_key;
END
$fn$;

-- Accepts a value on a promise of this life, unless a higher ballot was promised since.
CREATE OR REPLACE FUNCTION acgs.vote_accept(p_key text, n bigint, by text, p_value jsonb, p_life text)
RETURNS TABLE (ok boolean, promised_n bigint, promised_by text)
LANGUAGE plpgsql SECURITY DEFINER SET synchronous_commit = local AS $fn$
#variable_conflict use_column
DECLARE
    moved boolean := false;
BEGIN
    IF acgs.voting_life() = p_life THEN
        INSERT INTO acgs.vote AS v (key, promised_n, promised_by, accepted_n, accepted_by, value)
        VALUES (p_key, n, by, n, by, p_value)
        ON CONFLICT (key) DO UPDATE SET promised_n = excluded.promised_n, promised_by = excluded.promised_by,
            accepted_n = excluded.accepted_n, accepted_by = excluded.accepted_by, value = excluded.value
        WHERE (v.promised_n, v.promised_by) <= (excluded.promised_n, excluded.promised_by);
        moved := FOUND;
    END IF;
    RETURN QUERY SELECT moved, v.promised_n, v.promised_by FROM acgs.vote AS v WHERE v.key = p_key;
    IF NOT FOUND THEN
        RETURN QUERY SELECT moved, NULL::bigint, NULL::text;
    END IF;
END
$fn$;

-- Tells one that has forgotten everything this voter remembers, and promises above all that it promised: what
-- is under way, which the other may have accepted before, cannot be completed here behind its back.
CREATE OR REPLACE FUNCTION acgs.votes_for(forgetful text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET synchronous_commit = local AS $fn$
DECLARE
    told jsonb;
BEGIN
    PERFORM acgs.voting_life();
    LOCK TABLE acgs.vote IN SHARE ROW EXCLUSIVE MODE;
    SELECT coalesce(jsonb_agg(to_jsonb(v)), '[]') INTO told FROM acgs.vote AS v;
    UPDATE acgs.vote SET promised_n = promised_n + 1, promised_by = forgetful;
    RETURN told;
END
$fn$;

-- Takes over the votes of a majority of other voters, key by key the highest promised and the highest
-- accepted, and votes from here on, in this life.
CREATE OR REPLACE FUNCTION acgs.adopt_votes(known jsonb) RETURNS void
LANGUAGE plpgsql AS $fn$
BEGIN
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

REVOKE EXECUTE ON FUNCTION acgs.vote_look(text), acgs.vote_prepare(text, bigint, text), acgs.vote_accept(text, bigint, text, jsonb, text),
    acgs.votes_for(text), acgs.adopt_votes(jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION acgs.vote_look(text), acgs.vote_prepare(text, bigint, text), acgs.vote_accept(text, bigint, text, jsonb, text),
    acgs.votes_for(text) TO acgs_link;
