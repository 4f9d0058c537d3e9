"""The statements of ``run_rows``. What is put together here are names of columns and constants, never values."""
# ruff: noqa: S608

from homeport.tables import agents

HISTORY = 100

_AGENT = ", ".join(f"agents.{column.name} AS agent_{column.name}" for column in agents.c)
_IS_OPEN = "state IN ('running', 'waiting')"

# The question is safe from a crash of the machine once the answer is; nobody waits for the disk twice.
BEGIN = f"""
WITH quick AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true)),
session AS (
    UPDATE agent_sessions SET message_count = message_count + 1, last_message_at = now(), last_active_at = now()
    FROM quick
    WHERE id = %(session_id)s AND owner_id = %(owner_id)s AND closed_at IS NULL AND (
        last_active_at > now() - %(expires_after)s::interval
        OR EXISTS (SELECT FROM agent_runs WHERE session_id = agent_sessions.id AND {_IS_OPEN})
    )
    RETURNING agent_sessions.id, agent_id, workspace_id
),
run AS (
    INSERT INTO agent_runs (id, session_id, owner_id, agent, task_id, worker, held_until)
    SELECT %(run_id)s, session.id, %(owner_id)s, agents.slug, %(task_id)s::uuid, %(worker)s, now() + %(hold)s::interval
    FROM session JOIN agents ON agents.id = session.agent_id
    RETURNING id, session_id, agent
),
said AS (
    INSERT INTO agent_messages (session_id, run_id, role, content) SELECT session_id, id, 'user', %(content)s::json FROM run
),
noted AS (
    INSERT INTO events (kind, app_id, key_id, subject, data)
    SELECT 'agent.run.started', %(app_id)s::uuid, %(key_id)s::uuid, id::text, json_build_object('session_id', session_id, 'agent', agent)
    FROM run
)
SELECT {_AGENT}, workspaces.slug AS workspace, (
    SELECT json_agg(json_build_array(newest.id, newest.content) ORDER BY newest.id)
    FROM (SELECT id, content FROM agent_messages WHERE session_id = session.id ORDER BY id DESC LIMIT {HISTORY}) newest
) AS history
FROM session JOIN agents ON agents.id = session.agent_id JOIN workspaces ON workspaces.id = session.workspace_id
"""

# Whoever begins or ends a run locks its session before the run: in another order two of them could wait for each other.
WRITE = f"""
WITH locked AS MATERIALIZED (
    SELECT id FROM agent_sessions WHERE id = %(session_id)s AND %(is_over)s FOR NO KEY UPDATE
),
speed AS MATERIALIZED (
    SELECT CASE WHEN %(is_quick)s THEN set_config('synchronous_commit', 'off', true) END, (SELECT count(*) FROM locked)
),
run AS (
    UPDATE agent_runs SET
        state = coalesce(%(state)s::text, state), error = %(error)s::text, error_code = %(error_code)s::text,
        provider = coalesce(%(provider)s::text, provider), model = coalesce(%(model)s::text, model),
        turns = turns + %(turns)s::int, tool_calls = tool_calls + %(tool_calls)s::int,
        prompt_tokens = prompt_tokens + %(prompt_tokens)s::bigint, completion_tokens = completion_tokens + %(completion_tokens)s::bigint,
        finished_at = CASE WHEN %(is_over)s THEN now() END
    FROM speed
    WHERE id = %(run_id)s AND worker = %(worker)s AND {_IS_OPEN}
    RETURNING agent_runs.id, session_id
),
said AS (
    INSERT INTO agent_messages (session_id, run_id, role, content)
    SELECT run.session_id, run.id, message.role, message.content::json
    FROM run, unnest(%(roles)s::text[], %(contents)s::text[]) WITH ORDINALITY AS message(role, content, number) ORDER BY number
),
noted AS (
    INSERT INTO events (kind, app_id, key_id, subject, data)
    SELECT event.kind, %(app_id)s::uuid, %(key_id)s::uuid, run.id::text, event.data::json
    FROM run, unnest(%(kinds)s::text[], %(data)s::text[]) WITH ORDINALITY AS event(kind, data, number) ORDER BY number
),
session AS (
    UPDATE agent_sessions SET
        last_active_at = now(), message_count = message_count + %(answers)s::int,
        last_message_at = CASE WHEN %(answers)s::int > 0 THEN now() ELSE last_message_at END
    FROM run WHERE agent_sessions.id = run.session_id AND %(is_over)s
    RETURNING message_count
)
SELECT run.id, session.message_count FROM run LEFT JOIN session ON true
"""

KEEP = f"""
UPDATE agent_runs SET held_until = now() + %(hold)s::interval
WHERE id = ANY(%(run_ids)s) AND worker = %(worker)s AND {_IS_OPEN} RETURNING id
"""

RELEASE = f"UPDATE agent_runs SET held_until = now() WHERE id = %(run_id)s AND worker = %(worker)s AND {_IS_OPEN}"

TAKE_OVER = f"""
WITH run AS (
    UPDATE agent_runs SET worker = %(worker)s, held_until = now() + %(hold)s::interval, state = 'running'
    WHERE id = %(run_id)s AND {_IS_OPEN} AND held_until <= now() RETURNING *
)
SELECT {_AGENT}, workspaces.slug AS workspace, run.turns, run.prompt_tokens + run.completion_tokens AS tokens
FROM run JOIN agent_sessions ON agent_sessions.id = run.session_id
JOIN agents ON agents.id = agent_sessions.agent_id JOIN workspaces ON workspaces.id = agent_sessions.workspace_id
"""

EARLIER = """
SELECT id, content FROM agent_messages WHERE session_id = %(session_id)s AND id < %(before)s::bigint ORDER BY id DESC LIMIT %(limit)s::int
"""

OF_TASK = """
SELECT id, state, held_until <= now() AS is_free FROM agent_runs
WHERE task_id = %(task_id)s AND session_id = %(session_id)s AND owner_id = %(owner_id)s ORDER BY id DESC LIMIT 1
"""

ASKED = "SELECT permission, used_at IS NOT NULL AS is_used FROM approvals WHERE run_id = %(run_id)s AND tool_call_id = %(call_id)s"

STATE = "SELECT state FROM agent_runs WHERE id = %(run_id)s"
