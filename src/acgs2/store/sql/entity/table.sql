-- {{description}}
CREATE TABLE IF NOT EXISTS acgs.{{entity}} (
    key        uuid PRIMARY KEY,
    zone       text COLLATE "C" NOT NULL,
    residency  text[] NOT NULL,
    sent_to    text[] NOT NULL,
    hlc        bigint NOT NULL,
    origin     text COLLATE "C" NOT NULL,
    vv         jsonb NOT NULL,
    erased     boolean NOT NULL DEFAULT false,
    rights     jsonb NOT NULL DEFAULT '{}',
    meta       jsonb NOT NULL DEFAULT '{}'
) WITH (fillfactor = 85);
{{columns}}
{{indexes}}
GRANT SELECT, INSERT, UPDATE ON acgs.{{entity}} TO acgs_app;
INSERT INTO acgs.entity (name, residency, strategy, scope, subject, columns)
VALUES ('{{entity}}', '{{residency}}', '{{strategy}}', '{{scope}}', {{subject}}, string_to_array('{{known}}', ' '))
ON CONFLICT (name) DO UPDATE SET
    residency = excluded.residency, strategy = excluded.strategy, scope = excluded.scope, subject = excluded.subject,
    columns = excluded.columns;
