-- What this region's database has promised and accepted as a voter. A life that has forgotten does not vote.
SET LOCAL ROLE acgs_owner;
CREATE TABLE acgs.vote (
    key              text COLLATE "C" PRIMARY KEY,
    promised_n       bigint NOT NULL,
    promised_by      text COLLATE "C" NOT NULL,
    accepted_n       bigint,
    accepted_by      text COLLATE "C",
    value            jsonb
);
-- The incarnation whose votes the table has; another one refuses until it has learned them from others.
ALTER TABLE acgs.self ADD COLUMN voting text;
RESET ROLE;
