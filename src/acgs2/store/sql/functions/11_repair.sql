-- Comparing what two regions may both hold, range by range; a peer may ask for digests, never for content.

-- Returns a digest for each range of keys of an entity of a zone, and of which columns it is made.
CREATE OR REPLACE FUNCTION acgs.digests(entity text, zone text, peer text, after uuid[], upto uuid[])
RETURNS TABLE (n bigint, digest text) LANGUAGE plpgsql STABLE SECURITY DEFINER AS $fn$
BEGIN
    RETURN QUERY EXECUTE format('SELECT * FROM acgs.%I($1, $2, $3, $4)', 'digests_' || entity) USING zone, peer, after, upto;
END
$fn$;

-- Returns key, history and digest of each record of a range.
CREATE OR REPLACE FUNCTION acgs.details(entity text, zone text, peer text, after uuid, upto uuid)
RETURNS TABLE (key uuid, vv jsonb, origin text, digest text) LANGUAGE plpgsql STABLE SECURITY DEFINER AS $fn$
BEGIN
    RETURN QUERY EXECUTE format('SELECT * FROM acgs.%I($1, $2, $3, $4)', 'details_' || entity) USING zone, peer, after, upto;
END
$fn$;

-- Returns the columns of which an entity's digests are made: regions of different releases are not compared.
CREATE OR REPLACE FUNCTION acgs.shape(p_entity text) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER AS $fn$
    SELECT string_agg(a.attname, ',' ORDER BY a.attname) FROM pg_catalog.pg_attribute AS a
    WHERE a.attrelid = to_regclass('acgs.' || p_entity) AND a.attnum > 0 AND NOT a.attisdropped
$fn$;

-- Returns every so many-th key of a range, to cut it into parts.
CREATE OR REPLACE FUNCTION acgs.boundaries(entity text, zone text, after uuid, upto uuid, every integer) RETURNS uuid[]
LANGUAGE plpgsql STABLE AS $fn$
DECLARE
    found uuid[];
BEGIN
    EXECUTE format('SELECT array_agg(key ORDER BY key) FROM (SELECT key, row_number() OVER (ORDER BY key) AS r FROM acgs.%I '
        'WHERE zone = $1 AND ($2 IS NULL OR key > $2) AND ($3 IS NULL OR key <= $3)) AS k WHERE r %% $4 = 0', entity)
    INTO found USING zone, after, upto, every;
    RETURN coalesce(found, '{}');
END
$fn$;

-- Gives up this region's copy of a record that differs from a peer's with the same history; raises an incident.
CREATE OR REPLACE FUNCTION acgs.doubt(p_entity text, p_key uuid, p_zone text, p_peer text) RETURNS void
LANGUAGE plpgsql AS $fn$
BEGIN
    INSERT INTO acgs.incident (kind, source, entity, zone, detail)
    VALUES ('diverged', p_peer, p_entity, p_zone, jsonb_build_object('key', p_key, 'kept', p_peer));
    EXECUTE format('SELECT acgs.%I($1)', 'doubt_' || p_entity) USING p_key;
END
$fn$;

REVOKE EXECUTE ON FUNCTION acgs.digests(text, text, text, uuid[], uuid[]), acgs.details(text, text, text, uuid, uuid),
    acgs.shape(text), acgs.doubt(text, uuid, text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION acgs.digests(text, text, text, uuid[], uuid[]), acgs.details(text, text, text, uuid, uuid),
    acgs.shape(text) TO acgs_link;
