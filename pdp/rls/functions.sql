-- The functions that read the actor and their grants, the same in every migration; @pdp@ is the
-- schema of the decision point's tables.
--
-- They belong to a role that may read five of these tables, and run as it. What they take are names
-- of roles and types that the migration has written. Nobody can call them by name, since the schema
-- is closed; a policy holds them by their ids. Two are only called by the others, whose role and
-- search path they have, and by nobody else.

-- Seconds since 1970-01-01 UTC, when the statement began.
CREATE FUNCTION pdp_rls.clock() RETURNS double precision
LANGUAGE sql STABLE PARALLEL SAFE
RETURN extract(epoch FROM statement_timestamp())::double precision;

CREATE FUNCTION pdp_rls.is_current(not_before double precision, expires_at double precision)
RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE
RETURN (not_before IS NULL OR not_before <= pdp_rls.clock())
    AND (expires_at IS NULL OR pdp_rls.clock() < expires_at);

-- The actor of this transaction, if Check would not refuse them whatever they ask; else NULLs.
CREATE FUNCTION pdp_rls.principal(
    OUT user_id text, OUT session_id text, OUT organization_id text, OUT organization_role text,
    OUT attributes text
)
LANGUAGE plpgsql STABLE PARALLEL SAFE
AS $pdp$
DECLARE
    -- A setting that was once set in a session is empty afterwards, not absent.
    setting text := nullif(current_setting('pdp.actor', true), '');
    actor jsonb;
    active text;
BEGIN
    IF setting IS NULL THEN
        RETURN;
    END IF;
    actor := setting::jsonb;
    active := nullif(actor ->> 'organization', '');
    SELECT u.id, actor ->> 'session', active, coalesce(m.role, ''), u.attributes
    INTO user_id, session_id, organization_id, organization_role, attributes
    FROM @pdp@.users u
    LEFT JOIN @pdp@.memberships m ON m.organization_id = active AND m.user_id = u.id
    WHERE u.id = actor ->> 'user' AND u.status = 'active' AND actor ->> 'session' <> ''
        AND (active IS NULL OR m.role IS NOT NULL)
        AND NOT EXISTS (
            SELECT FROM @pdp@.revoked_sessions r
            WHERE r.user_id = u.id AND r.session_id = actor ->> 'session'
        );
END $pdp$;

-- What conditions read of the actor as texts.
CREATE FUNCTION pdp_rls.actor_text(name text) RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $pdp$
DECLARE
    actor record := pdp_rls.principal();
BEGIN
    IF actor.user_id IS NULL THEN
        RETURN NULL;
    END IF;
    RETURN CASE name
        WHEN 'id' THEN actor.user_id
        WHEN 'session' THEN actor.session_id
        WHEN 'organization' THEN coalesce(actor.organization_id, '')
        WHEN 'organization_role' THEN actor.organization_role
    END;
END $pdp$;

-- NULL: no organization is active.
CREATE FUNCTION pdp_rls.actor_organization() RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $pdp$
BEGIN
    RETURN (pdp_rls.principal()).organization_id;
END $pdp$;

CREATE FUNCTION pdp_rls.actor_attributes() RETURNS jsonb
LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $pdp$
DECLARE
    actor record := pdp_rls.principal();
BEGIN
    RETURN actor.attributes::jsonb;
END $pdp$;

-- The permissions of the organization role in Clerk; `pdp/facts/store/organization_roles.py` says
-- why so. NULL: unknown.
CREATE FUNCTION pdp_rls.actor_organization_permissions() RETURNS jsonb
LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $pdp$
DECLARE
    actor record := pdp_rls.principal();
BEGIN
    IF actor.user_id IS NULL OR actor.organization_role = '' THEN
        RETURN CASE WHEN actor.user_id IS NOT NULL THEN '[]'::jsonb END;
    END IF;
    RETURN (
        WITH objects AS MATERIALIZED (
            SELECT o.kind, o.id,
                CASE WHEN o.standing <> 'deleted' THEN o.content::jsonb END AS content
            FROM @pdp@.clerk_objects o WHERE o.kind IN ('role', 'permission')
        ), roles AS (
            SELECT o.id, o.content FROM objects o
            WHERE o.kind = 'role' AND o.content ->> 'key' = actor.organization_role
        ), reported AS (
            SELECT DISTINCT r.id AS role,
                CASE WHEN p.id IS NULL THEN pair ->> 1 ELSE p.content ->> 'key' END AS key
            FROM roles r CROSS JOIN jsonb_array_elements(r.content -> 'permissions') pair
            LEFT JOIN objects p ON p.kind = 'permission' AND p.id = pair ->> 0
        ), of_all AS (
            SELECT key FROM reported WHERE key IS NOT NULL
            GROUP BY key HAVING count(*) = (SELECT count(*) FROM roles)
        )
        SELECT coalesce((SELECT jsonb_agg(key) FROM of_all), '[]') WHERE EXISTS (SELECT FROM roles)
    );
END $pdp$;

-- Whether the user holds one of the roles everywhere.
CREATE FUNCTION pdp_rls.holds_everywhere(roles text[]) RETURNS boolean
LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $pdp$
DECLARE
    actor record := pdp_rls.principal();
BEGIN
    RETURN actor.user_id IS NOT NULL AND EXISTS (
        SELECT FROM @pdp@.grants g
        WHERE g.user_id = actor.user_id AND g.organization_id IS NULL AND g.resource_id IS NULL
            AND g.role = ANY (roles) AND pdp_rls.is_current(g.not_before, g.expires_at)
    );
END $pdp$;

-- Whether an actor holds one of the roles on all of an organization, or everywhere.
CREATE FUNCTION pdp_rls.is_held_by(
    "user" text, organization text, organization_role text, roles text[]
) RETURNS boolean
LANGUAGE plpgsql STABLE PARALLEL SAFE
AS $pdp$
BEGIN
    RETURN "user" IS NOT NULL AND (
        EXISTS (
            SELECT FROM @pdp@.grants g
            WHERE g.user_id = "user" AND g.resource_id IS NULL
                AND (g.organization_id IS NULL OR g.organization_id = organization)
                AND g.role = ANY (roles) AND pdp_rls.is_current(g.not_before, g.expires_at)
        )
        OR is_held_by.organization_role <> '' AND EXISTS (
            SELECT FROM @pdp@.grants g
            WHERE g.organization_role = is_held_by.organization_role AND g.resource_id IS NULL
                AND (g.organization_id IS NULL OR g.organization_id = organization)
                AND g.role = ANY (roles) AND pdp_rls.is_current(g.not_before, g.expires_at)
        )
    );
END $pdp$;

-- The same for the actor of this transaction and the active organization.
CREATE FUNCTION pdp_rls.holds_widely(roles text[]) RETURNS boolean
LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $pdp$
DECLARE
    actor record := pdp_rls.principal();
BEGIN
    RETURN pdp_rls.is_held_by(actor.user_id, actor.organization_id, actor.organization_role, roles);
END $pdp$;

-- The active organization, if the actor holds one of the roles on all of it.
CREATE FUNCTION pdp_rls.organization_of(roles text[]) RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $pdp$
DECLARE
    actor record := pdp_rls.principal();
BEGIN
    RETURN CASE WHEN pdp_rls.is_held_by(actor.user_id, actor.organization_id,
        actor.organization_role, roles) THEN actor.organization_id END;
END $pdp$;

-- Resources of a type on which the user holds one of the roles.
CREATE FUNCTION pdp_rls.granted_to_user(roles text[], resource_type text) RETURNS text[]
LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $pdp$
DECLARE
    actor record := pdp_rls.principal();
BEGIN
    RETURN ARRAY(
        SELECT g.resource_id FROM @pdp@.grants g
        WHERE g.user_id = actor.user_id AND g.resource_type = granted_to_user.resource_type
            AND g.role = ANY (roles) AND pdp_rls.is_current(g.not_before, g.expires_at)
    );
END $pdp$;

-- Resources of a type on which the actor's organization role holds one of the roles.
CREATE FUNCTION pdp_rls.granted_to_role(roles text[], resource_type text) RETURNS text[]
LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $pdp$
DECLARE
    actor record := pdp_rls.principal();
BEGIN
    RETURN ARRAY(
        SELECT g.resource_id FROM @pdp@.grants g
        WHERE g.organization_role = actor.organization_role AND actor.organization_role <> ''
            AND g.resource_type = granted_to_role.resource_type
            AND g.role = ANY (roles) AND pdp_rls.is_current(g.not_before, g.expires_at)
    );
END $pdp$;

-- Organizations other than the active one in which the user holds one of the roles.
CREATE FUNCTION pdp_rls.elsewhere(roles text[]) RETURNS text[]
LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $pdp$
DECLARE
    actor record := pdp_rls.principal();
BEGIN
    RETURN ARRAY(
        SELECT g.organization_id FROM @pdp@.grants g
        WHERE g.user_id = actor.user_id AND g.organization_id IS NOT NULL
            AND g.organization_id IS DISTINCT FROM actor.organization_id
            AND g.role = ANY (roles) AND pdp_rls.is_current(g.not_before, g.expires_at)
    );
END $pdp$;

-- A number as a question has it. A cast alone fails for what no double holds, and an error shows
-- the value even if the actor may not see its row. NULL: no question can hold it.
CREATE FUNCTION pdp_rls.double_of(value numeric) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN abs(value) < 2.4703282292062328e-324 THEN 0
    WHEN abs(value) < 1.797693134862315807e308 THEN value::double precision
END;

-- Values of the actor, or of a jsonb column, whose kind only a statement knows. NULL: absent, or of
-- another kind.
CREATE FUNCTION pdp_rls.text_of(value jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN jsonb_typeof(value) = 'string' THEN value #>> '{}' END;
CREATE FUNCTION pdp_rls.number_of(value jsonb) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN jsonb_typeof(value) = 'number' THEN pdp_rls.double_of(value::numeric) END;
-- A number that no question holds has no kind, so that no comparison is true of it.
CREATE FUNCTION pdp_rls.kind_of(value jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN jsonb_typeof(value) = 'number' AND pdp_rls.number_of(value) IS NULL THEN 'none'
    ELSE coalesce(jsonb_typeof(value), 'absent')
END;
CREATE FUNCTION pdp_rls.boolean_of(value jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN jsonb_typeof(value) = 'boolean' THEN (value #>> '{}')::boolean END;
-- Of a list its elements, of a map its keys, of anything else nothing.
CREATE FUNCTION pdp_rls.elements_of(value jsonb) RETURNS SETOF jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT e FROM jsonb_array_elements(
        CASE WHEN jsonb_typeof(value) = 'array' THEN value ELSE '[]' END
    ) e
    UNION ALL
    SELECT to_jsonb(k) FROM jsonb_object_keys(
        CASE WHEN jsonb_typeof(value) = 'object' THEN value ELSE '{}' END
    ) k;
END;
CREATE FUNCTION pdp_rls.is_empty(value jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN value IN ('[]', '{}');
CREATE FUNCTION pdp_rls.texts_in(value jsonb) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ARRAY(
    SELECT pdp_rls.text_of(e) FROM pdp_rls.elements_of(value) e WHERE jsonb_typeof(e) = 'string'
);
CREATE FUNCTION pdp_rls.numbers_in(value jsonb) RETURNS double precision[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ARRAY(
    SELECT pdp_rls.number_of(e) FROM pdp_rls.elements_of(value) e WHERE jsonb_typeof(e) = 'number'
);

-- Ids of columns that are not texts. Only what is written as the column would write it counts.
CREATE FUNCTION pdp_rls.integers_of(ids text[]) RETURNS bigint[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ARRAY(
    SELECT number::bigint FROM (
        SELECT CASE WHEN id ~ '^(0|-?[1-9][0-9]{0,18})$' THEN id::numeric END AS number
        FROM unnest(ids) id
    ) numbers
    WHERE number BETWEEN -9223372036854775808 AND 9223372036854775807
);
CREATE FUNCTION pdp_rls.uuids_of(ids text[]) RETURNS uuid[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ARRAY(
    SELECT CASE WHEN id ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN id::uuid END
    FROM unnest(ids) id
    WHERE id ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
);
