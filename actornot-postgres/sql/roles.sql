-- What a role needs that only runs: put in its name for "run_role" and the namespace for "actornot".
-- The role that installs needs CREATE on the database, and owns the schema; run this as that role, after installing.
GRANT USAGE ON SCHEMA "actornot" TO "run_role";
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA "actornot" TO "run_role";
REVOKE INSERT, UPDATE, DELETE ON "actornot".meta FROM "run_role";
GRANT USAGE ON ALL SEQUENCES IN SCHEMA "actornot" TO "run_role";
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA "actornot" TO "run_role";
-- The same for what a newer installation adds, as long as this role installs it.
ALTER DEFAULT PRIVILEGES IN SCHEMA "actornot" GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO "run_role";
ALTER DEFAULT PRIVILEGES IN SCHEMA "actornot" GRANT USAGE ON SEQUENCES TO "run_role";
ALTER DEFAULT PRIVILEGES IN SCHEMA "actornot" GRANT EXECUTE ON FUNCTIONS TO "run_role";
