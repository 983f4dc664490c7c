-- Digests of {{entity}} records that a peer may hold too, one per range of keys: how many, and the sum of what
-- each contains. Who was sent it, and who may hold it, is each region's own and not part of it.
CREATE OR REPLACE FUNCTION acgs.digests_{{entity}}(p_zone text, peer text, after uuid[], upto uuid[])
RETURNS TABLE (n bigint, digest text) LANGUAGE sql STABLE SET TimeZone = 'UTC' AS $fn$
    SELECT d.n, d.digest
    FROM unnest(after, upto) WITH ORDINALITY AS r (after, upto, i)
    CROSS JOIN LATERAL (
        SELECT count(*) AS n, coalesce(sum(('x' || left(md5(to_json(j)::text), 15))::bit(60)::bigint), 0)::text AS digest
        FROM acgs.{{entity}} AS c CROSS JOIN LATERAL (SELECT {{digested}}) AS j
        WHERE c.zone = p_zone AND peer = ANY (CASE WHEN c.erased THEN c.sent_to ELSE c.residency END)
            AND (r.after IS NULL OR c.key > r.after) AND (r.upto IS NULL OR c.key <= r.upto)
    ) AS d ORDER BY r.i
$fn$;

-- The same record by record, for a range that differs.
CREATE OR REPLACE FUNCTION acgs.details_{{entity}}(p_zone text, peer text, after uuid, upto uuid)
RETURNS TABLE (key uuid, vv jsonb, origin text, digest text) LANGUAGE sql STABLE SET TimeZone = 'UTC' AS $fn$
    SELECT c.key, c.vv, c.origin, md5(to_json(j)::text)
    FROM acgs.{{entity}} AS c CROSS JOIN LATERAL (SELECT {{digested}}) AS j
    WHERE c.zone = p_zone AND peer = ANY (CASE WHEN c.erased THEN c.sent_to ELSE c.residency END)
        AND (after IS NULL OR c.key > after) AND (upto IS NULL OR c.key <= upto)
$fn$;

-- Gives a {{entity}} record up that has the same history as a peer's and another content: keeps what it contains
-- as a conflict, and makes it older than everything, so that whatever arrives takes its place.
CREATE OR REPLACE FUNCTION acgs.doubt_{{entity}}(doubted uuid) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET session_replication_role = replica AS $fn$
BEGIN
    INSERT INTO acgs.conflict (entity, key, field, strategy, zone, loser_hlc, loser_origin, winner_hlc, winner_origin, loser_value)
    SELECT '{{entity}}', c.key, '', 'repair', c.zone, c.hlc, c.origin, c.hlc, c.origin, to_jsonb(j)
    FROM acgs.{{entity}} AS c CROSS JOIN LATERAL (SELECT {{content}}) AS j WHERE c.key = doubted AND NOT c.erased
    ON CONFLICT DO NOTHING;
    UPDATE acgs.{{entity}} SET vv = '{}' WHERE key = doubted AND NOT erased;
END
$fn$;
REVOKE EXECUTE ON FUNCTION acgs.doubt_{{entity}}(uuid) FROM PUBLIC;
