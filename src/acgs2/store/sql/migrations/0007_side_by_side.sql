-- Releases side by side, and clocks that are far from the others'.
SET LOCAL ROLE acgs_owner;
-- The columns that this release knows: records with others that are filled wait until it knows them too.
ALTER TABLE acgs.entity ADD COLUMN columns text[] NOT NULL DEFAULT '{}';
ALTER TABLE acgs.rule ADD COLUMN columns text[] NOT NULL DEFAULT '{}';
-- Whether this region's time is too far from that of most regions for it to write.
ALTER TABLE acgs.self ADD COLUMN clock_apart boolean NOT NULL DEFAULT false;
-- They answer with the time as well now; a function's result cannot be changed in place.
DROP FUNCTION IF EXISTS acgs.pulse();
DROP FUNCTION IF EXISTS acgs.greet(text, text, bigint, bigint);
RESET ROLE;
