-- What a role needs that only runs: put in its name for "run_role" and the namespace for "actornot".
-- The role that installs needs CREATE on the database, and owns the schema; run this as that role, after installing.
GRANT USAGE ON SCHEMA "actornot" TO "run_role";
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA "actornot" TO "run_role";
REVOKE INSERT, UPDATE, DELETE ON "actornot".meta FROM "run_role";
GRANT USAGE ON ALL SEQUENCES IN SCHEMA "actornot" TO "run_role";
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA "actornot" TO "run_role";
