-- Merges a batch of any declared entity; static calls, so that their plans are kept.
CREATE OR REPLACE FUNCTION acgs.merge_batch(entity text, batch json, holders text[]) RETURNS boolean
LANGUAGE plpgsql AS $fn$
BEGIN
    CASE entity
        {{branches}}
        ELSE RETURN false;
    END CASE;
    RETURN true;
END
$fn$;
