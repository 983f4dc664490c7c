-- A tenant's move is over for those who have to forget only when what moved is safe where it went.
SET LOCAL ROLE acgs_owner;
ALTER TABLE acgs.move
    ADD COLUMN mover boolean NOT NULL DEFAULT false,  -- the move was carried out here
    ADD COLUMN lsn pg_lsn,                            -- up to where the log has all that moved
    ADD COLUMN handed_at timestamptz;
-- It tells one that is behind from one that was replaced; a function's result cannot be changed in place.
DROP FUNCTION IF EXISTS acgs.greet(text, text, bigint, bigint);
RESET ROLE;
