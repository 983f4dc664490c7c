-- Field states of the merge strategy: who wrote what, when. Twins of acgs2.merge, property-tested equal.
--   latest: [hlc, origin, n]       union: {element: [hlc, origin, present]}
--   map: {key: [hlc, origin, present, value]}      counter: {origin: [n, value]}

-- Returns whether stamp a is later than stamp b; a missing stamp is earliest.
CREATE OR REPLACE FUNCTION acgs.stamp_later(a jsonb, b jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $fn$
    SELECT a IS NOT NULL AND (
        b IS NULL
        OR (a -> 0)::bigint > (b -> 0)::bigint
        OR ((a -> 0)::bigint = (b -> 0)::bigint AND (a ->> 1) COLLATE "C" > (b ->> 1) COLLATE "C")
    )
$fn$;

-- Returns whether a version with that vector has seen the write with that stamp.
CREATE OR REPLACE FUNCTION acgs.stamp_seen(vv jsonb, stamp jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $fn$
    SELECT coalesce((vv -> (stamp ->> 1))::bigint, 0) >= (stamp -> 2)::bigint
$fn$;

-- Returns the join of two unions or maps: for each element the later stamp.
CREATE OR REPLACE FUNCTION acgs.elements_join(a jsonb, b jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $fn$
    SELECT CASE WHEN a IS NULL OR a = b THEN b WHEN b IS NULL THEN a ELSE (
        SELECT jsonb_object_agg(
            key,
            CASE WHEN acgs.stamp_later(b -> key, a -> key) THEN b -> key ELSE a -> key END
        )
        FROM (SELECT jsonb_object_keys(a) AS key UNION SELECT jsonb_object_keys(b)) AS k
    ) END
$fn$;

-- Returns the elements present in a union's state, sorted; NULL where none was ever added.
CREATE OR REPLACE FUNCTION acgs.elements_present(state jsonb) RETURNS text[]
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $fn$
    SELECT ARRAY(
        SELECT e.key FROM jsonb_each(state) AS e
        WHERE (e.value -> 2)::boolean ORDER BY e.key COLLATE "C"
    )
$fn$;

-- Returns a union's state after a local write that turned one set into another.
CREATE OR REPLACE FUNCTION acgs.elements_write(state jsonb, old text[], new text[], hlc bigint, origin text)
RETURNS jsonb LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $fn$
    SELECT nullif(coalesce(state, '{}') || coalesce(
        (
            SELECT jsonb_object_agg(e, jsonb_build_array(hlc, origin, e = ANY (coalesce(new, '{}'))))
            FROM (SELECT unnest(old) AS e UNION SELECT unnest(new)) AS changed
            WHERE (e = ANY (coalesce(new, '{}'))) <> (e = ANY (coalesce(old, '{}')))
        ), '{}'), '{}')
$fn$;

-- Returns the object that a map's state stands for; NULL where nothing was ever put in.
CREATE OR REPLACE FUNCTION acgs.map_value(state jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $fn$
    SELECT coalesce(jsonb_object_agg(e.key, e.value -> 3) FILTER (WHERE (e.value -> 2)::boolean), '{}')
    FROM jsonb_each(state) AS e
$fn$;

-- Returns a map's state after a local write that turned one object into another.
CREATE OR REPLACE FUNCTION acgs.map_write(state jsonb, old jsonb, new jsonb, hlc bigint, origin text)
RETURNS jsonb LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $fn$
    SELECT nullif(coalesce(state, '{}') || coalesce(
        (
            SELECT jsonb_object_agg(k, jsonb_build_array(hlc, origin, coalesce(new, '{}') ? k, new -> k))
            FROM (
                SELECT jsonb_object_keys(coalesce(old, '{}')) AS k
                UNION SELECT jsonb_object_keys(coalesce(new, '{}'))
            ) AS keys
            WHERE (old -> k) IS DISTINCT FROM (new -> k)
        ), '{}'), '{}')
$fn$;

-- Returns the join of two counters: for each origin its latest own sum.
CREATE OR REPLACE FUNCTION acgs.counter_join(a jsonb, b jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $fn$
    SELECT CASE WHEN a IS NULL OR a = b THEN b WHEN b IS NULL THEN a ELSE (
        SELECT jsonb_object_agg(
            key,
            -- Only what a record began with may have one number and two values, made by two creates of one key.
            CASE WHEN (coalesce((b -> key -> 0)::bigint, 0), coalesce((b -> key -> 1)::bigint, 0))
                    > (coalesce((a -> key -> 0)::bigint, 0), coalesce((a -> key -> 1)::bigint, 0))
                THEN b -> key ELSE a -> key END
        )
        FROM (SELECT jsonb_object_keys(a) AS key UNION SELECT jsonb_object_keys(b)) AS k
    ) END
$fn$;

-- Returns a counter's value: the sum over its origins; NULL where nothing was ever counted.
CREATE OR REPLACE FUNCTION acgs.counter_value(state jsonb) RETURNS bigint
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $fn$
    SELECT coalesce(sum((e.value -> 1)::bigint), 0)::bigint FROM jsonb_each(state) AS e
$fn$;

-- Returns a counter's state after a local write that added delta.
CREATE OR REPLACE FUNCTION acgs.counter_write(state jsonb, delta bigint, origin text, n bigint)
RETURNS jsonb LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $fn$
    SELECT CASE WHEN delta = 0 THEN state ELSE coalesce(state, '{}') || jsonb_build_object(
        origin, jsonb_build_array(n, coalesce((state -> origin -> 1)::bigint, 0) + delta)
    ) END
$fn$;
