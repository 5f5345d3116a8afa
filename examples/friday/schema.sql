-- The schema of the demo: a small CRM in which every foreign key has ON DELETE CASCADE.
--
--   users -> leads -> conversations -> messages
--   users -> analytics
--
-- 1.3 million rows depend on user 42. Deleting this one row deletes all of them. User 7 has only a few.
-- Row-level security is enabled, and allows every user to delete their own row. It does not apply to cascades.
-- Run this script as an administrator in an empty database. It takes about 15 seconds.
\set ON_ERROR_STOP on

BEGIN;

-- The owner of the tables, without LOGIN.
SELECT 'CREATE ROLE friday_owner NOLOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'friday_owner') \gexec
-- The login role of the application. Its password is set when its Secret is created.
SELECT 'CREATE ROLE friday_app LOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'friday_app') \gexec
-- Databases that were created with PostgreSQL 14 or older grant CREATE on public to all roles, which allows a bypass of the guard.
REVOKE CREATE ON SCHEMA public FROM PUBLIC;

CREATE TABLE public.users (
    id bigint PRIMARY KEY,
    email text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE public.leads (
    id bigint PRIMARY KEY,
    user_id bigint NOT NULL,
    company text NOT NULL
);
CREATE TABLE public.conversations (
    id bigint PRIMARY KEY,
    lead_id bigint NOT NULL,
    subject text NOT NULL
);
CREATE TABLE public.messages (
    id bigint PRIMARY KEY,
    conversation_id bigint NOT NULL,
    body text NOT NULL,
    sent_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE public.analytics (
    id bigint PRIMARY KEY,
    user_id bigint NOT NULL,
    event text NOT NULL,
    at timestamptz NOT NULL DEFAULT now()
);

-- 100 users. All imported rows belong to user 42.
INSERT INTO public.users (id, email)
SELECT n, format('user-%s@example.com', n) FROM generate_series(1, 100) AS n;

-- 10,000 leads, 90,000 conversations, 900,000 messages, 300,000 events: 1,300,000 rows that depend on user 42.
INSERT INTO public.leads (id, user_id, company)
SELECT n, 42, format('Company %s', n) FROM generate_series(1, 10000) AS n;
INSERT INTO public.conversations (id, lead_id, subject)
SELECT n, (n - 1) / 9 + 1, format('Offer %s', n) FROM generate_series(1, 90000) AS n;
INSERT INTO public.messages (id, conversation_id, body)
SELECT n, (n - 1) / 10 + 1, format('Dear customer, this is message %s.', n) FROM generate_series(1, 900000) AS n;
INSERT INTO public.analytics (id, user_id, event)
SELECT n, 42, 'page_view' FROM generate_series(1, 300000) AS n;

-- Every other user has 2 leads with a conversation of 3 messages each, and 2 events.
INSERT INTO public.leads (id, user_id, company)
SELECT 1000000 + u * 2 + k, u, format('Customer of %s', u) FROM generate_series(1, 100) AS u, generate_series(0, 1) AS k WHERE u <> 42;
INSERT INTO public.conversations (id, lead_id, subject)
SELECT id, id, 'Hello' FROM public.leads WHERE id >= 1000000;
INSERT INTO public.messages (id, conversation_id, body)
SELECT c.id * 3 + k, c.id, 'Hello!' FROM public.conversations AS c, generate_series(0, 2) AS k WHERE c.id >= 1000000;
INSERT INTO public.analytics (id, user_id, event)
SELECT 1000000 + u * 2 + k, u, 'login' FROM generate_series(1, 100) AS u, generate_series(0, 1) AS k WHERE u <> 42;

ALTER TABLE public.leads ADD CONSTRAINT leads_user FOREIGN KEY (user_id) REFERENCES public.users ON DELETE CASCADE;
ALTER TABLE public.conversations ADD CONSTRAINT conversations_lead FOREIGN KEY (lead_id) REFERENCES public.leads ON DELETE CASCADE;
ALTER TABLE public.messages ADD CONSTRAINT messages_conversation FOREIGN KEY (conversation_id) REFERENCES public.conversations ON DELETE CASCADE;
ALTER TABLE public.analytics ADD CONSTRAINT analytics_user FOREIGN KEY (user_id) REFERENCES public.users ON DELETE CASCADE;
CREATE INDEX leads_user_id ON public.leads (user_id);
CREATE INDEX conversations_lead_id ON public.conversations (lead_id);
CREATE INDEX messages_conversation_id ON public.messages (conversation_id);
CREATE INDEX analytics_user_id ON public.analytics (user_id);

-- The current user of the application, in a setting of the transaction, as with PostgREST or Supabase.
CREATE FUNCTION public.current_user_id() RETURNS bigint
LANGUAGE sql STABLE
RETURN nullif(current_setting('app.user_id', true), '')::bigint;

ALTER TABLE public.users ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.leads ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.conversations ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.messages ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.analytics ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON public.users USING (id = public.current_user_id());
CREATE POLICY own ON public.leads USING (user_id = public.current_user_id());
CREATE POLICY own ON public.conversations
    USING (EXISTS (SELECT FROM public.leads AS l WHERE l.id = lead_id AND l.user_id = public.current_user_id()));
CREATE POLICY own ON public.messages
    USING (EXISTS (SELECT FROM public.conversations AS c JOIN public.leads AS l ON l.id = c.lead_id
                   WHERE c.id = conversation_id AND l.user_id = public.current_user_id()));
CREATE POLICY own ON public.analytics USING (user_id = public.current_user_id());

ALTER TABLE public.users OWNER TO friday_owner;
ALTER TABLE public.leads OWNER TO friday_owner;
ALTER TABLE public.conversations OWNER TO friday_owner;
ALTER TABLE public.messages OWNER TO friday_owner;
ALTER TABLE public.analytics OWNER TO friday_owner;
GRANT USAGE ON SCHEMA public TO friday_owner, friday_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON public.users, public.leads, public.conversations, public.messages, public.analytics TO friday_app;

COMMIT;

-- The blast radius is estimated from these statistics.
VACUUM (ANALYZE) public.users, public.leads, public.conversations, public.messages, public.analytics;
