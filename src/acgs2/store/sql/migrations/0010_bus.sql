-- Messages that wait for people, in every region that holds them; which end they have is a verdict, and replicated.
SET LOCAL ROLE acgs_owner;
CREATE TABLE acgs.held (
    key              uuid PRIMARY KEY,
    zone             text COLLATE "C" NOT NULL,
    tenant_id        uuid NOT NULL,
    deadline_us      bigint NOT NULL
);
GRANT SELECT ON acgs.held TO acgs_app;
RESET ROLE;
