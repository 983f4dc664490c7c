-- Which regions vote, as this database last learned it: every call of a proposer names the set that it goes by.
SET LOCAL ROLE acgs_owner;
CREATE TABLE acgs.voters (
    one              boolean PRIMARY KEY DEFAULT true CHECK (one),
    epoch            bigint NOT NULL,
    names            text[] NOT NULL
);
DROP FUNCTION IF EXISTS acgs.vote_prepare(text, bigint, text);
DROP FUNCTION IF EXISTS acgs.vote_accept(text, bigint, text, jsonb, text);
DROP FUNCTION IF EXISTS acgs.votes_for(text);
DROP FUNCTION IF EXISTS acgs.adopt_votes(jsonb);
DROP FUNCTION IF EXISTS acgs.ask(uuid, text, text, text, uuid, uuid);
DROP FUNCTION IF EXISTS acgs.note_seeded();
GRANT SELECT ON acgs.voters TO acgs_app;
RESET ROLE;
