-- Inboxes: what messages make for agents, who may take it and when, and what other regions are told of it.
-- Twin of acgs2.bus.claims; a property test compares both.

-- Makes deliveries of messages that may be delivered, to an agent or to those who subscribed to the topic, and wakes
-- who serves them. `topics`: some may be for a topic; `again`: some of it may have been made before.
CREATE OR REPLACE FUNCTION acgs.deliver(chosen uuid[], topics boolean, again boolean) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET plan_cache_mode = force_generic_plan AS $fn$
DECLARE
    woken uuid[];
BEGIN
    WITH wanted AS (
        SELECT m.key, m.hlc, m.to_agent AS agent, coalesce(m.to_tenant_id, m.tenant_id) AS tenant_id,
            CASE WHEN m.to_tenant_id IS NULL THEN m.zone
                ELSE coalesce((SELECT a.zone FROM acgs.agent AS a WHERE a.key = m.to_agent), m.zone) END AS zone,
            m.conversation_id, coalesce(m.priority, 1) AS priority, m.expires_at
        FROM acgs.message AS m WHERE m.key = ANY (chosen) AND m.to_agent IS NOT NULL
            AND ((m.decision = 'allow' AND NOT m.erased) OR acgs.deliverable(m.key, m.decision, m.erased))
        UNION ALL
        SELECT m.key, m.hlc, s.agent_id, m.tenant_id, m.zone, m.conversation_id, coalesce(m.priority, 1), m.expires_at
        FROM acgs.message AS m JOIN acgs.subscription AS s ON s.tenant_id = m.tenant_id AND s.topic = m.topic AND NOT s.erased
        WHERE topics AND m.key = ANY (chosen) AND m.topic IS NOT NULL AND acgs.deliverable(m.key, m.decision, m.erased)
            -- Nobody is subscribed by another tenant.
            AND NOT EXISTS (SELECT FROM acgs.agent AS a WHERE a.key = s.agent_id AND a.tenant_id <> s.tenant_id)
    ), made AS (
        INSERT INTO acgs.delivery (message_id, agent, tenant_id, zone, conversation_id, priority, expires_at, accepted_us)
        SELECT w.key, w.agent, w.tenant_id, w.zone, w.conversation_id, w.priority, w.expires_at, w.hlc FROM wanted AS w
        WHERE NOT again OR NOT EXISTS (SELECT FROM acgs.delivered AS d WHERE d.message_id = w.key AND d.agent = w.agent
            UNION ALL SELECT FROM acgs.dead_letter AS d WHERE d.message_id = w.key AND d.agent = w.agent)
        ORDER BY w.hlc, w.key
        ON CONFLICT DO NOTHING RETURNING agent, zone
    )
    SELECT array_agg(DISTINCT d.agent) INTO woken FROM made AS d JOIN acgs.inbox AS i ON i.zone = d.zone AND i.serving;
    IF EXISTS (SELECT FROM acgs.early) THEN
        PERFORM acgs.take_early(chosen);
    END IF;
    PERFORM acgs.wake_agents(woken);
END
$fn$;
REVOKE EXECUTE ON FUNCTION acgs.deliver(uuid[], boolean, boolean) FROM PUBLIC;

-- Returns whether a message may be delivered: allowed at once, or held and then allowed.
CREATE OR REPLACE FUNCTION acgs.deliverable(p_key uuid, p_decision text, p_erased boolean) RETURNS boolean
LANGUAGE plpgsql STABLE AS $fn$
BEGIN
    RETURN NOT p_erased AND (p_decision = 'allow' OR (p_decision = 'deliberate' AND EXISTS (
        SELECT FROM acgs.verdict AS v WHERE v.message_id = p_key AND v.decision = 'allow' AND NOT v.erased)));
END
$fn$;

-- Tells the region's server which agents something has come for; no names where there are too many.
CREATE OR REPLACE FUNCTION acgs.wake_agents(agents uuid[]) RETURNS void
LANGUAGE plpgsql AS $fn$
BEGIN
    IF agents IS NOT NULL THEN
        PERFORM pg_catalog.pg_notify('acgs_inbox', CASE WHEN cardinality(agents) <= 200 THEN array_to_string(agents, ',') ELSE '' END);
    END IF;
END
$fn$;

-- Takes back what has not been acknowledged of messages that may not be delivered any more.
CREATE OR REPLACE FUNCTION acgs.withdraw_deliveries(chosen uuid[]) RETURNS void
LANGUAGE sql SECURITY DEFINER AS $fn$
    DELETE FROM acgs.delivery AS d WHERE d.message_id = ANY (chosen) AND d.state <> 'done';
    DELETE FROM acgs.dead_letter AS d WHERE d.message_id = ANY (chosen);
$fn$;
REVOKE EXECUTE ON FUNCTION acgs.withdraw_deliveries(uuid[]) FROM PUBLIC;

-- Forgets all that is known of the delivery of messages that are gone.
CREATE OR REPLACE FUNCTION acgs.forget_deliveries(chosen uuid[]) RETURNS void
LANGUAGE sql SECURITY DEFINER AS $fn$
    DELETE FROM acgs.delivery AS d WHERE d.message_id = ANY (chosen);
    DELETE FROM acgs.dead_letter AS d WHERE d.message_id = ANY (chosen);
    DELETE FROM acgs.delivered AS d WHERE d.message_id = ANY (chosen);
    DELETE FROM acgs.early AS d WHERE d.message_id = ANY (chosen);
$fn$;
REVOKE EXECUTE ON FUNCTION acgs.forget_deliveries(uuid[]) FROM PUBLIC;

-- Makes deliveries of messages as they are written, here or in another region.
CREATE OR REPLACE FUNCTION acgs.message_came() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER AS $fn$
DECLARE
    chosen uuid[];
    topics boolean;
BEGIN
    SELECT array_agg(c.key), bool_or(c.topic IS NOT NULL) INTO chosen, topics FROM changed AS c
    WHERE c.decision <> 'deny' AND NOT c.erased;
    IF chosen IS NOT NULL THEN
        PERFORM acgs.deliver(chosen, topics, false);
    END IF;
    RETURN NULL;
END
$fn$;

-- Follows messages that were erased, or kept a stricter decision.
CREATE OR REPLACE FUNCTION acgs.message_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER AS $fn$
DECLARE
    gone uuid[];
    judged uuid[];
BEGIN
    SELECT array_agg(c.key) FILTER (WHERE c.erased), array_agg(c.key) FILTER (WHERE NOT c.erased) INTO gone, judged
    FROM changed AS c JOIN before AS b ON b.key = c.key
    WHERE c.erased <> b.erased OR c.decision IS DISTINCT FROM b.decision;
    IF gone IS NOT NULL THEN
        PERFORM acgs.forget_deliveries(gone);
    END IF;
    IF judged IS NOT NULL THEN
        PERFORM acgs.withdraw_deliveries(ARRAY(SELECT c.key FROM changed AS c
            WHERE c.key = ANY (judged) AND NOT acgs.deliverable(c.key, c.decision, c.erased)));
        PERFORM acgs.deliver(judged, true, true);
    END IF;
    RETURN NULL;
END
$fn$;

-- Follows messages that are not held here any more.
CREATE OR REPLACE FUNCTION acgs.message_went() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER AS $fn$
BEGIN
    PERFORM acgs.forget_deliveries((SELECT array_agg(b.key) FROM before AS b));
    RETURN NULL;
END
$fn$;

-- Delivers held messages that were allowed, and takes back what was denied after all.
CREATE OR REPLACE FUNCTION acgs.verdict_came() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER AS $fn$
DECLARE
    allowed uuid[];
    denied uuid[];
BEGIN
    SELECT array_agg(c.message_id) FILTER (WHERE c.decision = 'allow'), array_agg(c.message_id) FILTER (WHERE c.decision = 'deny')
    INTO allowed, denied FROM changed AS c WHERE NOT c.erased;
    IF denied IS NOT NULL THEN
        PERFORM acgs.withdraw_deliveries(denied);
    END IF;
    IF allowed IS NOT NULL THEN
        PERFORM acgs.deliver(allowed, true, true);
    END IF;
    RETURN NULL;
END
$fn$;

-- Delivers to a new subscriber what was sent to its topic since it subscribed and came here before that was known.
CREATE OR REPLACE FUNCTION acgs.subscription_came() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER AS $fn$
DECLARE
    missed uuid[];
BEGIN
    SELECT array_agg(m.key) INTO missed FROM changed AS c JOIN acgs.message AS m ON m.tenant_id = c.tenant_id
        AND m.key >= acgs.first_uuid(c.hlc - 10000000) AND m.topic = c.topic AND m.hlc >= c.hlc AND NOT m.erased
    WHERE NOT c.erased;
    IF missed IS NOT NULL THEN
        PERFORM acgs.deliver(missed, true, true);
    END IF;
    RETURN NULL;
END
$fn$;

-- Returns the least UUID of version 7 that can have been made at a moment.
CREATE OR REPLACE FUNCTION acgs.first_uuid(us bigint) RETURNS uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $fn$
    SELECT (lpad(to_hex(greatest(us, 0) / 1000), 12, '0') || '00000000000000000000')::uuid
$fn$;

-- Notes that this region serves a zone's inboxes in a generation, or does not any more. Claims of an older generation
-- are not honoured; what they held may be claimed again.
CREATE OR REPLACE FUNCTION acgs.serve_inboxes(p_zone text, p_generation bigint, p_serving boolean) RETURNS void
LANGUAGE sql SECURITY DEFINER AS $fn$
    INSERT INTO acgs.inbox AS i (zone, generation, serving) VALUES (p_zone, p_generation, p_serving)
    ON CONFLICT (zone) DO UPDATE SET generation = excluded.generation, serving = excluded.serving
    WHERE i.generation <= excluded.generation AND (i.generation, i.serving) <> (excluded.generation, excluded.serving)
$fn$;
REVOKE EXECUTE ON FUNCTION acgs.serve_inboxes(text, bigint, boolean) FROM PUBLIC;

-- Returns whether this region serves a zone's inboxes in a generation.
CREATE OR REPLACE FUNCTION acgs.is_served(p_zone text, p_generation bigint) RETURNS boolean
LANGUAGE sql STABLE AS $fn$
    SELECT EXISTS (SELECT FROM acgs.inbox AS i WHERE i.zone = p_zone AND i.generation = p_generation AND i.serving)
$fn$;

-- Returns whether a delivery is held by somebody in a generation.
CREATE OR REPLACE FUNCTION acgs.is_held(d acgs.delivery, p_generation bigint, now timestamptz) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $fn$
    SELECT coalesce(d.state = 'claimed' AND d.generation = p_generation AND d.hold_until > now, false)
$fn$;

-- Returns why a delivery that nobody holds is to be given up, NULL if it is not.
CREATE OR REPLACE FUNCTION acgs.why_dead(d acgs.delivery, p_generation bigint, now timestamptz, max_attempts integer) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $fn$
    SELECT CASE WHEN d.state = 'done' OR (d.state = 'claimed' AND d.generation = p_generation AND d.hold_until > now) THEN NULL
        WHEN d.expires_at <= now THEN 'expired' WHEN d.attempts >= max_attempts THEN 'attempts' END
$fn$;

-- Gives a delivery up, and tells the other regions.
CREATE OR REPLACE FUNCTION acgs.bury(d acgs.delivery, why text) RETURNS void
LANGUAGE plpgsql AS $fn$
BEGIN
    DELETE FROM acgs.delivery AS q WHERE q.message_id = d.message_id AND q.agent = d.agent
        AND q.state = d.state AND q.claim IS NOT DISTINCT FROM d.claim;
    IF NOT FOUND THEN
        RETURN;  -- acknowledged meanwhile
    END IF;
    INSERT INTO acgs.dead_letter (message_id, agent, tenant_id, zone, conversation_id, priority, expires_at, accepted_us, attempts, reason)
    VALUES (d.message_id, d.agent, d.tenant_id, d.zone, d.conversation_id, d.priority, d.expires_at, d.accepted_us, d.attempts, why)
    ON CONFLICT DO NOTHING;
    PERFORM acgs.tell(jsonb_build_array(jsonb_build_object('key', d.message_id, 'agent', d.agent, 'outcome', 'dead',
        'reason', why, 'attempts', d.attempts)));
END
$fn$;

-- Tries to give the first delivery of a conversation to who asks for it. Returns whether it is given, NULL where it is
-- gone: what is dead is buried.
CREATE OR REPLACE FUNCTION acgs.try_claim(head acgs.delivery, p_generation bigint, now timestamptz, hold interval, max_attempts integer)
RETURNS boolean LANGUAGE plpgsql AS $fn$
DECLARE
    why text := acgs.why_dead(head, p_generation, now, max_attempts);
    sender record;
BEGIN
    IF why IS NOT NULL THEN
        PERFORM acgs.bury(head, why);
        RETURN NULL;
    ELSIF head.not_before > now OR acgs.is_held(head, p_generation, now) OR EXISTS (
        -- What was written at the same time may have come before one that is held; it lies near the front.
        SELECT FROM (SELECT q FROM acgs.delivery AS q WHERE q.agent = head.agent AND q.conversation_id = head.conversation_id
            AND q.seq > head.seq ORDER BY q.seq LIMIT 20) AS f (q) WHERE acgs.is_held(f.q, p_generation, now))
    THEN
        RETURN false;
    END IF;
    SELECT m.tenant_id, m.from_agent INTO sender FROM acgs.message AS m
    WHERE m.key = head.message_id AND acgs.deliverable(m.key, m.decision, m.erased);
    IF NOT FOUND THEN
        DELETE FROM acgs.delivery AS q WHERE q.message_id = head.message_id AND q.agent = head.agent;
        RETURN NULL;
    ELSIF acgs.is_halted(sender.tenant_id, sender.from_agent) THEN
        RETURN false;  -- it waits for the resume, and what came behind it with it
    END IF;
    UPDATE acgs.delivery AS q SET state = 'claimed', claim = gen_random_uuid(), generation = p_generation, hold_until = now + hold,
        attempts = q.attempts + 1, not_before = NULL
    WHERE q.message_id = head.message_id AND q.agent = head.agent AND q.state <> 'done';
    RETURN nullif(FOUND, false);
END
$fn$;

-- Claims the first of a conversation that is not dead; returns its message, NULL if it may not be claimed now.
CREATE OR REPLACE FUNCTION acgs.claim_in(p_agent uuid, p_tenant uuid, conversation uuid, p_generation bigint, now timestamptz,
    hold interval, max_attempts integer)
RETURNS uuid LANGUAGE plpgsql AS $fn$
DECLARE
    head acgs.delivery;
    took boolean;
BEGIN
    LOOP
        SELECT * INTO head FROM acgs.delivery AS q WHERE q.agent = p_agent AND q.conversation_id = conversation
            AND q.tenant_id = p_tenant AND q.state <> 'done' ORDER BY q.seq LIMIT 1;
        IF NOT FOUND THEN
            RETURN NULL;
        END IF;
        took := acgs.try_claim(head, p_generation, now, hold, max_attempts);
        IF took IS NOT NULL THEN
            RETURN CASE WHEN took THEN head.message_id END;
        END IF;
    END LOOP;
END
$fn$;

-- Claims for one agent; returns the keys of the messages. The conversation with the most urgent message comes first,
-- then the one with the earlier; of each its first, one at a time: what an urgent message waits for is as urgent.
CREATE OR REPLACE FUNCTION acgs.claim_for(p_agent uuid, p_tenant uuid, p_generation bigint, most integer, hold interval, max_attempts integer)
RETURNS uuid[] LANGUAGE plpgsql AS $fn$
DECLARE
    now timestamptz;
    conversation uuid;
    message uuid;
    given uuid[] := '{}';
    seen uuid[] := '{}';
    looked integer := 0;
    deep CONSTANT integer := 500;
BEGIN
    -- Claims of an agent are made one after the other, each knowing those before it.
    PERFORM pg_catalog.pg_advisory_xact_lock(hashtextextended('inbox/' || p_agent, 0));
    now := clock_timestamp();
    FOR conversation IN SELECT q.conversation_id FROM acgs.delivery AS q
        WHERE q.agent = p_agent AND q.tenant_id = p_tenant AND q.state <> 'done' ORDER BY q.priority DESC, q.seq LIMIT deep
    LOOP
        looked := looked + 1;
        CONTINUE WHEN conversation = ANY (seen);
        seen := seen || conversation;
        message := acgs.claim_in(p_agent, p_tenant, conversation, p_generation, now, hold, max_attempts);
        CONTINUE WHEN message IS NULL;
        given := given || message;
        EXIT WHEN cardinality(given) >= most;
    END LOOP;
    IF given = '{}' AND looked = deep THEN
        -- A few long conversations stand before the rest.
        FOR conversation IN SELECT q.conversation_id FROM acgs.conversation_heads(p_agent, 5000) AS q
            WHERE q.conversation_id <> ALL (seen) ORDER BY q.priority DESC, q.seq
        LOOP
            message := acgs.claim_in(p_agent, p_tenant, conversation, p_generation, now, hold, max_attempts);
            CONTINUE WHEN message IS NULL;
            given := given || message;
            EXIT WHEN cardinality(given) >= most;
        END LOOP;
    END IF;
    RETURN given;
END
$fn$;

-- Returns the first open delivery of each of an agent's conversations, however long they are.
CREATE OR REPLACE FUNCTION acgs.conversation_heads(p_agent uuid, most integer) RETURNS SETOF acgs.delivery
LANGUAGE sql STABLE AS $fn$
    WITH RECURSIVE head AS (
        (SELECT q AS row, q.conversation_id AS id FROM acgs.delivery AS q WHERE q.agent = p_agent AND q.state <> 'done'
         ORDER BY q.conversation_id, q.seq LIMIT 1)
        UNION ALL
        SELECT n.row, n.id FROM head AS h CROSS JOIN LATERAL (
            SELECT q AS row, q.conversation_id AS id FROM acgs.delivery AS q
            WHERE q.agent = p_agent AND q.conversation_id > h.id AND q.state <> 'done' ORDER BY q.conversation_id, q.seq LIMIT 1) AS n
    )
    SELECT (h.row).* FROM head AS h LIMIT most
$fn$;

-- Claims for several agents at once: what each asks for as {agent, tenant, zone, generation, limit, hold_s}. Nothing is
-- given where this region does not serve the zone in that generation.
CREATE OR REPLACE FUNCTION acgs.claim(asked jsonb, max_attempts integer)
RETURNS TABLE (n integer, claim uuid, attempt integer, deadline timestamptz, message_id uuid, message text)
LANGUAGE plpgsql SECURITY DEFINER AS $fn$
#variable_conflict use_column
DECLARE
    one record;
    given uuid[];
BEGIN
    -- A claim that is lost with the database is made again; the receiver has seen the message twice then.
    PERFORM set_config('synchronous_commit', 'off', true);
    FOR one IN
        SELECT (r.ordinality - 1)::integer AS n, (r.value ->> 'agent')::uuid AS agent, (r.value ->> 'tenant')::uuid AS tenant, i.zone,
            (r.value ->> 'generation')::bigint AS generation, (r.value ->> 'limit')::integer AS most,
            make_interval(secs => (r.value ->> 'hold_s')::float8) AS hold
        FROM jsonb_array_elements(asked) WITH ORDINALITY AS r
        JOIN acgs.inbox AS i ON i.zone = r.value ->> 'zone' AND i.generation = (r.value ->> 'generation')::bigint AND i.serving
        ORDER BY 2
    LOOP
        given := acgs.claim_for(one.agent, one.tenant, one.generation, one.most, one.hold, max_attempts);
        CONTINUE WHEN given = '{}';
        -- It was not known here where the agent belongs when the message came.
        UPDATE acgs.delivery AS d SET zone = one.zone WHERE d.message_id = ANY (given) AND d.agent = one.agent AND d.zone <> one.zone;
        RETURN QUERY SELECT one.n, d.claim, d.attempts, d.hold_until, d.message_id, acgs.message_shown(g.key)
            FROM unnest(given) WITH ORDINALITY AS g (key, i)
            JOIN acgs.delivery AS d ON d.message_id = g.key AND d.agent = one.agent ORDER BY g.i;
    END LOOP;
END
$fn$;
REVOKE EXECUTE ON FUNCTION acgs.claim(jsonb, integer) FROM PUBLIC;

-- Returns what a receiver is shown of a message, as JSON.
CREATE OR REPLACE FUNCTION acgs.message_shown(p_key uuid) RETURNS text
LANGUAGE plpgsql STABLE AS $fn$
BEGIN
    RETURN (SELECT json_build_object('message_id', m.key, 'conversation_id', m.conversation_id, 'tenant_id', m.tenant_id, 'zone', m.zone,
        'from_agent', m.from_agent, 'to_agent', m.to_agent, 'to_tenant_id', m.to_tenant_id, 'topic', m.topic,
        'message_type', m.message_type, 'priority', m.priority, 'content', m.content, 'payload', m.payload, 'metadata', m.metadata,
        'constitutional_hash', m.constitutional_hash, 'expires_at', m.expires_at, 'accepted_at', to_timestamp(m.hlc / 1000000.0)) FROM acgs.message AS m WHERE m.key = p_key);
END
$fn$;

-- Returns when something of an agent becomes claimable by itself, NULL if nothing that was looked at does.
CREATE OR REPLACE FUNCTION acgs.next_claimable(p_agent uuid) RETURNS timestamptz
LANGUAGE sql STABLE SECURITY DEFINER AS $fn$
    SELECT min(greatest(q.not_before, CASE WHEN q.state = 'claimed' THEN q.hold_until END)) FROM (
        SELECT d.not_before, d.state, d.hold_until FROM acgs.delivery AS d WHERE d.agent = p_agent ORDER BY d.priority DESC, d.seq LIMIT 1000) AS q
$fn$;
REVOKE EXECUTE ON FUNCTION acgs.next_claimable(uuid) FROM PUBLIC;

-- Acknowledges claims; says of each: done, already (it was before), or lapsed (it is not held by this claim any more).
CREATE OR REPLACE FUNCTION acgs.acknowledge(agents uuid[], messages uuid[], claims uuid[], generations bigint[])
RETURNS TABLE (n integer, outcome text, accepted_us bigint) LANGUAGE plpgsql SECURITY DEFINER AS $fn$
#variable_conflict use_column
BEGIN
    RETURN QUERY WITH asked AS MATERIALIZED (
        SELECT k.* FROM unnest(agents, messages, claims, generations) WITH ORDINALITY AS k (agent, message_id, claim, generation, i)
    ), locked AS MATERIALIZED (
        SELECT d.message_id, d.agent FROM acgs.delivery AS d JOIN asked AS k ON k.message_id = d.message_id AND k.agent = d.agent
        ORDER BY d.message_id, d.agent FOR UPDATE OF d
    ), done AS (
        UPDATE acgs.delivery AS d SET state = 'done' FROM asked AS k JOIN locked AS l ON l.message_id = k.message_id AND l.agent = k.agent
        WHERE d.message_id = k.message_id AND d.agent = k.agent AND d.state = 'claimed' AND d.claim = k.claim AND d.generation = k.generation
            AND acgs.is_served(d.zone, k.generation)
        RETURNING d.message_id, d.agent, d.accepted_us
    )
    SELECT (k.i - 1)::integer, CASE WHEN e.message_id IS NOT NULL THEN 'done'
            WHEN EXISTS (SELECT FROM acgs.delivery AS d WHERE d.message_id = k.message_id AND d.agent = k.agent AND d.state = 'done')
                OR EXISTS (SELECT FROM acgs.delivered AS d WHERE d.message_id = k.message_id AND d.agent = k.agent) THEN 'already'
            ELSE 'lapsed' END, e.accepted_us
    FROM asked AS k LEFT JOIN done AS e ON e.message_id = k.message_id AND e.agent = k.agent;
END
$fn$;
REVOKE EXECUTE ON FUNCTION acgs.acknowledge(uuid[], uuid[], uuid[], bigint[]) FROM PUBLIC;

-- Returns claims to the inbox, to be claimed again after a delay; says of each: returned, or lapsed.
CREATE OR REPLACE FUNCTION acgs.return_claims(p_agent uuid, messages uuid[], claims uuid[], p_generation bigint, delay_s float8)
RETURNS TABLE (n integer, outcome text) LANGUAGE plpgsql SECURITY DEFINER AS $fn$
#variable_conflict use_column
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    RETURN QUERY WITH asked AS MATERIALIZED (
        SELECT k.* FROM unnest(messages, claims) WITH ORDINALITY AS k (message_id, claim, i)
    ), returned AS (
        UPDATE acgs.delivery AS d SET state = 'ready', claim = NULL, hold_until = NULL,
            not_before = CASE WHEN delay_s > 0 THEN clock_timestamp() + make_interval(secs => delay_s) END
        FROM asked AS k WHERE d.message_id = k.message_id AND d.agent = p_agent AND d.state = 'claimed' AND d.claim = k.claim
            AND d.generation = p_generation AND acgs.is_served(d.zone, p_generation)
        RETURNING d.message_id
    )
    SELECT (k.i - 1)::integer, CASE WHEN e.message_id IS NOT NULL THEN 'returned' ELSE 'lapsed' END
    FROM asked AS k LEFT JOIN returned AS e ON e.message_id = k.message_id;
END
$fn$;
REVOKE EXECUTE ON FUNCTION acgs.return_claims(uuid, uuid[], uuid[], bigint, float8) FROM PUBLIC;

-- Puts dead letters back to the end of the inbox, as if they had just come; all of the agent's, or those named. What
-- has expired stays dead.
CREATE OR REPLACE FUNCTION acgs.requeue(p_agent uuid, p_tenant uuid, chosen uuid[]) RETURNS uuid[]
LANGUAGE plpgsql SECURITY DEFINER AS $fn$
DECLARE
    raised uuid[];
BEGIN
    WITH taken AS (
        DELETE FROM acgs.dead_letter AS d WHERE d.agent = p_agent AND d.tenant_id = p_tenant AND (chosen IS NULL OR d.message_id = ANY (chosen))
            AND (d.expires_at > clock_timestamp()) IS NOT FALSE RETURNING d.*
    ), made AS (
        INSERT INTO acgs.delivery (message_id, agent, tenant_id, zone, conversation_id, priority, expires_at, accepted_us)
        SELECT t.message_id, t.agent, t.tenant_id, t.zone, t.conversation_id, t.priority, t.expires_at, t.accepted_us
        FROM taken AS t ORDER BY t.at, t.message_id ON CONFLICT DO NOTHING RETURNING message_id
    )
    SELECT array_agg(m.message_id) INTO raised FROM made AS m;
    IF raised IS NOT NULL THEN
        PERFORM acgs.tell((SELECT jsonb_agg(jsonb_build_object('key', k, 'agent', p_agent, 'outcome', 'ready')) FROM unnest(raised) AS k));
        PERFORM acgs.wake_agents(ARRAY[p_agent]);
    END IF;
    RETURN coalesce(raised, '{}');
END
$fn$;
REVOKE EXECUTE ON FUNCTION acgs.requeue(uuid, uuid, uuid[]) FROM PUBLIC;

-- Tells the other lawful holders of messages what became of their deliveries.
CREATE OR REPLACE FUNCTION acgs.tell(told jsonb) RETURNS void
LANGUAGE plpgsql AS $fn$
BEGIN
    INSERT INTO acgs.journal (source, entity, kind, zone, targets, residency, basis, register_version, hlc_max, records)
    SELECT s.region, 'message', 'settled', m.zone, array_remove(m.residency, s.region), '{}', '{}', 0, 0, json_agg(r.value)
    FROM jsonb_array_elements(told) AS r JOIN acgs.message AS m ON m.key = (r.value ->> 'key')::uuid CROSS JOIN acgs.self AS s
    WHERE array_remove(m.residency, s.region) <> '{}'
    GROUP BY s.region, m.zone, m.residency;
END
$fn$;

-- Takes what is done out of the inboxes, keeps that it was, and tells the other regions; returns how many.
CREATE OR REPLACE FUNCTION acgs.settle_done(agents uuid[], messages uuid[]) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER AS $fn$
DECLARE
    told jsonb;
BEGIN
    WITH gone AS (
        DELETE FROM acgs.delivery AS d USING unnest(agents, messages) AS k (agent, message_id)
        WHERE d.message_id = k.message_id AND d.agent = k.agent AND d.state = 'done' RETURNING d.*
    ), kept AS (
        INSERT INTO acgs.delivered (message_id, agent, tenant_id, attempts, generation, region)
        SELECT g.message_id, g.agent, g.tenant_id, g.attempts, g.generation, s.region FROM gone AS g CROSS JOIN acgs.self AS s
    )
    SELECT jsonb_agg(jsonb_build_object('key', g.message_id, 'agent', g.agent, 'tenant', g.tenant_id, 'outcome', 'done',
        'attempts', g.attempts, 'generation', g.generation)) INTO told FROM gone AS g;
    IF told IS NOT NULL THEN
        PERFORM acgs.tell(told);
    END IF;
    RETURN coalesce(jsonb_array_length(told), 0);
END
$fn$;
REVOKE EXECUTE ON FUNCTION acgs.settle_done(uuid[], uuid[]) FROM PUBLIC;

-- Looks through a part of all deliveries for what nobody asks for: what is done and was not told, and what is dead.
-- Returns where to go on, NULL at the end.
CREATE OR REPLACE FUNCTION acgs.tidy_deliveries(after uuid, batch integer, max_attempts integer) RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER AS $fn$
DECLARE
    part acgs.delivery[];
BEGIN
    SELECT array_agg(q ORDER BY q.message_id) INTO part FROM (
        SELECT d.* FROM acgs.delivery AS d WHERE after IS NULL OR d.message_id > after ORDER BY d.message_id LIMIT batch) AS q;
    IF part IS NULL THEN
        DELETE FROM acgs.early AS e WHERE e.at < clock_timestamp() - interval '1 day';
        RETURN NULL;
    END IF;
    PERFORM acgs.settle_done(array_agg(p.agent), array_agg(p.message_id)) FROM unnest(part) AS p WHERE p.state = 'done';
    PERFORM acgs.bury(d, acgs.why_dead(d, i.generation, clock_timestamp(), max_attempts))
    FROM unnest(part) AS p JOIN acgs.inbox AS i ON i.zone = p.zone AND i.serving
    CROSS JOIN LATERAL (SELECT q AS d FROM acgs.delivery AS q WHERE q.message_id = p.message_id AND q.agent = p.agent FOR UPDATE SKIP LOCKED) AS l
    WHERE acgs.why_dead(d, i.generation, clock_timestamp(), max_attempts) IS NOT NULL;
    -- The last of a full part may have more agents.
    RETURN CASE WHEN cardinality(part) < batch OR part[1].message_id = part[cardinality(part)].message_id
        THEN part[cardinality(part)].message_id
        ELSE (SELECT p.message_id FROM unnest(part) AS p WHERE p.message_id < part[cardinality(part)].message_id
            ORDER BY p.message_id DESC LIMIT 1) END;
END
$fn$;
REVOKE EXECUTE ON FUNCTION acgs.tidy_deliveries(uuid, integer, integer) FROM PUBLIC;

-- Makes the partitions of this hour and the next for what was delivered, and drops what is older than two hours.
CREATE OR REPLACE FUNCTION acgs.maintain_delivered() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET lock_timeout = '1s' AS $fn$
DECLARE
    hour timestamptz;
    name text;
BEGIN
    FOR hour IN SELECT date_trunc('hour', clock_timestamp(), 'UTC') + h * interval '1 hour' FROM generate_series(1, 2) AS h LOOP
        name := 'delivered_' || to_char(hour AT TIME ZONE 'UTC', 'YYYYMMDDHH24');
        IF to_regclass('acgs.' || name) IS NULL THEN
            EXECUTE format('CREATE TABLE acgs.%I PARTITION OF acgs.delivered FOR VALUES FROM (%L) TO (%L)', name, hour, hour + interval '1 hour');
        END IF;
    END LOOP;
    FOR name IN
        SELECT c.relname FROM pg_catalog.pg_inherits AS i JOIN pg_catalog.pg_class AS c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'acgs.delivered'::regclass AND c.relname ~ '^delivered_\d{10}$'
            AND c.relname < 'delivered_' || to_char(clock_timestamp() AT TIME ZONE 'UTC' - interval '2 hours', 'YYYYMMDDHH24')
    LOOP
        EXECUTE format('DROP TABLE acgs.%I', name);
    END LOOP;
    IF EXISTS (SELECT FROM acgs.delivered_default) AND NOT EXISTS (
        SELECT FROM acgs.delivered_default WHERE at > clock_timestamp() - interval '2 hours')
    THEN
        TRUNCATE acgs.delivered_default;
    END IF;
END
$fn$;
REVOKE EXECUTE ON FUNCTION acgs.maintain_delivered() FROM PUBLIC;

-- Takes what another region tells of deliveries: of each {key, agent, outcome: done, dead or ready}, or, beside a record
-- that was sent again, {key, open: the agents who still wait for it}.
CREATE OR REPLACE FUNCTION acgs.take_settled(p_source text, told jsonb) RETURNS void
LANGUAGE plpgsql AS $fn$
BEGIN
    WITH said AS (
        SELECT (r.value ->> 'key')::uuid AS key, (r.value ->> 'agent')::uuid AS agent, r.value ->> 'outcome' AS outcome,
            (r.value -> 'attempts')::integer AS attempts, (r.value -> 'generation')::bigint AS generation, r.value ->> 'reason' AS reason,
            r.value AS told
        FROM jsonb_array_elements(told) AS r WHERE r.value ? 'agent'
    ), gone AS (
        DELETE FROM acgs.delivery AS d USING said AS t
        WHERE d.message_id = t.key AND d.agent = t.agent AND t.outcome IN ('done', 'dead') RETURNING d.*, t.outcome, t.attempts AS tries, t.generation AS served, t.reason
    ), risen AS (
        DELETE FROM acgs.dead_letter AS d USING said AS t
        WHERE d.message_id = t.key AND d.agent = t.agent AND t.outcome IN ('done', 'ready') RETURNING d.*, t.outcome, t.attempts AS tries, t.generation AS served
    ), done AS (
        INSERT INTO acgs.delivered (message_id, agent, tenant_id, attempts, generation, region)
        SELECT g.message_id, g.agent, g.tenant_id, g.tries, g.served, p_source FROM gone AS g WHERE g.outcome = 'done'
        UNION ALL SELECT g.message_id, g.agent, g.tenant_id, g.tries, g.served, p_source FROM risen AS g WHERE g.outcome = 'done'
    ), dead AS (
        INSERT INTO acgs.dead_letter (message_id, agent, tenant_id, zone, conversation_id, priority, expires_at, accepted_us, attempts, reason)
        SELECT g.message_id, g.agent, g.tenant_id, g.zone, g.conversation_id, g.priority, g.expires_at, g.accepted_us, g.tries, g.reason
        FROM gone AS g WHERE g.outcome = 'dead' ON CONFLICT DO NOTHING
    ), ready AS (
        INSERT INTO acgs.delivery (message_id, agent, tenant_id, zone, conversation_id, priority, expires_at, accepted_us)
        SELECT g.message_id, g.agent, g.tenant_id, g.zone, g.conversation_id, g.priority, g.expires_at, g.accepted_us
        FROM risen AS g WHERE g.outcome = 'ready' ON CONFLICT DO NOTHING
    )
    INSERT INTO acgs.early AS e (message_id, agent, source, told)
    SELECT t.key, t.agent, p_source, t.told FROM said AS t WHERE NOT EXISTS (SELECT FROM acgs.message AS m WHERE m.key = t.key)
    ON CONFLICT (message_id, agent) DO UPDATE SET source = excluded.source, told = excluded.told, at = clock_timestamp();
    WITH said AS (
        SELECT (r.value ->> 'key')::uuid AS key, ARRAY(SELECT jsonb_array_elements_text(r.value -> 'open')::uuid) AS open
        FROM jsonb_array_elements(told) AS r WHERE r.value ? 'open'
    ), gone AS (
        DELETE FROM acgs.delivery AS d USING said AS t WHERE d.message_id = t.key AND d.agent <> ALL (t.open) RETURNING d.*
    )
    INSERT INTO acgs.delivered (message_id, agent, tenant_id, attempts, generation, region)
    SELECT g.message_id, g.agent, g.tenant_id, g.attempts, g.generation, p_source FROM gone AS g;
END
$fn$;

-- Takes what was told of messages before they came.
CREATE OR REPLACE FUNCTION acgs.take_early(chosen uuid[]) RETURNS void
LANGUAGE plpgsql AS $fn$
DECLARE
    one record;
BEGIN
    FOR one IN
        WITH taken AS (DELETE FROM acgs.early AS e WHERE e.message_id = ANY (chosen) RETURNING e.*)
        SELECT t.source, jsonb_agg(t.told) AS told FROM taken AS t GROUP BY t.source
    LOOP
        PERFORM acgs.take_settled(one.source, one.told);
    END LOOP;
END
$fn$;

-- Tells regions that are sent messages again which of them were delivered: they have them for the first time, or
-- have forgotten. What was sent to a topic lately is told agent by agent, for not all know who subscribed.
CREATE OR REPLACE FUNCTION acgs.tell_states(chosen uuid[], towards text[]) RETURNS void
LANGUAGE plpgsql AS $fn$
BEGIN
    INSERT INTO acgs.journal (source, entity, kind, zone, targets, residency, basis, register_version, hlc_max, records)
    SELECT s.region, 'message', 'settled', m.zone, t.targets, '{}', '{}', 0, 0, json_agg(r.told)
    FROM acgs.message AS m CROSS JOIN acgs.self AS s
    CROSS JOIN LATERAL (SELECT ARRAY(SELECT n FROM unnest(towards) AS n WHERE n <> s.region AND n = ANY (m.residency) ORDER BY n) AS targets) AS t
    CROSS JOIN LATERAL (
        SELECT jsonb_build_object('key', m.key, 'open', ARRAY(
            SELECT d.agent FROM acgs.delivery AS d WHERE d.message_id = m.key AND d.state <> 'done'
            UNION ALL SELECT d.agent FROM acgs.dead_letter AS d WHERE d.message_id = m.key)) AS told
        WHERE m.topic IS NULL OR m.hlc < acgs.now_us() - 3600000000
        UNION ALL
        SELECT jsonb_build_object('key', m.key, 'agent', d.agent, 'outcome', 'done', 'attempts', d.attempts, 'generation', d.generation)
        FROM acgs.delivered AS d WHERE d.message_id = m.key AND m.topic IS NOT NULL
        UNION ALL
        SELECT jsonb_build_object('key', m.key, 'agent', d.agent, 'outcome', 'dead', 'attempts', d.attempts, 'reason', d.reason)
        FROM acgs.dead_letter AS d WHERE d.message_id = m.key
    ) AS r
    WHERE m.key = ANY (chosen) AND t.targets <> '{}' AND acgs.deliverable(m.key, m.decision, m.erased)
    GROUP BY s.region, m.zone, t.targets;
END
$fn$;

GRANT EXECUTE ON FUNCTION acgs.claim(jsonb, integer), acgs.next_claimable(uuid), acgs.acknowledge(uuid[], uuid[], uuid[], bigint[]),
    acgs.return_claims(uuid, uuid[], uuid[], bigint, float8), acgs.requeue(uuid, uuid, uuid[]), acgs.settle_done(uuid[], uuid[]) TO acgs_app;
