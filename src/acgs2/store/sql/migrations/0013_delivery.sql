-- What is to be handed to agents: each region's own, made from messages and never merged.
SET LOCAL ROLE acgs_owner;

-- One message for one agent that has not been acknowledged. No column of an index changes while it is claimed,
-- returned and acknowledged, so that all of that stays on its page; what is done leaves in batches.
CREATE TABLE acgs.delivery (
    seq              bigint GENERATED ALWAYS AS IDENTITY,  -- the order of arrival
    message_id       uuid NOT NULL,
    agent            uuid NOT NULL,
    tenant_id        uuid NOT NULL,                        -- the agent's
    zone             text COLLATE "C" NOT NULL,            -- the agent's
    conversation_id  uuid NOT NULL,
    priority         smallint NOT NULL,
    state            text NOT NULL DEFAULT 'ready',        -- ready, claimed, done
    claim            uuid,
    generation       bigint,
    hold_until       timestamptz,
    attempts         integer NOT NULL DEFAULT 0,
    not_before       timestamptz,
    expires_at       timestamptz,
    accepted_us      bigint NOT NULL,
    PRIMARY KEY (message_id, agent)
) WITH (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_insert_scale_factor = 1,
    autovacuum_analyze_scale_factor = 0.2);
CREATE INDEX delivery_queue ON acgs.delivery (agent, priority DESC, seq);
CREATE INDEX delivery_conversation ON acgs.delivery (agent, conversation_id, seq);

-- What was given up: the reason is expired, or attempts.
CREATE TABLE acgs.dead_letter (
    message_id       uuid NOT NULL,
    agent            uuid NOT NULL,
    tenant_id        uuid NOT NULL,
    zone             text COLLATE "C" NOT NULL,
    conversation_id  uuid NOT NULL,
    priority         smallint NOT NULL,
    expires_at       timestamptz,
    accepted_us      bigint NOT NULL,
    attempts         integer NOT NULL,
    reason           text NOT NULL,
    at               timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (message_id, agent)
);
CREATE INDEX dead_letter_list ON acgs.dead_letter (agent, at);

-- What was acknowledged, here or in the region that served the inbox then. Partitions are dropped, never DELETEd.
CREATE TABLE acgs.delivered (
    at               timestamptz NOT NULL DEFAULT clock_timestamp(),
    message_id       uuid NOT NULL,
    agent            uuid NOT NULL,
    tenant_id        uuid NOT NULL,
    attempts         integer NOT NULL,
    generation       bigint,
    region           text COLLATE "C" NOT NULL
) PARTITION BY RANGE (at);
CREATE TABLE acgs.delivered_default PARTITION OF acgs.delivered DEFAULT;
CREATE INDEX delivered_message ON acgs.delivered (message_id, agent);

-- What was told of messages that are still on their way here; empty most of the time.
CREATE TABLE acgs.early (
    message_id       uuid NOT NULL,
    agent            uuid NOT NULL,
    source           text COLLATE "C" NOT NULL,
    told             jsonb NOT NULL,
    at               timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (message_id, agent)
);

-- The generation in which this region served a zone's inboxes last, and whether it does now as far as it knows.
CREATE TABLE acgs.inbox (
    zone             text COLLATE "C" PRIMARY KEY,
    generation       bigint NOT NULL,
    serving          boolean NOT NULL
);
GRANT SELECT ON acgs.delivery, acgs.dead_letter, acgs.delivered, acgs.inbox TO acgs_app;
RESET ROLE;
