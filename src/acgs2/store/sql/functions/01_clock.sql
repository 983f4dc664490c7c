-- Time, version vectors and arrays. Everything is schema-qualified: an apply worker's search_path is empty.

-- Returns this region's time in microseconds since the epoch, with the offset a test may have set.
CREATE OR REPLACE FUNCTION acgs.now_us() RETURNS bigint
LANGUAGE sql VOLATILE PARALLEL SAFE AS $fn$
    SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
        + coalesce((SELECT clock_offset_us FROM acgs.self), 0)
$fn$;

-- Returns whether a version with vector a, last written by origin, has seen everything that b has seen.
-- The first test, without a subquery, is true where one origin went on writing what it had; most are so.
CREATE OR REPLACE FUNCTION acgs.vv_covers(a jsonb, origin text, b jsonb) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $fn$
BEGIN
    RETURN (a @> (b - origin) AND coalesce((b -> origin)::bigint, 0) <= (a -> origin)::bigint)
        OR acgs.vv_covers(a, b);
END
$fn$;

-- Returns whether vector a has seen everything that b has seen.
CREATE OR REPLACE FUNCTION acgs.vv_covers(a jsonb, b jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $fn$
    SELECT NOT EXISTS (
        SELECT FROM jsonb_each(b) AS e
        WHERE coalesce((a -> e.key)::bigint, 0) < e.value::bigint
    )
$fn$;

-- Returns the pointwise maximum of two vectors.
CREATE OR REPLACE FUNCTION acgs.vv_join(a jsonb, b jsonb) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $fn$
BEGIN
    IF acgs.vv_covers(a, b) THEN
        RETURN a;
    ELSIF acgs.vv_covers(b, a) THEN
        RETURN b;
    END IF;
    RETURN (
        SELECT jsonb_object_agg(key, value)
        FROM (
            SELECT e.key, max(e.value::bigint) AS value
            FROM (SELECT * FROM jsonb_each(a) UNION ALL SELECT * FROM jsonb_each(b)) AS e
            GROUP BY e.key
        ) AS pointwise
    );
END
$fn$;

-- Returns the sorted union of two sets of names.
CREATE OR REPLACE FUNCTION acgs.names_union(a text[], b text[]) RETURNS text[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $fn$
BEGIN
    IF a @> b THEN
        RETURN a;
    ELSIF b @> a THEN
        RETURN b;
    END IF;
    RETURN ARRAY(SELECT DISTINCT unnest(a || b) COLLATE "C" ORDER BY 1);
END
$fn$;
